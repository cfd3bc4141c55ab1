//! Amazon's two registries. The public one has one scope for everything and refuses every HEAD of a blob; the private one
//! takes a password that ends after twelve hours, and says so with 403.

use super::{Internet, PASSWORD, Personality, everything, redirect_blobs};
use crate::support::upstream::{Basic, Bearer, Match, Plan, Style, Upstream, blobs, reply, tags};

/// public.ecr.aws.
pub struct EcrPublic {
    pub registry: Upstream,
    pub cdn: Upstream,
}

impl Personality for EcrPublic {
    const PREFIX: &'static str = "ecr-public";
    const HOST: &'static str = "public.ecr.aws";
    const REPO: &'static str = "docker/library/alpine";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let cdn = internet.host("d5l0dvt14r5h8.cloudfront.net");
        registry.require_bearer(
            Bearer::new()
                .service("public.ecr.aws")
                .at("/token/")
                .constant_scope("aws")
                .show_unknown(),
        );
        registry.habit(blobs().head(), |asked| {
            let challenge =
                "Bearer realm=\"http://public.ecr.aws/token/\",service=\"public.ecr.aws\",scope=\"aws\"";
            (asked.method == "HEAD").then(|| reply(401).header("www-authenticate", challenge))
        });
        redirect_blobs(&registry, &cdn, 307);
        Self { registry, cdn }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.cdn.clone()]
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let coded = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"Rate exceeded\"}]}";
        let old = "{\"message\":\"toomanyrequests: Rate exceeded\"}";
        let plan = |body: &'static str| reply(429).body(body).header("content-type", "application/json");
        vec![
            ("rate exceeded", everything(), plan(coded)),
            ("rate exceeded, the old form", everything(), plan(old)),
        ]
    }
}

/// One account's private registry.
pub struct Ecr {
    pub registry: Upstream,
    pub bucket: Upstream,
}

impl Ecr {
    /// The password that it was opened with has ended; this one holds. What it says then is plain text, as it once was.
    pub fn expire(&self, new_password: &str) {
        self.registry.speak(Style::Plain);
        self.registry.expire_basic(new_password);
    }
}

impl Personality for Ecr {
    const PREFIX: &'static str = "ecr";
    const HOST: &'static str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    const REPO: &'static str = "team/app";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let bucket = internet.host("prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com");
        let challenge = format!(
            "Basic realm=\"http://{}/\",service=\"ecr.amazonaws.com\"",
            Self::HOST
        );
        registry.require_basic(Basic::new("AWS", PASSWORD).challenge(&challenge));
        registry.habit(tags(), |asked| {
            let n: usize = asked.parameter("n")?.parse().ok()?;
            let body = "{\"errors\":[{\"code\":\"PAGINATION_NUMBER_INVALID\",\"message\":\"Invalid maxResults: must be at most 1000\"}]}";
            (n > 1000).then(|| reply(400).body(body).header("content-type", "application/json"))
        });
        redirect_blobs(&registry, &bucket, 307);
        Self { registry, bucket }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.bucket.clone()]
    }

    fn guard(&self) -> Option<&Upstream> {
        None
    }

    fn settings() -> Vec<(&'static str, String)> {
        vec![
            ("username", "\"AWS\"".to_owned()),
            ("password", format!("{PASSWORD:?}")),
            ("share_private", "true".to_owned()),
        ]
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let body = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"Rate exceeded\"}]}";
        let plan = reply(429).body(body).header("content-type", "application/json");
        vec![("rate exceeded", everything(), plan)]
    }
}
