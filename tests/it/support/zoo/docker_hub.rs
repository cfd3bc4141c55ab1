//! Docker Hub: tokens from another host, `library/`, pulls that are counted, and blobs on a CDN that moves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{Internet, PASSWORD, Personality};
use crate::support::locked;
use crate::support::upstream::{
    Asked, Bearer, Match, Plan, Upstream, any, blobs, html, manifests, reply, serve, tokens, via_cdn,
};

/// Where anonymous requests come from, as Docker Hub names it.
const ADDRESS: &str = "203.0.113.7";

/// registry-1.docker.io with auth.docker.io and a CDN.
pub struct DockerHub {
    pub registry: Upstream,
    pub auth: Upstream,
    cdn: Arc<Mutex<Upstream>>,
    pulls: Arc<Mutex<Pulls>>,
    abuse: Arc<Mutex<Option<Abuse>>>,
    internet: Internet,
}

/// The forms in which the abuse limit shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    Text,
    Page,
}

struct Pulls {
    /// For nobody in particular, and for an account. None: without limit, and without a word about it.
    allowed: [Option<u64>; 2],
    left: HashMap<String, u64>,
    counted: usize,
    /// What the refusal says in `Retry-After`, in seconds.
    retry_after: Option<u64>,
}

impl Pulls {
    fn left(&mut self, account: Option<&str>) -> Option<u64> {
        let allowed = self.allowed[usize::from(account.is_some())]?;
        Some(*self.left.entry(source(account)).or_insert(allowed))
    }

    /// The answer to a question for a manifest.
    fn judge(&mut self, asked: &Asked, account: Option<&str>) -> Plan {
        let Some(left) = self.left(account) else {
            self.counted += usize::from(asked.method == "GET");
            return serve();
        };
        let plan = if asked.method != "GET" {
            serve()
        } else if left > 0 {
            self.counted += 1;
            self.left.insert(source(account), left - 1);
            serve()
        } else {
            let refusal = too_many(account);
            match self.retry_after {
                Some(seconds) => refusal.header("retry-after", &seconds.to_string()),
                None => refusal,
            }
        };
        let allowed = self.allowed[usize::from(account.is_some())].unwrap_or_default();
        let left = self.left(account).unwrap_or_default();
        plan.header("ratelimit-limit", &format!("{allowed};w=21600"))
            .header("ratelimit-remaining", &format!("{left};w=21600"))
            .header("docker-ratelimit-source", &source(account))
    }
}

/// The address, or an account's id.
fn source(account: Option<&str>) -> String {
    account.map_or_else(|| ADDRESS.to_owned(), |name| format!("6b5ec0de-{name}"))
}

fn too_many(account: Option<&str>) -> Plan {
    let kind = if account.is_some() { "" } else { "unauthenticated " };
    let message = format!(
        "You have reached your {kind}pull rate limit. You may increase the limit by authenticating and upgrading: \
         https://www.docker.com/increase-rate-limit"
    );
    let body = json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": message }] });
    reply(429)
        .body(body.to_string())
        .header("content-type", "application/json")
}

impl DockerHub {
    /// Counted pulls so far: GETs of manifests that were answered, of everybody.
    pub fn counted(&self) -> usize {
        locked(&self.pulls).counted
    }

    /// A new window: so many pulls for everyone without a login, twice that for an account.
    pub fn allow(&self, pulls: u64) {
        let mut state = locked(&self.pulls);
        state.allowed = [Some(pulls), Some(2 * pulls)];
        state.left.clear();
    }

    /// No limit at all, as for verified publishers and paying accounts: the headers are not sent then.
    pub fn unlimited(&self) {
        locked(&self.pulls).allowed = [None, None];
    }

    /// What the refusal says in `Retry-After`.
    pub fn retry_after(&self, seconds: u64) {
        locked(&self.pulls).retry_after = Some(seconds);
    }

    /// The other limit, which counts everything from one address, or none.
    pub fn abuse(&self, form: Option<Abuse>) {
        *locked(&self.abuse) = form;
    }

    /// Blobs are on this host from now on.
    pub fn move_cdn(&self, host: &str) -> Upstream {
        let cdn = self.internet.host(host);
        *locked(&self.cdn) = cdn.clone();
        cdn
    }
}

impl Personality for DockerHub {
    const PREFIX: &'static str = "docker-hub";
    const HOST: &'static str = "registry-1.docker.io";
    const REPO: &'static str = "library/alpine";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let auth = internet.host("auth.docker.io");
        let cdn = internet.host("production.cloudfront.docker.com");
        let bearer = Bearer::new()
            .service("registry.docker.io")
            .token_keys(&["token", "access_token"])
            .user("ci", PASSWORD);
        registry.require_bearer_of(bearer, &auth);
        auth.habit_at_the_door(tokens(), |asked| {
            let right = asked.parameter("service").as_deref() == Some("registry.docker.io");
            (!right).then(|| reply(400).body("{\"details\":\"invalid_token\"}"))
        });
        let hub = Self {
            registry,
            auth,
            cdn: Arc::new(Mutex::new(cdn)),
            pulls: Arc::new(Mutex::new(Pulls {
                allowed: [Some(100), Some(200)],
                left: HashMap::new(),
                counted: 0,
                retry_after: None,
            })),
            abuse: Arc::default(),
            internet: internet.clone(),
        };
        for host in [&hub.registry, &hub.auth] {
            let abuse = hub.abuse.clone();
            host.habit_at_the_door(any(), move |_| {
                Some(match (*locked(&abuse))? {
                    Abuse::Text => reply(429)
                        .header("content-type", "text/plain")
                        .body("Too Many Requests (HAP429)\n"),
                    Abuse::Page => html()
                        .status(429)
                        .body("<html><body><h1>429 Too Many Requests</h1></body></html>"),
                })
            });
        }
        let (pulls, registry) = (hub.pulls.clone(), hub.registry.clone());
        hub.registry.habit(manifests(), move |asked| {
            let account = registry.account_of(asked);
            let plan = locked(&pulls).judge(asked, account.as_deref());
            // Whoever does not say what he takes is taken for a client of 2015.
            let says = asked.header("accept").contains("manifest");
            let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
            Some(if says {
                plan
            } else {
                plan.header("content-type", old)
            })
        });
        let cdn = hub.cdn.clone();
        hub.registry
            .habit(blobs(), move |_| Some(via_cdn(&locked(&cdn), 307, 1)));
        hub
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![locked(&self.cdn).clone()]
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let bare = reply(429)
            .header("content-type", "text/plain")
            .body("Too Many Requests\n");
        vec![
            ("the pull limit", manifests().get(), too_many(None)),
            ("the abuse limit", any(), bare.before_auth()),
            (
                "the abuse limit as a page",
                any(),
                html().status(429).before_auth(),
            ),
        ]
    }
}
