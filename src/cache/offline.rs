//! The operator's switch: offline, nothing is asked of any upstream, and what is here is served, however old. Called by
//! `registry` for the admin API, and by `app` at the start.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::storage::Storage;
use crate::upstream::Offline;

use super::error::Error;
use super::report::OfflineReport;
use super::{Cache, Places};

/// The name of the note that says it was turned on.
const NOTE: &str = "offline";

/// What is remembered across restarts.
#[derive(Default, Serialize, Deserialize)]
struct Note {
    offline: bool,
    since: Option<Timestamp>,
}

impl Note {
    fn load(storage: &Storage) -> Self {
        let note = storage.notes().load(NOTE);
        note.and_then(|note| serde_json::from_slice(&note).ok())
            .unwrap_or_default()
    }
}

/// The switch as it is at a start: on when the configuration says so, or when an operator left it on. Blocking.
pub fn offline_at_start(storage: &Storage, configured: bool) -> Offline {
    Offline::new(configured || Note::load(storage).offline)
}

impl Cache {
    /// Whether nothing is asked of any upstream.
    pub fn is_offline(&self) -> bool {
        self.shared.offline.is_on()
    }

    /// How the switch stands.
    pub async fn offline(&self) -> Result<OfflineReport, Error> {
        let shared = self.shared.clone();
        let note = tokio::task::spawn_blocking(move || Note::load(&shared.storage))
            .await
            .map_err(|_| Error::internal("reading a note was given up"))?;
        Ok(OfflineReport {
            offline: self.is_offline(),
            kept: note.offline,
            since: note.since.filter(|_| note.offline),
        })
    }

    /// Turns the switch, and remembers that for the next start.
    pub async fn set_offline(&self, on: bool) -> Result<OfflineReport, Error> {
        let shared = self.shared.clone();
        let saved = tokio::task::spawn_blocking(move || {
            let before = Note::load(&shared.storage);
            let since = before.since.filter(|_| before.offline);
            let note = Note {
                offline: on,
                since: on.then(|| since.unwrap_or_else(Timestamp::now)),
            };
            let text = serde_json::to_vec(&note).unwrap_or_default();
            shared.storage.notes().save(NOTE, &text)
        });
        let saved = saved
            .await
            .map_err(|_| Error::internal("writing a note was given up"))?;
        // Whatever becomes of the note, who wants to be offline is so from here on.
        if self.shared.offline.set(on) {
            tracing::warn!(offline = on, "an operator turned the switch");
        }
        self.shared.metrics.offline(on);
        saved.map_err(|error| Error::internal(&format!("the switch could not be written down: {error}")))?;
        self.offline().await
    }

    /// Goes on with interrupted fills whenever we are online, for as long as it is polled.
    pub async fn keep_resuming(&self, places: &Places) {
        loop {
            self.shared.offline.until(false).await;
            self.resume_interrupted(places).await;
            self.shared.offline.until(true).await;
        }
    }
}
