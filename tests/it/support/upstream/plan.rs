//! What a scripted answer does differently from a correct one. A plan is a plain value, put before a
//! set of requests by `Upstream::once`, `times` or `always`: `up.once(blob(&d), serve().cut_at(5000))`.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::Upstream;
use super::gate::Gate;
use super::pace::Pace;

/// Departures from the correct answer; all that are set apply together.
///
/// Offsets count in the whole content, also when a range of it is asked for.
#[derive(Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each one is a switch of its own")]
pub struct Plan {
    pub(super) reply: Option<Canned>,
    pub(super) cdn: Option<Cdn>,
    pub(super) hold: Option<Gate>,
    pub(super) hang_up: bool,
    pub(super) before_auth: bool,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) without: Vec<HeaderName>,
    pub(super) ignore_range: bool,
    pub(super) shift_range: i64,
    pub(super) claim_length: Option<u64>,
    pub(super) no_length: bool,
    pub(super) flip_at: Option<u64>,
    pub(super) stall_at: Option<(u64, Gate)>,
    pub(super) cut_at: Option<u64>,
    pub(super) cut_after: Option<u64>,
    pub(super) pace: Option<Pace>,
}

/// An answer given instead of the content.
#[derive(Clone)]
pub(super) struct Canned {
    pub(super) status: StatusCode,
    pub(super) body: Option<Bytes>,
}

/// A redirect of the content to signed URLs of another server.
#[derive(Clone)]
pub(super) struct Cdn {
    pub(super) server: Upstream,
    pub(super) status: StatusCode,
    pub(super) uses: usize,
}

/// The correct answer, as the start of a plan that spoils it.
pub fn serve() -> Plan {
    Plan::default()
}

/// This status, with an error body of the specification's form where it is an error.
pub fn reply(status: u16) -> Plan {
    let status = StatusCode::from_u16(status).expect("a valid status");
    Plan {
        reply: Some(Canned { status, body: None }),
        ..Plan::default()
    }
}

/// 200 with an HTML page, as captive portals and broken proxies give for anything.
pub fn html() -> Plan {
    reply(200)
        .header("content-type", "text/html; charset=utf-8")
        .body("<html><body>Please log in</body></html>")
}

/// A redirect of this status to `location` (a path on this server, or a URL).
pub fn redirect(status: u16, location: &str) -> Plan {
    reply(status).header("location", location).body("")
}

/// A redirect of this status to a URL on `cdn`, made for each request and good for `uses` GETs; then it
/// answers 403. As object stores do, the URL refuses HEAD (403) and requests with Authorization (400).
pub fn via_cdn(cdn: &Upstream, status: u16, uses: usize) -> Plan {
    let status = StatusCode::from_u16(status).expect("a valid status");
    Plan {
        cdn: Some(Cdn {
            server: cdn.clone(),
            status,
            uses,
        }),
        ..Plan::default()
    }
}

impl Plan {
    /// Sets a header, in place of what the answer would say.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(header_pair(name, value));
        self
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.without
            .push(HeaderName::from_bytes(name.as_bytes()).expect("a valid header name"));
        self
    }

    /// Sets the status of a `reply`.
    pub fn status(mut self, status: u16) -> Self {
        let canned = self.reply.as_mut().expect("a status belongs to a reply");
        canned.status = StatusCode::from_u16(status).expect("a valid status");
        self
    }

    /// Sets the body of a `reply`.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        let canned = self.reply.as_mut().expect("a body belongs to a reply");
        canned.body = Some(body.into());
        self
    }

    /// Sends no head until the gate opens (reached: the request is here).
    pub fn hold_head(mut self, gate: &Gate) -> Self {
        self.hold = Some(gate.clone());
        self
    }

    /// Closes the connection instead of answering.
    pub fn hang_up(mut self) -> Self {
        self.hang_up = true;
        self
    }

    /// Applies to requests without credentials too; other plans leave the challenge to be given first.
    pub fn before_auth(mut self) -> Self {
        self.before_auth = true;
        self
    }

    /// Answers 200 with everything to a request with Range.
    pub fn ignore_range(mut self) -> Self {
        self.ignore_range = true;
        self
    }

    /// Answers a Range with another one, `by` bytes further on; Content-Range says so.
    pub fn shift_range(mut self, by: i64) -> Self {
        self.shift_range = by;
        self
    }

    /// Says this Content-Length. More than there is: closes too early. Less: ends as if that were all.
    pub fn claim_length(mut self, length: u64) -> Self {
        self.claim_length = Some(length);
        self
    }

    /// Says no Content-Length: a chunked body, for HEAD nothing.
    pub fn no_length(mut self) -> Self {
        self.no_length = true;
        self
    }

    /// Sends one wrong byte at this offset.
    pub fn flip_at(mut self, offset: u64) -> Self {
        self.flip_at = Some(offset);
        self
    }

    /// Sends all before this offset, then waits at the gate. A range that starts behind it does not wait.
    pub fn stall_at(mut self, offset: u64, gate: &Gate) -> Self {
        self.stall_at = Some((offset, gate.clone()));
        self
    }

    /// Sends all before this offset, then closes the connection. A range that starts behind it is whole.
    pub fn cut_at(mut self, offset: u64) -> Self {
        self.cut_at = Some(offset);
        self
    }

    /// Closes the connection after this many bytes of each body, wherever it starts.
    pub fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Sends no faster than this.
    pub fn at_pace(mut self, pace: &Pace) -> Self {
        self.pace = Some(pace.clone());
        self
    }

    /// Whether it is about a body, so that a HEAD should not use it up.
    pub(super) fn needs_body(&self) -> bool {
        self.flip_at.is_some()
            || self.stall_at.is_some()
            || self.cut_at.is_some()
            || self.cut_after.is_some()
            || self.pace.is_some()
    }
}

pub(super) fn header_pair(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let name = HeaderName::from_bytes(name.as_bytes()).expect("a valid header name");
    (name, HeaderValue::from_str(value).expect("a valid header value"))
}
