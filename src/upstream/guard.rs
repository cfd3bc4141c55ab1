//! Where an upstream may send us: the check of every URL that we follow (redirect, realm), before connecting.
//!
//! Redirects and realms are the upstream's words, so without this a registry could make us ask the cloud's metadata
//! service or a neighbour (SSRF). Addresses in URLs are checked here, names when they are resolved.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::collapse::Collapse;

/// Why a URL is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Blocked {
    #[error("only http and https URLs are followed")]
    Scheme,
    #[error("it leads from https to http")]
    Downgrade,
    #[error("it carries credentials")]
    Userinfo,
    #[error("{0} is a private address (the upstream's key `allow_private` permits them)")]
    Private(String),
}

/// The rules of one upstream.
#[derive(Debug)]
pub(super) struct Guard {
    own: Url,
    /// Proxies: these hosts are ours to reach, and the upstream's never.
    proxies: Vec<String>,
    allow_private: bool,
    /// Whether the upstream itself is on a private address; then its token service and storage may be too.
    own_private: AtomicBool,
}

impl Guard {
    pub(super) fn new(own: Url, proxies: Vec<String>, allow_private: bool) -> Self {
        let own_private = own.host().is_some_and(|host| is_private_host(&host));
        Self {
            own,
            proxies,
            allow_private,
            own_private: own_private.into(),
        }
    }

    /// May we go to `next`, as `current` told us?
    pub(super) fn check(&self, current: &Url, next: &Url) -> Result<(), Blocked> {
        match (current.scheme(), next.scheme()) {
            (_, "https") | ("http", "http") => {}
            (_, "http") => return Err(Blocked::Downgrade),
            _ => return Err(Blocked::Scheme),
        }
        if !next.username().is_empty() || next.password().is_some() {
            return Err(Blocked::Userinfo);
        }
        let Some(host) = next.host() else {
            return Err(Blocked::Scheme);
        };
        if self.private_allowed() || self.own.host().as_ref() == Some(&host) {
            return Ok(());
        }
        let is_proxy = self.proxies.iter().any(|proxy| *proxy == host.to_string());
        if is_proxy || is_private_host(&host) {
            return Err(Blocked::Private(host.to_string()));
        }
        Ok(())
    }

    /// Takes away what `name` must not resolve to.
    fn filter(&self, name: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Blocked> {
        if self.own.host_str() == Some(name) {
            let private = addresses.iter().any(|address| is_private(address.ip()));
            self.own_private.store(private, Ordering::Relaxed);
            return Ok(addresses);
        }
        if self.private_allowed() || self.proxies.iter().any(|proxy| proxy == name) {
            return Ok(addresses);
        }
        let found_any = !addresses.is_empty();
        let public: Vec<_> = addresses
            .into_iter()
            .filter(|address| !is_private(address.ip()))
            .collect();
        if public.is_empty() && found_any {
            return Err(Blocked::Private(name.to_owned()));
        }
        Ok(public)
    }

    fn private_allowed(&self) -> bool {
        self.allow_private || self.own_private.load(Ordering::Relaxed)
    }
}

/// The system's resolver with the guard behind it. The HTTP client does not ask it for addresses in URLs, nor for
/// names that a proxy resolves; for the proxy's own name it does.
pub(super) struct Resolver {
    guard: Arc<Guard>,
    /// One look-up for all who want a name: each takes a blocking thread for as long as the name server is silent, and
    /// those threads are the disk's too.
    running: Collapse<String, Result<Vec<SocketAddr>, Arc<io::Error>>>,
    look_up: LookUp,
}

/// Looks a name up. In tests it is not the system that does.
pub(super) type LookUp = Arc<dyn Fn(String) -> LookingUp + Send + Sync>;
type LookingUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

impl Resolver {
    pub(super) fn new(guard: Arc<Guard>, look_up: LookUp) -> Self {
        Self {
            guard,
            running: Collapse::default(),
            look_up,
        }
    }
}

/// The system's way.
pub(super) fn system() -> LookUp {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) }))
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, running, look_up) = (self.guard.clone(), self.running.clone(), self.look_up.clone());
        Box::pin(async move {
            let wanted = name.as_str().to_owned();
            let work = || async move { look_up(wanted).await.map_err(Arc::new) };
            let (found, _) = running.run(name.as_str().to_owned(), work).await;
            let found = found.unwrap_or_else(|| Err(Arc::new(io::Error::other("the look-up was given up"))));
            let allowed = guard.filter(name.as_str(), found?)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// `localhost` and what is below it is the machine itself, whoever resolves it (RFC 6761 section 6.3).
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn is_private_host(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(ip) => is_private_v4(*ip),
        Host::Ipv6(ip) => is_private_v6(*ip),
    }
}

/// Whether an address is not one of the public internet (IANA's special-purpose registries).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)) // benchmarking
        || a >= 224 // multicast, reserved, broadcast
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => embedded(high, low),
        // Unspecified, loopback, IPv4-compatible; local NAT64; discard; Teredo and its like; documentation.
        [0, 0, 0, 0, 0, 0, ..]
        | [0x64, 0xff9b, 1, ..]
        | [0x100, 0, 0, 0, ..]
        | [0x2001, 0..0x200 | 0xdb8, ..] => true,
        // Unique local (fc00::/7), link-local and site-local (fe80::/9), multicast (ff00::/8).
        [first, ..] => first & 0xfe00 == 0xfc00 || first & 0xff80 == 0xfe80 || first >= 0xff00,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn guard(own: &str) -> Guard {
        Guard::new(url(own), vec!["proxy.corp".to_owned()], false)
    }

    #[test]
    fn addresses() {
        let private = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in private {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.1.0.1",
            "198.20.0.1",
            "223.255.255.1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700::1111",
        ];
        for address in public {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn urls_from_a_public_registry() {
        let guard = guard("https://registry.example.com");
        let from = url("https://registry.example.com/v2/");
        for good in [
            "https://cdn.example.net/x?sig=1",
            "https://8.8.8.8/",
            "https://registry.example.com:444/",
        ] {
            assert_eq!(guard.check(&from, &url(good)), Ok(()), "{good}");
        }
        let private = |text: &str| Err(Blocked::Private(text.to_owned()));
        let table = [
            ("http://cdn.example.net/", Err(Blocked::Downgrade)),
            ("file:///etc/passwd", Err(Blocked::Scheme)),
            ("ftp://cdn.example.net/", Err(Blocked::Scheme)),
            ("https://user@cdn.example.net/", Err(Blocked::Userinfo)),
            ("https://:pw@cdn.example.net/", Err(Blocked::Userinfo)),
            ("https://169.254.169.254/latest/", private("169.254.169.254")),
            ("https://0x7f.1/", private("127.0.0.1")),
            ("https://2130706433/", private("127.0.0.1")),
            ("https://[::1]:8080/", private("[::1]")),
            ("https://[::ffff:10.0.0.1]/", private("[::ffff:a00:1]")),
            ("https://localhost/", private("localhost")),
            ("https://a.localhost./", private("a.localhost.")),
            ("https://proxy.corp/", private("proxy.corp")),
        ];
        for (next, expected) in table {
            assert_eq!(guard.check(&from, &url(next)), expected, "{next}");
        }
        // From plain http, plain http may follow.
        let plain = url("http://registry.example.com/");
        assert_eq!(guard.check(&plain, &url("http://cdn.example.net/")), Ok(()));
    }

    #[test]
    fn a_private_registry_may_send_to_private_addresses() {
        let loopback = guard("http://127.0.0.1:5000");
        assert_eq!(
            loopback.check(&url("http://127.0.0.1:5000/"), &url("http://10.0.0.1/")),
            Ok(())
        );
        let allowed = Guard::new(url("https://r.example.com"), vec![], true);
        assert_eq!(
            allowed.check(&url("https://r.example.com"), &url("https://10.0.0.1/")),
            Ok(())
        );
    }

    #[test]
    fn names_are_judged_by_what_they_resolve_to() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let guard = guard("https://registry.example.com");
        let (inside, outside) = (address("10.0.0.1"), address("8.8.8.8"));
        assert_eq!(
            guard.filter("cdn.example.net", vec![inside, outside]),
            Ok(vec![outside])
        );
        assert_eq!(
            guard.filter("rebind.example.net", vec![inside]),
            Err(Blocked::Private("rebind.example.net".to_owned()))
        );
        assert_eq!(guard.filter("nowhere.example.net", vec![]), Ok(vec![]));
        assert_eq!(guard.filter("proxy.corp", vec![inside]), Ok(vec![inside]));
        // The registry itself may be anywhere; when it turns out to be inside, the rest may be too.
        assert_eq!(
            guard.filter("registry.example.com", vec![inside]),
            Ok(vec![inside])
        );
        assert_eq!(guard.filter("cdn.example.net", vec![inside]), Ok(vec![inside]));
        assert_eq!(
            guard.filter("registry.example.com", vec![outside]),
            Ok(vec![outside])
        );
        assert!(guard.filter("cdn.example.net", vec![inside]).is_err());
    }

    #[tokio::test]
    async fn the_resolver_applies_the_rules() {
        let resolver = Resolver::new(Arc::new(guard("https://registry.example.com")), system());
        let Err(error) = resolver.resolve("localhost".parse().unwrap()).await else {
            panic!("resolved")
        };
        assert!(error.is::<Blocked>());
        let inside = Resolver::new(Arc::new(guard("http://127.0.0.1:5000")), system());
        assert!(
            inside
                .resolve("localhost".parse().unwrap())
                .await
                .unwrap()
                .next()
                .is_some()
        );
    }

    #[tokio::test]
    async fn many_who_want_a_name_are_one_look_up() {
        let (asked, gate) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(tokio::sync::Semaphore::new(0)),
        );
        let (count, closed) = (asked.clone(), gate.clone());
        let slow: LookUp = Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let closed = closed.clone();
            Box::pin(async move {
                let _ = closed.acquire().await;
                Ok(vec!["10.0.0.1:0".parse().unwrap()])
            })
        });
        let resolver = Resolver::new(Arc::new(guard("http://registry.example.com")), slow);
        let all: Vec<_> = (0..1000)
            .map(|_| tokio::spawn(resolver.resolve("registry.example.com".parse().unwrap())))
            .collect();
        tokio::task::yield_now().await;
        gate.add_permits(1);
        for one in all {
            assert_eq!(one.await.unwrap().unwrap().count(), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
