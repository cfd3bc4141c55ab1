//! What the scripted Docker Hub answers.

use bytes::{Bytes, BytesMut};
use http::response::Builder;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::State;
use super::budget::LIMIT;
use crate::catalogue::Repository;
use crate::script::Weather;
use crate::shared::content::Blob;
use crate::shared::serve::{Body, empty, range};

const OVER_THE_LIMIT: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;
const NOT_FOUND: &str = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
const UNAUTHORIZED: &str = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;

/// The answer, or `None` for a connection that is cut.
pub(super) fn answer(request: &Request<Incoming>, state: &State) -> Option<Response<Body>> {
    let weather = {
        let mut inner = state.lock();
        inner.counts.requests += 1;
        inner.weather
    };
    match weather {
        Weather::Silent => return None,
        Weather::Failing => {
            return Some(text(StatusCode::SERVICE_UNAVAILABLE, "text/html", "<h1>503</h1>"));
        }
        Weather::Well | Weather::Limited => {}
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", ""));
    }
    let path = request.uri().path();
    Some(if path == "/token" {
        token(request)
    } else if let Some(digest) = path.strip_prefix("/cdn/") {
        state
            .catalogue
            .blob(digest)
            .map_or_else(not_found, |blob| content(request, state, blob))
    } else if let Some(rest) = path.strip_prefix("/v2/") {
        api(request, state, rest)
    } else {
        not_found()
    })
}

/// Everything below `/v2/`, which takes a token for the repository even where anybody may read.
fn api(request: &Request<Incoming>, state: &State, rest: &str) -> Response<Body> {
    let part = |kind: &str| {
        let (name, reference) = rest.rsplit_once('/')?;
        Some((name.strip_suffix(kind)?, reference))
    };
    if let Some((name, reference)) = part("/manifests") {
        match allowed(request, state, name) {
            Some(repository) => manifest(request, state, repository, reference),
            None => challenge(request, Some(name)),
        }
    } else if let Some((name, digest)) = part("/blobs") {
        match allowed(request, state, name) {
            Some(repository) if repository.blobs.contains_key(digest) => {
                let location = format!("http://{}/cdn/{digest}", host(request));
                response(StatusCode::TEMPORARY_REDIRECT, 0)
                    .header(header::LOCATION, location)
                    .body(empty())
                    .or_fault()
            }
            Some(_) => not_found(),
            None => challenge(request, Some(name)),
        }
    } else if rest.is_empty() {
        match bearer(request) {
            Some(_) => text(StatusCode::OK, "application/json", "{}"),
            None => challenge(request, None),
        }
    } else {
        not_found()
    }
}

/// A manifest, if the limit allows.
fn manifest(
    request: &Request<Incoming>,
    state: &State,
    repository: &Repository,
    reference: &str,
) -> Response<Body> {
    let mut inner = state.lock();
    let key = (repository.name.clone(), reference.to_owned());
    let digest = inner.tags.get(&key).map_or(reference, String::as_str).to_owned();
    let found = repository.documents.get(&digest);
    let counts = request.method() == Method::GET;
    // What does not exist costs nothing.
    let refused = counts && found.is_some() && (inner.weather == Weather::Limited || !inner.budget.take());
    let remaining = match inner.weather {
        Weather::Limited => 0,
        _ => inner.budget.remaining(),
    };
    let window = state.pace.window.as_secs().max(1);
    let limits = |builder: Builder| {
        builder
            .header("ratelimit-limit", format!("{LIMIT};w={window}"))
            .header("ratelimit-remaining", format!("{remaining};w={window}"))
            .header("docker-ratelimit-source", "192.0.2.7")
    };
    let Some(document) = found else {
        return not_found();
    };
    if refused {
        inner.counts.refused += 1;
        let body = Bytes::from_static(OVER_THE_LIMIT.as_bytes());
        return limits(response(StatusCode::TOO_MANY_REQUESTS, body.len()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body).boxed_unsync())
            .or_fault();
    }
    if counts {
        inner.counts.pulls += 1;
        inner.counts.bytes += document.bytes.len() as u64;
        *inner.counts.pulled.entry(digest.clone()).or_default() += 1;
    }
    let body = if counts {
        Full::new(document.bytes.clone()).boxed_unsync()
    } else {
        empty()
    };
    limits(response(StatusCode::OK, document.bytes.len()))
        .header(header::CONTENT_TYPE, document.media_type)
        .header(header::ETAG, format!("\"{digest}\""))
        .header("docker-content-digest", digest)
        .body(body)
        .or_fault()
}

/// A blob, as the storage behind the registry gives it to everybody.
fn content(request: &Request<Incoming>, state: &State, blob: &Blob) -> Response<Body> {
    let part = range(request, blob.size);
    let (from, to) = part.unwrap_or((0, blob.size));
    let builder = match part {
        Some(_) => response(StatusCode::PARTIAL_CONTENT, (to - from) as usize).header(
            header::CONTENT_RANGE,
            format!("bytes {from}-{}/{}", to - 1, blob.size),
        ),
        None => response(StatusCode::OK, blob.size as usize),
    };
    let body = if request.method() == Method::GET {
        state.lock().counts.bytes += to - from;
        Full::new(bytes_of(blob).slice(from as usize..to as usize)).boxed_unsync()
    } else {
        empty()
    };
    builder
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .body(body)
        .or_fault()
}

fn bytes_of(blob: &Blob) -> Bytes {
    let mut bytes = BytesMut::with_capacity(blob.size as usize);
    while (bytes.len() as u64) < blob.size {
        bytes.extend_from_slice(&blob.piece(bytes.len() as u64));
    }
    bytes.freeze()
}

/// The repository, if it exists and the token is for it: an unknown one is answered like a forbidden one.
fn allowed<'a>(request: &Request<Incoming>, state: &'a State, name: &str) -> Option<&'a Repository> {
    let token = bearer(request)?;
    state
        .catalogue
        .named(name)
        .filter(|repository| token == token_of(&repository.name))
}

fn bearer(request: &Request<Incoming>) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

fn token_of(repository: &str) -> String {
    hex::encode(repository)
}

/// The token service: everybody gets one, for the repository that the scope names.
fn token(request: &Request<Incoming>) -> Response<Body> {
    let parameters = request.uri().query().unwrap_or_default();
    let scope = url::form_urlencoded::parse(parameters.as_bytes())
        .find_map(|(name, value)| (name == "scope").then(|| value.into_owned()));
    let repository = scope
        .as_deref()
        .and_then(|scope| scope.strip_prefix("repository:")?.strip_suffix(":pull"))
        .unwrap_or("nothing");
    let token = token_of(repository);
    let body = format!(r#"{{"token":"{token}","access_token":"{token}","expires_in":300}}"#);
    text(StatusCode::OK, "application/json", body)
}

fn challenge(request: &Request<Incoming>, name: Option<&str>) -> Response<Body> {
    let host = host(request);
    let scope = name.map_or_else(String::new, |name| format!(",scope=\"repository:{name}:pull\""));
    let value = format!("Bearer realm=\"http://{host}/token\",service=\"registry.docker.io\"{scope}");
    response(StatusCode::UNAUTHORIZED, UNAUTHORIZED.len())
        .header(header::WWW_AUTHENTICATE, value)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(UNAUTHORIZED.as_bytes())).boxed_unsync())
        .or_fault()
}

fn host(request: &Request<Incoming>) -> &str {
    let value = request.headers().get(header::HOST);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "application/json", NOT_FOUND)
}

fn text(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    response(status, body.len())
        .header(header::CONTENT_TYPE, media_type)
        .body(Full::new(body).boxed_unsync())
        .or_fault()
}

fn response(status: StatusCode, length: usize) -> Builder {
    Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, length)
        .header("docker-distribution-api-version", "registry/2.0")
}

/// Headers that cannot be written are a fault of the script.
trait OrFault {
    fn or_fault(self) -> Response<Body>;
}

impl OrFault for http::Result<Response<Body>> {
    fn or_fault(self) -> Response<Body> {
        self.unwrap_or_else(|_| {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    }
}
