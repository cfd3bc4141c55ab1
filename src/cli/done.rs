//! What the jobs of the daemon have done, in words. Called by `cli`, for people.

use std::fmt::Write as _;

use crate::cache::Evicted;
use crate::cache::report::span;
use crate::maintenance::{CollectedAll, ExpiredAll, Scrubbed, SweptAll};

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

/// What a collection did.
pub(super) fn collected(result: &serde_json::Value) -> String {
    let done: CollectedAll = serde_json::from_value(result.clone()).unwrap_or_default();
    let mut text = format!(
        "{} {}: {} that no image needs, {} from {}",
        if done.dry_run { "would free" } else { "freed" },
        bytes(done.bytes),
        count(done.removed, "blob"),
        count(done.unlinked, "link"),
        repositories(done.repositories),
    );
    // Writing into a String cannot fail.
    if done.uploads > 0 {
        let _ = write!(
            text,
            "; {} given up, {}",
            count(done.uploads, "upload"),
            bytes(done.upload_bytes)
        );
    }
    if done.cleared > 0 {
        let _ = write!(
            text,
            "; what was left of {} that had been deleted",
            repositories(done.cleared)
        );
    }
    if let Some(seconds) = done.held_seconds {
        let _ = write!(
            text,
            "; no blob is collected for another {}, since the daemon was started lately (hosted.grace)",
            span(seconds)
        );
    }
    if done.stopped {
        text.push_str("; stopped before the end");
    }
    text
}

/// What a run over lifecycle policies did.
pub(super) fn expired(result: &serde_json::Value) -> String {
    let done: ExpiredAll = serde_json::from_value(result.clone()).unwrap_or_default();
    let mut text = format!(
        "{} {} of {} with a lifecycle policy",
        if done.dry_run { "would delete" } else { "deleted" },
        count(done.images, "image"),
        repositories(done.repositories),
    );
    // Writing into a String cannot fail.
    if done.spared > 0 {
        let _ = write!(
            text,
            "; {} tagged or named meanwhile",
            count(done.spared, "image")
        );
    }
    if done.failed > 0 {
        let _ = write!(
            text,
            "; {} whose policy cannot be used",
            repositories(done.failed)
        );
    }
    if done.stopped {
        text.push_str("; stopped before the end");
    }
    text
}

/// Whether all lifecycle policies could be used.
pub(super) fn is_expired(result: &serde_json::Value) -> bool {
    serde_json::from_value::<ExpiredAll>(result.clone()).is_ok_and(|done| done.failed == 0)
}

fn repositories(of: u64) -> String {
    match of {
        1 => "1 repository".to_owned(),
        of => format!("{} repositories", number(of)),
    }
}
