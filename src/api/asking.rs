//! A request while it is answered: what every handler is given. Made by `api` once the request is parsed.

use std::time::Duration;

use http::{HeaderMap, Method, Uri, Version};

use super::exchange::Exchange;
use super::rescue::Failure;
use super::route::{Route, Target};
use super::{Entrance, Shared};
use crate::auth::Caller;
use crate::registry::{Asked, CacheStatus, Intent, Located, Lost};
use crate::server::{Connection, RequestBody};

/// A request while it is answered.
pub(super) struct Asking<'a> {
    pub(super) shared: &'a Shared,
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    /// What the request carries, for those few that read it.
    pub(super) body: Option<RequestBody>,
    pub(super) entrance: Entrance,
    pub(super) connection: &'a Connection,
    /// Who asks; nobody before that is proved.
    pub(super) caller: Caller,
    pub(super) exchange: &'a mut Exchange,
    /// What it means.
    pub(super) route: &'a Route<'a>,
    /// How long ago a token that is shown may have ended.
    pub(super) spared: Duration,
}

impl Asking<'_> {
    /// The repository that `target` means, noted for log, metrics and headers.
    pub(super) async fn locate(&mut self, target: &Target<'_>, intent: Intent) -> Result<Located, Failure> {
        let asked = Asked {
            door: target.door,
            host: target.host.as_deref(),
            ns: target.ns.as_deref(),
            name: &target.name,
        };
        let located = self.shared.registry.locate(&asked, intent).await;
        let located = located.map_err(|lost| match lost {
            Lost::PullThrough(error) => Failure::Registry(error),
            Lost::Hosted(error) => Failure::Hosted(error),
        })?;
        match &located {
            Located::PullThrough(repository) => {
                self.exchange.upstream = Some(self.shared.metrics.upstream(repository.upstream()));
                self.exchange.repository = Some(repository.clone());
            }
            Located::Hosted(repository) => self.exchange.hosted = Some(repository.key.clone()),
            Located::Absent(_) => {}
        }
        Ok(located)
    }

    /// Notes what the cache did.
    pub(super) fn note(&mut self, status: CacheStatus) {
        self.exchange.status = Some(status);
    }
}
