//! The sections that exist once: `[server]`, `[storage]`, `[cache]` and `[log]`, each with its defaults and the
//! checks between its own keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::fault::Fault;
use super::freshness::{Freshness, RuleDraft, Spans, read_rules};
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Section};
use super::tls::TlsConfig;
use super::upstream::{Defaults, Draft, FinishFill};
use super::value;

/// Where we listen, and the limits of a connection.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The main door.
    pub listen: SocketAddr,
    /// How clients reach us from outside, as the start-up hint tells; links in answers are relative.
    pub public_url: Option<Url>,
    /// The mirror door's own port, if any.
    pub mirror_listen: Option<SocketAddr>,
    /// Where `/metrics`, `/livez`, `/readyz` and `/api/` are, if not on the main door.
    pub admin_listen: Option<SocketAddr>,
    /// How long running responses and fills may take to finish after SIGTERM; zero is not at all.
    pub drain_timeout: Duration,
    /// Client connections at once, over all doors.
    pub max_connections: usize,
    /// Of these, how many from one address; zero is any number.
    pub max_connections_per_address: usize,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long a client may take to send a small body: a manifest, a form, JSON.
    pub body_timeout: Duration,
    /// Bytes of the head of a request.
    pub max_header_bytes: usize,
    /// How long a client may wait for the head of an answer before it is told that there is none.
    pub answer_timeout: Duration,
    /// Whose word on the client before them is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether logins are taken where others can read them on the way.
    pub allow_plain_http: bool,
    /// The certificate of our TLS, if we speak it.
    pub tls: Option<TlsConfig>,
}

/// Where things are kept.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The one folder for everything; may not exist yet.
    pub data_dir: PathBuf,
    /// The hard cap on what cached blobs, manifests and partial files take up, in bytes.
    pub max_size: Option<u64>,
    /// The hard cap on what hosted repositories and uploads take up, in bytes.
    pub hosted_max_size: Option<u64>,
    /// What is left free on the disk, in bytes.
    pub min_free: u64,
    /// Start although many blobs have lost their files: `serve --accept-loss`, no key.
    pub accept_loss: bool,
    /// How fast blobs are hashed again, in bytes a second; zero is never.
    pub scrub_rate: u64,
    /// From one such pass to the next.
    pub scrub_interval: Duration,
}

impl StorageConfig {
    /// A folder without cap.
    pub fn in_folder(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            max_size: None,
            hosted_max_size: None,
            min_free: 0,
            accept_loss: false,
            scrub_rate: 0,
            scrub_interval: Duration::from_hours(30 * 24),
        }
    }
}

/// Bounds of `max_header_size`. hyper reads with buffers of 8 KiB at least.
const HEADER_SIZES: std::ops::RangeInclusive<u64> = 8 * 1024..=1024 * 1024;

/// The least cap that makes sense: below it the index alone would fill the folder.
const LEAST_SIZE: u64 = 16 * 1024 * 1024;

/// What the cache does for all upstreams; the spans of `[cache]` are in each upstream's [`Freshness`].
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// The prefix of the upstream that names without prefix and host mean. It is always an enabled one.
    pub mirror: Option<String>,
    /// Whether nothing is ever asked of any upstream.
    pub offline: bool,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// Directives for `tracing_subscriber::EnvFilter`, already found valid.
    pub level: String,
    /// One line per request.
    pub access: bool,
    /// Where the audit log goes; `-` is standard error.
    pub audit_file: Option<PathBuf>,
    /// Whether it tells pulls that were allowed.
    pub audit_pulls: bool,
}

impl ServerConfig {
    pub(super) fn read(section: Section, tls: Section, faults: &mut Vec<Fault>) -> Self {
        let tls = TlsConfig::read(tls, faults);
        let default = SocketAddr::from(([127, 0, 0, 1], 5000));
        let section_origin = section.origin.clone();
        let mut reader = Reader::new(section, keys::SERVER, faults);
        let mut doors: Vec<(&str, SocketAddr)> = Vec::new();
        for key in ["listen", "mirror_listen", "admin_listen"] {
            let given = reader.take_entry(key, |entry| value::listener(entry.text()?));
            let (address, origin) = match given {
                Some(given) => given,
                // A faulty one is judged by itself alone.
                None if key == "listen" && !reader.failed(key) => (default, section_origin.clone()),
                None => continue,
            };
            if let Some((other, taken)) = doors.iter().find(|(_, other)| value::collide(*other, address)) {
                let reason =
                    format!("{address} cannot be bound beside server.{other} ({taken}): use another port");
                reader.fault(&origin, key, reason);
            }
            doors.push((key, address));
        }
        let door = |name| {
            doors
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, address)| *address)
        };
        let config = Self {
            listen: door("listen").unwrap_or(default),
            public_url: reader.take("public_url", |entry| value::http_url(entry.text()?)),
            mirror_listen: door("mirror_listen"),
            admin_listen: door("admin_listen"),
            drain_timeout: reader
                .take("drain_timeout", Entry::span)
                .unwrap_or(Duration::from_secs(25)),
            max_connections: reader.take("max_connections", Entry::count).unwrap_or(10_000),
            max_connections_per_address: reader
                .take("max_connections_per_address", |entry| entry.count_from(0))
                .unwrap_or(0),
            header_timeout: reader
                .take("header_timeout", Entry::time_out)
                .unwrap_or(Duration::from_secs(35)),
            body_timeout: reader
                .take("body_timeout", Entry::time_out)
                .unwrap_or(Duration::from_mins(1)),
            max_header_bytes: reader
                .take("max_header_size", |entry| match entry.bytes()? {
                    size if HEADER_SIZES.contains(&size) => Ok(size as usize),
                    _ => Err("must be from \"8KiB\" to \"1MiB\"".to_owned()),
                })
                .unwrap_or(32 * 1024),
            answer_timeout: reader
                .take("answer_timeout", Entry::time_out)
                .unwrap_or(Freshness::default().answer_timeout),
            trusted_proxies: reader
                .take("trusted_proxies", |entry| entry.list(value::network))
                .unwrap_or_default(),
            allow_plain_http: reader.take("allow_plain_http", Entry::boolean).unwrap_or(false),
            tls,
        };
        reader.finish();
        config
    }
}

impl StorageConfig {
    pub(super) fn read(section: Section, faults: &mut Vec<Fault>) -> Self {
        let mut reader = Reader::new(section, keys::STORAGE, faults);
        let data_dir = reader.take("data_dir", |entry| {
            let text = entry.filled()?;
            if text.starts_with('~') {
                return Err("`~` is not expanded here: write the whole path".to_owned());
            }
            let path = entry.origin.resolve(text);
            if path.exists() && !path.is_dir() {
                return Err(format!("{} is not a folder", path.display()));
            }
            Ok(path)
        });
        let max_size = reader.take("max_size", |entry| match entry.bytes()? {
            size if size < LEAST_SIZE => Err("must be at least \"16MiB\"".to_owned()),
            size => Ok(size),
        });
        let hosted_max_size = reader.take("hosted_max_size", Entry::bytes);
        let min_free = reader.take("min_free", Entry::bytes).unwrap_or(1 << 30);
        let scrub_rate = reader.take("scrub_rate", Entry::bytes).unwrap_or(20 << 20);
        let scrub_interval = reader
            .take("scrub_interval", Entry::time_out)
            .unwrap_or(Duration::from_hours(30 * 24));
        reader.finish();
        Self {
            data_dir: data_dir.unwrap_or_else(default_data_dir),
            max_size,
            hosted_max_size,
            min_free,
            accept_loss: false,
            scrub_rate,
            scrub_interval,
        }
    }
}

fn default_data_dir() -> PathBuf {
    directories::ProjectDirs::from("", "", "wharfinger").map_or_else(
        || PathBuf::from("wharfinger-data"),
        |folders| folders.data_dir().to_owned(),
    )
}

/// `[cache]` before the upstreams are known, which need its [`Freshness`].
pub(super) struct CacheDraft {
    freshness: Freshness,
    finish_fill: FinishFill,
    follow_blobs: bool,
    offline: bool,
    refresh_ahead: bool,
    rules: Vec<RuleDraft>,
    /// The prefix and who named it; empty for none.
    mirror: Option<(String, Origin)>,
}

impl CacheDraft {
    /// `base` is what holds where the section says nothing.
    pub(super) fn read(
        section: Section,
        base: Freshness,
        default_origin: &Origin,
        faults: &mut Vec<Fault>,
    ) -> Self {
        let mut reader = Reader::new(section, keys::CACHE, faults);
        let mirror = reader.take_entry("mirror", |entry| entry.text().map(|text| text.trim().to_owned()));
        let mirror = match mirror {
            None if !reader.failed("mirror") => Some(("docker-hub".to_owned(), default_origin.clone())),
            mirror => mirror,
        };
        let freshness = Spans::read(&mut reader).over(base);
        let finish_fill = FinishFill::read(&mut reader, FinishFill::default());
        let follow_blobs = reader.take("follow_blobs", Entry::boolean).unwrap_or(true);
        let offline = reader.take("offline", Entry::boolean).unwrap_or(false);
        let refresh_ahead = reader.take("refresh_ahead", Entry::boolean).unwrap_or(true);
        let tables = reader.take_entry("tag_rule", |entry| entry.tables("[[cache.tag_rule]]"));
        reader.finish();
        Self {
            freshness,
            finish_fill,
            follow_blobs,
            offline,
            refresh_ahead,
            rules: read_rules("cache", None, tables, faults),
            mirror,
        }
    }

    /// What holds for upstreams that do not say otherwise.
    pub(super) fn defaults(&self) -> Defaults<'_> {
        Defaults {
            freshness: self.freshness,
            finish_fill: self.finish_fill,
            follow_blobs: self.follow_blobs,
            refresh_ahead: self.refresh_ahead,
            rules: &self.rules,
        }
    }

    /// Holds `mirror` against the upstreams that there are.
    pub(super) fn finish(self, upstreams: &[Draft], faults: &mut Vec<Fault>) -> CacheConfig {
        CacheConfig {
            offline: self.offline,
            mirror: self.checked_mirror(upstreams, faults),
        }
    }

    fn checked_mirror(self, upstreams: &[Draft], faults: &mut Vec<Fault>) -> Option<String> {
        let (mirror, origin) = self.mirror.filter(|(mirror, _)| !mirror.is_empty())?;
        let remedy = "name an upstream that is enabled, or write mirror = \"\" for none";
        let fault = match upstreams.iter().find(|upstream| upstream.prefix == mirror) {
            Some(upstream) if upstream.enabled => return Some(mirror),
            Some(_) => format!("the upstream `{mirror}` is disabled: {remedy}"),
            None => {
                let prefixes = upstreams.iter().map(|upstream| upstream.prefix.as_str());
                let hint = keys::nearest(&mirror, prefixes).map(|near| format!(" (did you mean `{near}`?)"));
                format!(
                    "there is no upstream `{mirror}`{}: {remedy}",
                    hint.unwrap_or_default()
                )
            }
        };
        faults.push(Fault::new(&origin.label(), "cache.mirror", fault));
        None
    }
}

impl LogConfig {
    pub(super) fn read(section: Section, faults: &mut Vec<Fault>) -> Self {
        let mut reader = Reader::new(section, keys::LOG, faults);
        let format = reader.take("format", |entry| match entry.text()? {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("`{other}` is neither \"text\" nor \"json\"")),
        });
        let config = Self {
            format: format.unwrap_or(LogFormat::Text),
            level: reader
                .take("level", |entry| value::log_level(entry.filled()?))
                .unwrap_or_else(|| "info".to_owned()),
            access: reader.take("access", Entry::boolean).unwrap_or(true),
            audit_file: reader.take("audit_file", |entry| match entry.filled()? {
                "-" => Ok(PathBuf::from("-")),
                path => Ok(entry.origin.resolve(path)),
            }),
            audit_pulls: reader.take("audit_pulls", Entry::boolean).unwrap_or(true),
        };
        reader.finish();
        config
    }
}
