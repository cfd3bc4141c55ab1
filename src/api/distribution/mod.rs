//! The endpoints of the OCI distribution spec. Each handler gets parsed values and a resolved repository, and gives a
//! [`Reply`] or a failure; it neither authorizes nor renders errors.

pub(super) mod blobs;
pub(super) mod hosted;
pub(super) mod manifests;
pub(super) mod referrers;
pub(super) mod tags;
pub(super) mod token;
pub(super) mod uploads;

use bytes::Bytes;
use http::{StatusCode, header};

use super::body::Content;
use super::reply::{JSON, Reply};

/// `/v2/`: yes, a registry.
pub(super) fn base() -> Reply {
    Reply::new(StatusCode::OK, Content::Full(Bytes::from_static(b"{}")))
        .with(header::CONTENT_TYPE, JSON.clone())
}
