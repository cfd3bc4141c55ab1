//! cgr.dev: a refusal at its token service is about the caller, one at the registry about the image.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::{Internet, PASSWORD, Personality, redirect_blobs};
use crate::support::locked;
use crate::support::upstream::{Bearer, Upstream, any, reply, tokens};

/// cgr.dev and its storage.
pub struct Chainguard {
    pub registry: Upstream,
    pub storage: Upstream,
    /// The token service refuses everybody.
    refusing: Arc<Mutex<bool>>,
    /// Repositories that the registry refuses with any token.
    closed: Arc<Mutex<HashSet<String>>>,
}

impl Chainguard {
    /// 403 at the token service from now on, or no more.
    pub fn refuse_tokens(&self, refusing: bool) {
        *locked(&self.refusing) = refusing;
    }

    /// 403 at the registry for this repository: it is not of the free ones any more.
    pub fn close(&self, repo: &str) {
        locked(&self.closed).insert(repo.to_owned());
    }
}

impl Personality for Chainguard {
    const PREFIX: &'static str = "chainguard";
    const HOST: &'static str = "cgr.dev";
    const REPO: &'static str = "chainguard/static";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let storage = internet.host("9236a389bd48b984df91adc1bc924620.r2.cloudflarestorage.com");
        registry.require_bearer(Bearer::new().service("cgr.dev").user("ci", PASSWORD));
        let refusing = Arc::new(Mutex::new(false));
        let flag = refusing.clone();
        registry.habit_at_the_door(tokens(), move |_| {
            let body =
                "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"identity is not allowed to access this\"}]}";
            locked(&flag).then(|| reply(403).body(body).header("content-type", "application/json"))
        });
        let closed: Arc<Mutex<HashSet<String>>> = Arc::default();
        let names = closed.clone();
        registry.habit(any(), move |asked| {
            let shut = locked(&names)
                .iter()
                .any(|name| asked.path.starts_with(&format!("/v2/{name}/")));
            shut.then(|| reply(403))
        });
        redirect_blobs(&registry, &storage, 307);
        Self {
            registry,
            storage,
            refusing,
            closed,
        }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.storage.clone()]
    }
}
