//! What an operator is told of upstreams: part of `GET /api/status`. Made by `inspect`.

use serde::{Deserialize, Serialize};

/// How an upstream was when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamState {
    /// It was not asked since the start.
    Unasked,
    /// It answered.
    Well,
    /// It refused for its rate limit (429).
    Limited,
    /// It failed.
    Failing,
}

impl UpstreamState {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::Well => "well",
            Self::Limited => "limited",
            Self::Failing => "failing",
        }
    }
}

/// A registry or a mirror of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Its host, with the port if it is not the usual one.
    pub host: String,
    /// Its breaker: `closed` (asked as usual), `open` (left alone), `half-open` (tried by the next request).
    pub breaker: String,
}

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamReport {
    /// Its prefix.
    pub prefix: String,
    /// Where it is.
    pub url: String,
    /// How it was when it was last asked.
    pub state: UpstreamState,
    /// How long ago it last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_seconds: Option<u64>,
    /// How long ago it last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_seconds: Option<u64>,
    /// How it last failed: a status, or the word of why there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How its endpoints stand, the registry first, then its mirrors.
    #[serde(default)]
    pub endpoints: Vec<EndpointReport>,
    /// Its limit on pulls, of all credentials in use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Pulls that are left of it: as last told, less what was spent since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// The bandwidth cap that holds now, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Its credentials, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialReport>,
    /// How much longer tags are fresh than configured because few pulls are left, in percent; absent when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_percent: Option<u64>,
    /// The limit by credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetReport>,
    /// Manifests that clients pulled without costing a pull, over all runs of the daemon.
    #[serde(default)]
    pub pulls_saved: u64,
    /// Requests that were not made because they would have cost a pull, since the start.
    #[serde(default)]
    pub held: HeldReport,
    /// Its hosts that are asked slowly because they refused too many requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowed: Vec<SlowedReport>,
}

/// A credential of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialReport {
    /// What it is called.
    pub name: String,
    /// Where it comes from: `password`, `docker-config`, `helper`, `token-file`, `ecr`, or `anonymous` for none.
    pub kind: String,
    /// While it is set aside: for how long still, and then until it is tried with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside_seconds: Option<u64>,
    /// Why it is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a credential may still pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetReport {
    /// Its name; `anonymous` for none.
    pub credential: String,
    /// Whose budget it is, as the registry tells: an address, a network or an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Pulls in a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Pulls that are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// In how long all of them are back at the latest; when none are left, in how long some are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_seconds: Option<u64>,
    /// In how long none are left at the present rate; absent while they last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_seconds: Option<u64>,
    /// None are left, or the registry refuses.
    pub exhausted: bool,
}

/// Requests that were not made, by what they were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// Nobody waited for it.
    pub background: u64,
    /// A copy was here.
    pub refresh: u64,
    /// A client waited, and nothing was here.
    pub miss: u64,
}

/// A host that is asked slowly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowedReport {
    /// The host.
    pub host: String,
    /// The time between two requests to it, in milliseconds.
    pub interval_millis: u64,
    /// How long it is not asked at all.
    pub pause_seconds: u64,
}
