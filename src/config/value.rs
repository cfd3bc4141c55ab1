//! Values of the configuration: spans of time with their unit, secrets that never print, and the parsers of
//! addresses, URLs, hosts and prefixes. Pure functions; each error is the reason that a `Fault` shows, and none
//! repeats a value that could hold a secret.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;
use url::Url;

/// The longest span that is accepted: ten years. It keeps sums with the clock far from overflow.
const LONGEST: Duration = Duration::from_hours(87600);

/// The units from the largest down, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Prefixes that would hide a route of our own (`/v2/`, `/mirror/v2/`) or Docker Hub's official images.
const RESERVED_PREFIXES: [&str; 3] = ["library", "mirror", "v2"];

/// A span of time as people write it: `500ms`, `10s`, `1h30m`, `30d`. Units are `ms`, `s`, `m`, `h` and `d`, from
/// the largest down; a number without one is refused, because seconds and minutes are too easily mistaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str =
            "write a number and a unit, like \"500ms\", \"10s\", \"5m\", \"1h30m\" or \"30d\"";
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("is empty: {EXAMPLE}"));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!(
                "`{text}` lacks a unit: write \"{text}s\" for seconds or \"{text}m\" for minutes"
            ));
        }
        let not_a_span = || format!("`{text}` is not a span of time: {EXAMPLE}");
        let too_long = || format!("`{text}` is too long: at most 3650d");
        let mut rest = text;
        let mut allowed = &UNITS[..];
        let mut millis = 0_u64;
        while !rest.is_empty() {
            let (digits, after) = rest.split_at(run(rest, u8::is_ascii_digit));
            let (unit, after) = after.split_at(run(after, u8::is_ascii_alphabetic));
            let number = if digits.is_empty() {
                return Err(not_a_span());
            } else {
                // Only an overflow can fail here.
                digits.parse::<u64>().map_err(|_| too_long())?
            };
            let position = allowed
                .iter()
                .position(|(name, _)| *name == unit)
                .ok_or_else(not_a_span)?;
            millis = number
                .checked_mul(allowed[position].1)
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(too_long)?;
            allowed = &allowed[position + 1..];
            rest = after;
        }
        let span = Duration::from_millis(millis);
        if span > LONGEST {
            Err(too_long())
        } else {
            Ok(Self(span))
        }
    }
}

/// How many bytes at the head of `text` satisfy `wanted` (ASCII only, so the split is at a character's border).
fn run(text: &str, wanted: impl Fn(&u8) -> bool) -> usize {
    text.bytes().take_while(|byte| wanted(byte)).count()
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

/// An address to listen on.
pub(super) fn listener(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_| {
        if let Some(port) = text.strip_prefix(':') {
            format!("`{text}` lacks the address: write \"0.0.0.0:{port}\" for all of them, \"127.0.0.1:{port}\" for this machine")
        } else if text.starts_with("localhost:") {
            "must be an IP address and a port: write 127.0.0.1 or [::1] for localhost".to_owned()
        } else {
            format!("`{text}` is not an IP address and a port, like \"127.0.0.1:5000\" or \"[::]:5000\"")
        }
    })
}

/// Whether both cannot be bound at once. `[::]` takes the port for IPv4 too; port 0 is always a free one.
pub(super) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |wide: SocketAddr, narrow: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

/// A network in CIDR notation, or one address. IPv4 addresses within IPv6 mean the IPv4 ones.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| {
        text.parse::<IpAddr>()
            .map(|address| IpNet::from(address.to_canonical()))
    });
    network
        .map(|network| network.trunc())
        .map_err(|_| format!("`{text}` is no network like \"10.0.0.0/8\", and no IP address"))
}

/// The URL of a registry or of ourselves: http or https, a path at most.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = any_url(text, &["https", "http"], "https:// or http://")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL holds no credentials: write username and password_file".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must have neither query nor fragment".to_owned());
    }
    Ok(url)
}

/// The URL of an outbound proxy, which may carry its own credentials.
pub(super) fn proxy_url(text: &str) -> Result<Url, String> {
    let url = any_url(
        text,
        &["http", "https", "socks5", "socks5h"],
        "http://, https://, socks5:// or socks5h://",
    )?;
    // The same parser that will use it: what it refuses must not wait for the first request.
    reqwest::Proxy::all(url.as_str()).map_err(|_| "is no URL of a proxy".to_owned())?;
    Ok(url)
}

fn any_url(text: &str, schemes: &[&str], shown: &str) -> Result<Url, String> {
    let text = text.trim();
    let scheme = text
        .split_once("://")
        .map_or("", |(scheme, _)| scheme)
        .to_ascii_lowercase();
    if !schemes.contains(&scheme.as_str()) {
        return Err(format!("must begin with {shown}"));
    }
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    Ok(url)
}

/// A host, or host and port, in the form in which requests are compared with it (lower case).
pub(super) fn host(text: &str) -> Result<String, String> {
    let lower = text.trim().to_ascii_lowercase();
    if lower.contains('/') {
        return Err(format!("`{text}` must be a host alone, without scheme and path"));
    }
    if lower.contains('*') {
        return Err(format!("`{text}`: wildcards mean nothing here, name each host"));
    }
    let (name, port) = match lower.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (lower.as_str(), None),
    };
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(format!("`{text}` has no valid port"));
    }
    // `url` rewrites what is odd (127.1, percent signs, non-ASCII): such a name could never equal a request's.
    match url::Host::parse(name) {
        Ok(parsed) if parsed.to_string() == name => Ok(lower),
        _ => Err(format!(
            "`{text}` is not a host like \"quay.io\" or \"registry.example.com:5000\""
        )),
    }
}

/// The host of a URL, with its port where that is not the scheme's own: what a client writes before the name.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A prefix: one path component of a repository name (OCI distribution-spec, "Pulling manifests").
pub(super) fn check_prefix(text: &str) -> Result<(), String> {
    if !is_name_component(text) {
        return Err(
            "a prefix is one component of a repository name: lower-case letters and digits, joined by \
                    `.`, `_`, `__` or `-`"
                .to_owned(),
        );
    }
    if RESERVED_PREFIXES.contains(&text) {
        return Err("this prefix would hide other names: choose another".to_owned());
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_name_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let separators = bytes.split(|byte| is_word(*byte)).filter(|part| !part.is_empty());
    bytes.first().copied().is_some_and(is_word)
        && bytes.last().copied().is_some_and(is_word)
        && separators
            .into_iter()
            .all(|part| matches!(part, b"." | b"_" | b"__") || part.iter().all(|b| *b == b'-'))
}

/// The level of the log: a level, or `tracing`'s directives (`info,wharfinger::upstream=debug`).
pub(super) fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = text.trim();
    for directive in text.split(',').map(str::trim) {
        // EnvFilter takes a bare word for a target and shows all of it, so that `inof` would mean silence.
        let bare = !directive.contains(['=', '[', ':']);
        if bare && !LEVELS.contains(&directive.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "`{directive}` is no level: one of {}; for a single part write \"info,wharfinger=debug\"",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::try_new(text).map_err(|error| format!("`{text}` is not understood: {error}"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(text: &str) -> Result<Duration, String> {
        text.parse::<HumanDuration>().map(|span| span.0)
    }

    #[test]
    fn spans_with_units() {
        let cases = [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
            (" 2s ", 2000),
            ("0s", 0),
            ("3650d", 315_360_000_000),
        ];
        for (text, millis) in cases {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn spans_that_are_refused() {
        let cases = [
            ("", "is empty"),
            ("5", "lacks a unit: write \"5s\""),
            ("s", "not a span"),
            ("1.5h", "not a span"),
            ("-1s", "not a span"),
            ("5 m", "not a span"),
            ("5min", "not a span"),
            ("5S", "not a span"),
            ("30m1h", "not a span"),
            ("1s1s", "not a span"),
            ("1h30", "not a span"),
            ("5µs", "not a span"),
            ("٣s", "not a span"),
            ("3651d", "too long"),
            ("99999999999999999999d", "too long"),
            ("18446744073709551615d", "too long"),
        ];
        for (text, reason) in cases {
            let error = span(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn spans_print_as_they_parse(millis in 0_u64..315_360_000_000) {
            let span = HumanDuration(Duration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse::<HumanDuration>(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = span(&text);
            let _ = host(&text);
            let _ = listener(&text);
            let _ = network(&text);
            let _ = http_url(&text);
            let _ = check_prefix(&text);
            let _ = log_level(&text);
        }
    }

    #[test]
    fn hosts() {
        for (text, expected) in [
            ("quay.io", "quay.io"),
            ("Registry.Example.com:5000", "registry.example.com:5000"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(expected));
        }
        for text in [
            "",
            "https://quay.io",
            "quay.io/v2",
            "*.quay.io",
            "quay.io:",
            "quay.io:0",
            "quay.io:99999",
            "a b",
            "127.1",
            "user@quay.io",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            (" 10.1.2.3/8 ", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("::ffff:127.0.0.1", "127.0.0.1/32"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
        ] {
            assert_eq!(
                network(text).map(|found| found.to_string()).as_deref(),
                Ok(expected)
            );
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0",
            "localhost",
            "10.0.0.0/255.0.0.0",
            "10.0.0.1:80",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prefixes() {
        for text in ["quay", "ecr-public", "docker.io", "a__b", "a---b", "a_b", "0"] {
            assert_eq!(check_prefix(text), Ok(()), "{text}");
        }
        for text in [
            "", "Quay", "a___b", "a..b", "-a", "a-", "a/b", "a._b", "a-.b", "a:5000", "é", "library",
            "mirror", "v2",
        ] {
            assert!(check_prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners_that_collide() {
        let cases = [
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("127.0.0.1:5000", "127.0.0.1:5001", false),
            ("127.0.0.1:5000", "127.0.0.2:5000", false),
            ("0.0.0.0:5000", "127.0.0.1:5000", true),
            ("0.0.0.0:5000", "[::1]:5000", false),
            ("[::]:5000", "127.0.0.1:5000", true),
            ("[::]:5000", "0.0.0.0:5000", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ];
        for (a, b, expected) in cases {
            let (a, b) = (listener(a).expect("address"), listener(b).expect("address"));
            assert_eq!((collide(a, b), collide(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn levels() {
        for text in [
            "info",
            "WARN",
            "debug,hyper=info",
            "wharfinger::cache=trace",
            "wharfinger[request]=debug",
            "off",
        ] {
            assert_eq!(log_level(text).as_deref(), Ok(text));
        }
        for text in ["", "inof", "verbose", "info,", "info,wharfinger=loud"] {
            assert!(log_level(text).is_err(), "{text}");
        }
    }
}
