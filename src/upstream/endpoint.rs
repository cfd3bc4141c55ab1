//! One URL of an upstream, the registry's own or a mirror's, with connections and tokens of its own. What it is asked is
//! in `client`, `content` and `lists`; which of several is asked, in `endpoints`.

use std::sync::Arc;

use url::Url;

use super::authorization::Authorizer;
use super::endpoints::Standing;
use super::error::Error;
use super::observer::Observer;
use super::token::Tokens;
use super::transport::{Transport, Tuning};
use crate::config::UpstreamConfig;

/// A registry that is asked. Shared by the bodies that it sends.
pub(super) struct Endpoint {
    pub(super) url: Url,
    /// Not the registry itself.
    pub(super) is_mirror: bool,
    pub(super) transport: Arc<Transport>,
    pub(super) authorizer: Authorizer,
    pub(super) standing: Arc<Standing>,
}

impl Endpoint {
    /// Makes the clients; connects to nothing yet.
    ///
    /// # Errors
    /// `Setup`, when the configured certificates, proxy or credentials cannot be used.
    pub(super) fn new(
        config: &UpstreamConfig,
        is_mirror: bool,
        observer: Arc<dyn Observer>,
        tuning: &Tuning,
    ) -> Result<Arc<Self>, Error> {
        let transport = Arc::new(Transport::new(config, observer, tuning)?);
        let tokens = Arc::new(Tokens::new(config, transport.clone())?);
        let url = config.url.clone();
        let authorizer = Authorizer::new(url.clone(), transport.clone(), tokens);
        Ok(Arc::new(Self {
            url,
            is_mirror,
            transport,
            authorizer,
            standing: Arc::default(),
        }))
    }

    /// The prefix of the upstream that it belongs to.
    pub(super) fn prefix(&self) -> &str {
        self.transport.prefix()
    }
}
