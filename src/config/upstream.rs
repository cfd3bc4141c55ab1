//! The upstreams: the built-in ones with the tables of the configuration merged over them, and the checks that
//! concern several of them, because a host must lead to exactly one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use url::Url;

use super::bandwidth::BandwidthConfig;
use super::credentials::{
    Credential, CredentialOrder, Credentials, Secret, TablesOf, Written, read_all, read_certificates,
    read_identity,
};
use super::fault::Fault;
use super::freshness::{Freshness, RuleDraft, Spans, TagRule, read_rules, repository_pattern};
use super::glob::Glob;
use super::keys;
use super::lists::PullLists;
use super::mirror::{self, Mirror};
use super::reader::Reader;
use super::source::{Entry, Origin, Section};
use super::value;

/// More downloads than this for one blob make registries suspicious.
const MOST_PARALLEL: usize = 16;
/// `reserve_share`, unless it is given.
const RESERVE_SHARE: u8 = 10;

/// What a fill does when all its clients have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishFill {
    /// It stops; what is there waits for the next client.
    Never,
    /// It goes on, when at least so many percent are there.
    From(u8),
}

impl Default for FinishFill {
    /// Always.
    fn default() -> Self {
        Self::From(0)
    }
}

impl FinishFill {
    /// `finish_fill` of a section, falling back to `base`.
    pub(super) fn read(reader: &mut Reader<'_>, base: Self) -> Self {
        let given = reader.take("finish_fill", |entry| match entry.text()?.trim() {
            "always" => Ok(Self::From(0)),
            "never" => Ok(Self::Never),
            text => text
                .strip_suffix('%')
                .and_then(|number| number.trim().parse().ok())
                .filter(|percent| *percent <= 100)
                .map(Self::From)
                .ok_or_else(|| format!("`{text}` is neither \"always\", \"never\" nor like \"50%\"")),
        });
        given.unwrap_or(base)
    }

    /// Whether a fill goes on of which `present` of `size` bytes are here.
    pub fn goes_on(self, present: u64, size: Option<u64>) -> bool {
        match (self, size) {
            (Self::From(0), _) => true,
            (Self::From(percent), Some(size)) => {
                u128::from(present) * 100 >= u128::from(size) * u128::from(percent)
            }
            (Self::Never, _) | (Self::From(_), None) => false,
        }
    }
}

/// An upstream that is enabled, ready for use.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct UpstreamConfig {
    /// The name by which people address it, one component of a repository name.
    pub prefix: String,
    /// The registry, http or https; `/v2/` comes after its path.
    pub url: Url,
    /// Who is asked when `url` cannot serve, in this order.
    pub mirrors: Vec<Mirror>,
    /// Hosts (lower case, with a port if any) that mean this upstream in `ns` and in paths.
    pub hosts: Vec<String>,
    /// Our logins there, if any, in order.
    pub credentials: Vec<Credential>,
    /// Which of several is used.
    pub credential_order: CredentialOrder,
    /// Further hosts that its token realm may live on.
    pub realms: Vec<String>,
    /// The contents of `ca_file`: PEM with at least one certificate, trusted beside the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The certificate with which we prove ourselves in TLS, with its key, both PEM.
    pub identity_pem: Option<Secret>,
    /// The outbound proxy. May hold credentials: never print it whole.
    pub proxy: Option<Url>,
    /// What is reached without the proxy: hosts, `.domain` suffixes, addresses or networks.
    pub no_proxy: Vec<String>,
    /// Do not verify TLS certificates.
    pub insecure: bool,
    /// Follow redirects and realms to private addresses too.
    pub allow_private: bool,
    /// Give what only our credentials can read to callers without any.
    pub share_private: bool,
    /// Who may read what is private there is asked of it, by the caller's own login.
    pub caller_check: bool,
    /// Whether a hosted repository of the same name, prefix and all, comes before the upstream's.
    pub overlay: bool,
    /// Which repositories and tags may be pulled here.
    pub lists: PullLists,
    /// Limit for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Limit from the request to the first byte of the response.
    pub header_timeout: Duration,
    /// Limit between two bytes of a body.
    pub idle_timeout: Duration,
    /// Connections to one host for blobs.
    pub max_connections: usize,
    /// Ask a second endpoint when the first is late.
    pub hedge: bool,
    /// Leave an endpoint alone that fails again and again.
    pub breaker: bool,
    /// Bytes per second below which a download goes on elsewhere; zero for never.
    pub min_rate: u64,
    /// Downloads at once for one large blob, where more than one is faster.
    pub parallel: usize,
    /// Bytes per second that we take.
    pub bandwidth: BandwidthConfig,
    /// Repositories (names there) for which the last pulls are kept.
    pub reserve: Vec<Glob>,
    /// How many pulls that are, in percent of the limit.
    pub reserve_share: u8,
    /// How long what it said holds, where no rule says otherwise.
    pub freshness: Freshness,
    /// What a fill does when all its clients have gone.
    pub finish_fill: FinishFill,
    /// Whether the blobs of a tag that moved are fetched for the platforms in use.
    pub follow_blobs: bool,
    /// Revalidate tags that are asked for often before they fall due.
    pub refresh_ahead: bool,
    /// The rules for single tags: its own, then those for all upstreams. The first that is about a tag holds.
    pub tag_rules: Vec<TagRule>,
    /// Where its url is written, or the table is.
    pub written: Written,
}

impl UpstreamConfig {
    /// Whether it is asked with a login, so that there may be content which not everybody can read.
    pub fn has_login(&self) -> bool {
        self.credentials
            .iter()
            .any(|credential| !credential.is_anonymous())
            || self.identity_pem.is_some()
            || self.mirrors.iter().any(|mirror| mirror.credentials.is_some())
    }

    /// The rule for a tag, if there is one. `repository` is prefix and name, as rules are written.
    pub fn rule_of(&self, repository: &str, tag: &str) -> Option<&TagRule> {
        self.tag_rules.iter().find(|rule| rule.is_about(repository, tag))
    }

    /// How long what is known of a tag holds.
    pub fn freshness_of(&self, repository: &str, tag: &str) -> &Freshness {
        self.rule_of(repository, tag)
            .map_or(&self.freshness, |rule| &rule.freshness)
    }

    /// The longest that a tag of it is served though it is gone, and so what such tags reach.
    pub fn longest_gone_ttl(&self) -> Duration {
        let rules = self.tag_rules.iter().map(|rule| rule.freshness.gone_ttl);
        rules.max().unwrap_or_default().max(self.freshness.gone_ttl)
    }
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamConfig")
            .field("prefix", &self.prefix)
            .field("url", &self.url.as_str())
            .field("hosts", &self.hosts)
            .field("credentials", &self.credentials)
            .field("proxy", &self.proxy.as_ref().map(value::host_of))
            .field("freshness", &self.freshness)
            .field("finish_fill", &self.finish_fill)
            .field("follow_blobs", &self.follow_blobs)
            .field("refresh_ahead", &self.refresh_ahead)
            .field("tag_rules", &self.tag_rules)
            .finish_non_exhaustive()
    }
}

/// An upstream that exists without configuration.
pub(super) struct Builtin {
    pub(super) prefix: &'static str,
    url: &'static str,
    hosts: &'static [&'static str],
}

/// The built-in upstreams. k8s.gcr.io is not among the hosts of `kubernetes`: it is frozen, and lacks new images.
pub(super) const BUILTINS: [Builtin; 5] = [
    Builtin {
        prefix: "docker-hub",
        url: "https://registry-1.docker.io",
        hosts: &["docker.io", "index.docker.io", "registry-1.docker.io"],
    },
    Builtin {
        prefix: "quay",
        url: "https://quay.io",
        hosts: &["quay.io"],
    },
    Builtin {
        prefix: "github",
        url: "https://ghcr.io",
        hosts: &["ghcr.io"],
    },
    Builtin {
        prefix: "ecr-public",
        url: "https://public.ecr.aws",
        hosts: &["public.ecr.aws"],
    },
    Builtin {
        prefix: "kubernetes",
        url: "https://registry.k8s.io",
        hosts: &["registry.k8s.io"],
    },
];

/// What `[cache]` says for upstreams that do not say otherwise.
pub(super) struct Defaults<'a> {
    pub(super) freshness: Freshness,
    pub(super) finish_fill: FinishFill,
    pub(super) follow_blobs: bool,
    pub(super) refresh_ahead: bool,
    pub(super) rules: &'a [RuleDraft],
}

/// What was read of one upstream, valid or not: the checks across upstreams need those with faults too.
pub(super) struct Draft {
    pub(super) prefix: String,
    pub(super) enabled: bool,
    pub(super) origin: Origin,
    /// Without a configuration when its own faults left none.
    pub(super) config: Option<UpstreamConfig>,
    builtin: bool,
    hosts: Vec<String>,
    /// Who named the hosts; `None` when they are the built-in ones or the url's.
    hosts_from: Option<Origin>,
}

impl Draft {
    /// The hosts that mean it.
    pub(super) fn hosts(&self) -> &[String] {
        &self.hosts
    }
}

/// Reads every upstream and checks them against each other. Sorted by prefix.
pub(super) fn read(
    sections: BTreeMap<String, Section>,
    defaults: &Defaults<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<Draft> {
    let prefixes: Vec<String> = sections.keys().cloned().collect();
    let drafts: Vec<Draft> = sections
        .into_iter()
        .map(|(prefix, section)| read_one(prefix, section, &prefixes, defaults, faults))
        .collect();
    check_hosts(&drafts, faults);
    for rule in defaults.rules {
        rule.check_prefix(&prefixes, faults);
    }
    drafts
}

fn read_one(
    prefix: String,
    section: Section,
    prefixes: &[String],
    defaults: &Defaults<'_>,
    faults: &mut Vec<Fault>,
) -> Draft {
    let builtin = BUILTINS.iter().find(|known| known.prefix == prefix);
    if let Err(reason) = value::check_prefix(&prefix) {
        faults.push(Fault::new(&section.origin.label(), section.name.clone(), reason));
    }
    let section_origin = section.origin.clone();
    let mut reader = Reader::new(section, keys::UPSTREAM, faults);
    let enabled = reader.take("enabled", Entry::boolean).unwrap_or(true);
    let url_given = reader.origin("url").cloned();
    let written = Written::new(url_given.as_ref().unwrap_or(&section_origin), reader.key("url"));
    let url = reader
        .take("url", |entry| value::http_url(entry.text()?))
        .or_else(|| builtin.and_then(|known| Url::parse(known.url).ok()));
    if url.is_none() && enabled && url_given.is_none() {
        let others = prefixes
            .iter()
            .map(String::as_str)
            .filter(|other| *other != prefix);
        let hint = keys::nearest(&prefix, others).map_or(String::new(), |near| {
            format!("; or did you mean upstream.{near}?")
        });
        reader.fault(
            &section_origin,
            "url",
            format!("is required, like \"https://registry.example.com\"{hint}"),
        );
    }
    let mirrors = mirror::read(&mut reader, &prefix, enabled);
    let hosts = reader.take_entry("hosts", |entry| entry.list(value::host));
    let (hosts, hosts_from) = match (hosts, builtin, &url) {
        (Some((hosts, origin)), _, _) => (hosts, Some(origin)),
        (None, Some(known), _) => (known.hosts.iter().map(|host| (*host).to_owned()).collect(), None),
        (None, None, Some(url)) => (vec![value::host_of(url)], None),
        (None, None, None) => (Vec::new(), None),
    };
    let login = Credentials::read(&mut reader, enabled);
    let credential_order = CredentialOrder::read(&mut reader);
    let credential_tables = reader.take_entry("credential", |entry| {
        entry.tables(&format!("[[upstream.{prefix}.credential]]"))
    });
    let ca_pem = reader.take("ca_file", |entry| {
        let path = entry.filled()?;
        if enabled {
            read_certificates(&entry.origin.resolve(path)).map(Some)
        } else {
            Ok(None)
        }
    });
    let identity_pem = client_certificate(&mut reader, enabled);
    let proxy = reader.take_entry("proxy", |entry| value::proxy_url(entry.text()?));
    let no_proxy = reader.take_entry("no_proxy", |entry| entry.list(no_proxy));
    if let (None, Some((_, origin))) = (&proxy, &no_proxy)
        && !reader.failed("proxy")
    {
        reader.fault(origin, "no_proxy", "does nothing without proxy");
    }
    let realms = reader
        .take("realms", |entry| entry.list(value::host))
        .unwrap_or_default();
    let flag = |reader: &mut Reader<'_>, key| reader.take(key, Entry::boolean).unwrap_or(false);
    let time_out = |reader: &mut Reader<'_>, key, seconds| {
        reader
            .take(key, Entry::time_out)
            .unwrap_or(Duration::from_secs(seconds))
    };
    let insecure = flag(&mut reader, "insecure");
    let allow_private = flag(&mut reader, "allow_private");
    let share_private = flag(&mut reader, "share_private");
    let caller_check = reader.take_entry("caller_check", Entry::boolean);
    let caller_check = caller_check
        .filter(|(checks, _)| *checks)
        .map(|(_, origin)| origin);
    if let (true, Some(origin)) = (share_private, &caller_check) {
        reader.fault(
            origin,
            "caller_check",
            "contradicts share_private: one of them says who may read what is private",
        );
    }
    let overlay = flag(&mut reader, "overlay");
    let lists = PullLists::read(&mut reader);
    let connect_timeout = time_out(&mut reader, "connect_timeout", 5);
    let header_timeout = time_out(&mut reader, "header_timeout", 10);
    let idle_timeout = time_out(&mut reader, "idle_timeout", 30);
    let max_connections = reader.take("max_connections", Entry::count).unwrap_or(64);
    let hedge = reader.take("hedge", Entry::boolean).unwrap_or(true);
    let breaker = reader.take("breaker", Entry::boolean).unwrap_or(true);
    let min_rate = reader.take("min_rate", Entry::bytes).unwrap_or(16 * 1024);
    let parallel = reader
        .take("parallel", |entry| match entry.count()? {
            count if count > MOST_PARALLEL => {
                Err(format!("must be a whole number from 1 to {MOST_PARALLEL}"))
            }
            count => Ok(count),
        })
        .unwrap_or(4);
    let bandwidth = BandwidthConfig::read(&mut reader, &prefix);
    let reserve = reader.take("reserve", |entry| {
        entry.list(|item| repository_pattern(item.trim()).map(Glob::new))
    });
    let reserve_share = reader.take_entry("reserve_share", |entry| share(entry.text()?));
    if let (None, Some((_, origin))) = (&reserve, &reserve_share)
        && !reader.failed("reserve")
    {
        reader.fault(origin, "reserve_share", "does nothing without reserve");
    }
    let freshness = Spans::read(&mut reader).over(defaults.freshness);
    let finish_fill = FinishFill::read(&mut reader, defaults.finish_fill);
    let follow_blobs = reader.take("follow_blobs", Entry::boolean);
    let refresh_ahead = reader
        .take("refresh_ahead", Entry::boolean)
        .unwrap_or(defaults.refresh_ahead);
    let tables = reader.take_entry("tag_rule", |entry| {
        entry.tables(&format!("[[upstream.{prefix}.tag_rule]]"))
    });
    let origin = reader.finish();
    let bandwidth = bandwidth.finish(&prefix, faults);
    let own = read_rules(&format!("upstream.{prefix}"), Some(&prefix), tables, faults);
    let tag_rules = own
        .iter()
        .chain(defaults.rules)
        .map(|rule| rule.over(freshness))
        .collect();
    let credentials = read_all(
        login,
        &TablesOf {
            prefix: &prefix,
            tables: credential_tables,
            enabled,
            url: url.as_ref(),
            hosts: &hosts,
        },
        faults,
    );
    let config = url.map(|url| UpstreamConfig {
        prefix: prefix.clone(),
        url,
        mirrors,
        hosts: hosts.clone(),
        credentials,
        credential_order,
        realms,
        ca_pem: ca_pem.flatten(),
        identity_pem,
        proxy: proxy.map(|(proxy, _)| proxy),
        no_proxy: no_proxy.map(|(list, _)| list).unwrap_or_default(),
        insecure,
        allow_private,
        share_private,
        caller_check: caller_check.is_some(),
        overlay,
        lists,
        connect_timeout,
        header_timeout,
        idle_timeout,
        max_connections,
        hedge,
        breaker,
        min_rate,
        parallel,
        bandwidth,
        reserve: reserve.unwrap_or_default(),
        reserve_share: reserve_share.map_or(RESERVE_SHARE, |(share, _)| share),
        freshness,
        finish_fill,
        follow_blobs: follow_blobs.unwrap_or(defaults.follow_blobs),
        refresh_ahead,
        tag_rules,
        written,
    });
    if let (Some(config), Some(origin)) = (&config, &caller_check)
        && enabled
        && !config.has_login()
    {
        let reason = "does nothing without a login of our own, which fetches what callers may read";
        faults.push(Fault::new(
            &origin.label(),
            format!("upstream.{prefix}.caller_check"),
            reason,
        ));
    }
    Draft {
        prefix,
        enabled,
        origin,
        config,
        builtin: builtin.is_some(),
        hosts,
        hosts_from,
    }
}

/// `client_cert` and `client_key`. The files of a disabled upstream are not read.
fn client_certificate(reader: &mut Reader<'_>, enabled: bool) -> Option<Secret> {
    let path = |entry: &Entry| Ok(entry.origin.resolve(entry.filled()?));
    let key = reader.take_entry("client_key", path);
    let certificate = reader.take_entry("client_cert", path);
    let Some((certificate, origin)) = certificate else {
        if let Some((_, origin)) = key
            && !reader.failed("client_cert")
        {
            reader.fault(&origin, "client_key", "does nothing without client_cert");
        }
        return None;
    };
    if !enabled || reader.failed("client_key") {
        return None;
    }
    match read_identity(&certificate, key.as_ref().map(|(path, _)| path.as_path())) {
        Ok(pem) => Some(pem),
        Err((of_key, reason)) => {
            match key.filter(|_| of_key) {
                Some((_, origin)) => reader.fault(&origin, "client_key", reason),
                None => reader.fault(&origin, "client_cert", reason),
            }
            None
        }
    }
}

fn no_proxy(item: &str) -> Result<String, String> {
    let item = item.trim();
    if item.is_empty() || item.contains(char::is_whitespace) || item.contains("://") || item.contains(',') {
        return Err(format!("`{item}` is no host, .domain, address or network"));
    }
    Ok(item.to_ascii_lowercase())
}

/// A part of all pulls.
fn share(text: &str) -> Result<u8, String> {
    let percent = text.trim().strip_suffix('%');
    percent
        .and_then(|number| number.trim().parse().ok())
        .filter(|percent| (1..=90).contains(percent))
        .ok_or_else(|| format!("`{text}` is not from \"1%\" to \"90%\""))
}

/// No host may lead to two upstreams, and no prefix may be another one's host: names would be ambiguous.
fn check_hosts(drafts: &[Draft], faults: &mut Vec<Fault>) {
    let mut owners: BTreeMap<&str, &Draft> = BTreeMap::new();
    let mut order: Vec<&Draft> = drafts.iter().filter(|draft| draft.enabled).collect();
    // What nobody configured owns its hosts first, so that the blame falls on what somebody wrote.
    order.sort_by_key(|draft| {
        (
            !draft.builtin || draft.hosts_from.is_some(),
            draft.prefix.as_str(),
        )
    });
    for draft in &order {
        for host in &draft.hosts {
            if let Some(owner) = owners.get(host.as_str()) {
                let (origin, hint) = match &draft.hosts_from {
                    Some(origin) => (origin, String::new()),
                    None => (
                        &draft.origin,
                        " (the url's host, as hosts is not set; `hosts = []` for none)".to_owned(),
                    ),
                };
                let remedy = if owner.builtin {
                    format!(
                        "{host} belongs to the built-in upstream {0}{hint}: put these settings into [upstream.{0}], \
                         or take it away first with `enabled = false` there",
                        owner.prefix
                    )
                } else {
                    format!("{host} belongs to the upstream {} too{hint}", owner.prefix)
                };
                faults.push(Fault::new(
                    &origin.label(),
                    format!("upstream.{}.hosts", draft.prefix),
                    remedy,
                ));
            } else {
                owners.insert(host, draft);
            }
        }
    }
    for draft in &order {
        if let Some(owner) = owners
            .get(draft.prefix.as_str())
            .filter(|owner| owner.prefix != draft.prefix)
        {
            let reason = format!(
                "this prefix is a host of the upstream {}: choose another",
                owner.prefix
            );
            faults.push(Fault::new(
                &draft.origin.label(),
                format!("upstream.{}", draft.prefix),
                reason,
            ));
        }
    }
}
