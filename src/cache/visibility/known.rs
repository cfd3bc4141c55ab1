//! When an anonymous caller could last read a repository: in memory, and in the index across restarts. Called by
//! `visibility`, which asks.

use std::time::Duration;

use super::is_open;
use crate::cache::{Place, Shared};
use crate::clock::Timestamp;
use crate::storage::Change;

/// How often it is written down while it goes on.
const WRITTEN_EVERY: Duration = Duration::from_mins(15);
/// What it is called in the index, before the repository's key.
const ROW: &str = "public/";

/// When an anonymous caller could last read a repository.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    at: Timestamp,
    /// By this process, rather than one before it.
    pub(super) heard: bool,
    /// Since when that is over.
    pub(super) private_since: Option<Timestamp>,
    /// The index knows as much as was known then.
    written: Timestamp,
}

impl Seen {
    /// Heard at this time.
    pub(super) fn at(at: Timestamp) -> Self {
        Self {
            at,
            heard: true,
            private_since: None,
            written: at,
        }
    }

    fn encode(self) -> Vec<u8> {
        let since = self.private_since.unwrap_or(Timestamp(0));
        [self.at.0.to_be_bytes(), since.0.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (at, since) = bytes.split_at_checked(8)?;
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let (at, since) = (Timestamp(number(at)?), number(since)?);
        Some(Self {
            at,
            heard: false,
            private_since: (since > 0).then_some(Timestamp(since)),
            written: at,
        })
    }

    /// How long ago an anonymous caller could read it, if that is not over.
    pub(super) fn ago(self) -> Option<Duration> {
        let now = Timestamp::now();
        self.private_since.is_none().then(|| now.since(self.at))
    }
}

impl Shared {
    /// What is known, from the index if need be.
    pub(super) async fn seen(&self, place: &Place) -> Option<Seen> {
        if let Some(seen) = self.visibility.public.get(&place.key) {
            return Some(seen);
        }
        let row = format!("{ROW}{}", place.key);
        let read = self.storage.index.read(move |index| index.meta(&row)).await;
        // What the index cannot tell is asked.
        let seen = Seen::decode(&read.ok().flatten()?)?;
        // A newer one may have come meanwhile.
        let entry = self.visibility.public.entry(place.key.clone()).or_insert(seen);
        Some(entry.into_value())
    }

    /// How long ago an anonymous caller could read it.
    pub(in crate::cache) async fn was_public(&self, place: &Place) -> Option<Duration> {
        self.seen(place).await?.ago()
    }

    /// An anonymous caller can read it.
    pub(in crate::cache) fn note_public(&self, place: &Place) {
        let now = Timestamp::now();
        let before = self.visibility.public.get(&place.key);
        let written = before
            .filter(|seen| seen.private_since.is_none())
            .map(|seen| seen.written)
            .filter(|at| *at <= now && now.since(*at) < WRITTEN_EVERY);
        let seen = Seen {
            written: written.unwrap_or(now),
            ..Seen::at(now)
        };
        if written.is_none() {
            self.write_public(place, seen);
        }
        self.visibility.public.insert(place.key.clone(), seen);
    }

    /// What is here of it was brought by an operator, for everybody, until its upstream says otherwise. Nothing is fetched
    /// on the strength of that.
    pub(in crate::cache) fn note_brought(&self, place: &Place) {
        let seen = Seen {
            heard: false,
            ..Seen::at(Timestamp::now())
        };
        if !is_open(place) && !self.visibility.is_public(place) {
            self.visibility.public.insert(place.key.clone(), seen);
            self.write_public(place, seen);
        }
    }

    /// An anonymous caller could read it, and no longer can.
    pub(in crate::cache) async fn note_private(&self, place: &Place) {
        let Some(seen) = self.seen(place).await.filter(|seen| seen.private_since.is_none()) else {
            return;
        };
        let over = Seen {
            private_since: Some(Timestamp::now()),
            ..seen
        };
        self.visibility.public.insert(place.key.clone(), over);
        self.write_public(place, over);
    }

    /// Whether it was public when the upstream could last tell, and that is not too long ago.
    pub(in crate::cache) async fn was_public_lately(&self, place: &Place) -> bool {
        let stale = place.freshness().stale_if_error;
        let ago = self.was_public(place).await;
        ago.is_some_and(|ago| ago < stale || place.upstream.offline().is_on())
    }

    /// Lost in a crash, it is asked again.
    fn write_public(&self, place: &Place, seen: Seen) {
        let row = format!("{ROW}{}", place.key);
        self.storage
            .index
            .submit(vec![Change::put_meta(&row, seen.encode())]);
    }
}
