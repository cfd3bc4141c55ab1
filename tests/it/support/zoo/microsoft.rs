//! Microsoft's registries: the public one asks for nothing and sends to the storage of a region; a private one takes a
//! token for its user of nought.

use super::{Internet, PASSWORD, Personality, everything, redirect_blobs};
use crate::support::upstream::{Bearer, Match, Plan, Upstream, reply, tokens};

/// mcr.microsoft.com.
pub struct Mcr {
    pub registry: Upstream,
    pub region: Upstream,
}

impl Personality for Mcr {
    const PREFIX: &'static str = "mcr";
    const HOST: &'static str = "mcr.microsoft.com";
    const REPO: &'static str = "dotnet/runtime";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let region = internet.host("westeurope.data.mcr.microsoft.com");
        redirect_blobs(&registry, &region, 307);
        Self { registry, region }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.region.clone()]
    }

    fn guard(&self) -> Option<&Upstream> {
        None
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let plan = reply(429).body("").header("retry-after", "5");
        vec![("with nothing but a time", everything(), plan)]
    }
}

/// A private registry on azurecr.io.
pub struct Acr {
    pub registry: Upstream,
    pub storage: Upstream,
}

impl Acr {
    const USER: &'static str = "00000000-0000-0000-0000-000000000000";
}

impl Personality for Acr {
    const PREFIX: &'static str = "azure";
    const HOST: &'static str = "acme.azurecr.io";
    const REPO: &'static str = "team/app";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let storage = internet.host("eusmanaged123.blob.core.windows.net");
        registry.require_bearer(
            Bearer::new()
                .service(Self::HOST)
                .at("/oauth2/token")
                .no_anonymous()
                .user(Self::USER, PASSWORD)
                .token_keys(&["access_token"])
                .expires_in(None)
                .show_unknown(),
        );
        registry.habit_at_the_door(tokens(), |asked| {
            let posted = asked.method != "GET";
            posted.then(|| {
                reply(400).body("{\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"grant_type\"}]}")
            })
        });
        redirect_blobs(&registry, &storage, 307);
        Self { registry, storage }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.storage.clone()]
    }

    fn settings() -> Vec<(&'static str, String)> {
        vec![
            ("username", format!("{:?}", Self::USER)),
            ("password", format!("{PASSWORD:?}")),
            ("share_private", "true".to_owned()),
        ]
    }
}
