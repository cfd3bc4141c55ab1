//! `/livez`, `/readyz` and `/metrics`: for whoever watches the daemon.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::body::Content;
use super::reply::Reply;
use crate::telemetry::Metrics;

static TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
static PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The process answers.
pub(super) fn live() -> Reply {
    text(StatusCode::OK, "live\n")
}

/// Whether new work should be sent here.
pub(super) fn ready(ready: bool) -> Reply {
    if ready {
        text(StatusCode::OK, "ready\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// The metrics, for Prometheus.
pub(super) fn metrics(metrics: &Metrics) -> Reply {
    let text = Bytes::from(metrics.render());
    Reply::new(StatusCode::OK, Content::Full(text)).with(header::CONTENT_TYPE, PROMETHEUS.clone())
}

fn text(status: StatusCode, text: &'static str) -> Reply {
    Reply::new(status, Content::Full(Bytes::from_static(text.as_bytes())))
        .with(header::CONTENT_TYPE, TEXT.clone())
        .with(header::CACHE_CONTROL, NO_STORE.clone())
}
