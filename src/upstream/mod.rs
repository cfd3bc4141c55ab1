//! The client of other registries: asks them for manifests, blobs, tags and referrers, and keeps nothing on disk.
//!
//! Everything that differs between registries (challenges, tokens, redirects, signed URLs, odd statuses) ends in this
//! room: the cache above sees content or an [`Error`] whose kind says what to do.

mod authorization;
mod bandwidth;
mod body;
mod breaker;
mod budget;
mod caller;
mod check;
mod client;
mod content;
mod credentials;
mod endpoint;
mod endpoints;
mod errand;
mod error;
mod floor;
mod governor;
mod guard;
mod latency;
mod ledger;
mod lists;
mod logins;
mod manners;
mod observer;
mod offline;
mod realm;
mod reply;
mod retry;
mod slowdown;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod turns;
mod walk;

use std::sync::Arc;

pub use body::BlobBody;
pub use breaker::BreakerState;
pub use caller::CallerLogin;
pub use content::{FetchedManifest, ManifestHead};
pub use endpoint::EndpointState;
pub use errand::{Access, Errand, Purpose, SharedPurpose};
pub use error::{Error, ErrorKind, Failure, Limit};
pub use governor::{BudgetReport, Stretch};
pub use ledger::{BudgetStore, Ledger, Pulls};
pub use lists::TagsPage;
pub use logins::LoginState;
pub use manners::Source;
pub use observer::{Observer, RequestKind, StatusLabel, WaitedFor};
pub use offline::Offline;
pub use slowdown::Slowed;

use endpoint::Endpoint;
use manners::Manners;
use transport::Tuning;

use crate::config::UpstreamConfig;

/// One configured upstream: the registry and its mirrors. Cheap to share; all requests to it share connections and
/// tokens.
pub struct Upstream {
    config: UpstreamConfig,
    /// The registry itself.
    own: Arc<Endpoint>,
    /// Where its content is asked for too, in this order.
    mirrors: Vec<Arc<Endpoint>>,
    manners: Manners,
    /// Pulls that this cache saved its clients.
    saved: ledger::Saved,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Upstream").field(&self.config).finish()
    }
}

impl Upstream {
    /// Makes the clients; connects to nothing yet.
    ///
    /// # Errors
    /// `Setup`, when the configured certificates, proxy or credentials cannot be used. A validated configuration
    /// does not get there.
    pub fn new(config: UpstreamConfig, observer: Arc<dyn Observer>) -> Result<Arc<Self>, Error> {
        Self::switched(config, observer, &Offline::default())
    }

    /// The same, with a switch that keeps it from connecting.
    ///
    /// # Errors
    /// As [`Upstream::new`].
    pub fn switched(
        config: UpstreamConfig,
        observer: Arc<dyn Observer>,
        offline: &Offline,
    ) -> Result<Arc<Self>, Error> {
        let tuning = Tuning {
            offline: offline.clone(),
            ..Tuning::default()
        };
        Self::tuned(config, observer, &tuning)
    }

    fn tuned(
        config: UpstreamConfig,
        observer: Arc<dyn Observer>,
        tuning: &Tuning,
    ) -> Result<Arc<Self>, Error> {
        let manners = Manners::new(&config, &observer);
        let mirrors = Endpoint::mirrors(&config, &manners, &observer, tuning)?;
        let own = Arc::new(Endpoint::registry(&config, &manners, observer, tuning)?);
        Ok(Arc::new(Self {
            config,
            own,
            mirrors,
            manners,
            saved: ledger::Saved::default(),
        }))
    }

    /// The switch that keeps it from connecting.
    pub fn offline(&self) -> &Offline {
        self.own.transport.offline()
    }

    /// The prefix by which it is addressed.
    pub fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// How its endpoints stand, the registry first.
    pub fn endpoint_states(&self) -> Vec<EndpointState> {
        let all = std::iter::once(&self.own).chain(&self.mirrors);
        all.map(|endpoint| endpoint.state()).collect()
    }

    /// How its logins stand, in the order in which they are configured, those of the registry first.
    pub fn login_states(&self) -> Vec<LoginState> {
        let all = std::iter::once(&self.own).chain(&self.mirrors);
        all.flat_map(|endpoint| endpoint.logins.all())
            .map(|login| login.state())
            .collect()
    }

    /// Its configuration.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }
}
