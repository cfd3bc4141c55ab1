//! GHCR: its token service says no to what is private or not there, its referrers API leads to a web page, and its limit
//! tells the pause in the message, in microseconds.

use super::{
    Internet, PASSWORD, Personality, everything, redirect_blobs, refuse_several_ranges, repositories_of,
};
use crate::support::upstream::{Bearer, Match, Plan, Upstream, any, redirect, referrers, reply, tokens};

/// ghcr.io with its CDN and the place that referrers are sent to.
pub struct GitHub {
    pub registry: Upstream,
    pub cdn: Upstream,
    /// github.com, which knows no referrers.
    pub pages: Upstream,
}

/// What the token service says of packages that are not for the caller.
const DENIED: &str =
    "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"requested access to the resource is denied\"}]}";

/// The limit of one package.
const LIMIT: &str = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"retry-after: 35.852µs, allowed: 44000/minute\"}]}";

impl GitHub {
    /// What is here for users alone.
    pub const PRIVATE: &'static str = "acme/secret";
}

impl Personality for GitHub {
    const PREFIX: &'static str = "github";
    const HOST: &'static str = "ghcr.io";
    const REPO: &'static str = "homebrew/core/hello";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let cdn = internet.host("pkg-containers.githubusercontent.com");
        let pages = internet.host("github.com");
        registry.require_bearer(
            Bearer::new()
                .service("ghcr.io")
                .private(Self::PRIVATE)
                .user("ci", PASSWORD),
        );
        let own = registry.clone();
        registry.habit_at_the_door(tokens(), move |asked| {
            let anonymous = asked.header("authorization").is_empty();
            let open = |repo: &String| own.has_repo(repo) && !(anonymous && repo == Self::PRIVATE);
            let denied = repositories_of(asked).iter().any(|repo| !open(repo));
            denied.then(|| {
                // It was seen with both.
                let status = if anonymous { 401 } else { 403 };
                reply(status)
                    .body(DENIED)
                    .header("content-type", "application/json")
            })
        });
        registry.habit(referrers(), |asked| {
            // The page knows the first characters of the digest alone.
            let (repo, digest) = asked.path.trim_start_matches("/v2/").split_once("/referrers/")?;
            let short = digest.get(..19).unwrap_or(digest);
            let place = format!("http://github.com/-/v2/packages/container/{repo}/referrers/{short}");
            Some(redirect(303, &place))
        });
        pages.habit(any(), |_| {
            Some(
                reply(429)
                    .body("Whoa there!\n")
                    .header("content-type", "text/plain"),
            )
        });
        redirect_blobs(&registry, &cdn, 307);
        refuse_several_ranges(&cdn, 501, "Unsupported client range");
        Self { registry, cdn, pages }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.cdn.clone()]
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let plan = reply(429).body(LIMIT).header("content-type", "application/json");
        vec![("a pause in microseconds", everything(), plan)]
    }
}
