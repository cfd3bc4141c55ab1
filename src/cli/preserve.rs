//! What drills and bundles came to, in words. Called by `cli`, for people.

use std::fmt::Write as _;

use crate::cache::report::span;
use crate::clock::Timestamp;
use crate::preserve::{Drilled, DrilledUpstream, Exported, Hole, Imported, Lack, Reason, What};

use super::show::{bytes, count, number};

/// Holes of an upstream that are told in words; all of them with `--json`.
const MOST_HOLES: usize = 50;
/// What lacks of one image, the same.
const MOST_LACKS: usize = 8;

/// Whether a drill found no hole.
pub(super) fn is_whole(result: &serde_json::Value) -> bool {
    serde_json::from_value::<Drilled>(result.clone()).is_ok_and(|drilled| drilled.is_whole())
}

/// What a drill found.
pub(super) fn drilled(result: &serde_json::Value) -> String {
    let told: Drilled = serde_json::from_value(result.clone()).unwrap_or_default();
    let mut text = String::new();
    // Writing into a String cannot fail.
    if let Some(filled) = told.filled {
        let _ = writeln!(
            text,
            "fetched {}, {}{}",
            count(filled.blobs, "blob"),
            bytes(filled.bytes),
            match filled.failed {
                0 => String::new(),
                failed => format!("; {} could not be had", number(failed)),
            }
        );
    }
    for upstream in told.upstreams.iter().filter(|upstream| upstream.images > 0) {
        text.push_str(&of_upstream(upstream));
    }
    let images: u64 = told.upstreams.iter().map(|upstream| upstream.images).sum();
    if images == 0 && !told.stopped {
        let _ = writeln!(text, "nothing was pulled within {}", count(told.days, "day"));
    }
    if told.stopped {
        text.push_str("stopped before the end\n");
    }
    text
}

fn of_upstream(upstream: &DrilledUpstream) -> String {
    let DrilledUpstream {
        prefix,
        images,
        survive,
        ..
    } = upstream;
    let mut text = format!(
        "{prefix}: {} of {} would survive",
        number(*survive),
        count(*images, "image")
    );
    if let Some(seconds) = upstream.served_seconds.filter(|_| *survive > 0) {
        let _ = write!(text, ", the first tag for {}", span(seconds));
    }
    if !upstream.holes.is_empty() {
        let _ = write!(text, "; {} to fetch", bytes(upstream.bytes));
    }
    text.push('\n');
    for hole in upstream.holes.iter().take(MOST_HOLES) {
        text.push_str(&of_hole(hole));
    }
    if let Some(more @ 1..) = upstream.holes.len().checked_sub(MOST_HOLES) {
        let _ = writeln!(text, "  and {} more", count(more as u64, "image"));
    }
    text
}

fn of_hole(hole: &Hole) -> String {
    let ago = span(Timestamp::now().since(hole.pulled).as_secs());
    let mut text = format!("  {}, pulled {ago} ago\n", hole.image);
    for lack in hole.lacks.iter().take(MOST_LACKS) {
        let _ = writeln!(text, "    {}", of_lack(lack));
    }
    if let Some(more @ 1..) = hole.lacks.len().checked_sub(MOST_LACKS) {
        let _ = writeln!(text, "    and {more} more");
    }
    text
}

fn of_lack(lack: &Lack) -> String {
    let what = match lack.what {
        What::Tag => "the tag",
        What::Manifest => "manifest",
        What::Blob => "blob",
        What::Referrers => "the list of what refers to",
        What::Referrer => "what refers to it,",
    };
    let why = match lack.reason {
        Reason::Absent => "is not here",
        Reason::Partial => "is here in part",
        Reason::Rotten => "was rotten, and is put aside",
        Reason::Lost => "has lost its file",
        Reason::Unlinked => "is here, but not proved to belong to this repository",
        Reason::TooOld => "was confirmed too long ago (stale_if_error)",
        Reason::Gone => "was deleted at its upstream (gone_ttl)",
        Reason::Unsupported => "has a digest that cannot be served",
    };
    let digest = match &lack.digest {
        Some(digest) if lack.what != What::Tag => format!(" {digest}"),
        _ => String::new(),
    };
    let size = match lack.bytes {
        0 => String::new(),
        size => format!(", {}", bytes(size)),
    };
    format!("{what}{digest} {why}{size}")
}

/// What a bundle has in it.
pub(super) fn exported(told: &Exported) -> String {
    let mut text = format!(
        "wrote {}: {}, {}, {}",
        count(told.images, "image"),
        count(told.manifests, "manifest"),
        count(told.blobs, "blob"),
        bytes(told.bytes)
    );
    if told.left_out_count > 0 {
        let _ = write!(text, "\nleft out, not whole: {}", told.left_out.join(", "));
        let more = told.left_out_count.saturating_sub(told.left_out.len() as u64);
        if more > 0 {
            let _ = write!(text, ", and {} more", number(more));
        }
    }
    text
}

/// Whether all of a bundle was taken in.
pub(super) fn is_taken(result: &serde_json::Value) -> bool {
    serde_json::from_value::<Imported>(result.clone()).is_ok_and(|imported| imported.is_whole())
}

/// What came with a bundle.
pub(super) fn imported(result: &serde_json::Value) -> String {
    let told: Imported = serde_json::from_value(result.clone()).unwrap_or_default();
    let mut text = String::new();
    for image in &told.images {
        let kept = if image.tag_kept {
            ", but its tag stays: it was confirmed later here"
        } else {
            ""
        };
        let _ = writeln!(text, "{} is here{kept}", image.image);
    }
    let _ = write!(
        text,
        "took in {}: {}, {} of {}",
        count(told.images.len() as u64, "image"),
        count(told.manifests, "manifest"),
        count(told.blobs, "new blob"),
        bytes(told.bytes)
    );
    if told.present > 0 {
        let _ = write!(text, "; {} here already", count(told.present, "blob"));
    }
    if !told.refused.is_empty() {
        let _ = write!(text, "; {} refused, see above", number(told.refused.len() as u64));
    }
    if told.stopped {
        text.push_str("; stopped before the end");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_in_words() {
        let lack = |what, reason, bytes| Lack {
            what,
            digest: Some("sha256:12".to_owned()),
            reason,
            bytes,
        };
        let drilled = Drilled {
            days: 30,
            upstreams: vec![DrilledUpstream {
                prefix: "quay".to_owned(),
                images: 3,
                survive: 2,
                bytes: 2048,
                served_seconds: Some(90_000),
                holes: vec![Hole {
                    image: "quay/a/b:1".to_owned(),
                    digest: None,
                    pulled: Timestamp::now(),
                    lacks: vec![
                        lack(What::Tag, Reason::TooOld, 0),
                        lack(What::Blob, Reason::Partial, 2048),
                    ],
                }],
            }],
            ..Drilled::default()
        };
        let json = serde_json::to_value(&drilled).unwrap();
        assert!(!is_whole(&json));
        assert_eq!(
            super::drilled(&json),
            "quay: 2 of 3 images would survive, the first tag for 1d 1h; 2.0 KiB to fetch\n  \
             quay/a/b:1, pulled 0s ago\n    \
             the tag was confirmed too long ago (stale_if_error)\n    \
             blob sha256:12 is here in part, 2.0 KiB\n"
        );
        let nothing = serde_json::to_value(Drilled {
            days: 1,
            ..Drilled::default()
        });
        let nothing = nothing.unwrap();
        assert_eq!(super::drilled(&nothing), "nothing was pulled within 1 day\n");
        assert!(is_whole(&nothing));
    }
}
