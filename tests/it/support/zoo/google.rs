//! Google's registries: a refusal says nothing about how to authorize, only `/v2/` does; tokens by GET alone; storage that
//! knows no several ranges. And its mirror of Docker Hub, which has what others happened to pull.

use super::{Internet, PASSWORD, Personality, everything, redirect_blobs, refuse_several_ranges};
use crate::support::upstream::{Bearer, Match, Plan, Upstream, reply, tokens};

/// Artifact Registry, as gcr.io was and is.
pub struct Google {
    pub registry: Upstream,
    pub storage: Upstream,
}

impl Google {
    /// What is here for users alone: 403 for the others.
    pub const FORBIDDEN: &'static str = "acme-secret/images/app";
}

/// Opens a host that behaves so.
pub(super) fn open_registry(
    internet: &Internet,
    host: &str,
    forbidden: Option<&str>,
) -> (Upstream, Upstream) {
    let registry = internet.host(host);
    let storage = internet.host("storage.googleapis.com");
    registry.require_bearer(
        Bearer::new()
            .service(host)
            .at("/v2/token")
            .user("_json_key", PASSWORD)
            .only_on_ping()
            .challenges(&["Bearer realm=\"{realm}\",service=\"{service}\""])
            .show_unknown(),
    );
    registry.habit_at_the_door(tokens(), |asked| {
        let posted = asked.method != "GET";
        posted.then(|| reply(404).body("404 page not found\n"))
    });
    if let Some(repo) = forbidden {
        registry.habit(everything().in_repo(repo), |_| {
            let message = "Permission \\\"artifactregistry.repositories.downloadArtifacts\\\" denied (or it may not exist)";
            let body = format!("{{\"errors\":[{{\"code\":\"DENIED\",\"message\":\"{message}\"}}]}}");
            Some(reply(403).body(body).header("content-type", "application/json"))
        });
    }
    redirect_blobs(&registry, &storage, 302);
    refuse_several_ranges(&storage, 400, "InvalidArgument");
    (registry, storage)
}

impl Personality for Google {
    const PREFIX: &'static str = "google";
    const HOST: &'static str = "europe-west1-docker.pkg.dev";
    const REPO: &'static str = "acme/images/app";

    fn open(internet: &Internet) -> Self {
        let (registry, storage) = open_registry(internet, Self::HOST, Some(Self::FORBIDDEN));
        Self { registry, storage }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.storage.clone()]
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let body = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"Quota exceeded for quota metric 'Requests per project per region'\"}]}";
        let plan = reply(429).body(body).header("content-type", "application/json");
        vec![("a quota", everything(), plan)]
    }
}

/// mirror.gcr.io: 404 for all that is not in Google's cache.
pub struct MirrorGcr {
    pub registry: Upstream,
    pub storage: Upstream,
}

impl Personality for MirrorGcr {
    const PREFIX: &'static str = "mirror-gcr";
    const HOST: &'static str = "mirror.gcr.io";
    const REPO: &'static str = "library/alpine";

    fn open(internet: &Internet) -> Self {
        let (registry, storage) = open_registry(internet, Self::HOST, None);
        Self { registry, storage }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.storage.clone()]
    }
}
