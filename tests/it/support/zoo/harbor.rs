//! Harbor, on somebody's own premises: a token that has ended is challenged with `Basic`, no token with `Bearer`.

use super::{Internet, PASSWORD, Personality};
use crate::support::upstream::{Bearer, Upstream};

/// One Harbor, which sends its blobs itself.
pub struct Harbor {
    pub registry: Upstream,
}

impl Harbor {
    /// A project that is for users alone.
    pub const PRIVATE: &'static str = "private/app";
}

impl Personality for Harbor {
    const PREFIX: &'static str = "harbor";
    const HOST: &'static str = "harbor.acme.example";
    const REPO: &'static str = "library/app";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        registry.require_bearer(
            Bearer::new()
                .service("harbor-registry")
                .at("/service/token")
                .when_ended(&["Basic realm=\"harbor\""])
                .user("robot$ci", PASSWORD)
                .private(Self::PRIVATE),
        );
        Self { registry }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }
}
