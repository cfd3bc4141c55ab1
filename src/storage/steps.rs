//! The steps of publishing and removing (law 3), each of which may be the last that a process does: a test of a debug build
//! has it end there. Called by `ingest` and `blobs`.

/// The next step is `step`. Ends the process if `WHARFINGER_DIE_BEFORE` says so; release builds do not look.
pub(super) fn before(step: &str) {
    if cfg!(debug_assertions) && std::env::var_os("WHARFINGER_DIE_BEFORE").is_some_and(|last| last == step) {
        std::process::abort();
    }
}
