//! The log of the daemon itself: `tracing` events to standard error, as text or JSON, written by a thread of its own.
//!
//! `app` starts it once the configuration is known.

use std::io::{self, BufWriter, IsTerminal as _};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is neither a level nor a list of directives.
    #[error("log level: {0}")]
    Level(#[from] ParseError),
    /// Something else in this process logs already.
    #[error("starting the log: {0}")]
    Taken(#[from] TryInitError),
}

/// Writes what is left when dropped. Keep it to the end of the process.
#[must_use]
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// Starts the log. `level` is a level or directives of `EnvFilter` (`info,wharfinger=debug`).
///
/// # Errors
/// A bad level, or a log that was started before.
pub fn start_logging(json: bool, level: &str) -> Result<LogGuard, LoggingError> {
    let filter = EnvFilter::builder().parse(level)?;
    // The worker flushes when it has nothing more to write, so that a burst of lines is one system call.
    let (writer, worker) = NonBlocking::new(BufWriter::with_capacity(64 * 1024, io::stderr()));
    let colors =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colors);
    if json {
        log.json().flatten_event(true).finish().try_init()?;
    } else {
        log.finish().try_init()?;
    }
    Ok(LogGuard { _worker: worker })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_is_refused_before_anything_starts() {
        assert!(matches!(
            start_logging(false, "wharfinger=loud"),
            Err(LoggingError::Level(_))
        ));
    }
}
