//! The subcommands that talk to a running daemon: status, explain, refresh, purge. `--json` prints the daemon's own
//! answer, else it is told in words.

use serde::Serialize;

use crate::cache::report::{Explanation, OfflineReport, Purged, RefreshOutcome, Refreshed, Status};
use crate::config::Config;

use super::client::{CallError, Client};
use super::show;

/// What came of a command.
pub struct Told {
    /// What to print.
    pub text: String,
    /// Whether it is what was asked for.
    pub well: bool,
}

impl Told {
    pub(super) fn well(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, well: true }
    }
}

#[derive(Serialize)]
struct About<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
}

#[derive(Serialize)]
struct Purge<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    content: bool,
}

#[derive(Serialize)]
struct Switch {
    offline: bool,
}

/// Reads the answer, and tells it in words unless `json` is asked for.
pub(super) fn tell<T: serde::de::DeserializeOwned>(
    client: &Client,
    answer: String,
    json: bool,
    words: impl FnOnce(&T) -> String,
) -> Result<(T, String), CallError> {
    let told: T = client.parse(&answer)?;
    let text = if json { answer } else { words(&told) };
    Ok((told, text))
}

/// How the daemon stands.
pub(super) async fn status(config: &Config, json: bool) -> Result<Told, CallError> {
    let client = Client::new(config);
    let answer = client.get("/api/status").await?;
    let (_, text) = tell::<Status>(&client, answer, json, show::status)?;
    Ok(Told::well(text))
}

/// Turns the switch, or asks how it stands.
pub(super) async fn offline(config: &Config, wanted: Option<bool>, json: bool) -> Result<Told, CallError> {
    let client = Client::new(config);
    let answer = match wanted {
        Some(offline) => client.post("/api/offline", &Switch { offline }).await?,
        None => client.get("/api/offline").await?,
    };
    let words = |told: &OfflineReport| show::offline(told, config.cache.offline);
    let (_, text) = tell::<OfflineReport>(&client, answer, json, words)?;
    Ok(Told::well(text))
}

/// Why a reference would now be a hit, stale, or a miss.
pub(super) async fn explain(config: &Config, reference: &str, json: bool) -> Result<Told, CallError> {
    let client = Client::new(config);
    let query: String = url::form_urlencoded::byte_serialize(reference.as_bytes()).collect();
    let path = format!("/api/explain?ref={}", query.replace('+', "%20"));
    let answer = client.get(&path).await?;
    let (_, text) = tell::<Explanation>(&client, answer, json, show::explanation)?;
    Ok(Told::well(text))
}

/// Asks the upstream now.
pub(super) async fn refresh(config: &Config, reference: &str, json: bool) -> Result<Told, CallError> {
    let client = Client::new(config);
    let answer = client.post("/api/refresh", &About { reference }).await?;
    let (told, text) = tell::<Refreshed>(&client, answer, json, show::refreshed)?;
    let well = !matches!(told.outcome, RefreshOutcome::Gone | RefreshOutcome::Failed);
    Ok(Told { text, well })
}

/// Removes what is here.
pub(super) async fn purge(
    config: &Config,
    reference: &str,
    content: bool,
    json: bool,
) -> Result<Told, CallError> {
    let client = Client::new(config);
    let about = Purge { reference, content };
    let answer = client.post("/api/purge", &about).await?;
    let (_, text) = tell::<Purged>(&client, answer, json, show::purged)?;
    Ok(Told::well(text))
}
