//! An answer before it is sent: the vocabulary of headers, with what never changes made once.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::{Body, Content};
use super::exchange::Exchange;
use crate::oci::Digest;

static API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
static CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
static NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) static FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

static REGISTRY_2: HeaderValue = HeaderValue::from_static("registry/2.0");
pub(super) static BYTES: HeaderValue = HeaderValue::from_static("bytes");
pub(super) static JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) static OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Room for the headers of any answer, so that the map is allocated once.
const HEADERS: usize = 14;

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    /// Whether some of the content goes out before its digest is known.
    pub(super) unverified: bool,
    /// The content's length where it is not sent (HEAD).
    pub(super) length: Option<u64>,
}

/// A digest as `Docker-Content-Digest`, and as a strong entity tag.
pub(super) struct DigestHeaders {
    digest: HeaderValue,
    tag: HeaderValue,
}

impl DigestHeaders {
    pub(super) fn new(digest: &Digest) -> Self {
        // One allocation for both: the tag is the digest in quotes.
        let mut quoted = BytesMut::with_capacity(160);
        quoted.put_u8(b'"');
        digest.with_text(|text| quoted.put_slice(text.as_bytes()));
        quoted.put_u8(b'"');
        let quoted = quoted.freeze();
        let bare = quoted.slice(1..quoted.len() - 1);
        let value =
            |bytes: Bytes| HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static(""));
        Self {
            digest: value(bare),
            tag: value(quoted),
        }
    }

    /// The entity tag.
    pub(super) fn tag(&self) -> &HeaderValue {
        &self.tag
    }
}

impl Reply {
    pub(super) fn new(status: StatusCode, content: Content) -> Self {
        let headers = HeaderMap::with_capacity(HEADERS);
        Self {
            status,
            headers,
            content,
            unverified: false,
            length: None,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn digest(mut self, digest: DigestHeaders) -> Self {
        self.headers.insert(&CONTENT_DIGEST, digest.digest);
        self.headers.insert(header::ETAG, digest.tag);
        self
    }

    /// `Location`: relative, so that it holds behind any proxy, and leads to no other host.
    pub(super) fn located(self, path: &str) -> Self {
        match HeaderValue::from_str(path) {
            Ok(value) => self.with(header::LOCATION, value),
            Err(_) => self,
        }
    }

    /// What every answer carries.
    pub(super) fn common(&mut self, exchange: &Exchange) {
        self.headers.insert(&API_VERSION, REGISTRY_2.clone());
        self.headers.insert(&REQUEST_ID, exchange.id.header());
        if let Some(status) = exchange.status {
            self.headers.insert(&CACHE_STATUS, status.header(self.unverified));
        }
        let namespace = exchange
            .repository
            .as_ref()
            .and_then(|repository| repository.namespace());
        if let Some(Ok(value)) = namespace.map(HeaderValue::from_str) {
            self.headers.insert(&NAMESPACE, value);
        }
    }

    pub(super) fn into_response(mut self, method: &Method, mut exchange: Box<Exchange>) -> Response<Body> {
        exchange.code = Some(self.status);
        // A 304 has no content, and its length would be read as that of what was not sent.
        if self.status != StatusCode::NOT_MODIFIED
            && let Some(length) = self.length.or_else(|| self.content.len())
        {
            self.headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if method == Method::HEAD {
            self.content = Content::Empty;
        }
        let mut response = Response::new(Body::new(self.content, exchange));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Whether the request's `If-None-Match` names what we have (RFC 9110 section 13.1.2, weak comparison).
pub(super) fn is_known_to_client(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|line| {
        // Our tags hold no comma.
        line.as_bytes().split(|byte| *byte == b',').any(|entry| {
            let entry = entry.trim_ascii();
            entry == b"*" || entry.strip_prefix(b"W/").unwrap_or(entry) == tag.as_bytes()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_and_tag() {
        let text = format!("sha512:{}", "ab".repeat(64));
        let headers = DigestHeaders::new(&text.parse().unwrap());
        assert_eq!(headers.digest, text);
        assert_eq!(headers.tag(), &format!("\"{text}\""));
    }

    #[test]
    fn if_none_match() {
        let tag = HeaderValue::from_static("\"sha256:ab\"");
        for (value, expected) in [
            ("\"sha256:ab\"", true),
            ("W/\"sha256:ab\"", true),
            ("*", true),
            ("\"x\", \"sha256:ab\"", true),
            ("\"x\",W/\"y\"", false),
            ("sha256:ab", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            assert_eq!(is_known_to_client(&headers, &tag), expected, "{value}");
        }
        assert!(!is_known_to_client(&HeaderMap::new(), &tag));
    }
}
