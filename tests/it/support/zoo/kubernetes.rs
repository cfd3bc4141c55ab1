//! registry.k8s.io: holds nothing, sends for manifests and lists to a registry with tokens of its own, and for blobs to a
//! bucket that wants none.

use super::{Internet, Personality, everything, google};
use crate::support::image::Content;
use crate::support::upstream::{Match, Plan, Upstream, any, blobs, path_has, redirect, reply, via_cdn};

/// The redirector, what it redirects to, and the bucket.
pub struct Kubernetes {
    pub redirector: Upstream,
    pub backend: Upstream,
    pub bucket: Upstream,
}

/// Where the images are there.
const FOLDER: &str = "k8s-artifacts-prod/images";

impl Kubernetes {
    const BACKEND: &'static str = "us-west2-docker.pkg.dev";
}

impl Personality for Kubernetes {
    const PREFIX: &'static str = "kubernetes";
    const HOST: &'static str = "registry.k8s.io";
    const REPO: &'static str = "pause";

    fn open(internet: &Internet) -> Self {
        let redirector = internet.host(Self::HOST);
        let (backend, _) = google::open_registry(internet, Self::BACKEND, None);
        // Unlike the rest of that house it says how to authorize wherever it is asked: who was sent here has no `/v2/`.
        let bearer = crate::support::upstream::Bearer::new()
            .service(Self::BACKEND)
            .at("/v2/token")
            .show_unknown();
        backend.require_bearer(bearer);
        let bucket = internet.host("prod-registry-k8s-io-us-west-2.s3.dualstack.us-west-2.amazonaws.com");
        redirector.habit(path_has("_catalog"), |_| Some(reply(404)));
        let (place, holder) = (bucket.clone(), backend.clone());
        redirector.habit(blobs(), move |asked| {
            let (repo, _) = asked.path.trim_start_matches("/v2/").split_once("/blobs/")?;
            // What the bucket lacks is at the backend too.
            holder
                .has_repo(&format!("{FOLDER}/{repo}"))
                .then(|| via_cdn(&place, 307, 1))
        });
        redirector.habit(any(), |asked| {
            let rest = asked.path.strip_prefix("/v2/")?;
            let rest = if rest.is_empty() {
                String::new()
            } else {
                format!("{FOLDER}/{rest}")
            };
            let query = if asked.query.is_empty() {
                String::new()
            } else {
                format!("?{}", asked.query)
            };
            Some(redirect(
                307,
                &format!("http://{}/v2/{rest}{query}", Self::BACKEND),
            ))
        });
        Self {
            redirector,
            backend,
            bucket,
        }
    }

    fn registry(&self) -> &Upstream {
        &self.redirector
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.bucket.clone()]
    }

    fn guard(&self) -> Option<&Upstream> {
        Some(&self.backend)
    }

    fn put(&self, repo: &str, tag: &str, content: &impl Content) {
        self.backend.put(&format!("{FOLDER}/{repo}"), tag, content);
        // It signs what it has itself: the bucket's content by the redirector's hand.
        self.redirector.put(repo, tag, content);
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let body = "Rate limit exceeded\n";
        let plan = reply(429)
            .body(body)
            .header("content-type", "text/plain")
            .header("retry-after", "60");
        vec![("per address", everything(), plan)]
    }
}
