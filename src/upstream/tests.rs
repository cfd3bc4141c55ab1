//! Flows against small servers on loopback: the order of requests, who sees which credentials, what an answer becomes.

mod authorization;
mod budget;
mod content;
mod endpoints;
mod governor;
mod lists;
mod logins;
mod manners;
mod pool;
mod redirects;
mod server;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use sha2::Digest as _;

use self::server::Server;
use super::transport::Tuning;
use super::{Access, Errand, Observer, Purpose, Upstream};
use crate::config::{Config, Credential, Credentials, UpstreamConfig};
use crate::oci::{Algorithm, Digest, Reference, RepositoryName};

/// The configuration of an upstream at `url`, with defaults.
pub(super) fn config(url: &str) -> UpstreamConfig {
    let text = format!("[upstream.test]\nurl = \"{url}\"\n");
    let config = Config::from_toml_str(&text, "test.toml").unwrap();
    config.upstream("test").unwrap().clone()
}

fn tuning() -> Tuning {
    Tuning {
        pause: std::time::Duration::ZERO,
        floor_span: super::floor::SPAN,
        open_for: super::breaker::FIRST_SPAN,
        system_proxy: false,
        addresses: Vec::new(),
        look_up: super::guard::system(),
        offline: super::Offline::default(),
    }
}

fn nobody() -> Arc<dyn Observer> {
    Arc::new(())
}

fn upstream_with(config: UpstreamConfig) -> Arc<Upstream> {
    Upstream::tuned(config, nobody(), &tuning()).unwrap()
}

fn observed(config: UpstreamConfig, observer: Arc<dyn Observer>) -> Arc<Upstream> {
    Upstream::tuned(config, observer, &tuning()).unwrap()
}

fn upstream(server: &Server) -> Arc<Upstream> {
    upstream_with(config(&server.url))
}

/// With credentials `user:pass`, `dXNlcjpwYXNz` in Base64.
fn with_login(server: &Server) -> Arc<Upstream> {
    let mut config = config(&server.url);
    config.credentials = vec![login("user", "pass")];
    upstream_with(config)
}

fn login(username: &str, password: &str) -> Credential {
    Credential::password(Credentials::new(username, password))
}

/// A question with our credentials.
fn configured() -> Errand {
    Errand::new(Access::Configured, Purpose::Miss)
}

/// One without.
fn anonymous() -> Errand {
    Errand::new(Access::Anonymous, Purpose::Miss)
}

/// All of a blob.
const WHOLE: (u64, Option<u64>) = (0, None);

const BASIC: &str = "Basic dXNlcjpwYXNz";

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_hash(Algorithm::Sha256, &sha2::Sha256::digest(bytes)).unwrap()
}

/// A manifest's bytes, which nobody here looks into.
const MANIFEST: Bytes = Bytes::from_static(b"{\"schemaVersion\":2}");
