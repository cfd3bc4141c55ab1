//! Parts of a job that several things are done for at once, like the layers of an image: each tells how far it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Event;

/// How a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// It is being done.
    Running,
    /// There was nothing to do.
    Here,
    /// It is done.
    Done,
    /// It was given up.
    Failed,
}

/// All parts that somebody is still to hear of.
#[derive(Default)]
pub(super) struct Parts(Mutex<All>);

#[derive(Default)]
struct All {
    next: u64,
    parts: BTreeMap<u64, Row>,
}

struct Row {
    name: String,
    of: String,
    done: u64,
    total: Option<u64>,
    state: PartState,
    /// It moved since it was told.
    moved: bool,
}

impl Parts {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What moved since the last call, the oldest part first.
    pub(super) fn moved(&self) -> Vec<Event> {
        let mut all = self.all();
        let mut events = Vec::new();
        all.parts.retain(|_, row| {
            if std::mem::take(&mut row.moved) {
                events.push(Event::Part {
                    name: row.name.clone(),
                    of: row.of.clone(),
                    done: row.done,
                    total: row.total,
                    state: row.state,
                });
            }
            row.state == PartState::Running
        });
        events
    }
}

/// One part. Dropped before its end it has failed.
pub struct Part {
    /// `None` when nobody listens.
    parts: Option<Arc<Parts>>,
    id: u64,
}

impl Part {
    pub(super) fn begin(parts: Option<Arc<Parts>>, name: String, of: String, total: Option<u64>) -> Self {
        let mut id = 0;
        if let Some(parts) = &parts {
            let mut all = parts.all();
            all.next += 1;
            id = all.next;
            let row = Row {
                name,
                of,
                done: 0,
                total,
                state: PartState::Running,
                moved: true,
            };
            all.parts.insert(id, row);
        }
        Self { parts, id }
    }

    fn change(&self, change: impl FnOnce(&mut Row)) {
        if let Some(parts) = &self.parts
            && let Some(row) = parts.all().parts.get_mut(&self.id)
        {
            change(row);
            row.moved = true;
        }
    }

    /// So much of it is done. May be called as often as one likes.
    pub fn at(&self, done: u64) {
        self.change(|row| row.done = done);
    }

    /// It has ended so.
    pub fn end(mut self, state: PartState) {
        self.finish(state);
    }

    fn finish(&mut self, state: PartState) {
        self.change(|row| {
            row.state = state;
            if let Some(total) = row.total
                && matches!(state, PartState::Here | PartState::Done)
            {
                row.done = total;
            }
        });
        self.parts = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.finish(PartState::Failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_when_they_move_and_forgotten_when_they_end() {
        let parts = Arc::new(Parts::default());
        let part = |name: &str| Part::begin(Some(parts.clone()), name.to_owned(), "a:1".to_owned(), Some(10));
        let told = || {
            let line = |event: Event| match event {
                Event::Part {
                    name, done, state, ..
                } => (name, done, state),
                other => panic!("{other:?}"),
            };
            parts.moved().into_iter().map(line).collect::<Vec<_>>()
        };
        let (first, second, third) = (part("1"), part("2"), part("3"));
        let row = |name: &str, done, state| (name.to_owned(), done, state);
        assert_eq!(told().len(), 3);
        assert_eq!(told(), []);
        first.at(3);
        first.at(4);
        second.end(PartState::Here);
        drop(third);
        assert_eq!(
            told(),
            [
                row("1", 4, PartState::Running),
                row("2", 10, PartState::Here),
                row("3", 0, PartState::Failed)
            ]
        );
        first.end(PartState::Done);
        assert_eq!(told(), [row("1", 10, PartState::Done)]);
        assert!(parts.all().parts.is_empty());
        // Nobody listens: nothing is kept.
        Part::begin(None, "4".to_owned(), String::new(), None).end(PartState::Done);
    }
}
