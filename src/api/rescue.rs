//! Every failure to a status and a body: the only place that does it.
//!
//! Codes and body are the distribution spec's. A client with another place to ask (on the mirror door, or with `ns`)
//! gets 503 for all that is not its own fault: on 429 containerd repeats at once, podman sleeps, and neither goes on.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::admin::{BadRequest, Refusal};
use super::body::Content;
use super::incoming::Broken;
use super::reply::{JSON, Reply};
use super::route::RouteError;
use crate::oci::{DigestError, ErrorBody, ErrorCode, NameError};
use crate::registry::{self, ErrorKind, HostedError, ReadError};

/// After how long a client may try again, in seconds, where the upstream does not tell: for its rate limit, and for its
/// other troubles.
const RETRY_LIMIT: u64 = 60;
const RETRY_TROUBLE: u64 = 5;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// It means nothing here.
    Route(RouteError),
    /// It cannot be had.
    Registry(registry::Error),
    /// The blob broke off before the head of the response was sent.
    Read(ReadError),
    /// None of the range exists in so many bytes.
    Range(u64),
    /// The hosted repository does not do it.
    Hosted(HostedError),
    /// What is not ours takes no pushes.
    PullThrough,
    /// The request's body did not come whole.
    Body(Broken),
    /// What is named by it is no digest.
    Digest(DigestError),
    /// Blobs cannot be named by it.
    Algorithm,
    /// The end of an upload does not say what it is.
    NoDigest,
    /// A chunk's range means nothing, or another length than its body has.
    ContentRange,
    /// A chunk does not go on at this byte of its upload, which is at this path.
    Chunk(u64, String),
    /// A tag that is to be made cannot exist.
    NewTag(NameError),
    /// One push sets more tags than this.
    TooManyTags(usize),
    /// Nobody is proved, who has to be.
    Unauthorized(Unauthorized),
    /// They may not.
    Denied(Denied),
    /// Too many wrong passwords.
    Throttled(Duration),
    /// More requests than one identity may make.
    TooFast(Duration),
    /// No token can be made.
    NoToken,
    /// What a token is asked for means nothing, as the word and the reason of RFC 6749 (section 5.2) say.
    TokenRequest(&'static str, &'static str),
    /// The admin API does not answer this client.
    Refused(Refusal),
    /// It says something to the admin API that cannot be understood or done.
    Request(BadRequest),
}

/// Why a login is needed, and how to get in.
#[derive(Debug)]
pub(super) struct Unauthorized {
    /// Why.
    pub(super) message: String,
    /// `WWW-Authenticate`, for clients that may be asked.
    pub(super) challenge: Option<HeaderValue>,
    /// What the audit log is told instead.
    pub(super) why: Option<String>,
}

/// They may not.
#[derive(Debug)]
pub(super) struct Denied {
    /// What the client is told.
    pub(super) message: String,
    /// Why, for the audit log alone: from that a client would learn which repositories there are, and have policies.
    pub(super) why: Option<String>,
}

/// A failure as HTTP tells it.
struct Told {
    status: StatusCode,
    code: ErrorCode,
    retry_after: Option<u64>,
}

impl Told {
    fn new(status: StatusCode, code: ErrorCode) -> Self {
        Self {
            status,
            code,
            retry_after: None,
        }
    }

    fn retry(status: StatusCode, code: ErrorCode, after: u64) -> Self {
        Self {
            status,
            code,
            retry_after: Some(after),
        }
    }
}

impl Failure {
    /// What the client is told.
    pub(super) fn message(&self) -> String {
        match self {
            Failure::Route(error) => error.to_string(),
            Failure::Registry(error) if error.kind == ErrorKind::Internal => "internal error".to_owned(),
            Failure::Registry(error) => error.message.clone(),
            Failure::Read(_) => "the blob could not be read".to_owned(),
            Failure::Unauthorized(unauthorized) => unauthorized.message.clone(),
            Failure::Denied(denied) => denied.message.clone(),
            Failure::Throttled(_) => "too many wrong passwords: wait before the next one".to_owned(),
            Failure::TooFast(_) => "too many requests: wait before the next one".to_owned(),
            Failure::TokenRequest(word, reason) => format!("{word}: {reason}"),
            Failure::Refused(refusal) => refusal.to_string(),
            Failure::Request(error) => error.to_string(),
            Failure::Range(size) => format!("nothing of the range lies within {size} bytes"),
            Failure::NoToken | Failure::Hosted(HostedError::Storage(_)) => "internal error".to_owned(),
            Failure::Hosted(error) => error.to_string(),
            Failure::PullThrough => {
                "this repository is an upstream's: only GET and HEAD are supported. For one of your own, `wharfinger repository \
                 create` makes it, or a [[hosted.template]]"
                    .to_owned()
            }
            Failure::Body(error) => error.to_string(),
            Failure::Digest(error) => error.to_string(),
            Failure::Algorithm => "digest-algorithm must be sha256 or sha512".to_owned(),
            Failure::NoDigest => "the digest parameter is missing".to_owned(),
            Failure::ContentRange => {
                "Content-Range must be <first>-<last>, and as long as the body".to_owned()
            }
            Failure::Chunk(size, _) => format!("the upload goes on at byte {size}"),
            Failure::NewTag(error) => error.to_string(),
            Failure::TooManyTags(most) => format!("one push may set {most} tags at the most"),
        }
    }
}

impl Failure {
    /// What the audit log is told: the reason, where the client does not hear it, else what the client hears.
    pub(super) fn reason(&self) -> String {
        let why = match self {
            Failure::Denied(denied) => &denied.why,
            Failure::Unauthorized(unauthorized) => &unauthorized.why,
            _ => &None,
        };
        why.clone().unwrap_or_else(|| self.message())
    }
}

/// The answer to a request that failed. `falls_through`: whether its client has another place to ask.
pub(super) fn render(failure: &Failure, falls_through: bool, request: &str) -> Reply {
    let mut told = told(failure);
    if falls_through && (told.status.is_server_error() || told.status == StatusCode::TOO_MANY_REQUESTS) {
        let after = told.retry_after.unwrap_or(RETRY_TROUBLE);
        told = Told::retry(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, after);
    }
    let message = failure.message();
    match failure {
        // The upstream's failures were logged where they happened, and the access log has the rest. These are ours, and
        // the id leads from what the client saw to here.
        Failure::Registry(error) if error.kind == ErrorKind::Internal => {
            tracing::error!(request, "request failed");
        }
        Failure::Read(error) => tracing::warn!(request, %error, "request failed"),
        Failure::Hosted(HostedError::Storage(error)) => {
            tracing::error!(request, %error, "request failed");
        }
        // The reason in full was logged once for all who waited; this leads from the id to it.
        Failure::Registry(error) if told.status.is_server_error() => {
            tracing::info!(
                request,
                upstream = error.upstream,
                reason = error.message,
                "request failed"
            );
        }
        _ => {}
    }
    let detail = told
        .status
        .is_server_error()
        .then(|| serde_json::json!({ "request": request }));
    let body = ErrorBody::render(told.code, &message, detail.as_ref());
    let mut reply =
        Reply::new(told.status, Content::Full(Bytes::from(body))).with(header::CONTENT_TYPE, JSON.clone());
    if let Some(seconds) = told.retry_after {
        reply
            .headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if told.status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = match failure {
            Failure::Route(RouteError::PostOnly) => "POST",
            _ => "GET, HEAD",
        };
        reply
            .headers
            .insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    if let Failure::Unauthorized(Unauthorized {
        challenge: Some(challenge),
        ..
    }) = failure
    {
        reply.headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
    }
    if let Failure::Chunk(size, path) = failure {
        reply = reply.located(path);
        let value = HeaderValue::try_from(format!("0-{}", size.saturating_sub(1)));
        reply
            .headers
            .extend(value.ok().map(|value| (header::RANGE, value)));
    }
    if let Failure::Range(size) = failure {
        let value = HeaderValue::try_from(format!("bytes */{size}"));
        reply
            .headers
            .extend(value.ok().map(|value| (header::CONTENT_RANGE, value)));
    }
    reply
}

fn told(failure: &Failure) -> Told {
    match failure {
        Failure::Route(error) => match error {
            RouteError::NotFound => Told::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported),
            RouteError::Method | RouteError::MirrorMethod | RouteError::PostOnly => {
                Told::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported)
            }
            RouteError::Encoding | RouteError::Name(_) => {
                Told::new(StatusCode::BAD_REQUEST, ErrorCode::NameInvalid)
            }
            RouteError::Digest(_) => Told::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
            RouteError::Tag(_) => Told::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
            RouteError::NewTag(_) => Told::new(StatusCode::BAD_REQUEST, ErrorCode::TagInvalid),
            RouteError::Page => Told::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        },
        Failure::Registry(error) => registry_told(error.kind),
        Failure::Read(ReadError::Broken(_)) => {
            Told::retry(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, RETRY_TROUBLE)
        }
        Failure::Read(ReadError::Io(_)) | Failure::NoToken => {
            Told::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown)
        }
        Failure::Range(_) => Told::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid),
        Failure::Hosted(error) => hosted_told(error),
        Failure::PullThrough => Told::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Failure::Body(Broken::TooLarge(_)) => {
            Told::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid)
        }
        Failure::Body(Broken::Cut(_)) | Failure::ContentRange => {
            Told::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid)
        }
        Failure::Body(Broken::Idle) => Told::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid),
        // Of no blob: a manifest, a form, JSON.
        Failure::Body(Broken::Slow(_)) => Told::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::Unknown),
        Failure::Digest(_) | Failure::Algorithm | Failure::NoDigest => {
            Told::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
        }
        Failure::Chunk(..) => Told::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid),
        Failure::NewTag(_) => Told::new(StatusCode::BAD_REQUEST, ErrorCode::TagInvalid),
        // What the spec allows for more tags than are taken.
        Failure::TooManyTags(_) => Told::new(StatusCode::URI_TOO_LONG, ErrorCode::TagInvalid),
        Failure::Unauthorized(_) => Told::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized),
        Failure::Throttled(after) | Failure::TooFast(after) => Told::retry(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            seconds(*after),
        ),
        Failure::TokenRequest(..) => Told::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        Failure::Refused(Refusal::ContentType) => {
            Told::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::Unsupported)
        }
        Failure::Denied(_) | Failure::Refused(_) => Told::new(StatusCode::FORBIDDEN, ErrorCode::Denied),
        Failure::Request(error) => Told::new(error.status(), ErrorCode::Unsupported),
    }
}

fn hosted_told(error: &HostedError) -> Told {
    use HostedError as E;
    match error {
        E::NameUnknown => Told::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        E::ManifestUnknown => Told::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        E::BlobUnknown => Told::new(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        E::UploadUnknown => Told::new(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        // Those of a push that runs end within seconds.
        E::TooManyUploads(_) => Told::retry(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            RETRY_TROUBLE,
        ),
        E::UploadBusy => Told::new(StatusCode::CONFLICT, ErrorCode::BlobUploadInvalid),
        // Not 416, after which clients ask where to go on, and send the same again.
        E::ShortChunk(_) => Told::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
        E::UploadRange(_) => Told::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid),
        E::DigestInvalid(_) => Told::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
        E::ManifestInvalid(_) => Told::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
        E::Dangling(_) => Told::new(StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown),
        E::TagImmutable(_) => Told::new(StatusCode::CONFLICT, ErrorCode::TagInvalid),
        E::NotEmpty | E::BlobNeeded => Told::new(StatusCode::CONFLICT, ErrorCode::Denied),
        E::Quota(_) => Told::new(StatusCode::FORBIDDEN, ErrorCode::Denied),
        E::NoRoom => Told::retry(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Unavailable,
            RETRY_LIMIT,
        ),
        E::Storage(_) => Told::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
    }
}

fn registry_told(kind: ErrorKind) -> Told {
    let trouble = |status| Told::retry(status, ErrorCode::Unavailable, RETRY_TROUBLE);
    match kind {
        ErrorKind::NameUnknown => Told::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        ErrorKind::Denied => Told::new(StatusCode::FORBIDDEN, ErrorCode::Denied),
        ErrorKind::LoginNeeded | ErrorKind::LoginRejected => {
            Told::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized)
        }
        ErrorKind::ReferenceInvalid => Told::new(StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        // Schema 1 is there and cannot be served. docker and podman show the message of just this code, and a client
        // with another place to ask goes on there.
        ErrorKind::ManifestUnknown | ErrorKind::ManifestInvalid => {
            Told::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown)
        }
        ErrorKind::BlobUnknown => Told::new(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        ErrorKind::RateLimited { retry_after } => {
            let after = retry_after.map_or(RETRY_LIMIT, seconds);
            Told::retry(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, after)
        }
        ErrorKind::UpstreamFailed | ErrorKind::CredentialsRejected => trouble(StatusCode::BAD_GATEWAY),
        ErrorKind::UpstreamUnavailable => trouble(StatusCode::SERVICE_UNAVAILABLE),
        // Nobody knows when that ends; not within seconds.
        ErrorKind::Offline => Told::retry(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            RETRY_LIMIT,
        ),
        ErrorKind::UpstreamTimeout => trouble(StatusCode::GATEWAY_TIMEOUT),
        ErrorKind::Internal => Told::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
    }
}

/// Whole seconds, rounded up, at least one: `Retry-After: 0` would be an invitation to hammer.
fn seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{DigestError, NameError};

    struct Seen {
        status: u16,
        retry: Option<String>,
        body: serde_json::Value,
        reply: Reply,
    }

    fn seen(failure: &Failure, falls_through: bool) -> Seen {
        let reply = render(failure, falls_through, "REQUEST");
        let Content::Full(bytes) = &reply.content else {
            panic!("no body")
        };
        let retry = reply.headers.get(header::RETRY_AFTER);
        Seen {
            status: reply.status.as_u16(),
            retry: retry.map(|value| value.to_str().unwrap().to_owned()),
            body: serde_json::from_slice(bytes).unwrap(),
            reply,
        }
    }

    #[test]
    fn every_kind_at_every_door() {
        let limited = |seconds: Option<f64>| ErrorKind::RateLimited {
            retry_after: seconds.map(Duration::from_secs_f64),
        };
        // Kind; main door: status, code, Retry-After; with another place to ask: status, Retry-After.
        let cases = [
            (ErrorKind::NameUnknown, 404, "NAME_UNKNOWN", None, 404, None),
            (ErrorKind::Denied, 403, "DENIED", None, 403, None),
            (ErrorKind::ReferenceInvalid, 400, "NAME_INVALID", None, 400, None),
            (
                ErrorKind::ManifestUnknown,
                404,
                "MANIFEST_UNKNOWN",
                None,
                404,
                None,
            ),
            (
                ErrorKind::ManifestInvalid,
                404,
                "MANIFEST_UNKNOWN",
                None,
                404,
                None,
            ),
            (ErrorKind::BlobUnknown, 404, "BLOB_UNKNOWN", None, 404, None),
            (limited(None), 429, "TOOMANYREQUESTS", Some("60"), 503, Some("60")),
            (
                limited(Some(0.0)),
                429,
                "TOOMANYREQUESTS",
                Some("1"),
                503,
                Some("1"),
            ),
            (
                limited(Some(2.5)),
                429,
                "TOOMANYREQUESTS",
                Some("3"),
                503,
                Some("3"),
            ),
            (
                ErrorKind::UpstreamFailed,
                502,
                "UNAVAILABLE",
                Some("5"),
                503,
                Some("5"),
            ),
            (
                ErrorKind::CredentialsRejected,
                502,
                "UNAVAILABLE",
                Some("5"),
                503,
                Some("5"),
            ),
            (
                ErrorKind::UpstreamUnavailable,
                503,
                "UNAVAILABLE",
                Some("5"),
                503,
                Some("5"),
            ),
            (
                ErrorKind::Offline,
                503,
                "UNAVAILABLE",
                Some("60"),
                503,
                Some("60"),
            ),
            (
                ErrorKind::UpstreamTimeout,
                504,
                "UNAVAILABLE",
                Some("5"),
                503,
                Some("5"),
            ),
            (ErrorKind::Internal, 500, "UNKNOWN", None, 503, Some("5")),
        ];
        for (kind, status, code, retry, mirror_status, mirror_retry) in cases {
            let failure = Failure::Registry(registry::Error::new(kind, "the reason"));
            let main = seen(&failure, false);
            assert_eq!((main.status, main.retry.as_deref()), (status, retry), "{kind:?}");
            assert_eq!(main.body["errors"][0]["code"], code, "{kind:?}");
            let message = if kind == ErrorKind::Internal {
                "internal error"
            } else {
                "the reason"
            };
            assert_eq!(main.body["errors"][0]["message"], message, "{kind:?}");
            let request = &main.body["errors"][0]["detail"]["request"];
            assert_eq!(request == "REQUEST", status >= 500, "{kind:?}");
            let mirror = seen(&failure, true);
            assert_eq!(
                (mirror.status, mirror.retry.as_deref()),
                (mirror_status, mirror_retry),
                "{kind:?}"
            );
            let request = &mirror.body["errors"][0]["detail"]["request"];
            assert_eq!(request == "REQUEST", mirror_status >= 500, "{kind:?}");
            let mirror_code = if mirror_status == 503 { "UNAVAILABLE" } else { code };
            assert_eq!(mirror.body["errors"][0]["code"], mirror_code, "{kind:?}");
            assert_eq!(mirror.reply.headers[header::CONTENT_TYPE], "application/json");
        }
    }

    #[test]
    fn what_the_client_got_wrong() {
        let cases = [
            (RouteError::NotFound, 404, "UNSUPPORTED"),
            (RouteError::Method, 405, "UNSUPPORTED"),
            (RouteError::Encoding, 400, "NAME_INVALID"),
            (RouteError::Name(NameError::Name), 400, "NAME_INVALID"),
            (RouteError::Digest(DigestError::Malformed), 400, "DIGEST_INVALID"),
            (
                RouteError::Digest(DigestError::Unsupported),
                400,
                "DIGEST_INVALID",
            ),
            (RouteError::Tag(NameError::Tag), 404, "MANIFEST_UNKNOWN"),
            (RouteError::Page, 400, "UNSUPPORTED"),
        ];
        for (error, status, code) in cases {
            let seen = seen(&Failure::Route(error), true);
            assert_eq!(seen.status, status, "{error:?}");
            assert_eq!(seen.body["errors"][0]["code"], code, "{error:?}");
            let allow = seen.reply.headers.get(header::ALLOW);
            assert_eq!(
                allow.map(HeaderValue::as_bytes),
                (status == 405).then_some(&b"GET, HEAD"[..])
            );
        }
    }

    #[test]
    fn ranges_and_broken_blobs() {
        let range = seen(&Failure::Range(7), true);
        assert_eq!(range.status, 416);
        assert_eq!(range.reply.headers[header::CONTENT_RANGE], "bytes */7");
        let broken = Failure::Read(ReadError::Broken("host x said y".into()));
        let main = seen(&broken, false);
        assert_eq!((main.status, main.retry.as_deref()), (502, Some("5")));
        assert!(!main.body.to_string().contains("host x"));
        assert_eq!(seen(&broken, true).status, 503);
    }
}
