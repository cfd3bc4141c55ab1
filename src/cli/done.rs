//! What the jobs of the daemon have done, in words. Called by `cli`, for people.

use std::fmt::Write as _;

use crate::cache::Evicted;
use crate::maintenance::{Scrubbed, SweptAll};

use super::show::{bytes, count, number};

/// What an eviction did.
pub(super) fn evicted(result: &serde_json::Value) -> String {
    freed(&serde_json::from_value(result.clone()).unwrap_or_default())
}

/// What became free.
pub(super) fn freed(evicted: &Evicted) -> String {
    let mut parts = vec![count(evicted.manifests, "manifest"), count(evicted.blobs, "blob")];
    if evicted.partials > 0 {
        parts.push(count(evicted.partials, "interrupted download"));
    }
    format!("freed {}: {}", bytes(evicted.bytes), parts.join(", "))
}

/// What a scrub did.
pub(super) fn scrubbed(result: &serde_json::Value) -> String {
    let done: Scrubbed = serde_json::from_value(result.clone()).unwrap_or_default();
    let (blobs, manifests) = (count(done.blobs, "blob"), count(done.manifests, "manifest"));
    let mut text = format!("hashed {blobs} and {manifests} again, {}: ", bytes(done.bytes));
    // Writing into a String cannot fail.
    let _ = match (done.rotten, done.healed) {
        (0, _) => write!(text, "all are well"),
        (rotten, healed) => write!(
            text,
            "{} rotten, {} fetched again",
            number(rotten),
            number(healed)
        ),
    };
    if done.stopped {
        text.push_str("; stopped before the end");
    }
    text
}

/// What a sweep did.
pub(super) fn swept(result: &serde_json::Value) -> String {
    let done: SweptAll = serde_json::from_value(result.clone()).unwrap_or_default();
    let mut text = format!("looked at {}: ", count(done.rows, "blob"));
    if done.dropped + done.adopted + done.removed == 0 {
        text.push_str("files and index agree");
    } else {
        let _ = write!(
            text,
            "{} without file dropped, {} taken in, {} that were no blobs removed",
            number(done.dropped),
            count(done.adopted, "file"),
            count(done.removed, "file"),
        );
    }
    if done.stopped {
        text.push_str("; stopped before the end");
    }
    text
}
