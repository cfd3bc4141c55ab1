//! Whole lines on their way to a log: they are appended to one buffer in memory, and a thread of its own writes that out a
//! few times a second, so that a line costs a request no system call. Used by the access log and the audit log.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus::IntCounter;

/// How long a line may wait in memory for others to share its write.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// With so many bytes waiting, they are written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Where lines go. Clones go the same way.
#[derive(Clone)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

struct Shared {
    /// What log it is, for people.
    name: &'static str,
    /// With so many bytes waiting, nobody reads fast enough, and further lines are dropped and counted.
    most: usize,
    /// Counts those that are lost.
    lost: IntCounter,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    closed: bool,
}

/// Writes what is left when dropped.
pub(super) struct LinesGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Starts the writing thread. `writer` gets whole lines, many at a time; `most` bytes wait for it. `lost` counts
    /// what does not get there.
    pub(super) fn start(
        name: &'static str,
        most: usize,
        lost: IntCounter,
        writer: Box<dyn Write + Send>,
    ) -> std::io::Result<(Self, LinesGuard)> {
        let shared = Arc::new(Shared {
            name,
            most,
            lost,
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let its = shared.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || its.write_out(writer))?;
        let guard = LinesGuard {
            shared: shared.clone(),
            thread: Some(thread),
        };
        Ok((Self { shared }, guard))
    }

    /// Appends a line, with its end.
    pub(super) fn append(&self, line: &[u8]) {
        let mut state = self.shared.lock();
        let before = state.waiting.len();
        if before + line.len() > self.shared.most {
            state.dropped += 1;
            self.shared.lost.inc();
            return;
        }
        state.waiting.extend_from_slice(line);
        let after = state.waiting.len();
        drop(state);
        // Waking costs a system call: only where the thread waits for just this.
        if before == 0 || (before < BATCH_BYTES && after >= BATCH_BYTES) {
            self.shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, mut writer: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        let mut failing = false;
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if !state.closed && state.waiting.len() < BATCH_BYTES {
                let more = |state: &mut State| !state.closed && state.waiting.len() < BATCH_BYTES;
                let waited = self.wake.wait_timeout_while(state, BATCH_TIME, more);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut state.waiting, &mut batch);
            let (closed, dropped) = (state.closed, std::mem::take(&mut state.dropped));
            drop(state);
            // A log that cannot be written is no reason to stop serving.
            let written = writer.write_all(&batch).and_then(|()| writer.flush());
            if let (Err(error), false) = (&written, failing) {
                tracing::error!(log = self.name, %error, "lines of a log are lost: it cannot be written");
            }
            failing = written.is_err();
            if failing {
                let lines = batch.split_inclusive(|byte| *byte == b'\n').count();
                self.lost.inc_by(lines as u64);
            }
            batch.clear();
            if dropped > 0 {
                tracing::warn!(
                    log = self.name,
                    dropped,
                    "a log is not read fast enough: lines were dropped"
                );
            }
            if closed {
                return;
            }
        }
    }
}

impl Drop for LinesGuard {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is full.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_lost_is_counted() {
        let count = |most, writer: Box<dyn Write + Send>| {
            let lost = IntCounter::new("lost", "lost").unwrap();
            let (lines, guard) = Lines::start("test", most, lost.clone(), writer).unwrap();
            for _ in 0..10 {
                lines.append(b"a line\n");
            }
            drop(guard);
            lost.get()
        };
        assert_eq!(count(1000, Box::new(std::io::sink())), 0);
        assert_eq!(count(1000, Box::new(Full)), 10);
        // None of them fits.
        assert_eq!(count(3, Box::new(std::io::sink())), 10);
    }
}
