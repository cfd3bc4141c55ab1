//! Who may use the admin API over TCP as long as nobody can log in: programs of this machine, and no web page that a
//! browser of this machine has open. And with a login, too, no page of another site. Pure.
//!
//! The peer's address decides; headers can only refuse. A page can make a browser connect to us, also under a name of its
//! own that resolves to 127.0.0.1 (DNS rebinding), so the name must be a loopback one, and a POST must be of a kind that
//! browsers do not send across sites unasked.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, Method, Uri, header};

use crate::transfer::TAR;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum Refusal {
    #[error(
        "the admin API answers this machine alone: use the subcommands there, or the socket admin.sock in the data folder"
    )]
    Elsewhere,
    #[error("the admin API does not answer through a proxy")]
    Proxied,
    #[error("the admin API answers under localhost and loopback addresses alone: check the Host header")]
    Host,
    #[error("the admin API does not answer pages of other sites")]
    CrossSite,
    #[error("the admin API takes only Content-Type: application/json, and application/x-tar")]
    ContentType,
}

/// What proxies add.
const PROXIED: [&str; 6] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Whether a request without a login may pass.
pub(in crate::api) fn check_machine(
    peer: Option<SocketAddr>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if peer.is_some_and(|peer| !peer.ip().to_canonical().is_loopback()) {
        return Err(Refusal::Elsewhere);
    }
    // A proxy on this machine would lend its address to the world.
    if PROXIED.iter().any(|name| headers.contains_key(*name)) {
        return Err(Refusal::Proxied);
    }
    // HTTP/2 has it in the URI, HTTP/1 in the header; either may be absent, not both.
    let mut hosts = hosts(uri, headers).peekable();
    if hosts.peek().is_none() || !hosts.all(|host| host.is_some_and(is_loopback)) {
        return Err(Refusal::Host);
    }
    check_site(method, uri, headers)
}

/// Whether a request may come from where a page says that it does: browsers show a login that they remember for any page.
pub(in crate::api) fn check_site(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let origin = headers
        .get(header::ORIGIN)
        .map(|origin| origin.to_str().unwrap_or_default());
    let own = |host: &str| is_loopback(host) || hosts(uri, headers).any(|own| own == Some(host));
    let of_elsewhere = |origin: &str| origin.split_once("://").is_none_or(|(_, host)| !own(host));
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    if origin.is_some_and(of_elsewhere) || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
    {
        return Err(Refusal::CrossSite);
    }
    // A form can post text, but for these types a browser asks first (by OPTIONS), and is not let.
    if *method == Method::POST && !is_json(headers) && !is_tar(headers) {
        return Err(Refusal::ContentType);
    }
    Ok(())
}

/// By what names the client says that it reaches us; `None` for one that is no text.
fn hosts<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = Option<&'a str>> {
    headers
        .get_all(header::HOST)
        .iter()
        .map(|host| host.to_str().ok())
        .chain(uri.authority().map(|authority| Some(authority.as_str())))
}

/// Whether `host`, maybe with a port, is this machine and nothing that a name server could answer for.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    host.eq_ignore_ascii_case("localhost")
}

fn is_json(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/json")
}

/// Whether the body is an archive.
pub(super) fn is_tar(headers: &HeaderMap) -> bool {
    is_of_type(headers, TAR)
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn checked(peer: &str, method: &Method, uri: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect();
        check_machine(
            Some(peer.parse().unwrap()),
            method,
            &uri.parse().unwrap(),
            &headers,
        )
    }

    #[test]
    fn table() {
        const LOCAL: (&str, &str) = ("host", "localhost:5000");
        const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        let get = |peer: &str, headers: &[(&str, &str)]| checked(peer, &Method::GET, "/api/status", headers);
        let post = |headers: &[(&str, &str)]| checked("127.0.0.1:9", &Method::POST, "/api/purge", headers);
        // Peers.
        for peer in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            assert_eq!(get(peer, &[LOCAL]), Ok(()), "{peer}");
        }
        for peer in [
            "10.0.0.1:9",
            "[::ffff:10.0.0.1]:9",
            "[fe80::1]:9",
            "192.168.1.1:9",
        ] {
            assert_eq!(get(peer, &[LOCAL]), Err(Refusal::Elsewhere), "{peer}");
        }
        // Names.
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:5000",
            "[::1]:5000",
            "[::1]",
        ] {
            assert_eq!(get("127.0.0.1:9", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:5000",
            "10.0.0.1",
            "",
            "a b",
            "::1",
        ] {
            assert_eq!(
                get("127.0.0.1:9", &[("host", host)]),
                Err(Refusal::Host),
                "{host}"
            );
        }
        assert_eq!(get("127.0.0.1:9", &[]), Err(Refusal::Host));
        assert_eq!(
            get("127.0.0.1:9", &[LOCAL, ("host", "evil.example")]),
            Err(Refusal::Host)
        );
        let absolute =
            |uri: &str, headers: &[(&str, &str)]| checked("127.0.0.1:9", &Method::GET, uri, headers);
        assert_eq!(absolute("http://127.0.0.1:5000/api/status", &[]), Ok(()));
        assert_eq!(
            absolute("http://evil.example/api/status", &[LOCAL]),
            Err(Refusal::Host)
        );
        // Proxies, whatever they say.
        assert_eq!(
            get("127.0.0.1:9", &[LOCAL, ("x-forwarded-for", "127.0.0.1")]),
            Err(Refusal::Proxied)
        );
        assert_eq!(
            get("10.0.0.1:9", &[LOCAL, ("x-real-ip", "127.0.0.1")]),
            Err(Refusal::Elsewhere)
        );
        // Pages.
        assert_eq!(post(&[LOCAL, JSON]), Ok(()));
        assert_eq!(post(&[LOCAL]), Err(Refusal::ContentType));
        assert_eq!(
            post(&[LOCAL, ("content-type", "text/plain")]),
            Err(Refusal::ContentType)
        );
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(
                post(&[LOCAL, JSON, (name, value)]),
                Err(Refusal::CrossSite),
                "{value}"
            );
            assert_eq!(
                get("127.0.0.1:9", &[LOCAL, (name, value)]),
                Err(Refusal::CrossSite),
                "{value}"
            );
        }
        for (name, value) in [("origin", "http://localhost:5000"), ("sec-fetch-site", "none")] {
            assert_eq!(post(&[LOCAL, JSON, (name, value)]), Ok(()), "{value}");
        }
    }
}
