//! The body of a response: nothing, bytes from memory, or a blob or parts of it, read piece by piece as the connection
//! takes it.
//!
//! It carries its exchange, so that what is logged and counted is what was handed over. A blob that cannot be read on
//! is an error, which makes hyper break the connection (HTTP/1) or reset the stream (HTTP/2): never a clean end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body::{Frame, SizeHint};
use tokio_util::sync::ReusableBoxFuture;

use super::exchange::Exchange;
use super::multipart::Parts;
use crate::registry::{BlobReader, ReadError};
use crate::telemetry::Ending;
use crate::transfer::Pieces;

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The blob cannot be read on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The archive cannot be written on.
    #[error("{0}")]
    Archive(String),
    /// The blob ended before the length that was announced.
    #[error("the blob ended early")]
    Short,
}

/// The body of a response.
pub struct Body {
    content: Content,
    exchange: Option<Box<Exchange>>,
}

/// What a body consists of.
pub(super) enum Content {
    Empty,
    Full(Bytes),
    Blob(Box<BlobContent>),
    Parts(Box<Parts>),
    /// What somebody tells while it happens.
    Lines(BoxStream<'static, Bytes>),
    /// An archive of so many bytes, as it is written.
    Archive(u64, Pieces),
}

type Piece = (BlobReader, Result<Option<Bytes>, ReadError>);

/// A blob, or a part of one, on its way.
pub(super) struct BlobContent {
    /// Reads the next piece; the allocation is used again for each.
    next: ReusableBoxFuture<'static, Piece>,
    position: u64,
    /// One past the last byte to send; `None` is the end of a blob whose size is not known.
    end: Option<u64>,
    mapped: bool,
    /// The reader, after the last piece.
    spare: Option<BlobReader>,
}

async fn read(mut reader: BlobReader, position: u64, end: Option<u64>, mapped: bool) -> Piece {
    let piece = reader.read(position, end, mapped).await;
    (reader, piece)
}

impl Content {
    /// The bytes of a blob from `position` to `end`. `mapped`: whether the connection takes slices of mapped files.
    pub(super) fn blob(reader: BlobReader, position: u64, end: Option<u64>, mapped: bool) -> Self {
        if end.is_some_and(|end| position >= end) {
            return Self::Empty;
        }
        Self::Blob(Box::new(BlobContent::new(reader, position, end, mapped)))
    }

    /// The number of bytes, when it is known.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Blob(blob) => blob.end.map(|end| end.saturating_sub(blob.position)),
            Self::Parts(parts) => Some(parts.left()),
            Self::Lines(_) => None,
            Self::Archive(left, _) => Some(*left),
        }
    }
}

impl BlobContent {
    pub(super) fn new(reader: BlobReader, position: u64, end: Option<u64>, mapped: bool) -> Self {
        Self {
            next: ReusableBoxFuture::new(read(reader, position, end, mapped)),
            position,
            end,
            mapped,
            spare: None,
        }
    }

    /// The reader, to read another part with: here once the last piece was given.
    pub(super) fn into_reader(self) -> Option<BlobReader> {
        self.spare
    }

    /// The next piece, and whether it is the last.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<(Bytes, bool)>, BodyError>> {
        let (reader, piece) = ready!(self.next.poll(context));
        let Some(bytes) = piece? else {
            let whole = self.end.is_none_or(|end| self.position >= end);
            return Poll::Ready(if whole { Ok(None) } else { Err(BodyError::Short) });
        };
        self.position += bytes.len() as u64;
        let last = self.end.is_some_and(|end| self.position >= end);
        if last {
            self.spare = Some(reader);
        } else {
            self.next.set(read(reader, self.position, self.end, self.mapped));
        }
        Poll::Ready(Ok(Some((bytes, last))))
    }
}

impl Body {
    pub(super) fn new(content: Content, mut exchange: Box<Exchange>) -> Self {
        if matches!(content, Content::Empty) {
            exchange.started();
            exchange.ending = Ending::Whole;
        }
        Self {
            content,
            exchange: Some(exchange),
        }
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.sent(bytes);
        }
    }

    /// Nothing more comes: what it was read from is let go at once.
    fn end(&mut self, ending: Ending) {
        self.content = Content::Empty;
        if let Some(exchange) = &mut self.exchange {
            exchange.ending = ending;
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.content {
            Content::Empty => return Poll::Ready(None),
            Content::Full(bytes) => Ok(Some((std::mem::take(bytes), true))),
            Content::Lines(lines) => Ok(ready!(lines.as_mut().poll_next(context)).map(|line| (line, false))),
            Content::Archive(left, pieces) => match ready!(pieces.as_mut().poll_next(context)) {
                Some(Ok(piece)) => {
                    *left = left.saturating_sub(piece.len() as u64);
                    Ok(Some((piece, *left == 0)))
                }
                Some(Err(reason)) => Err(BodyError::Archive(reason)),
                None => Ok(None),
            },
            Content::Blob(blob) => ready!(blob.poll(context)),
            Content::Parts(parts) => ready!(parts.poll(context)),
        };
        let (bytes, last) = match polled {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                self.end(Ending::Whole);
                return Poll::Ready(None);
            }
            Err(error) => {
                // Why a fill broke off is logged there; what our own disk did is told nowhere else.
                if let (BodyError::Read(ReadError::Io(_)) | BodyError::Short, Some(exchange)) =
                    (&error, &self.exchange)
                {
                    tracing::error!(request = exchange.id.as_str(), digest = ?exchange.digest, %error, "a blob could not be read");
                }
                self.end(Ending::Broken);
                return Poll::Ready(Some(Err(error)));
            }
        };
        self.sent(bytes.len());
        if last {
            self.end(Ending::Whole);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.content
            .len()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
