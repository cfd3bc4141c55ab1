//! A gate: where a scripted answer waits until the test lets it go on. Made by tests, passed by `deliver`
//! and `serve`.

use std::sync::Arc;

use tokio::sync::watch;

use crate::support::soon;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Go,
    Cut,
}

/// Holds every answer that arrives at it until it is released; clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    arrivals: watch::Sender<usize>,
    verdict: watch::Sender<Verdict>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        let (arrivals, verdict) = (watch::Sender::new(0), watch::Sender::new(Verdict::Wait));
        Self(Arc::new(Inner { arrivals, verdict }))
    }

    /// Waits until an answer stands at the gate; all bytes before the gate have then left for the socket.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until `count` answers have come to the gate.
    pub async fn reached_by(&self, count: usize) {
        let mut arrivals = self.0.arrivals.subscribe();
        let arrived = soon(
            "a gate to be reached",
            arrivals.wait_for(|arrived| *arrived >= count),
        )
        .await;
        drop(arrived.expect("the gate holds its own sender"));
    }

    /// How many answers have come to the gate so far.
    pub fn arrivals(&self) -> usize {
        *self.0.arrivals.borrow()
    }

    /// Opens the gate, for good: whoever waits goes on, whoever comes later does not stop.
    pub fn release(&self) {
        self.0.verdict.send_replace(Verdict::Go);
    }

    /// Lets those who wait, or come later, go no further: their connections are closed here.
    pub fn cut(&self) {
        self.0.verdict.send_replace(Verdict::Cut);
    }

    /// Waits for the test's word; false means that the connection is to be cut.
    pub(super) async fn pass(&self) -> bool {
        self.0.arrivals.send_modify(|arrived| *arrived += 1);
        let mut verdict = self.0.verdict.subscribe();
        let word = verdict.wait_for(|word| *word != Verdict::Wait).await;
        word.is_ok_and(|word| *word == Verdict::Go)
    }
}
