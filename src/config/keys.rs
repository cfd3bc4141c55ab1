//! The keys that exist, and the nearest of them to one that does not. What is not listed here is a fault, and a
//! test holds this list against what is read: an option that does nothing would be a lie.

/// Keys of `[server]`.
pub(super) const SERVER: &[&str] = &[
    "listen",
    "public_url",
    "mirror_listen",
    "admin_listen",
    "drain_timeout",
    "max_connections",
    "max_connections_per_address",
    "header_timeout",
    "body_timeout",
    "max_header_size",
    "answer_timeout",
    "trusted_proxies",
    "allow_plain_http",
];
/// Keys of `[server.tls]`.
pub(super) const TLS: &[&str] = &["cert_file", "key_file", "client_ca_file", "client_auth"];
/// Keys of `[storage]`.
pub(super) const STORAGE: &[&str] = &[
    "data_dir",
    "max_size",
    "hosted_max_size",
    "min_free",
    "scrub_rate",
    "scrub_interval",
];
/// Keys of `[cache]`.
pub(super) const CACHE: &[&str] = &[
    "mirror",
    "tag_ttl",
    "stale_if_error",
    "negative_ttl",
    "revalidate_timeout",
    "gone_ttl",
    "finish_fill",
    "follow_blobs",
    "offline",
    "refresh_ahead",
    "tag_rule",
];
/// Keys of each `[[cache.tag_rule]]` and `[[upstream.<prefix>.tag_rule]]`.
pub(super) const TAG_RULE: &[&str] = &[
    "pattern",
    "repository",
    "tag_ttl",
    "stale_if_error",
    "negative_ttl",
    "revalidate_timeout",
    "gone_ttl",
];
/// Keys of each table in `upstream.<prefix>.mirrors`.
pub(super) const MIRROR: &[&str] = &["url", "rewrite", "tags", "username", "password", "password_file"];
/// Keys of each `[upstream.<prefix>]`.
pub(super) const UPSTREAM: &[&str] = &[
    "enabled",
    "url",
    "mirrors",
    "hosts",
    "username",
    "password",
    "password_file",
    "credential",
    "credential_order",
    "realms",
    "ca_file",
    "client_cert",
    "client_key",
    "proxy",
    "no_proxy",
    "insecure",
    "allow_private",
    "share_private",
    "caller_check",
    "overlay",
    "allow",
    "deny",
    "deny_reason",
    "connect_timeout",
    "header_timeout",
    "idle_timeout",
    "max_connections",
    "hedge",
    "breaker",
    "min_rate",
    "parallel",
    "bandwidth",
    "background_bandwidth",
    "bandwidth_window",
    "reserve",
    "reserve_share",
    "tag_ttl",
    "stale_if_error",
    "negative_ttl",
    "revalidate_timeout",
    "gone_ttl",
    "finish_fill",
    "follow_blobs",
    "refresh_ahead",
    "tag_rule",
];
/// Keys of each `[[upstream.<prefix>.bandwidth_window]]`.
pub(super) const BANDWIDTH_WINDOW: &[&str] = &["days", "from", "to", "bandwidth"];
/// Keys of each `[[warm]]`.
pub(super) const WARM: &[&str] = &["images", "platforms", "schedule", "every", "pin"];
/// Keys of each `[[upstream.<prefix>.credential]]`.
pub(super) const CREDENTIAL: &[&str] = &[
    "name",
    "username",
    "password",
    "password_file",
    "docker_config",
    "helper",
    "token_file",
    "ecr",
    "region",
    "endpoint",
    "profile",
    "anonymous",
];
/// Keys of `[hosted]`.
pub(super) const HOSTED: &[&str] = &[
    "grace",
    "collect_interval",
    "upload_timeout",
    "max_uploads",
    "min_chunk_size",
    "retention_interval",
    "namespaces",
    "template",
];
/// Keys of each `[[hosted.template]]`.
/// Keys of `[auth]`.
pub(super) const AUTH: &[&str] = &[
    "anonymous",
    "readers",
    "writers",
    "admins",
    "open_networks",
    "account",
    "region",
    "htpasswd_file",
    "policy_file",
    "master_key_file",
    "token_ttl",
    "refresh_ttl",
    "oidc",
    "max_requests_per_second",
];
/// Keys of each `[[auth.oidc]]`.
pub(super) const OIDC: &[&str] = &[
    "issuer",
    "audience",
    "jwks_url",
    "ca_file",
    "token_file",
    "claims",
    "scopes",
];
pub(super) const TEMPLATE: &[&str] = &[
    "pattern",
    "description",
    "tags",
    "except",
    "quota",
    "sparse",
    "lifecycle_file",
];
/// Keys of `[log]`.
pub(super) const LOG: &[&str] = &["format", "level", "access", "audit_file", "audit_pulls"];

/// All sections with their keys; `upstream.<prefix>` stands for every upstream.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    ("server", SERVER),
    ("server.tls", TLS),
    ("storage", STORAGE),
    ("cache", CACHE),
    ("upstream.<prefix>", UPSTREAM),
    ("hosted", HOSTED),
    ("auth", AUTH),
    ("log", LOG),
];

/// Every key that exists, as (section, key); the section of an upstream's keys is `upstream.<prefix>`. Keys of tables
/// in lists are in `cache.tag_rule`, `warm`, `hosted.template`, `auth.oidc`, and in `tag_rule`, `mirrors`, `bandwidth_window` and `credential` of
/// `upstream.<prefix>`.
pub fn known_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    const TABLES: [(&str, &[&str]); 8] = [
        ("auth.oidc", OIDC),
        ("hosted.template", TEMPLATE),
        ("cache.tag_rule", TAG_RULE),
        ("upstream.<prefix>.tag_rule", TAG_RULE),
        ("upstream.<prefix>.mirrors", MIRROR),
        ("upstream.<prefix>.bandwidth_window", BANDWIDTH_WINDOW),
        ("warm", WARM),
        ("upstream.<prefix>.credential", CREDENTIAL),
    ];
    SECTIONS
        .iter()
        .chain(&TABLES)
        .flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)))
}

/// The candidate that `word` is most likely a slip of, if one is near.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = match word.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words, a swap of neighbours being one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let cases = [
            ("lisen", SERVER, Some("listen")),
            ("listne", SERVER, Some("listen")),
            ("host", UPSTREAM, Some("hosts")),
            ("passwordfile", UPSTREAM, Some("password_file")),
            ("tag-ttl", CACHE, Some("tag_ttl")),
            ("max_size", STORAGE, Some("max_size")),
            ("everything", STORAGE, None),
            ("x", LOG, None),
        ];
        for (word, keys, expected) in cases {
            assert_eq!(nearest(word, keys.iter().copied()), expected, "{word}");
        }
    }
}
