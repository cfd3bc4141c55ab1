//! Quay: its token service is below `/v2/`, robots have a plus in their names, blobs are on one of several CDNs, and lists
//! of tags go by opaque pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Internet, PASSWORD, Personality, everything};
use crate::support::upstream::{
    Bearer, Match, Plan, Upstream, blobs, html, reply, serve, signed, tokens, via_cdn,
};

/// quay.io and its CDNs.
pub struct Quay {
    pub registry: Upstream,
    pub cdns: Vec<Upstream>,
}

impl Quay {
    /// What is here for the robot alone.
    pub const PRIVATE: &'static str = "acme/secret";
    /// The robot's name.
    pub const ROBOT: &'static str = "acme+puller";
}

impl Personality for Quay {
    const PREFIX: &'static str = "quay";
    const HOST: &'static str = "quay.io";
    const REPO: &'static str = "prometheus/node-exporter";

    fn open(internet: &Internet) -> Self {
        let registry = internet.host(Self::HOST);
        let names = ["cdn.quay.io", "cdn01.quay.io", "cdn02.quay.io", "cdn03.quay.io"];
        let cdns = names.map(|name| internet.host(name)).to_vec();
        registry.require_bearer(
            Bearer::new()
                .service("quay.io")
                .at("/v2/auth")
                .user(Self::ROBOT, PASSWORD)
                .private(Self::PRIVATE),
        );
        registry.habit_at_the_door(tokens(), |asked| {
            // Where the account is told too, its plus must survive the form.
            let account = asked.parameter("account");
            let wrong = account.is_some_and(|account| account != Self::ROBOT);
            wrong.then(|| reply(400).body("{\"error\":\"Invalid account\"}"))
        });
        registry.page_tags(2, true);
        // What a CDN takes a blob for is no concern of ours.
        for cdn in &cdns {
            cdn.habit(signed(), |_| {
                Some(serve().header("content-type", "text/html; charset=utf-8"))
            });
        }
        let (turn, places) = (Arc::new(AtomicUsize::new(0)), cdns.clone());
        registry.habit(blobs(), move |_| {
            let turn = turn.fetch_add(1, Ordering::SeqCst);
            Some(via_cdn(&places[turn % places.len()], 302, 1))
        });
        Self { registry, cdns }
    }

    fn registry(&self) -> &Upstream {
        &self.registry
    }

    fn storage(&self) -> Vec<Upstream> {
        self.cdns.clone()
    }

    fn limits() -> Vec<(&'static str, Match, Plan)> {
        let page = html().status(429);
        vec![
            ("a page", everything(), page.clone()),
            ("at the door", everything(), page.before_auth()),
        ]
    }
}
