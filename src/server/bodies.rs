//! The bodies of requests and responses as `server` sees them pass: a client that stops sending is not waited for
//! without end, and one that takes nothing of a response shows as blocked. `connection` puts them around.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::activity::Activity;

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    activity: Arc<Activity>,
    patience: Option<Duration>,
    /// Runs while somebody waits for more.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why the body of a request breaks off.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The connection ended, or what came is no HTTP.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// The client sends nothing any more.
    #[error("nothing more of the body came within {} seconds", .0.as_secs())]
    Idle(Duration),
}

impl RequestBody {
    /// `patience`: how long to wait for each piece, if not for ever.
    pub(super) fn new(incoming: Incoming, activity: Arc<Activity>, patience: Option<Duration>) -> Self {
        Self {
            incoming,
            activity,
            patience,
            timer: None,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.timer = None;
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.activity.took(data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(patience) = self.patience else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(RequestBodyError::Idle(patience))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a response, which tells when it waits for its client.
pub(super) struct ResponseBody<B> {
    body: B,
    activity: Arc<Activity>,
    handed_over: bool,
}

impl<B> ResponseBody<B> {
    pub(super) fn new(body: B, activity: Arc<Activity>) -> Self {
        Self {
            body,
            activity,
            handed_over: false,
        }
    }

    fn hands_over(&mut self, waiting: bool) {
        if self.handed_over != waiting {
            self.handed_over = waiting;
            self.activity.hands_over(waiting);
        }
    }
}

impl<B> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        self.hands_over(false);
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.hands_over(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
