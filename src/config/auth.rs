//! `[auth]`: who may do what without a policy, and where logins and policies come from. What is made of it is in `auth`.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::fault::Fault;
use super::keys;
use super::oidc::{self, OidcConfig};
use super::reader::Reader;
use super::source::{Entry, Section};
use super::value;

/// What can be granted by a word.
const WORDS: [&str; 5] = ["pull", "push", "delete", "list", "admin"];

/// Logins and rights.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// What everyone may do: `pull`, `push`, `delete`, `list`, `admin`.
    pub anonymous: Vec<Box<str>>,
    /// Who may pull and list, by name, or `*` for everyone with a login.
    pub readers: Vec<String>,
    /// Who may push beside that, likewise.
    pub writers: Vec<String>,
    /// Who may do everything, by name.
    pub admins: Vec<String>,
    /// Addresses that may pull without a login, and are not asked for one.
    pub open_networks: Vec<IpNet>,
    /// The number of the account, twelve digits.
    pub account: Box<str>,
    /// The region in the names of repositories, as policies write them.
    pub region: Box<str>,
    /// Users and their passwords, as `htpasswd -B` writes them.
    pub htpasswd_file: Option<PathBuf>,
    /// The registry's policy.
    pub policy_file: Option<PathBuf>,
    /// The key that the secrets of access keys are encrypted with.
    pub master_key_file: Option<PathBuf>,
    /// How long a token is good for.
    pub token_ttl: Duration,
    /// How long another one is made of a refresh token.
    pub refresh_ttl: Duration,
    /// Issuers whose tokens prove workloads.
    pub oidc: Vec<OidcConfig>,
    /// Requests of one identity in a second, on average; zero is any number.
    pub max_requests_per_second: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            anonymous: vec!["pull".into()],
            readers: Vec::new(),
            writers: Vec::new(),
            admins: Vec::new(),
            open_networks: Vec::new(),
            account: "000000000000".into(),
            region: "us-east-1".into(),
            htpasswd_file: None,
            policy_file: None,
            master_key_file: None,
            token_ttl: Duration::from_mins(5),
            refresh_ttl: Duration::from_hours(90 * 24),
            oidc: Vec::new(),
            max_requests_per_second: 0,
        }
    }
}

impl AuthConfig {
    pub(super) fn read(section: Section, faults: &mut Vec<Fault>) -> Self {
        let default = Self::default();
        let mut reader = Reader::new(section, keys::AUTH, faults);
        let names = |reader: &mut Reader<'_>, key, all| {
            reader
                .take(key, |entry| entry.list(|item| name(item, all)))
                .unwrap_or_default()
        };
        let file = |reader: &mut Reader<'_>, key| reader.take(key, Entry::readable_file);
        let oidc = reader.take_entry("oidc", |entry| entry.tables("[[auth.oidc]]"));
        let mut config = Self {
            anonymous: reader
                .take("anonymous", |entry| entry.list(word))
                .unwrap_or(default.anonymous),
            readers: names(&mut reader, "readers", true),
            writers: names(&mut reader, "writers", true),
            admins: names(&mut reader, "admins", false),
            open_networks: reader
                .take("open_networks", |entry| entry.list(value::network))
                .unwrap_or_default(),
            account: reader
                .take("account", |entry| account(entry.filled()?))
                .unwrap_or(default.account),
            region: reader
                .take("region", |entry| region(entry.filled()?))
                .unwrap_or(default.region),
            htpasswd_file: file(&mut reader, "htpasswd_file"),
            policy_file: file(&mut reader, "policy_file"),
            master_key_file: reader.take("master_key_file", |entry| {
                Ok(entry.origin.resolve(entry.filled()?))
            }),
            token_ttl: reader
                .take("token_ttl", |entry| within(entry, 60, 24 * 3600))
                .unwrap_or(default.token_ttl),
            refresh_ttl: reader
                .take("refresh_ttl", |entry| within(entry, 60, 400 * 24 * 3600))
                .unwrap_or(default.refresh_ttl),
            oidc: Vec::new(),
            max_requests_per_second: reader
                .take("max_requests_per_second", |entry| entry.count_from(0))
                .map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX)),
        };
        reader.finish();
        config.oidc = oidc::read(oidc, faults);
        config
    }
}

fn word(text: &str) -> Result<Box<str>, String> {
    if WORDS.contains(&text) {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is not one of {}", WORDS.join(", ")))
    }
}

fn name(text: &str, all: bool) -> Result<String, String> {
    if text == "*" {
        let everyone = all.then(|| text.to_owned());
        return everyone.ok_or_else(|| "names are written out here: `*` would be everyone".to_owned());
    }
    // Who can log in at an upstream cannot be written out.
    let of_upstream = text
        .strip_prefix("upstream/")
        .and_then(|rest| rest.strip_suffix("/*"));
    let written = of_upstream.filter(|_| all).unwrap_or(text);
    let fits = !written.is_empty() && !text.chars().any(char::is_control);
    if fits && !written.contains(['*', '?', '$']) && (of_upstream.is_none() || !written.contains('/')) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no name: write it out, or \"*\" alone for everyone with a login"
    ))
}

fn account(text: &str) -> Result<Box<str>, String> {
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.into())
    } else {
        Err("must be twelve digits".to_owned())
    }
}

fn region(text: &str) -> Result<Box<str>, String> {
    let fits = (2..=25).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        Ok(text.into())
    } else {
        Err("must be 2 to 25 of a-z, 0-9 and -, like \"us-east-1\"".to_owned())
    }
}

fn within(entry: &Entry, least: u64, most: u64) -> Result<Duration, String> {
    let span = entry.time_out()?;
    if (least..=most).contains(&span.as_secs()) {
        Ok(span)
    } else {
        Err(format!("must be from {least} seconds to {most} seconds"))
    }
}
