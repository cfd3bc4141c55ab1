//! Puts `[auth]` to work: who can log in, what they may, and the keys of tokens. Called once by `app`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::issuers;
use crate::api::Access;
use crate::auth::action::Word;
use crate::auth::identity::Account;
use crate::auth::password::Htpasswd;
use crate::auth::policy::{Document, Usage};
use crate::auth::preset::Presets;
use crate::auth::token::{KeySource, Keys, Tokens};
use crate::auth::{Authenticator, RequestRate, Rights, Spans};
use crate::cache::Cache;
use crate::clock::Timestamp;
use crate::config::{AuthConfig, Config};
use crate::identities::{Identities, MasterKey};
use crate::server::hangup;

/// The note that keeps the keys of tokens.
const KEYS: &str = "token-keys";
/// The master key's name in the data folder.
const MASTER_KEY: &str = "master.key";
/// How long a key signs before another one does.
const KEY_SIGNS: Duration = Duration::from_hours(30 * 24);
/// How often that is looked at.
const BETWEEN_TURNS: Duration = Duration::from_hours(1);

/// What has to be looked after while the daemon runs.
pub struct Upkeep {
    keys: Arc<Keys>,
    htpasswd: Option<Arc<Htpasswd>>,
    longest: Duration,
}

/// Keeps keys in the data folder.
struct KeyNote(Cache);

impl KeySource for KeyNote {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.storage().notes().load(KEYS)
    }

    fn save(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.storage().notes().save(KEYS, bytes)
    }
}

/// What a challenge and a token call us.
pub(super) fn service(config: &Config) -> String {
    let host = config.server.public_url.as_ref().and_then(|url| url.host_str());
    host.unwrap_or("wharfinger").to_owned()
}

/// Whether policies and presets can be understood: what `check-config` asks beside the configuration itself.
pub(super) fn check(config: &AuthConfig) -> anyhow::Result<()> {
    rights(config)?;
    issuers::open(&config.oidc)?;
    htpasswd(config).map(drop)
}

/// Opens everything. Blocking. `secured`: clients reach us by TLS.
///
/// # Errors
/// What is wrong with the configuration, or with what is kept.
pub fn open(config: &Config, secured: bool, cache: &Cache) -> anyhow::Result<(Access, Upkeep)> {
    let auth = &config.auth;
    let account: Account = auth.account.parse().context("auth.account")?;
    let master = match &auth.master_key_file {
        Some(path) => path.clone(),
        None => config.storage.data_dir.join(MASTER_KEY),
    };
    let identities = Identities::open(
        cache.storage().index.clone(),
        account.clone(),
        MasterKey::at(master),
    )
    .context("cannot read who can log in")?;
    let keys = Keys::open(Arc::new(KeyNote(cache.clone())), Timestamp::now());
    let keys = Arc::new(keys.context("cannot keep the keys of tokens")?);
    let htpasswd = htpasswd(auth)?.map(Arc::new);
    let authenticator = Authenticator::new(
        Arc::new(identities.clone()),
        htpasswd.clone(),
        issuers::open(&auth.oidc)?,
        Tokens::new(keys.clone(), &service(config)),
        account,
        Spans {
            access: auth.token_ttl,
            refresh: auth.refresh_ttl,
        },
    )
    .context("cannot check passwords")?;
    let upstreams = config.upstreams.iter().filter(|upstream| upstream.caller_check);
    let authenticator = authenticator
        .taking_logins_of(upstreams.map(|upstream| upstream.prefix.clone()))
        .context("cannot know logins again")?;
    let access = Access {
        rights: rights(auth)?,
        authenticator,
        identities,
        rate: RequestRate::new(auth.max_requests_per_second, Instant::now()),
    };
    guard(config, secured, &access)?;
    let upkeep = Upkeep {
        keys,
        htpasswd,
        longest: auth.refresh_ttl.max(auth.token_ttl),
    };
    Ok((access, upkeep))
}

fn rights(config: &AuthConfig) -> anyhow::Result<Rights> {
    let account: Account = config.account.parse().context("auth.account")?;
    let words = config.anonymous.iter().map(|word| word.parse::<Word>());
    let presets = Presets {
        anonymous: words.collect::<Result<_, _>>().context("auth.anonymous")?,
        readers: config.readers.clone(),
        writers: config.writers.clone(),
        admins: config.admins.clone(),
        open_networks: config.open_networks.clone(),
    };
    let registry = match &config.policy_file {
        None => None,
        Some(path) => {
            let shown = path.display();
            let text = fs::read_to_string(path).with_context(|| format!("auth.policy_file: {shown}"))?;
            let parsed = Document::parse_for(&text, Usage::Registry);
            let document = parsed.map_err(|faults| anyhow::anyhow!("auth.policy_file: {shown}: {faults}"))?;
            for action in document.unknown_actions() {
                tracing::warn!(file = %shown, action, "the registry's policy speaks of an action that there is not");
            }
            Some(document)
        }
    };
    let rights = Rights::new(account, &config.region, presets, registry);
    rights.map_err(|faults| anyhow::anyhow!("auth: {faults}"))
}

fn htpasswd(config: &AuthConfig) -> anyhow::Result<Option<Htpasswd>> {
    let Some(path) = &config.htpasswd_file else {
        return Ok(None);
    };
    let file = Htpasswd::open(path).with_context(|| format!("auth.htpasswd_file: {}", path.display()))?;
    for fault in file.faults() {
        tracing::warn!(file = %path.display(), %fault, "a line of the htpasswd file does not count");
    }
    Ok(Some(file))
}

/// Why there must be no logins: anybody on the way could read them. `secured`: there is a certificate, whoever made it.
pub(super) fn no_logins(config: &Config, secured: bool) -> Option<String> {
    let server = &config.server;
    let exposed = !server.listen.ip().is_loopback()
        && !secured
        && server.trusted_proxies.is_empty()
        && !server.allow_plain_http;
    exposed.then(|| {
        format!(
            "server.listen = \"{}\" speaks plain HTTP, where anybody on the way can read logins: configure [server.tls], or \
             name the proxies that do it in server.trusted_proxies, or set server.allow_plain_http = true where the network \
             is trusted",
            server.listen
        )
    })
}

/// Whether the main door asks clients in general for a login.
pub(super) fn challenges(access: &Access) -> bool {
    access.authenticator.takes_logins() || !access.rights.admit_anonymous(None)
}

/// Logins that anybody on the way could read are refused one by one; where all would be, a start says so.
fn guard(config: &Config, secured: bool, access: &Access) -> anyhow::Result<()> {
    let authenticator = &access.authenticator;
    if !authenticator.takes_logins() {
        return Ok(());
    }
    if let Some(reason) = no_logins(config, secured) {
        let whose = if authenticator.has_logins() {
            "there are logins"
        } else {
            "clients show logins of an upstream with caller_check"
        };
        bail!("{whose}, and {reason}");
    }
    let folder = &config.storage.data_dir;
    let open = fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o077 != 0);
    if open {
        tracing::warn!(
            folder = %folder.display(),
            "other users of this machine can read the data folder, which holds hashes of passwords and the keys of tokens: chmod 700"
        );
    }
    Ok(())
}

impl Upkeep {
    /// Reads the htpasswd file when it changed, at once at SIGHUP, and has keys turn, until `stopping`.
    pub(super) async fn keep(self, stopping: CancellationToken) {
        // Taken also where there is nothing to read: it would end the process.
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut until_turn = Duration::ZERO;
        loop {
            let pause = match self.htpasswd {
                Some(_) => Htpasswd::BETWEEN_LOOKS,
                None => BETWEEN_TURNS,
            };
            let (keys, htpasswd, longest) = (self.keys.clone(), self.htpasswd.clone(), self.longest);
            let turn = until_turn.is_zero();
            let looked = tokio::task::spawn_blocking(move || {
                if let Some(file) = htpasswd {
                    file.refresh();
                }
                if turn && let Err(error) = keys.turn(KEY_SIGNS, longest, Timestamp::now()) {
                    tracing::error!(%error, "the keys of tokens cannot be turned: the old ones go on");
                }
            });
            let _ = looked.await;
            let until = if turn { BETWEEN_TURNS } else { until_turn };
            until_turn = until.saturating_sub(pause);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = hangup(hangups.as_mut()) => {}
            }
        }
    }
}
