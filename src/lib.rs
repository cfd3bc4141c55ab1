//! Wharfinger: a streaming, verifying container registry cache.
//!
//! The house has floors; a room imports only from the floors below it, and `tests/it/layers.rs` keeps the walls.
//!
//! | floor | room | what lives there |
//! |---|---|---|
//! | 10 | `cli`, `app` | subcommands; from a configuration to a running daemon |
//! | 7 | `api` | the HTTP front: routes, answers, errors |
//! | 6 | `registry` | the one door to content: which repository a client means |
//! | 6 | `preserve` | what must still be here tomorrow: warm lists, pins, drills, bundles |
//! | 5 | `cache` | the pull-through engine: fills, freshness, single-flight |
//! | 4 | `identities` | who can log in |
//! | 4 | `repository` | what a repository holds: links, manifests, tags; and what is hosted |
//! | 3 | `upstream` | the client of other registries |
//! | 3 | `storage` | bytes and index on disk |
//! | 3 | `auth` | identities and policies: who is it, may they |
//! | 3 | `server` | sockets |
//! | 2 | `config` | plain, validated data |
//! | 1 | `oci`, `telemetry`, `clock`, `claims`, `collapse`, `job`, `transfer`, `mapped` | words, metrics and logs, time, turns, single-flight, long work, streams, sendfile |

pub mod api;
pub mod app;
pub mod auth;
pub mod cache;
pub mod claims;
pub mod cli;
pub mod clock;
pub mod collapse;
pub mod config;
pub mod identities;
pub mod job;
pub mod maintenance;
pub mod mapped;
pub mod oci;
pub mod preserve;
pub mod registry;
pub mod repository;
pub mod server;
pub mod storage;
pub mod telemetry;
pub mod transfer;
pub mod upstream;
