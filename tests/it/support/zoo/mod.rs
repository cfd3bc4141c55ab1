//! The zoo: one personality for each registry that people pull from, with its hosts, its token service, its redirects,
//! limits and oddities, as far as they are known. Each is made of scripted upstreams on an [`Internet`] of their own.
//!
//! `tests/it/zoo` pulls through each of them; `keeper` lets real clients in.

mod amazon;
mod chainguard;
mod docker_hub;
mod github;
mod gitlab;
mod google;
mod harbor;
mod internet;
pub mod keeper;
mod kubernetes;
mod microsoft;
mod nvidia;
mod quay;

pub use amazon::{Ecr, EcrPublic};
pub use chainguard::Chainguard;
pub use docker_hub::{Abuse, DockerHub};
pub use github::GitHub;
pub use gitlab::GitLab;
pub use google::{Google, MirrorGcr};
pub use harbor::Harbor;
pub use internet::Internet;
pub use kubernetes::Kubernetes;
pub use microsoft::{Acr, Mcr};
pub use nvidia::Nvidia;
pub use quay::Quay;

use super::image::Content;
use super::upstream::{Match, Plan, Upstream, blobs, manifests, reply, signed, via_cdn};

/// The login that personalities know beside what anybody may do.
pub const PASSWORD: &str = "correct-horse-battery-staple";

/// A registry of the world.
pub trait Personality: Sized {
    /// Its prefix in the daemon's configuration.
    const PREFIX: &'static str;
    /// Its host name.
    const HOST: &'static str;
    /// A repository as it might be called there.
    const REPO: &'static str;

    /// Opens it, empty, with all its hosts.
    fn open(internet: &Internet) -> Self;

    /// What the daemon asks.
    fn registry(&self) -> &Upstream;

    /// The hosts that redirects of blobs lead to, as they are now.
    fn storage(&self) -> Vec<Upstream> {
        Vec::new()
    }

    /// Whose tokens open it, if it wants any.
    fn guard(&self) -> Option<&Upstream> {
        Some(self.registry())
    }

    /// Holds an image, index or artifact under a tag.
    fn put(&self, repo: &str, tag: &str, content: &impl Content) {
        self.registry().put(repo, tag, content);
    }

    /// What the upstream's table says beside the url, as keys and TOML values.
    fn settings() -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// How it says that there were too many requests, each form with the requests that get it.
    fn limits() -> Vec<(&'static str, Match, Plan)> {
        vec![("429", everything(), reply(429).before_auth())]
    }
}

/// What a limit on content is about.
pub fn everything() -> Match {
    let (manifests, blobs) = (manifests(), blobs());
    Match::when(move |asked| manifests.matches(asked) || blobs.matches(asked))
}

/// Blobs are on other hosts, under URLs that are good for one GET.
fn redirect_blobs(registry: &Upstream, storage: &Upstream, status: u16) {
    let storage = storage.clone();
    registry.habit(blobs(), move |_| Some(via_cdn(&storage, status, 1)));
}

/// Storage that answers a request for several ranges with this status.
fn refuse_several_ranges(storage: &Upstream, status: u16, body: &'static str) {
    storage.habit(signed(), move |asked| {
        let several = asked.header("range").contains(',');
        several.then(|| reply(status).body(body).header("content-type", "text/plain"))
    });
}

/// The repositories that a request for a token is about.
fn repositories_of(asked: &super::upstream::Asked) -> Vec<String> {
    let scopes = asked.parameters("scope");
    let names = scopes
        .iter()
        .flat_map(|scopes| scopes.split(' '))
        .filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'));
    names.map(|(name, _)| name.to_owned()).collect()
}
