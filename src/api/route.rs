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
use crate::registry::{Door, Intent, UploadId};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/v2/`: is this a registry?
    Base(Door),
    Manifest(Target<'a>, Reference),
    PutManifest(Target<'a>, Reference),
    DeleteManifest(Target<'a>, Reference),
    Blob(Target<'a>, Digest),
    DeleteBlob(Target<'a>, Digest),
    /// `POST .../blobs/uploads/`
    BeginUpload(Target<'a>),
    /// No session has a name that is none of ours.
    Upload(Target<'a>, UploadStep, Option<UploadId>),
    /// `/v2/_catalog`
    Catalog,
    /// `/token`
    Token,
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

/// What is done to an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadStep {
    /// GET: how far it is.
    Status,
    /// PATCH
    Append,
    /// PUT
    Finish,
    /// DELETE
    Cancel,
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
    #[error("this method is not supported here")]
    Method,
    #[error("only GET and HEAD are supported here: pushes go to the main door")]
    MirrorMethod,
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
    /// A tag that cannot exist, and is to be made.
    #[error(transparent)]
    NewTag(NameError),
    #[error("n must be a whole number")]
    Page,
}

impl Target<'_> {
    /// The path of something in the repository, as the client reaches it.
    pub(super) fn path(&self, rest: &str) -> String {
        let door = match (self.door, &self.host) {
            (Door::Mirror, _) => "/mirror".to_owned(),
            (Door::Main, Some(host)) => format!("/{host}"),
            (Door::Main, None) => String::new(),
        };
        let ns = self.ns.as_deref().map(|ns| format!("?ns={ns}"));
        format!("{door}/v2/{}/{rest}{}", self.name, ns.unwrap_or_default())
    }

    /// Whether the client has another place to ask when we fail.
    pub(super) fn falls_through(&self) -> bool {
        self.door == Door::Mirror || self.ns.is_some()
    }
}

impl<'a> Route<'a> {
    pub(super) fn target(&self) -> Option<&Target<'a>> {
        match self {
            Self::Manifest(target, _)
            | Self::PutManifest(target, _)
            | Self::DeleteManifest(target, _)
            | Self::Blob(target, _)
            | Self::DeleteBlob(target, _)
            | Self::BeginUpload(target)
            | Self::Upload(target, ..)
            | Self::Tags(target, _)
            | Self::Referrers(target, _) => Some(target),
            Self::Base(_)
            | Self::Catalog
            | Self::Token
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Admin(_) => None,
        }
    }

    /// Whether it changes what a repository holds: then its body takes as long as it takes.
    pub(super) fn writes(&self) -> bool {
        matches!(
            self,
            Self::PutManifest(..)
                | Self::DeleteManifest(..)
                | Self::DeleteBlob(..)
                | Self::BeginUpload(_)
                | Self::Upload(..)
        )
    }

    /// What it is about to do with its repository.
    pub(super) fn intent(&self) -> Intent {
        if self.writes() {
            Intent::Write
        } else {
            Intent::Read
        }
    }

    /// Whether it adds to a repository, which may be made for it.
    pub(super) fn pushes(&self) -> bool {
        matches!(self, Self::PutManifest(..) | Self::BeginUpload(_))
    }

    /// Whether a handler reads its body.
    pub(super) fn takes_body(&self) -> bool {
        self.writes() || matches!(self, Self::Admin(_) | Self::Token)
    }

    /// The door to content; none for what is about the daemon itself.
    pub(super) fn door(&self) -> Option<Door> {
        match self {
            Self::Base(door) => Some(*door),
            Self::Catalog => Some(Door::Main),
            other => other.target().map(|target| target.door),
        }
    }

    pub(super) fn operation(&self, method: &Method) -> Operation {
        let head = method == Method::HEAD;
        match self {
            Self::Base(_) => Operation::Base,
            Self::Manifest(..) if head => Operation::ManifestHead,
            Self::Manifest(..) => Operation::Manifest,
            Self::PutManifest(..) => Operation::ManifestPut,
            Self::DeleteManifest(..) | Self::DeleteBlob(..) => Operation::Delete,
            Self::BeginUpload(_) | Self::Upload(..) => Operation::Upload,
            Self::Catalog => Operation::Catalog,
            Self::Token => Operation::Token,
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
    /// An upload, whose last component is a session, or nothing where one begins.
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
    if path == "/token" && entrance == Entrance::Main {
        return match *method {
            Method::GET | Method::POST => Ok(Route::Token),
            _ => Err(RouteError::Method),
        };
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
    if rest == "_catalog" && door == Door::Main && host.is_none() {
        return readable(method).map(|()| Route::Catalog);
    }
    let (name, verb, last) = split(rest).ok_or(RouteError::NotFound)?;
    let name = name.parse().map_err(RouteError::Name)?;
    if door == Door::Mirror && readable(method).is_err() {
        return Err(RouteError::MirrorMethod);
    }
    let query = uri.query().unwrap_or_default();
    let ns = query::get(query, "ns").filter(|ns| !ns.is_empty());
    let target = Target {
        door,
        host: host.map(Into::into),
        ns,
        name,
    };
    match verb {
        Verb::Manifest => manifest(method, target, last),
        Verb::Blob => {
            let digest = last.parse().map_err(RouteError::Digest)?;
            match *method {
                Method::GET | Method::HEAD => Ok(Route::Blob(target, digest)),
                Method::DELETE => Ok(Route::DeleteBlob(target, digest)),
                _ => Err(RouteError::Method),
            }
        }
        Verb::Referrers => {
            readable(method)?;
            let digest = last.parse().map_err(RouteError::Digest)?;
            Ok(Route::Referrers(target, digest))
        }
        Verb::Tags => {
            readable(method)?;
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
        Verb::Upload if last.is_empty() => match *method {
            Method::POST => Ok(Route::BeginUpload(target)),
            _ => Err(RouteError::Method),
        },
        Verb::Upload => {
            let step = match *method {
                Method::GET | Method::HEAD => UploadStep::Status,
                Method::PATCH => UploadStep::Append,
                Method::PUT => UploadStep::Finish,
                Method::DELETE => UploadStep::Cancel,
                _ => return Err(RouteError::Method),
            };
            Ok(Route::Upload(target, step, UploadId::parse(last)))
        }
    }
}

fn manifest<'a>(method: &Method, target: Target<'a>, last: &str) -> Result<Route<'a>, RouteError> {
    let put = method == Method::PUT;
    let reference = if last.contains(':') {
        Reference::Digest(last.parse().map_err(RouteError::Digest)?)
    } else {
        let bad = if put { RouteError::NewTag } else { RouteError::Tag };
        Reference::Tag(last.parse().map_err(bad)?)
    };
    match *method {
        Method::GET | Method::HEAD => Ok(Route::Manifest(target, reference)),
        Method::PUT => Ok(Route::PutManifest(target, reference)),
        Method::DELETE => Ok(Route::DeleteManifest(target, reference)),
        _ => Err(RouteError::Method),
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
