//! Pulls through every personality of the zoo (`support/zoo`): what all registries have in common is proved for each of
//! them by `every`, what is peculiar to one in its own file.

mod amazon;
mod chainguard;
mod docker_hub;
mod every;
mod github;
mod google;
mod harbor;
mod kubernetes;
mod microsoft;
mod nvidia;
mod quay_and_gitlab;
mod refusals;
mod visit;

/// No test: where `tests/clients` names a folder, the zoo is open to real clients until this process is ended.
#[tokio::test]
#[ignore = "it stays for as long as real clients want it"]
async fn stays_open_for_real_clients() {
    if let Some(folder) = std::env::var_os("WHARFINGER_ZOO") {
        crate::support::zoo::keeper::keep(folder.as_ref()).await;
    }
}
