//! The clients of the fleet: what each asks for, in which order, and how it takes a failure. Written after the sources
//! of dockerd, containerd, Podman and crane.

mod line;
mod pull;

use std::time::Duration;

pub(crate) use self::pull::{Pulled, pull};

/// How a client gets from a tag to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolve {
    /// HEAD by tag, then GET by digest; GET by tag where HEAD fails.
    HeadElseGet,
    /// HEAD by tag or digest, then GET by digest.
    Head,
    /// HEAD by tag or digest, then GET of the same.
    HeadAndGet,
    /// GET by tag, each time.
    Get,
}

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was answered like this.
    Status(u16),
    /// The connection broke, or nothing came.
    Cut,
}

/// After this failure, which is the n-th in a row, it asks again after this pause; or not.
type Retry = fn(Failure, u32) -> Option<Duration>;

/// A client with its habits.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its name, and what it calls itself.
    pub(crate) name: &'static str,
    /// How many of a hundred jobs use it.
    pub(crate) share: u32,
    resolve: Resolve,
    /// Whether it asks for `/v2/` first.
    pings: bool,
    /// Whether it tells a mirror which registry is meant.
    namespace: bool,
    /// Blobs at once.
    at_once: usize,
    /// What it does when a manifest fails.
    manifest: Retry,
    /// And a blob.
    blob: Retry,
    /// After this many failed pulls, with these pauses between them, whatever started the client has given the job up.
    tries: u32,
    again_after: fn(u32) -> Duration,
}

/// The fleet's.
pub(crate) const CLIENTS: [Client; 4] = [
    Client {
        name: "docker",
        share: 40,
        resolve: Resolve::HeadElseGet,
        pings: true,
        namespace: false,
        at_once: 3,
        manifest: never,
        // 5, 10, 15 s; not when it is told that it may not.
        blob: |failure, number| match failure {
            Failure::Status(401 | 403 | 404 | 429) => None,
            _ => (number < 5).then(|| Duration::from_secs(5) * number),
        },
        // A CI runner's.
        tries: 3,
        again_after: |_| Duration::from_secs(10),
    },
    Client {
        name: "containerd",
        share: 25,
        resolve: Resolve::Head,
        pings: false,
        namespace: true,
        at_once: 3,
        manifest: containerd,
        blob: containerd,
        // The kubelet's back-off, for as long as a CI job waits for its pod.
        tries: 4,
        again_after: |number| Duration::from_secs(5) * 2_u32.saturating_pow(number),
    },
    Client {
        name: "podman",
        share: 20,
        resolve: Resolve::Get,
        pings: true,
        namespace: false,
        at_once: 6,
        manifest: podman,
        blob: podman,
        tries: 1,
        again_after: |_| Duration::ZERO,
    },
    Client {
        name: "crane",
        share: 15,
        resolve: Resolve::HeadAndGet,
        pings: true,
        namespace: false,
        at_once: 4,
        manifest: crane,
        blob: crane,
        tries: 1,
        again_after: |_| Duration::ZERO,
    },
];

fn never(_: Failure, _: u32) -> Option<Duration> {
    None
}

/// 408 and 429 at once, five requests in all; 500, 503, 504 and cut connections once.
fn containerd(failure: Failure, number: u32) -> Option<Duration> {
    let most = match failure {
        Failure::Status(408 | 429) => 5,
        Failure::Status(500 | 503 | 504) | Failure::Cut => 2,
        Failure::Status(_) => 1,
    };
    (number < most).then_some(Duration::ZERO)
}

/// 429 alone: five requests, 2, 4, 8 and 16 s apart.
fn podman(failure: Failure, number: u32) -> Option<Duration> {
    let pause = Duration::from_secs(2_u64.saturating_pow(number));
    (failure == Failure::Status(429) && number < 5).then_some(pause)
}

/// What may pass: three requests, 1 and 3 s apart.
fn crane(failure: Failure, number: u32) -> Option<Duration> {
    let passing = matches!(
        failure,
        Failure::Cut | Failure::Status(408 | 429 | 499 | 500 | 502 | 503 | 504 | 522)
    );
    (passing && number < 3).then(|| Duration::from_secs(if number == 1 { 1 } else { 3 }))
}
