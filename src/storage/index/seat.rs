//! The place where the database sits, so that it can be opened again under everybody's hands.
//!
//! After an I/O error, a full disk above all, redb refuses to work until it is opened anew; and that needs all handles of
//! the old one gone, since it locks its file. So each use holds the seat for its duration, and reopening takes it alone.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::{Database, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::storage::error::Error;

use super::backend::{Health, Opener, Watched};

/// Memory for redb's own page cache: hot rows are kept decoded above, so this stays small.
const PAGE_CACHE: usize = 32 * 1024 * 1024;

/// From this length on, in bytes, each commit writes down which pages are free. That costs a second sync, and without it
/// opening after a crash would read the whole file.
const QUICK_REPAIR: u64 = 32 * 1024 * 1024;

/// How long a reopening that failed is not tried again.
const PAUSE: Duration = Duration::from_millis(500);

struct Opened {
    database: Database,
    health: Arc<Health>,
}

struct State {
    /// None when the last reopening failed.
    opened: Option<Opened>,
    /// Counts the reopenings that were tried.
    tried: u64,
    failed_at: Option<Instant>,
}

pub(super) struct Seat {
    opener: Opener,
    state: RwLock<State>,
}

impl Seat {
    /// Opens or creates the database.
    pub(super) fn open(opener: Opener) -> Result<Self, Error> {
        let opened = open(&opener, true)?;
        Ok(Self {
            opener,
            state: RwLock::new(State {
                opened: Some(opened),
                tried: 0,
                failed_at: None,
            }),
        })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a snapshot. After an I/O error the database is opened again and asked once more.
    pub(super) fn read<T>(&self, query: impl Fn(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let (tried, failure) = {
            let state = self.state();
            match &state.opened {
                Some(opened) => {
                    let transaction = opened.database.begin_read().map_err(Error::index);
                    match transaction.and_then(|transaction| query(&transaction)) {
                        Err(error) if opened.health.has_failed() => (state.tried, Some(error)),
                        result => return result,
                    }
                }
                None => (state.tried, None),
            }
        };
        if let Some(error) = failure {
            tracing::warn!(%error, "the index is opened again: it could not be read");
        }
        self.reopen(tried)?;
        match &self.state().opened {
            Some(opened) => query(&opened.database.begin_read().map_err(Error::index)?),
            None => Err(closed()),
        }
    }

    /// Runs `work` in a transaction and commits it: durable when this returns. Reopening is up to the caller: see
    /// [`Seat::renew`].
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let state = self.state();
        let Some(opened) = &state.opened else {
            return Err(closed());
        };
        let mut transaction = opened.database.begin_write().map_err(Error::index)?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(Error::index)?;
        transaction.set_quick_repair(opened.health.length() >= QUICK_REPAIR);
        let result = work(&transaction)?;
        transaction.commit().map_err(Error::index)?;
        Ok(result)
    }

    /// Whether it is open, and nothing has failed since it was opened.
    pub(super) fn is_well(&self) -> bool {
        let state = self.state();
        state
            .opened
            .as_ref()
            .is_some_and(|opened| !opened.health.has_failed())
    }

    /// Opens the database again, whatever its state. Waits for those who read it.
    pub(super) fn renew(&self) -> Result<(), Error> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.reopen_in(&mut state)
    }

    /// Opens the database again, unless somebody did since it was `tried` so many times.
    fn reopen(&self, tried: u64) -> Result<(), Error> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let just_failed = state.failed_at.is_some_and(|at| at.elapsed() < PAUSE);
        if state.tried != tried && state.opened.is_some() {
            return Ok(());
        }
        if just_failed && state.opened.is_none() {
            return Err(closed());
        }
        self.reopen_in(&mut state)
    }

    fn reopen_in(&self, state: &mut State) -> Result<(), Error> {
        state.tried += 1;
        // The lock of its file goes with it.
        state.opened = None;
        match open(&self.opener, false) {
            Ok(opened) => {
                state.opened = Some(opened);
                state.failed_at = None;
                Ok(())
            }
            Err(error) => {
                state.failed_at = Some(Instant::now());
                Err(error)
            }
        }
    }
}

fn closed() -> Error {
    Error::Index("it could not be opened again after a failure".to_owned())
}

fn open(opener: &Opener, create: bool) -> Result<Opened, Error> {
    let backend =
        opener(create).map_err(|error| Error::Index(format!("its file cannot be opened: {error}")))?;
    let health = Arc::new(Health::default());
    let database = Database::builder()
        .set_cache_size(PAGE_CACHE)
        .create_with_backend(Watched::new(backend, health.clone()))
        .map_err(|error| match error {
            redb::DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => Error::Damaged(reason),
            redb::DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() == std::io::ErrorKind::InvalidData =>
            {
                Error::Damaged(error.to_string())
            }
            error => Error::index(error),
        })?;
    Ok(Opened { database, health })
}
