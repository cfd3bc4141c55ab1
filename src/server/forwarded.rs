//! What a trusted proxy says of the client before it: `X-Forwarded-For`, `-Proto` and `-Host`, else `Forwarded` (RFC
//! 7239). Pure. From anybody else these headers are what a client made up, and mean nothing. Called by `api`.
//!
//! Most proxies write the old headers and pass the standard's on as the client sent it, so the old ones come first.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::Connection;
use super::addresses::is_in;

/// More hops than this are nobody's real chain of proxies.
const MOST_HOPS: usize = 32;

/// The headers that were there before the standard.
const OLD: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// Where a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, where a trusted proxy tells it; else the connection's is the client's.
    pub forwarded_for: Option<IpAddr>,
    /// Whether the client's own connection is a TLS one.
    pub https: bool,
    /// The host that the client asked for, where a trusted proxy tells it.
    pub host: Option<String>,
}

impl Origin {
    /// Reads the headers of a request that came through `connection`.
    pub fn of(connection: &Connection, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = connection.peer.address().map(|peer| peer.ip());
        let told = peer.filter(|peer| is_in(trusted, *peer)).map(|_| hops(headers));
        let https = !connection.plain;
        let Some(mut hops) = told.filter(|hops| !hops.is_empty()) else {
            return Self {
                https,
                ..Self::default()
            };
        };
        // From the nearest outwards: what a proxy wrote is believed when the one before it is trusted.
        let mut forwarded_for = None;
        let mut outermost = hops.len() - 1;
        for (index, hop) in hops.iter().enumerate().rev() {
            outermost = index;
            let Some(address) = hop.address else { break };
            forwarded_for = Some(address);
            if !is_in(trusted, address) {
                break;
            }
        }
        let hop = hops.swap_remove(outermost);
        Self {
            forwarded_for,
            https: hop.https.unwrap_or(https),
            host: hop.host,
        }
    }
}

/// What one proxy says of the connection to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hop {
    /// Not there when it is hidden, or no address.
    address: Option<IpAddr>,
    https: Option<bool>,
    host: Option<String>,
}

/// The last is the nearest.
fn hops(headers: &HeaderMap) -> Vec<Hop> {
    let mut hops = if OLD.iter().any(|name| headers.contains_key(*name)) {
        old_hops(headers)
    } else {
        values(headers, "forwarded")
            .flat_map(|value| split(value, b','))
            .map(hop)
            .collect()
    };
    hops.drain(..hops.len().saturating_sub(MOST_HOPS));
    hops
}

/// The lines of a header; one that is not ASCII is as good as one that tells nothing.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter();
    lines.map(|line: &HeaderValue| line.to_str().unwrap_or("?"))
}

/// Splits at a separator, but not within quotes.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    let mut parts = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// An element of `Forwarded` (RFC 7239, section 4).
fn hop(element: &str) -> Hop {
    let mut hop = Hop::default();
    for pair in split(element, b';') {
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        let value = unquoted(value.trim());
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.address = address(&value),
            "proto" => hop.https = is_https(&value),
            "host" => hop.host = host(&value),
            _ => {}
        }
    }
    hop
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' {
            characters.next()
        } else {
            Some(character)
        });
    }
    plain
}

/// The same from the old headers. Lists of one length belong together; of others the
/// last value counts, which the nearest proxy wrote.
fn old_hops(headers: &HeaderMap) -> Vec<Hop> {
    let list = |name| -> Vec<&str> {
        values(headers, name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect()
    };
    let [clients, protocols, hosts] = OLD.map(list);
    let count = clients
        .len()
        .max(usize::from(!protocols.is_empty() || !hosts.is_empty()));
    let of = |list: &[&str], index: usize| -> Option<String> {
        let at = if list.len() == count {
            index
        } else {
            list.len().checked_sub(1)?
        };
        list.get(at).map(|value| (*value).to_owned())
    };
    (0..count)
        .map(|index| Hop {
            address: clients.get(index).and_then(|client| address(client)),
            https: of(&protocols, index).and_then(|protocol| is_https(&protocol)),
            host: of(&hosts, index).and_then(|name| host(&name)),
        })
        .collect()
}

/// An address, with a port or in brackets or both. `unknown` and names of proxies are none.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let whole = bare.parse::<IpAddr>().ok();
    whole
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

fn is_https(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

/// A host, maybe with a port, and nothing else.
fn host(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    (!authority.host().is_empty() && !text.contains('@')).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;
    use crate::server::Peer;

    fn origin(peer: &str, plain: bool, headers: &[(&str, &str)]) -> Origin {
        let connection = Connection {
            peer: Peer::Network(peer.parse().unwrap()),
            plain,
            certificate: None,
        };
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect();
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        Origin::of(&connection, &headers, &trusted)
    }

    #[test]
    fn table() {
        // Headers, then who is believed to have asked, whether by TLS, and for which host.
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>, bool, Option<&'a str>);
        let rows: &[Row<'_>] = &[
            (&[], None, false, None),
            (
                &[("x-forwarded-for", "203.0.113.9")],
                Some("203.0.113.9"),
                false,
                None,
            ),
            (&[("x-forwarded-proto", "https")], None, true, None),
            (
                &[
                    ("x-forwarded-for", "203.0.113.9"),
                    ("x-forwarded-proto", "HTTPS"),
                    ("x-forwarded-host", "Cache.Example:8443"),
                ],
                Some("203.0.113.9"),
                true,
                Some("cache.example:8443"),
            ),
            // What the client wrote before a proxy appended the truth.
            (
                &[("x-forwarded-for", "127.0.0.1, 203.0.113.9")],
                Some("203.0.113.9"),
                false,
                None,
            ),
            (
                &[
                    ("x-forwarded-for", "127.0.0.1"),
                    ("x-forwarded-for", "203.0.113.9"),
                ],
                Some("203.0.113.9"),
                false,
                None,
            ),
            // Two proxies of ours.
            (
                &[
                    ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2"),
                    ("x-forwarded-proto", "http, https, http"),
                ],
                Some("203.0.113.9"),
                true,
                None,
            ),
            (
                &[
                    ("x-forwarded-for", "203.0.113.9, 10.0.0.2"),
                    ("x-forwarded-proto", "https"),
                ],
                Some("203.0.113.9"),
                true,
                None,
            ),
            // All of them ours: the first one asked itself.
            (
                &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")],
                Some("10.0.0.3"),
                false,
                None,
            ),
            // Nothing behind what cannot be read is believed.
            (
                &[("x-forwarded-for", "203.0.113.9, unknown, 10.0.0.2")],
                Some("10.0.0.2"),
                false,
                None,
            ),
            (&[("x-forwarded-for", "203.0.113.9, nonsense")], None, false, None),
            (
                &[("x-forwarded-for", "203.0.113.9:4711")],
                Some("203.0.113.9"),
                false,
                None,
            ),
            (
                &[("x-forwarded-for", "2001:db8::9")],
                Some("2001:db8::9"),
                false,
                None,
            ),
            (
                &[("x-forwarded-for", "::ffff:203.0.113.9")],
                Some("203.0.113.9"),
                false,
                None,
            ),
            // The client wrote the standard's header, and the proxy, which knows only the old ones, passed it on.
            (
                &[
                    ("forwarded", "for=127.0.0.1;proto=https;host=evil.example"),
                    ("x-forwarded-for", "203.0.113.9"),
                ],
                Some("203.0.113.9"),
                false,
                None,
            ),
            (
                &[("forwarded", "for=127.0.0.1"), ("x-forwarded-proto", "https")],
                None,
                true,
                None,
            ),
            (
                &[("forwarded", "for=203.0.113.9;proto=https;host=cache.example")],
                Some("203.0.113.9"),
                true,
                Some("cache.example"),
            ),
            (
                &[(
                    "forwarded",
                    "For=\"[2001:db8::9]:4711\" ; PROTO=https ; by=_us, for=10.0.0.2;proto=http",
                )],
                Some("2001:db8::9"),
                true,
                None,
            ),
            (
                &[("forwarded", "for=\"a,b;c\\\",for=1.1.1.1\", for=203.0.113.9")],
                Some("203.0.113.9"),
                false,
                None,
            ),
            (&[("forwarded", "for=_hidden;proto=https")], None, true, None),
            (&[("forwarded", "for=\"unknown")], None, false, None),
            (
                &[("forwarded", "for=203.0.113.9;host=\"a b\"")],
                Some("203.0.113.9"),
                false,
                None,
            ),
            (
                &[("forwarded", "for=203.0.113.9;host=user@evil.example")],
                Some("203.0.113.9"),
                false,
                None,
            ),
        ];
        for (headers, client, https, host) in rows {
            let expected = Origin {
                forwarded_for: client.map(|client| client.parse().unwrap()),
                https: *https,
                host: host.map(ToOwned::to_owned),
            };
            assert_eq!(origin("10.0.0.1:80", true, headers), expected, "{headers:?}");
            assert_eq!(
                origin("[::ffff:10.0.0.1]:80", true, headers),
                expected,
                "{headers:?}"
            );
            // The same from somebody else.
            for stranger in ["11.0.0.1:80", "127.0.0.1:80", "[fe80::1]:80"] {
                assert_eq!(origin(stranger, true, headers), Origin::default(), "{headers:?}");
            }
        }
        // Our own TLS, and what stood before it.
        assert!(origin("11.0.0.1:80", false, &[("x-forwarded-proto", "http")]).https);
        assert!(!origin("10.0.0.1:80", false, &[("x-forwarded-proto", "http")]).https);
        assert!(origin("10.0.0.1:80", false, &[]).https);
    }

    #[test]
    fn endless_chains_are_cut() {
        let long = vec!["10.0.0.2"; 10_000].join(",");
        let found = origin("10.0.0.1:80", true, &[("x-forwarded-for", &long)]);
        assert_eq!(found.forwarded_for, Some(IpAddr::from([10, 0, 0, 2])));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~]{0,60}", name in prop::sample::select(vec!["forwarded", "x-forwarded-for", "x-forwarded-host"])) {
            origin("10.0.0.1:80", true, &[(name, &text)]);
        }
    }
}
