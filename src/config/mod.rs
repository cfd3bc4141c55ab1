//! The configuration: one TOML file, the environment laid over it, and defaults for the rest. Plain, validated
//! data: a [`Config`] that loaded is a valid one, and one that did not says everything that is wrong with it.
//! Called by `cli` (`serve`, `check-config`); every other room takes the parts that it needs.

mod auth;
mod bandwidth;
mod credentials;
mod fault;
mod freshness;
mod glob;
mod hosted;
mod images;
mod keys;
mod lists;
mod mirror;
mod oidc;
mod reader;
mod sections;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;
mod value;
mod warm;

use std::path::{Path, PathBuf};

pub use auth::AuthConfig;
pub use bandwidth::{BandwidthConfig, BandwidthWindow};
pub use credentials::{
    Credential, CredentialKind, CredentialOrder, Credentials, DockerLogin, EcrConfig, Secret, Written,
};
pub use fault::{ConfigFaults, Fault};
pub use freshness::{Freshness, TagRule};
pub use glob::Glob;
pub use hosted::{HostedConfig, LifecycleFile, RepositoryTemplate};
pub use images::ImagePattern;
pub use keys::known_keys;
pub use lists::PullLists;
pub use mirror::{Mirror, Rewrite};
pub use oidc::OidcConfig;
pub use sections::{CacheConfig, LogConfig, LogFormat, ServerConfig, StorageConfig};
pub use tls::{ClientAuth, TlsConfig, TlsFault, TlsMaterial};
pub use upstream::{FinishFill, UpstreamConfig};
pub use value::HumanDuration;
pub use warm::{Schedule, WarmList, When};

use sections::CacheDraft;
use source::{Origin, Sources, VARIABLE_PREFIX};

/// The environment variable with the path of the file, when the command line names none.
const PATH_VARIABLE: &str = "WHARFINGER_CONFIG";

/// The whole configuration, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listeners and limits.
    pub server: ServerConfig,
    /// The data folder.
    pub storage: StorageConfig,
    /// The root mirror.
    pub cache: CacheConfig,
    /// The upstreams that are enabled, sorted by prefix. No two share a host.
    pub upstreams: Vec<UpstreamConfig>,
    /// The lists of images that are kept warm, in their order.
    pub warm: Vec<WarmList>,
    /// Repositories of our own.
    pub hosted: HostedConfig,
    /// Logins and rights.
    pub auth: AuthConfig,
    /// The log.
    pub log: LogConfig,
}

impl Config {
    /// Loads the file at `path`, else the one that `WHARFINGER_CONFIG` names, else none, and lays the variables
    /// `WHARFINGER__SECTION__KEY` over it. Pass [`environment`] for `variables`.
    ///
    /// # Errors
    /// Every fault of the file and of the variables at once. After a syntax error the keys of the file are not
    /// judged: what a broken file means is a guess.
    pub fn load(
        path: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigFaults> {
        let variables: Vec<_> = variables.collect();
        let named = variables
            .iter()
            .find(|(name, value)| name == PATH_VARIABLE && !value.is_empty());
        let path = path
            .map(Path::to_owned)
            .or_else(|| named.map(|(_, value)| PathBuf::from(value)));
        let Some(path) = path else {
            return Self::build(None, Origin::Default, variables);
        };
        let origin = Origin::File(path.as_path().into());
        let whole_file =
            |reason: String| Err(ConfigFaults::new(vec![Fault::new(&origin.label(), "", reason)]));
        match std::fs::read(&path).map(String::from_utf8) {
            Ok(Ok(text)) => Self::build(Some(&text), origin, variables),
            Ok(Err(error)) => whole_file(format!(
                "is not UTF-8 (at byte {})",
                error.utf8_error().valid_up_to()
            )),
            Err(error) => whole_file(format!("cannot be read: {error}")),
        }
    }

    /// The configuration in `text`, without any environment. `origin` is its path: faults name it, and relative
    /// paths start from its folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml_str(text: &str, origin: impl AsRef<Path>) -> Result<Self, ConfigFaults> {
        Self::build(Some(text), Origin::File(origin.as_ref().into()), Vec::new())
    }

    /// The upstream with this prefix, if it is enabled.
    pub fn upstream(&self, prefix: &str) -> Option<&UpstreamConfig> {
        self.upstreams.iter().find(|upstream| upstream.prefix == prefix)
    }

    fn build(
        text: Option<&str>,
        origin: Origin,
        variables: Vec<(String, String)>,
    ) -> Result<Self, ConfigFaults> {
        let mut faults = Vec::new();
        let mut sources = Sources::new(origin);
        let readable = text.is_none_or(|text| sources.read_file(text, &mut faults));
        if !readable {
            return Err(ConfigFaults::new(faults));
        }
        sources.read_environment(variables.into_iter(), &mut faults);
        let server = ServerConfig::read(sources.server, sources.tls, &mut faults);
        let storage = StorageConfig::read(sources.storage, &mut faults);
        let base = Freshness {
            answer_timeout: server.answer_timeout,
            ..Freshness::default()
        };
        let cache = CacheDraft::read(sources.cache, base, &sources.origin, &mut faults);
        let drafts = upstream::read(sources.upstreams, &cache.defaults(), &mut faults);
        let cache = cache.finish(&drafts, &mut faults);
        let warm = warm::read(
            sources.warm,
            &sources.origin,
            &drafts,
            cache.mirror.as_deref(),
            &mut faults,
        );
        let hosted = HostedConfig::read(sources.hosted, &mut faults);
        let auth = AuthConfig::read(sources.auth, &mut faults);
        let log = LogConfig::read(sources.log, &mut faults);
        if !faults.is_empty() {
            return Err(ConfigFaults::new(faults));
        }
        let upstreams = drafts
            .into_iter()
            .filter(|draft| draft.enabled)
            .filter_map(|draft| draft.config)
            .collect();
        Ok(Self {
            server,
            storage,
            cache,
            upstreams,
            warm,
            hosted,
            auth,
            log,
        })
    }
}

/// The process's variables that concern us. Unlike `std::env::vars` it does not panic on others that are not UTF-8.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX) || name == PATH_VARIABLE)
}
