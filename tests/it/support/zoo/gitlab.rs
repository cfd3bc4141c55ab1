//! GitLab: the token service is on another host of the same domain.

use super::{Internet, PASSWORD, Personality, everything, redirect_blobs};
use crate::support::upstream::{Bearer, Match, Plan, Upstream, reply};

/// registry.gitlab.com and gitlab.com.
pub struct GitLab {
    pub registry: Upstream,
    pub main: Upstream,
    pub cdn: Upstream,
}

impl GitLab {
    /// What is here for users alone.
    pub const PRIVATE: &'static str = "acme/group/secret";
}

impl Personality for GitLab {
    const PREFIX: &'static str = "gitlab";
    const HOST: &'static str = "registry.gitlab.com";
    const REPO: &'static str = "gitlab-org/gitlab-runner/helper";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let main = internet.host("gitlab.com");
        let cdn = internet.host("cdn.registry.gitlab-static.net");
        let bearer = Bearer::new()
            .service("container_registry")
            .at("/jwt/auth")
            .user("ci", PASSWORD)
            .private(Self::PRIVATE);
        registry.require_bearer_of(bearer, &main);
        redirect_blobs(&registry, &cdn, 307);
        Self { registry, main, cdn }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.cdn.clone()]
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let plan = reply(429)
            .body("Retry later\n")
            .header("content-type", "text/plain")
            .header("retry-after", "30");
        vec![("by address or user", everything(), plan.before_auth())]
    }
}
