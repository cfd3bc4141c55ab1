//! The harness held to its word, so that a failing test speaks about the daemon: the upstream is a correct
//! registry, each departure from that is exact to the byte, counts are true, clients see the wire.

mod auth;
mod clients;
mod daemon;
mod registry;
mod script;
