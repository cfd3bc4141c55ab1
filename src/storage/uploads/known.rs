//! Which upload sessions there are, who has each, and how many are counted for whom. In memory, under one lock of
//! [`Uploads`](super::Uploads).

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::storage::space::Reservation;

use super::id::UploadId;
use super::record::Record;

/// A session at rest.
pub(super) struct Rest {
    pub(super) record: Record,
    pub(super) room: Reservation,
}

/// Where a session is.
pub(super) enum Slot {
    Resting(Box<Rest>),
    /// A request has it.
    Taken {
        repository: String,
        /// Ends with what it holds.
        until: watch::Receiver<()>,
    },
}

struct Entry {
    /// Whom it is counted for.
    counted: Arc<str>,
    slot: Slot,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Known {
    entries: HashMap<UploadId, Entry>,
    /// How many are counted for each; nobody with none is in it.
    counts: HashMap<Arc<str>, usize>,
}

impl Known {
    /// One more session, unless `most` are counted for the same (zero: any number). Whether it is in.
    pub(super) fn enter(&mut self, id: UploadId, counted: &str, slot: Slot, most: usize) -> bool {
        let counted: Arc<str> = match self.counts.get_key_value(counted) {
            Some((_, count)) if most > 0 && *count >= most => return false,
            Some((known, _)) => known.clone(),
            None => counted.into(),
        };
        *self.counts.entry(counted.clone()).or_default() += 1;
        self.entries.insert(id, Entry { counted, slot });
        true
    }

    /// A session less.
    pub(super) fn leave(&mut self, id: UploadId) {
        let Some(Entry { counted, .. }) = self.entries.remove(&id) else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&counted) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&counted);
            }
        }
    }

    pub(super) fn get(&self, id: UploadId) -> Option<&Slot> {
        self.entries.get(&id).map(|entry| &entry.slot)
    }

    /// Puts a session elsewhere: where it was, if it is there at all.
    pub(super) fn put(&mut self, id: UploadId, slot: Slot) -> Option<Slot> {
        let entry = self.entries.get_mut(&id)?;
        Some(std::mem::replace(&mut entry.slot, slot))
    }

    /// Those that no request has.
    pub(super) fn resting(&self) -> impl Iterator<Item = (UploadId, &Record)> {
        self.entries.iter().filter_map(|(id, entry)| match &entry.slot {
            Slot::Resting(rest) => Some((*id, &rest.record)),
            Slot::Taken { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_for_whom_it_is_and_no_longer_than_it_is_there() {
        let taken = || Slot::Taken {
            repository: String::new(),
            until: watch::channel(()).1,
        };
        let mut known = Known::default();
        let ids: Vec<_> = (0..4).map(|_| UploadId::random()).collect();
        assert!(known.enter(ids[0], "ann", taken(), 2));
        assert!(known.enter(ids[1], "ann", taken(), 2));
        assert!(!known.enter(ids[2], "ann", taken(), 2));
        assert!(known.get(ids[2]).is_none());
        assert!(known.enter(ids[2], "bob", taken(), 2));
        assert!(known.enter(ids[3], "ann", taken(), 0), "any number");
        for id in [ids[0], ids[0], ids[3]] {
            known.leave(id);
        }
        assert!(known.enter(ids[0], "ann", taken(), 2));
        for id in ids {
            known.leave(id);
        }
        assert!(known.entries.is_empty() && known.counts.is_empty());
        assert!(known.put(UploadId::random(), taken()).is_none());
    }
}
