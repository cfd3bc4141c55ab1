//! A pace: how fast a scripted answer is sent, each connection by itself or all of them together, until the test lets go.
//! Time is what such an upstream is made of; tests wait for what it has sent, never for the time itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::locked;

/// What `deliver` sends at a time.
const CHUNK: u64 = 16 * 1024;

/// How fast answers are sent; clones are the same pace.
#[derive(Clone)]
pub struct Pace {
    every: Duration,
    /// When the next chunk of all may go; `None`: of each by itself.
    shared: Option<Arc<Mutex<Instant>>>,
    released: watch::Sender<bool>,
}

impl Pace {
    /// Each connection sends so many bytes a second.
    pub fn of_each(bytes: u64) -> Self {
        Self {
            every: Duration::from_secs(1).mul_f64(CHUNK as f64 / bytes as f64),
            shared: None,
            released: watch::Sender::new(false),
        }
    }

    /// All together send so many.
    pub fn of_all(bytes: u64) -> Self {
        Self {
            shared: Some(Arc::new(Mutex::new(Instant::now()))),
            ..Self::of_each(bytes)
        }
    }

    /// As fast as it goes, from now on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub(super) fn sender(&self) -> Sender {
        Sender {
            pace: self.clone(),
            released: self.released.subscribe(),
            next: Instant::now(),
        }
    }
}

/// One answer on its way.
pub(super) struct Sender {
    pace: Pace,
    released: watch::Receiver<bool>,
    next: Instant,
}

impl Sender {
    /// Waits until one more chunk may go.
    pub(super) async fn chunk(&mut self) {
        let due = match &self.pace.shared {
            Some(shared) => advance(&mut locked(shared), self.pace.every),
            None => advance(&mut self.next, self.pace.every),
        };
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            _ = self.released.wait_for(|released| *released) => {}
        }
    }
}

/// Timers are coarse, so a little of what was missed is made good.
fn advance(next: &mut Instant, every: Duration) -> Instant {
    let due = (*next).max(Instant::now() - Duration::from_millis(100));
    *next = due + every;
    due
}
