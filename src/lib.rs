//! Wharfinger: a streaming, verifying container registry cache.
//!
//! The house has floors; a room imports only from the floors below it, and `tests/it/layers.rs` keeps the walls.

pub mod oci;
