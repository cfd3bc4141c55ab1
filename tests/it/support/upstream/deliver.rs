//! Turns content and a plan into what goes over the wire: ranges, lies, stalls, cuts. Called by `serve`
//! for every answer.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;

use super::gate::Gate;
use super::log::{Entry, Outcome};
use super::matching::Asked;
use super::pace::{Pace, Sender};
use super::plan::Plan;
use super::wire::Flushes;

/// The body of every answer.
pub(in crate::support) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Small enough that a count of sent bytes stays near to what was written.
const CHUNK: u64 = 16 * 1024;

/// An answer before it is delivered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
    /// Whether a Range may be asked of it.
    pub(super) ranges: bool,
}

impl Answer {
    pub(super) fn new(status: StatusCode, bytes: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            bytes: bytes.into(),
            ranges: false,
        }
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        self.headers
            .insert(name, HeaderValue::from_str(value).expect("a valid header value"));
        self
    }
}

/// A range of content, `start` to before `end`.
enum Part {
    Whole,
    Range { start: u64, end: u64 },
    Unsatisfiable,
}

/// Reads a Range header; what is not a single byte range is ignored, as RFC 9110 allows.
fn parse_range(header: &str, size: u64) -> Part {
    let Some((first, last)) = header
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => return Part::Unsatisfiable,
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(0)) if first.is_empty() => return Part::Unsatisfiable,
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Part::Whole,
    };
    if start >= size {
        Part::Unsatisfiable
    } else {
        Part::Range { start, end }
    }
}

/// Makes the response; from here on the record belongs to the body.
pub(super) fn deliver(
    asked: &Asked,
    mut answer: Answer,
    plan: &Plan,
    entry: Entry,
    flushes: Flushes,
) -> Response<Body> {
    let size = answer.bytes.len() as u64;
    let (mut start, mut end) = (0, size);
    if answer.ranges && !plan.ignore_range {
        match parse_range(asked.header("range"), size) {
            Part::Whole => {}
            Part::Range {
                start: first,
                end: last,
            } => {
                start = first.saturating_add_signed(plan.shift_range).min(size);
                end = last.saturating_add_signed(plan.shift_range).min(size);
                answer.status = StatusCode::PARTIAL_CONTENT;
                let last = end.saturating_sub(1);
                answer = answer.header(header::CONTENT_RANGE, &format!("bytes {start}-{last}/{size}"));
            }
            Part::Unsatisfiable => {
                answer.status = StatusCode::RANGE_NOT_SATISFIABLE;
                answer = answer.header(header::CONTENT_RANGE, &format!("bytes */{size}"));
                answer.bytes = Bytes::new();
                end = 0;
            }
        }
    }
    let length = plan.claim_length.unwrap_or(end - start);
    if !plan.no_length {
        answer.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    for (name, value) in &plan.headers {
        answer.headers.insert(name, value.clone());
    }
    for name in &plan.without {
        answer.headers.remove(name);
    }
    entry.status(answer.status.as_u16());
    let body = if asked.method == Method::HEAD {
        entry.end(Outcome::Complete);
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    } else {
        let delivery = Delivery {
            bytes: answer.bytes,
            position: start,
            end: end.min(start.saturating_add(length)),
            short: plan.claim_length.is_some_and(|claimed| claimed > end - start),
            chunked: plan.no_length,
            flip_at: plan.flip_at,
            stall_at: plan.stall_at.clone().filter(|(at, _)| *at >= start),
            cut_at: [
                plan.cut_at.filter(|at| *at >= start),
                plan.cut_after.map(|bytes| start + bytes),
            ]
            .into_iter()
            .flatten()
            .min(),
            sender: plan.pace.as_ref().map(Pace::sender),
            entry,
            flushes,
        };
        if delivery.position == delivery.end && !delivery.short && !delivery.chunked {
            // hyper does not ask for an empty body.
            delivery.entry.end(Outcome::Complete);
        }
        StreamBody::new(stream::unfold(delivery, Delivery::step)).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// A body on its way. Its size is not told to hyper, which would hold it against the Content-Length.
struct Delivery {
    bytes: Bytes,
    position: u64,
    end: u64,
    short: bool,
    chunked: bool,
    flip_at: Option<u64>,
    stall_at: Option<(u64, Gate)>,
    cut_at: Option<u64>,
    sender: Option<Sender>,
    entry: Entry,
    flushes: Flushes,
}

impl Delivery {
    async fn step(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        if let Some((_, gate)) = self.stall_at.take_if(|(at, _)| *at == self.position) {
            self.flushes.next().await;
            if !gate.pass().await {
                return self.cut().await;
            }
        }
        if self.cut_at == Some(self.position) && (self.position < self.end || self.chunked) {
            return self.cut().await;
        }
        if self.position == self.end {
            if self.short {
                return self.cut().await;
            }
            self.entry.end(Outcome::Complete);
            return None;
        }
        if let Some(sender) = &mut self.sender {
            sender.chunk().await;
        }
        let stops = [
            self.stall_at.as_ref().map(|(at, _)| *at),
            self.cut_at,
            Some(self.position + CHUNK),
        ];
        let upto = stops.into_iter().flatten().fold(self.end, u64::min);
        let mut chunk = self.bytes.slice(self.position as usize..upto as usize);
        if let Some(at) = self.flip_at.filter(|at| (self.position..upto).contains(at)) {
            let mut lie = chunk.to_vec();
            lie[(at - self.position) as usize] ^= 1;
            chunk = lie.into();
        }
        self.entry.sent(upto - self.position);
        self.position = upto;
        if self.position == self.end && !self.short && !self.chunked {
            // With the length reached hyper may never ask again.
            self.entry.end(Outcome::Complete);
        }
        Some((Ok(Frame::data(chunk)), self))
    }

    /// Lets all that was sent reach the socket, and closes the connection.
    async fn cut(self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        self.flushes.next().await;
        self.entry.end(Outcome::Cut);
        Some((Err(io::Error::other("cut by the script")), self))
    }
}
