//! Several parts of a blob in one body: `multipart/byteranges` (RFC 9110 section 14.6). Called by `distribution::blobs`.
//!
//! What stands between the parts is short and made ahead; the parts themselves are read one after the other like any
//! part, so that memory stays one piece, and mapped files go out without a copy.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;

use super::body::{BlobContent, BodyError};
use crate::oci::Span;
use crate::registry::BlobReader;

/// A part of a blob, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) span: Span,
    /// Whether the client named its end.
    pub(super) bounded: bool,
}

/// A body of several parts, on its way.
pub(super) struct Parts {
    reading: Reading,
    to_come: VecDeque<(Bytes, Part)>,
    trailer: Bytes,
    left: u64,
    mapped: bool,
}

enum Reading {
    /// Between two parts.
    Idle(BlobReader),
    Part(BlobContent),
    Ended,
}

/// What separates the parts: no blob can know it.
pub(super) fn boundary() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// The `Content-Type` of such a body.
pub(super) fn content_type(boundary: &str) -> HeaderValue {
    let value = format!("multipart/byteranges; boundary={boundary}");
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("multipart/byteranges"))
}

impl Parts {
    /// `parts` of a blob of `size` bytes. `mapped`: whether the connection takes slices of mapped files.
    pub(super) fn new(reader: BlobReader, parts: &[Part], size: u64, boundary: &str, mapped: bool) -> Self {
        let mut to_come = VecDeque::with_capacity(parts.len());
        let mut start = "";
        for part in parts {
            let range = part.span.content_range(size);
            let head = format!(
                "{start}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {range}\r\n\r\n"
            );
            to_come.push_back((Bytes::from(head), *part));
            start = "\r\n";
        }
        let trailer = Bytes::from(format!("{start}--{boundary}--\r\n"));
        let length = |(head, part): &(Bytes, Part)| head.len() as u64 + part.span.len();
        let left = to_come.iter().map(length).sum::<u64>() + trailer.len() as u64;
        Self {
            reading: Reading::Idle(reader),
            to_come,
            trailer,
            left,
            mapped,
        }
    }

    /// Bytes that are still to come: at first the length of the body.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The next piece, and whether it is the last.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<(Bytes, bool)>, BodyError>> {
        if let Reading::Part(part) = &mut self.reading {
            let Some((bytes, last)) = ready!(part.poll(context))? else {
                return Poll::Ready(Err(BodyError::Short));
            };
            if last
                && let Reading::Part(part) = std::mem::replace(&mut self.reading, Reading::Ended)
                && let Some(reader) = part.into_reader()
            {
                self.reading = Reading::Idle(reader);
            }
            return Poll::Ready(Ok(Some(self.count(bytes, false))));
        }
        let next = self.to_come.pop_front();
        let Some((head, part)) = next else {
            self.reading = Reading::Ended;
            let trailer = std::mem::take(&mut self.trailer);
            return Poll::Ready(Ok((!trailer.is_empty()).then(|| self.count(trailer, true))));
        };
        let Reading::Idle(mut reader) = std::mem::replace(&mut self.reading, Reading::Ended) else {
            return Poll::Ready(Err(BodyError::Short));
        };
        // Now that it is its turn, the fill may fetch it ahead of others.
        reader.want(part.span, part.bounded);
        let (start, end) = (part.span.start, Some(part.span.end));
        self.reading = Reading::Part(BlobContent::new(reader, start, end, self.mapped));
        Poll::Ready(Ok(Some(self.count(head, false))))
    }

    fn count(&mut self, bytes: Bytes, last: bool) -> (Bytes, bool) {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        (bytes, last)
    }
}
