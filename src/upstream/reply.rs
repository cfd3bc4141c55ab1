//! An answer's head with its body still on the wire: bounded reading, and errors made of what upstreams say. Used by
//! every part that sends requests.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, LOCATION, WWW_AUTHENTICATE};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::budget::Told;
use super::error::{ErrorKind, Failure, Limit, classify, tidy};
use super::offline::Offline;
use super::retry;
use super::transport::Transport;
use super::turns::Turn;
use crate::clock::Timestamp;
use crate::oci::{Challenge, parse_challenges};

/// A whole small body (manifest, list, token) has this long, however steadily it drips.
const SMALL_BODY_TIME: Duration = Duration::from_mins(1);
/// How much, and how long, of a body that says why is worth reading.
const EXCUSE_SIZE: usize = 64 * 1024;
const EXCUSE_TIME: Duration = Duration::from_secs(3);

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// More than the limit, in bytes.
    TooLarge(usize),
    /// The wire failed.
    Broken(ErrorKind, String),
}

impl ReadError {
    /// The error's kind and message.
    pub(super) fn explain(self) -> (ErrorKind, String) {
        match self {
            Self::TooLarge(limit) => (
                ErrorKind::Protocol,
                format!("the body is larger than {limit} bytes"),
            ),
            Self::Broken(kind, message) => (kind, message),
        }
    }
}

/// A response whose body has not been read. Dropping it gives its turn and its connection back.
pub(super) struct Reply {
    response: reqwest::Response,
    host: String,
    /// Given back when the reply is dropped, or put aside.
    turn: Option<Turn>,
    idle_timeout: Duration,
    offline: Offline,
    /// It is a 401 to a token that was made for just what was asked for.
    says_absent: bool,
    /// What the body says, once it was read for that.
    excuse: Option<String>,
}

impl Reply {
    pub(super) fn new(response: reqwest::Response, host: String, turn: Turn, transport: &Transport) -> Self {
        Self {
            response,
            host,
            turn: Some(turn),
            idle_timeout: transport.idle_timeout(),
            offline: transport.offline().clone(),
            says_absent: false,
            excuse: None,
        }
    }

    /// The same, as the refusal of a token that was made for just what was asked for.
    pub(super) fn saying_absent(mut self) -> Self {
        self.says_absent = true;
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Who sent it.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A header's first value, if it is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// `Content-Length` as written: right for HEAD too.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header(&CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// All challenges of all header lines.
    pub(super) fn challenges(&self) -> Vec<Challenge> {
        let lines = self.headers().get_all(WWW_AUTHENTICATE).iter();
        parse_challenges(lines.filter_map(|line| line.to_str().ok()))
    }

    /// Where a redirect leads. `None` when it is none; a redirect without a usable target is none either.
    pub(super) fn redirect(&self, from: &Url) -> Option<Url> {
        if !matches!(self.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        from.join(self.header(&LOCATION)?).ok()
    }

    /// The next piece of the body, handed on as it was received.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        let end = Instant::now() + self.idle_timeout;
        let chunk = self.chunk_until(end).await;
        chunk.unwrap_or_else(|| Err(self.silence()))
    }

    /// The next piece; `None` when it did not come until then. May be dropped and called again.
    pub(super) async fn chunk_until(&mut self, end: Instant) -> Option<Result<Option<Bytes>, ReadError>> {
        let cut = || {
            let message = "broken off: we are offline now".to_owned();
            Some(Err(ReadError::Broken(ErrorKind::Offline, message)))
        };
        if self.offline.is_on() {
            return cut();
        }
        let chunk = tokio::select! {
            biased;
            chunk = tokio::time::timeout_at(end, self.response.chunk()) => chunk.ok()?,
            () = self.offline.until(true) => return cut(),
        };
        Some(chunk.map_err(|error| {
            let (kind, message) = classify(&error);
            ReadError::Broken(kind, message)
        }))
    }

    /// How long a body may be silent.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// That it was silent for longer.
    pub(super) fn silence(&self) -> ReadError {
        let message = format!("nothing came for {:?}", self.idle_timeout);
        ReadError::Broken(ErrorKind::Unavailable(Failure::Timeout), message)
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(super) async fn read(&mut self, limit: usize) -> Result<Bytes, ReadError> {
        let whole = tokio::time::timeout(SMALL_BODY_TIME, self.collect(limit)).await;
        whole.unwrap_or_else(|_| {
            let message = format!("the body did not end within {SMALL_BODY_TIME:?}");
            let kind = ErrorKind::Unavailable(Failure::Timeout);
            Err(ReadError::Broken(kind, message))
        })
    }

    async fn collect(&mut self, limit: usize) -> Result<Bytes, ReadError> {
        let told = self.content_length().unwrap_or(0);
        if told > limit as u64 {
            return Err(ReadError::TooLarge(limit));
        }
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        // Most small bodies come in one piece.
        if first.len() as u64 == told {
            return Ok(first);
        }
        let mut body = BytesMut::with_capacity(first.len().max(told as usize));
        let mut next = Some(first);
        while let Some(chunk) = next {
            if body.len() + chunk.len() > limit {
                return Err(ReadError::TooLarge(limit));
            }
            body.extend_from_slice(&chunk);
            next = self.chunk().await?;
        }
        Ok(body.freeze())
    }

    /// Reads what is left if it is little, so that the connection can be used again.
    pub(super) async fn drain(mut self) {
        // A longer or slower rest costs the connection, nothing more.
        let _ = tokio::time::timeout(EXCUSE_TIME, self.collect(EXCUSE_SIZE)).await;
    }

    /// Keeps what a refusal says, and gives its turn back: who asks again meanwhile may need just that one.
    pub(super) async fn put_aside(&mut self) {
        self.excuse().await;
        self.turn = None;
    }

    /// What the body says about a refusal. Reads it.
    async fn excuse(&mut self) -> &str {
        if self.excuse.is_none() {
            let read = tokio::time::timeout(EXCUSE_TIME, self.collect(EXCUSE_SIZE)).await;
            let body = read.ok().and_then(Result::ok).unwrap_or_default();
            self.excuse = Some(excuse(&body));
        }
        self.excuse.as_deref().unwrap_or_default()
    }

    /// Which limit a 429 tells of, and how long it lasts if it says so. Docker Hub's on pulls has a message of its own, and
    /// on HEAD, which has no body, only nothing left; its limit on requests is bare, as other registries' are.
    pub(super) async fn limit(&mut self) -> (Limit, Option<Duration>) {
        let told = retry::retry_after(self.headers(), Timestamp::now());
        let none_left = Told::read(self.headers()).is_some_and(|told| told.remaining == Some(0));
        let message = self.excuse().await;
        let limit = if none_left || message.to_ascii_lowercase().contains("pull rate limit") {
            Limit::Pulls
        } else {
            Limit::Requests
        };
        (limit, told.or_else(|| retry::retry_after_in_text(message)))
    }

    /// The kind of error that this status is for content, and what the upstream says about it.
    pub(super) async fn into_excuse(mut self) -> (ErrorKind, String) {
        let kind = match self.status().as_u16() {
            404 | 410 => ErrorKind::NotFound,
            401 if self.says_absent => ErrorKind::Absent,
            401 | 403 | 451 => ErrorKind::Denied,
            429 => {
                let (limit, retry_after) = self.limit().await;
                ErrorKind::RateLimited { retry_after, limit }
            }
            status @ (408 | 500..) => ErrorKind::Unavailable(Failure::Status(status)),
            _ => ErrorKind::Unexpected,
        };
        let message = self.excuse().await.to_owned();
        (kind, message)
    }
}

/// What an error body says: the spec's JSON, one of the older shapes, or plain text. HTML says nothing.
fn excuse(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let Ok(json) = serde_json::from_str::<Value>(text) else {
        return if text.starts_with('<') {
            String::new()
        } else {
            tidy(text)
        };
    };
    let field = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Some(first) = json.get("errors").and_then(|errors| errors.get(0)) {
        let parts: Vec<_> = ["code", "message"]
            .iter()
            .filter_map(|name| field(first, name))
            .collect();
        return tidy(&parts.join(": "));
    }
    let names = ["message", "details", "detail", "error_description", "error"];
    tidy(
        &names
            .iter()
            .find_map(|name| field(&json, name))
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_error_bodies_say() {
        let table = [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\nway"}]}"#,
                "DENIED: no way",
            ),
            (r#"{"errors":[{"code":"UNKNOWN"}]}"#, "UNKNOWN"),
            (r#"{"errors":[]}"#, ""),
            (r#"{"message":"toomanyrequests: slow"}"#, "toomanyrequests: slow"),
            (
                r#"{"details":"incorrect username or password"}"#,
                "incorrect username or password",
            ),
            ("404 page not found\n", "404 page not found"),
            ("<html><body>nginx</body></html>", ""),
            ("", ""),
            ("[1]", ""),
        ];
        for (body, expected) in table {
            assert_eq!(excuse(body.as_bytes()), expected, "{body}");
        }
    }
}
