//! Method and URI to [`Route`]: pure, and total. The table of paths is the distribution spec's, in all the shapes that
//! clients ask in: plain, behind `/mirror`, with a host before `/v2`, with `ns`.
//!
//! Names may contain `manifests` or `blobs` as components, so a path is read from its right end.

use std::borrow::Cow;

use http::{Method, Uri};

use super::Entrance;
use super::admin::AdminRoute;
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
    /// `/api/`
    Admin(AdminRoute),
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
    #[error("only POST is supported here")]
    PostOnly,
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
            Self::Base(_) | Self::Live | Self::Ready | Self::Metrics | Self::Admin(_) => None,
        }
    }

    /// The door to content; none for what is about the daemon itself.
    pub(super) fn door(&self) -> Option<Door> {
        match self {
            Self::Base(door) => Some(*door),
            other => other.target().map(|target| target.door),
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
            Self::Admin(_) => Operation::Admin,
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

/// Reads a request. `admin`: whether health, metrics and the admin API are here beside the content.
pub(super) fn parse<'a>(
    method: &Method,
    uri: &'a Uri,
    entrance: Entrance,
    admin: bool,
) -> Result<Route<'a>, RouteError> {
    let path = query::decode(uri.path()).ok_or(RouteError::Encoding)?;
    let about_us = matches!(entrance, Entrance::Admin | Entrance::Local);
    if about_us || (entrance == Entrance::Main && admin) {
        if let Some(route) = AdminRoute::parse(method, &path) {
            return route.map(Route::Admin);
        }
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
    if about_us {
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
mod tests;
