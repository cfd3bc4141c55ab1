//! The integration tests, one binary: real sockets, the real daemon, and a scripted upstream in place
//! of the world's registries. `support` is the harness, `support_tests` proves the harness itself.
#![expect(
    unreachable_pub,
    reason = "the modules of a test binary are each other's public interface"
)]
#![expect(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

mod admin;
mod ahead;
mod answer_time;
mod audit;
mod bandwidth;
mod bundle;
mod callers;
mod coalesce;
mod collect;
mod config_files;
mod confirmed;
mod crash;
mod credentials;
mod credentials_check;
mod credentials_ecr;
mod credentials_several;
mod dashboards;
mod deadlines;
mod delete;
mod discover;
mod drain;
mod drill;
mod economy;
mod errors;
mod eviction;
mod expect;
mod follow;
mod forwarded;
mod freshness;
mod full_disk;
mod governor;
mod hosting;
mod jobs;
mod layers;
mod lists;
mod login;
mod maintenance;
mod malformed;
mod manifests;
mod mirrors;
mod model;
mod multirange;
mod names;
mod negative;
mod offline;
mod operate;
mod parallel;
mod pins;
mod pull;
mod purge;
mod push;
mod quota;
mod range;
mod rebuild;
mod redirects;
mod referrers;
mod repositories;
mod restart;
mod resume;
mod retention;
mod scene;
mod sessions;
mod slow;
mod sparse;
mod stale;
mod steps;
mod support;
mod support_tests;
mod tag_rules;
mod tags;
mod tls;
mod turns;
mod uploads;
mod upstream_auth;
mod verify;
mod visibility;
mod warm;
mod workloads;
mod zoo;
