//! nvcr.io: a user whose name is a word with a dollar, error pages of its web server, and for a token that has ended a
//! challenge to another house, which has nothing for those without a login.

use super::{Internet, PASSWORD, Personality, redirect_blobs};
use crate::support::upstream::{Bearer, Style, Upstream, reply, tokens};

/// nvcr.io with its storage, and the token service that leads nowhere.
pub struct Nvidia {
    pub registry: Upstream,
    pub layers: Upstream,
    pub elsewhere: Upstream,
}

impl Nvidia {
    /// What is here for users alone.
    pub const PRIVATE: &'static str = "nvidia/secret";
    /// The user, to the letter.
    pub const USER: &'static str = "$oauthtoken";
}

impl Personality for Nvidia {
    const PREFIX: &'static str = "nvidia";
    const HOST: &'static str = "nvcr.io";
    const REPO: &'static str = "nvidia/cuda";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let layers = internet.host("layers.nvcr.io");
        let elsewhere = internet.host("authn.nvidia.com");
        registry.require_bearer(
            Bearer::new()
                .service("registry")
                .at("/proxy_auth")
                .challenges(&["Bearer realm=\"{realm}\",scope=\"{scope},push\""])
                .when_ended(&[
                    "Bearer realm=\"http://authn.nvidia.com/token\",service=\"registry\",scope=\"{scope}\"",
                ])
                .user(Self::USER, PASSWORD)
                .private(Self::PRIVATE),
        );
        registry.speak(Style::Html);
        elsewhere.habit_at_the_door(tokens(), |asked| {
            let anonymous = asked.header("authorization").is_empty();
            anonymous.then(|| reply(401).body("{\"error\":\"invalid_client\"}"))
        });
        redirect_blobs(&registry, &layers, 307);
        Self {
            registry,
            layers,
            elsewhere,
        }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        vec![self.layers.clone()]
    }
}
