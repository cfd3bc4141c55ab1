//! The client of other registries: asks them for manifests, blobs, tags and referrers, and keeps nothing on disk.
//!
//! Everything that differs between registries (challenges, tokens, redirects, signed URLs, odd statuses) ends in this
//! room: the cache above sees content or an [`Error`] whose kind says what to do.

mod authorization;
mod body;
mod client;
mod content;
mod error;
mod guard;
mod lists;
mod mirrors;
mod observer;
mod realm;
mod reply;
mod retry;
#[cfg(test)]
mod tests;
mod token;
mod transport;

use std::sync::Arc;

pub use body::BlobBody;
pub use content::{FetchedManifest, ManifestHead};
pub use error::{Error, ErrorKind, Failure};
pub use lists::TagsPage;
pub use observer::{Observer, RequestKind, StatusLabel};

use authorization::Authorizer;
use mirrors::Standing;
use token::Tokens;
use transport::{Transport, Tuning};

use crate::config::UpstreamConfig;

/// As whom an upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// With our credentials, where there are any.
    Configured,
    /// Never with our credentials: what this finds is public.
    Anonymous,
}

/// One configured upstream. Cheap to share; all requests to it share connections and tokens.
pub struct Upstream {
    config: UpstreamConfig,
    transport: Arc<Transport>,
    authorizer: Authorizer,
    mirrors: Vec<Arc<Self>>,
    is_mirror: bool,
    standing: Arc<Standing>,
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
        Self::tuned(config, observer, &Tuning::default())
    }

    /// The registry with its mirrors, each an endpoint with connections and tokens of its own.
    fn tuned(
        config: UpstreamConfig,
        observer: Arc<dyn Observer>,
        tuning: &Tuning,
    ) -> Result<Arc<Self>, Error> {
        let mirrors = config.mirrors.iter().map(|url| {
            // Our login is for the registry.
            let config = UpstreamConfig {
                url: url.clone(),
                mirrors: Vec::new(),
                credentials: None,
                realms: Vec::new(),
                ..config.clone()
            };
            Self::one(config, observer.clone(), tuning, Vec::new(), true)
        });
        let mirrors = mirrors.collect::<Result<_, _>>()?;
        Self::one(config, observer, tuning, mirrors, false)
    }

    fn one(
        config: UpstreamConfig,
        observer: Arc<dyn Observer>,
        tuning: &Tuning,
        mirrors: Vec<Arc<Self>>,
        is_mirror: bool,
    ) -> Result<Arc<Self>, Error> {
        let transport = Arc::new(Transport::new(&config, observer, tuning)?);
        let tokens = Arc::new(Tokens::new(&config, transport.clone())?);
        let authorizer = Authorizer::new(config.url.clone(), transport.clone(), tokens);
        Ok(Arc::new(Self {
            config,
            transport,
            authorizer,
            mirrors,
            is_mirror,
            standing: Arc::default(),
        }))
    }

    /// The prefix by which it is addressed.
    pub fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// Its configuration.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }
}
