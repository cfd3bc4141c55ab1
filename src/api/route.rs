//! Method and URI to [`Route`]: pure, and total. The table of paths is the distribution spec's, in all the shapes that
//! clients ask in: plain, behind `/mirror`, with a host before `/v2`, with `ns`.
//!
//! Names may contain `manifests` or `blobs` as components, so a path is read from its right end.

use std::borrow::Cow;

use http::{Method, Uri};

use super::Entrance;
use super::exchange::Operation;
use super::query;
use crate::oci::{Digest, DigestError, NameError, Reference, RepositoryName};
use crate::registry::Door;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/v2/`: is this a registry?
    Base(Door),
    Manifest(Target<'a>, Reference),
    Blob(Target<'a>, Digest),
    Tags(Target<'a>, Page),
    Referrers(Target<'a>, Digest),
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
}

/// The repository as the client named it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) door: Door,
    /// The path component before `/v2`.
    pub(super) host: Option<Box<str>>,
    /// The query parameter of that name.
    pub(super) ns: Option<Cow<'a, str>>,
    pub(super) name: RepositoryName,
}

/// How many tags a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// `n=0`: none, and no link to more.
    Nothing,
    /// Anything else, which the upstream decides.
    Some,
}

/// Why a request means nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RouteError {
    #[error("there is nothing at this path")]
    NotFound,
    #[error("only GET and HEAD are supported: this registry caches others and takes no pushes")]
    Method,
    #[error("the path is not properly percent-encoded")]
    Encoding,
    #[error(transparent)]
    Name(NameError),
    #[error(transparent)]
    Digest(DigestError),
    /// A tag that cannot exist, so it is unknown (the conformance suite wants 404).
    #[error(transparent)]
    Tag(NameError),
    #[error("n must be a whole number")]
    Page,
}

impl Target<'_> {
    /// Whether the client has another place to ask when we fail.
    pub(super) fn falls_through(&self) -> bool {
        self.door == Door::Mirror || self.ns.is_some()
    }
}

impl<'a> Route<'a> {
    pub(super) fn target(&self) -> Option<&Target<'a>> {
        match self {
            Self::Manifest(target, _)
            | Self::Blob(target, _)
            | Self::Tags(target, _)
            | Self::Referrers(target, _) => Some(target),
            Self::Base(_) | Self::Live | Self::Ready | Self::Metrics => None,
        }
    }

    pub(super) fn operation(&self, method: &Method) -> Operation {
        let head = method == Method::HEAD;
        match self {
            Self::Base(_) => Operation::Base,
            Self::Manifest(..) if head => Operation::ManifestHead,
            Self::Manifest(..) => Operation::Manifest,
            Self::Blob(..) if head => Operation::BlobHead,
            Self::Blob(..) => Operation::Blob,
            Self::Tags(..) => Operation::Tags,
            Self::Referrers(..) => Operation::Referrers,
            Self::Live | Self::Ready => Operation::Health,
            Self::Metrics => Operation::Metrics,
        }
    }
}

/// What stands behind the name.
enum Verb {
    Manifest,
    Blob,
    Tags,
    Referrers,
    /// An upload, which is refused for what it is and not as a bad digest.
    Upload,
}

/// Reads a request. `admin`: whether health and metrics are here beside the content.
pub(super) fn parse<'a>(
    method: &Method,
    uri: &'a Uri,
    entrance: Entrance,
    admin: bool,
) -> Result<Route<'a>, RouteError> {
    let path = query::decode(uri.path()).ok_or(RouteError::Encoding)?;
    if entrance == Entrance::Admin || (entrance == Entrance::Main && admin) {
        let route = match &*path {
            "/livez" => Some(Route::Live),
            "/readyz" => Some(Route::Ready),
            "/metrics" => Some(Route::Metrics),
            _ => None,
        };
        if let Some(route) = route {
            return readable(method).map(|()| route);
        }
    }
    if entrance == Entrance::Admin {
        return Err(RouteError::NotFound);
    }
    let Place { mirror, host, rest } = Place::of(&path).ok_or(RouteError::NotFound)?;
    let door = if mirror || entrance == Entrance::Mirror {
        Door::Mirror
    } else {
        Door::Main
    };
    if rest.is_empty() {
        return readable(method).map(|()| Route::Base(door));
    }
    let (name, verb, last) = split(rest).ok_or(RouteError::NotFound)?;
    let name = name.parse().map_err(RouteError::Name)?;
    readable(method)?;
    let query = uri.query().unwrap_or_default();
    let ns = query::get(query, "ns").filter(|ns| !ns.is_empty());
    let target = Target {
        door,
        host: host.map(Into::into),
        ns,
        name,
    };
    match verb {
        Verb::Manifest if last.contains(':') => {
            let digest = last.parse().map_err(RouteError::Digest)?;
            Ok(Route::Manifest(target, Reference::Digest(digest)))
        }
        Verb::Manifest => {
            let tag = last.parse().map_err(RouteError::Tag)?;
            Ok(Route::Manifest(target, Reference::Tag(tag)))
        }
        Verb::Blob => Ok(Route::Blob(target, last.parse().map_err(RouteError::Digest)?)),
        Verb::Referrers => Ok(Route::Referrers(
            target,
            last.parse().map_err(RouteError::Digest)?,
        )),
        Verb::Tags => {
            let page = match query::get(query, "n") {
                None => Page::Some,
                Some(n) => match n.parse::<u64>() {
                    Ok(0) => Page::Nothing,
                    Ok(_) => Page::Some,
                    Err(_) => return Err(RouteError::Page),
                },
            };
            Ok(Route::Tags(target, page))
        }
        Verb::Upload => Err(RouteError::NotFound),
    }
}

fn readable(method: &Method) -> Result<(), RouteError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        Ok(())
    } else {
        Err(RouteError::Method)
    }
}

/// A path around `/v2`.
struct Place<'a> {
    mirror: bool,
    host: Option<&'a str>,
    /// What follows `/v2/`; empty for `/v2` and `/v2/` themselves.
    rest: &'a str,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let (first, tail) = path.split_once('/').unwrap_or((path, ""));
        if first == "v2" {
            return Some(Self {
                mirror: false,
                host: None,
                rest: tail,
            });
        }
        let (second, rest) = tail.split_once('/').unwrap_or((tail, ""));
        if second != "v2" {
            return None;
        }
        if first == "mirror" {
            return Some(Self {
                mirror: true,
                host: None,
                rest,
            });
        }
        let of_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        let is_host = !first.is_empty() && first.len() <= 255 && first.bytes().all(of_host);
        is_host.then_some(Self {
            mirror: false,
            host: Some(first),
            rest,
        })
    }
}

/// Name, verb and last component of what follows `/v2/`.
fn split(rest: &str) -> Option<(&str, Verb, &str)> {
    let (head, last) = rest.rsplit_once('/')?;
    let (name, verb) = head.rsplit_once('/').unwrap_or(("", head));
    match verb {
        "manifests" => Some((name, Verb::Manifest, last)),
        "blobs" if last == "uploads" => Some((name, Verb::Upload, "")),
        "blobs" => Some((name, Verb::Blob, last)),
        "referrers" => Some((name, Verb::Referrers, last)),
        "tags" if last == "list" => Some((name, Verb::Tags, last)),
        "uploads" => Some((name.strip_suffix("/blobs")?, Verb::Upload, last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn get(uri: &str, entrance: Entrance) -> Result<String, RouteError> {
        ask(&Method::GET, uri, entrance)
    }

    /// Door, host, ns, name and the rest of a route in one line.
    fn ask(method: &Method, uri: &str, entrance: Entrance) -> Result<String, RouteError> {
        let uri: Uri = uri.parse().unwrap();
        let route = parse(method, &uri, entrance, true)?;
        let place = route.target().map(|target| {
            let host = target.host.as_deref().unwrap_or("-");
            let ns = target.ns.as_deref().unwrap_or("-");
            format!("{:?} {host} {ns} {}", target.door, target.name)
        });
        let place = place.unwrap_or_default();
        Ok(match &route {
            Route::Base(door) => format!("base {door:?}"),
            Route::Manifest(_, reference) => format!("{place} manifest {reference}"),
            Route::Blob(_, digest) => format!("{place} blob {digest}"),
            Route::Tags(_, page) => format!("{place} tags {page:?}"),
            Route::Referrers(_, digest) => format!("{place} referrers {digest}"),
            Route::Live => "live".to_owned(),
            Route::Ready => "ready".to_owned(),
            Route::Metrics => "metrics".to_owned(),
        })
    }

    #[test]
    fn all_the_ways_clients_ask() {
        let blob = format!("/v2/library/nginx/blobs/{DIGEST}");
        let escaped = format!("/v2/library/nginx/blobs/{}", DIGEST.replace(':', "%3A"));
        let referrers = format!("/v2/a/referrers/{DIGEST}?artifactType=x");
        let by_digest = format!("/v2/a/b/manifests/{DIGEST}");
        let cases = [
            ("/v2", "base Main"),
            ("/v2/", "base Main"),
            ("/v2/?ns=docker.io", "base Main"),
            ("/mirror/v2/", "base Mirror"),
            ("/mirror/v2", "base Mirror"),
            ("/docker.io/v2/", "base Main"),
            (
                "/v2/docker-hub/library/nginx/manifests/1",
                "Main - - docker-hub/library/nginx manifest 1",
            ),
            (
                "/v2/docker.io/library/nginx/manifests/1",
                "Main - - docker.io/library/nginx manifest 1",
            ),
            (
                "/v2/nginx/manifests/latest?ns=docker.io",
                "Main - docker.io nginx manifest latest",
            ),
            ("/v2/nginx/manifests/latest?ns=", "Main - - nginx manifest latest"),
            (
                "/v2/px/nginx/manifests/1?x=1&ns=reg.example%3A5000",
                "Main - reg.example:5000 px/nginx manifest 1",
            ),
            (
                "/mirror/v2/library/nginx/manifests/1",
                "Mirror - - library/nginx manifest 1",
            ),
            (
                "/docker.io/v2/library/nginx/manifests/1",
                "Main docker.io - library/nginx manifest 1",
            ),
            (
                "/reg.example:5000/v2/a/manifests/1?ns=b.c",
                "Main reg.example:5000 b.c a manifest 1",
            ),
            (
                "/v2/library%2Fnginx/manifests/1",
                "Main - - library/nginx manifest 1",
            ),
            (&blob, &format!("Main - - library/nginx blob {DIGEST}")),
            (&escaped, &format!("Main - - library/nginx blob {DIGEST}")),
            (&referrers, &format!("Main - - a referrers {DIGEST}")),
            (&by_digest, &format!("Main - - a/b manifest {DIGEST}")),
            ("/v2/a/tags/list", "Main - - a tags Some"),
            ("/v2/a/tags/list?n=10&last=x", "Main - - a tags Some"),
            ("/v2/a/tags/list?n=0", "Main - - a tags Nothing"),
            ("/livez", "live"),
            ("/readyz", "ready"),
            ("/metrics", "metrics"),
        ];
        for (uri, expected) in cases {
            assert_eq!(get(uri, Entrance::Main).as_deref(), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn names_with_the_paths_own_words() {
        let cases = [
            ("/v2/manifests/manifests/latest", "manifests manifest latest"),
            (
                "/v2/a/manifests/blobs/manifests/manifests",
                "a/manifests/blobs manifest manifests",
            ),
            ("/v2/tags/list/tags/list", "tags/list tags Some"),
            ("/v2/v2/manifests/v2", "v2 manifest v2"),
            ("/v2/a/blobs/uploads/manifests/x", "a/blobs/uploads manifest x"),
            ("/v2/mirror/v2/manifests/x", "mirror/v2 manifest x"),
            ("/v2/a/manifests/tags/list", "a/manifests tags Some"),
        ];
        for (uri, expected) in cases {
            assert_eq!(
                get(uri, Entrance::Main),
                Ok(format!("Main - - {expected}")),
                "{uri}"
            );
        }
    }

    #[test]
    fn the_mirrors_own_port() {
        let mirror = |uri| get(uri, Entrance::Mirror);
        assert_eq!(mirror("/v2/").as_deref(), Ok("base Mirror"));
        assert_eq!(
            mirror("/v2/nginx/manifests/1").as_deref(),
            Ok("Mirror - - nginx manifest 1")
        );
        assert_eq!(
            mirror("/mirror/v2/nginx/manifests/1").as_deref(),
            Ok("Mirror - - nginx manifest 1")
        );
        assert_eq!(mirror("/metrics"), Err(RouteError::NotFound));
        assert_eq!(get("/readyz", Entrance::Admin).as_deref(), Ok("ready"));
        assert_eq!(get("/v2/", Entrance::Admin), Err(RouteError::NotFound));
        let uri = Uri::from_static("/metrics");
        assert_eq!(
            parse(&Method::GET, &uri, Entrance::Main, false),
            Err(RouteError::NotFound)
        );
    }

    #[test]
    fn what_means_nothing() {
        let name = RouteError::Name(NameError::Name);
        let malformed = RouteError::Digest(DigestError::Malformed);
        let long = format!("/v2/{}/manifests/x", "a".repeat(256));
        let long_tag = format!("/v2/a/manifests/{}", "a".repeat(129));
        let cases = [
            ("/", RouteError::NotFound),
            ("//v2/a/manifests/x", RouteError::NotFound),
            ("/v1/", RouteError::NotFound),
            ("/v2/_catalog", RouteError::NotFound),
            ("/v2/a", RouteError::NotFound),
            ("/v2/a/b/c", RouteError::NotFound),
            ("/v2/a/tags/list/", RouteError::NotFound),
            ("/v2/a/blobs/uploads/", RouteError::NotFound),
            ("/v2/a/blobs/uploads/some-id", RouteError::NotFound),
            ("/v2/uploads/x", RouteError::NotFound),
            (
                "/a b/v2/x/manifests/y".replace(' ', "%20").leak(),
                RouteError::NotFound,
            ),
            ("/%00/v2/x/manifests/y", RouteError::NotFound),
            ("/a/b/v2/x/manifests/y", RouteError::NotFound),
            ("/v2/manifests/latest", name),
            ("/v2//manifests/latest", name),
            ("/v2//a/manifests/latest", name),
            ("/v2/a//b/manifests/latest", name),
            ("/v2/../manifests/latest", name),
            ("/v2/a/../../manifests/latest", name),
            ("/v2/%2e%2e/manifests/latest", name),
            ("/v2/a%00b/manifests/latest", name),
            ("/v2/A/manifests/latest", name),
            ("/v2/host:5000/a/manifests/latest", name),
            (&long, name),
            ("/v2/a%zz/manifests/x", RouteError::Encoding),
            ("/v2/a%ff/manifests/x", RouteError::Encoding),
            ("/v2/a%2/manifests/x", RouteError::Name(NameError::Name)),
            (
                "/v2/a/manifests/.INVALID_MANIFEST_NAME",
                RouteError::Tag(NameError::Tag),
            ),
            ("/v2/a/manifests/", RouteError::Tag(NameError::Tag)),
            ("/v2/a/manifests/..", RouteError::Tag(NameError::Tag)),
            (&long_tag, RouteError::Tag(NameError::Tag)),
            ("/v2/a/manifests/sha256:abc", malformed),
            ("/v2/a/manifests/sha256%3Aabc", malformed),
            ("/v2/a/blobs/latest", malformed),
            ("/v2/a/blobs/", malformed),
            ("/v2/a/referrers/latest", malformed),
            (
                "/v2/a/blobs/blake3:abcd",
                RouteError::Digest(DigestError::Unsupported),
            ),
            ("/v2/a/tags/list?n=-1", RouteError::Page),
            ("/v2/a/tags/list?n=x", RouteError::Page),
            ("/v2/a/tags/list?n=", RouteError::Page),
        ];
        for (uri, expected) in cases {
            let expected = if uri.contains("a%2/") {
                RouteError::Encoding
            } else {
                expected
            };
            assert_eq!(get(uri, Entrance::Main), Err(expected), "{uri}");
        }
    }

    #[test]
    fn pushes_are_refused_by_method() {
        let blob = format!("/v2/a/blobs/{DIGEST}");
        for (method, uri) in [
            (Method::POST, "/v2/a/blobs/uploads/"),
            (Method::POST, "/v2/a/blobs/uploads"),
            (Method::POST, "/v2/a/blobs/uploads/?mount=x"),
            (Method::PATCH, "/v2/a/blobs/uploads/some-id"),
            (Method::PUT, "/v2/a/blobs/uploads/some-id?digest=x"),
            (Method::PUT, "/v2/a/manifests/latest"),
            (Method::PUT, "/v2/a/manifests/.bad"),
            (Method::DELETE, "/v2/a/manifests/latest"),
            (Method::DELETE, &blob),
            (Method::POST, "/v2/"),
            (Method::POST, "/metrics"),
        ] {
            assert_eq!(
                ask(&method, uri, Entrance::Main),
                Err(RouteError::Method),
                "{method} {uri}"
            );
        }
        assert_eq!(
            ask(&Method::POST, "/nothing", Entrance::Main),
            Err(RouteError::NotFound)
        );
        assert_eq!(
            ask(&Method::PUT, "/v2/A/manifests/x", Entrance::Main),
            Err(RouteError::Name(NameError::Name))
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(path in "/[a-z0-9/%.:_?&=-]{0,80}", words in proptest::collection::vec(
            prop_oneof![
                Just("v2"), Just("mirror"), Just("manifests"), Just("blobs"), Just("uploads"), Just("tags"),
                Just("list"), Just("referrers"), Just(""), Just(".."), Just("a"), Just("%2F"), Just("sha256:x"),
            ], 0..9)) {
            for text in [path, format!("/{}", words.join("/"))] {
                if let Ok(uri) = text.parse::<Uri>() {
                    for entrance in [Entrance::Main, Entrance::Mirror, Entrance::Admin] {
                        let _ = parse(&Method::GET, &uri, entrance, true);
                    }
                }
            }
        }

        #[test]
        fn any_name_comes_back(name in "[a-z0-9]{1,5}(/(manifests|blobs|uploads|tags|list|v2|[a-z0-9]{1,5})){0,4}", tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}") {
            let expected = format!("Main - - {name} manifest {tag}");
            prop_assert_eq!(get(&format!("/v2/{name}/manifests/{tag}"), Entrance::Main), Ok(expected));
            let expected = format!("Main - - {name} blob {DIGEST}");
            prop_assert_eq!(get(&format!("/v2/{name}/blobs/{DIGEST}"), Entrance::Main), Ok(expected));
        }
    }
}
