//! Stopping without breaking off: no new connections, running responses finish, and what is left after a
//! grace period is cut. One [`Drain`] is shared by all doors and whoever receives the signal.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long connections that have been cut may take to go away.
const CUT_TIME: Duration = Duration::from_secs(1);

/// The switch that stops a server. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every connection came to its end.
    Finished,
    /// The grace period was over; so many connections were broken off.
    Cut {
        /// Number of connections.
        connections: usize,
    },
}

impl Drain {
    /// A drain that has not been started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops accepting, and tells each connection to close after the responses that it is sending.
    pub fn start(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Whether [`Drain::start`] was called (not ready for new work).
    pub fn is_started(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until [`Drain::start`] is called.
    pub async fn started(&self) {
        self.stop.cancelled().await;
    }

    /// Starts the drain if nobody has, waits for the connections at most for `grace`, and cuts those that are
    /// left.
    pub async fn wait(&self, grace: Duration) -> DrainOutcome {
        self.start();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_ok() {
            return DrainOutcome::Finished;
        }
        let connections = self.tasks.len();
        self.cut.cancel();
        // A task that never yields cannot be cut; the process is about to end, so it must not hold that up
        // either.
        let _ = tokio::time::timeout(CUT_TIME, self.tasks.wait()).await;
        DrainOutcome::Cut { connections }
    }

    /// The part that one connection, or one accept loop, watches. While it lives, the drain is not finished.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            // Children, so that thousands of connections do not share the lock of one token.
            stop: self.stop.child_token(),
            cut: self.cut.child_token(),
            _running: self.tasks.token(),
        }
    }
}

/// What a connection hears of the [`Drain`].
#[derive(Debug)]
pub(super) struct Watch {
    stop: CancellationToken,
    cut: CancellationToken,
    _running: TaskTrackerToken,
}

impl Watch {
    /// Waits until the drain starts.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until the grace period is over.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }
}
