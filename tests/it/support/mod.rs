//! The harness of the integration tests: a scripted upstream registry, images to put into it, clients
//! that see the wire, and the daemon under test. Tests write `use crate::support::prelude::*`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub mod client;
pub mod daemon;
pub mod image;
pub mod service;
pub mod upstream;
pub mod zoo;

/// All that a test usually needs, under short names.
pub mod prelude {
    pub use super::client::{
        Answer, Ending, H2End, Raw, Secure, get, get_with, h2_get, h2_get_with, head, head_with, open,
        open_with, request, send, try_get,
    };
    pub use super::daemon::Daemon;
    pub use super::image::{Content, Image, Index, RawManifest, random, sha256, sha512};
    pub use super::soon;
    pub use super::upstream::{
        Basic, Bearer, Gate, Match, Outcome, Pace, Plan, Recorded, Upstream, any, blob, blobs, html,
        manifest, manifests, path_has, ping, redirect, referrers, reply, serve, signed, tags, tokens,
        via_cdn,
    };
    pub use http::Method;
}

/// How long anything may take before a test gives up. It is a safety net: no passing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits `future`, and fails the test when it takes longer than [`PATIENCE`]; `what` says what was awaited.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_elapsed| panic!("waited {PATIENCE:?} for {what}"))
}

/// Locks, also after another thread of a failing test has panicked with the lock held.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
