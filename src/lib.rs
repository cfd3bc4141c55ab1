//! Wharfinger: a streaming, verifying container registry cache.
//!
//! The house has floors; a room imports only from the floors below it, and `tests/it/layers.rs` keeps the walls.

pub mod clock;
pub mod collapse;
pub mod config;
pub mod mapped;
pub mod oci;
pub mod server;
