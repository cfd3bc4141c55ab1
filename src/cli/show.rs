//! What the daemon tells, in words and aligned columns. Pure.

use std::fmt::Write as _;

use crate::cache::report::{
    BlobReport, Explanation, ManifestReport, OfflineReport, Purged, RefreshOutcome, Refreshed, Room, State,
    Status, UpstreamReport, span,
};
use crate::clock::Timestamp;

use super::{done, limits, pulls};

/// Rows in columns, each as wide as its widest cell; those of `right` are aligned to the right.
pub(super) fn table(rows: &[Vec<String>], indent: &str, right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing into a String cannot fail.
            let _ = if right.contains(&column) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes with a unit: `512 B`, `31.2 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut size, mut unit) = (bytes as f64 / 1024.0, 0);
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 blob`, `2 blobs`.
pub(super) fn count(of: u64, what: &str) -> String {
    let plural = if of == 1 { "" } else { "s" };
    format!("{} {what}{plural}", number(of))
}

/// Algorithm and the first digits of a digest: enough for a person.
pub(super) fn short(digest: &str) -> &str {
    let end = digest.find(':').map_or(0, |at| at + 1) + 12;
    digest.get(..end).unwrap_or(digest)
}

pub(super) fn of(part: u64, whole: u64) -> String {
    if part == whole {
        bytes(whole)
    } else {
        format!("{} of {}", bytes(part), bytes(whole))
    }
}

pub(super) fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// How it last failed, and which of its endpoints are left alone.
fn trouble_of(upstream: &UpstreamReport) -> String {
    let alone = upstream
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.breaker != "closed");
    let alone = alone.map(|endpoint| format!("{} {}", endpoint.host, endpoint.breaker));
    let failure = upstream.failure.clone();
    failure.into_iter().chain(alone).collect::<Vec<_>>().join(", ")
}

fn pulls_left(upstream: &UpstreamReport) -> Option<String> {
    match (upstream.remaining, upstream.limit) {
        (Some(remaining), Some(limit)) => Some(format!("{} of {}", number(remaining), number(limit))),
        (Some(remaining), None) => Some(number(remaining)),
        (None, _) => None,
    }
}

fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", span(seconds)))
}

fn room(room: &Room) -> String {
    let mut text = bytes(room.used);
    // Writing into a String cannot fail.
    let _ = match room.limit_for_blobs.zip(room.limit) {
        Some((blobs, limit)) => write!(
            text,
            " of {} ({} %; max_size {})",
            bytes(blobs),
            room.used.saturating_mul(100) / blobs.max(1),
            bytes(limit)
        ),
        None => Ok(()),
    };
    let _ = write!(
        text,
        ", index {}, {} free on the disk",
        bytes(room.index),
        bytes(room.disk_free)
    );
    if room.interrupted > 0 {
        let _ = write!(text, ", {}", count(room.interrupted, "interrupted download"));
    }
    if room.quarantined > 0 {
        let _ = write!(text, ", {} put aside", count(room.quarantined, "rotten blob"));
    }
    text
}

/// `wharfinger offline`; `configured`: what the configuration says.
pub(super) fn offline(told: &OfflineReport, configured: bool) -> String {
    let mut text = match (told.offline, told.since) {
        (true, Some(since)) => {
            let ago = span(Timestamp::now().since(since).as_secs());
            format!("offline, turned on {ago} ago: nothing is asked of any upstream")
        }
        (true, None) => "offline, as configured: nothing is asked of any upstream".to_owned(),
        (false, _) => "online".to_owned(),
    };
    if configured && !told.offline {
        text.push_str("; cache.offline turns it on again at the next start");
    }
    text
}

/// `wharfinger status`
pub(super) fn status(status: &Status) -> String {
    let up = span(status.uptime_seconds);
    let mut text = format!(
        "wharfinger {}, up {up}, data in {}\n\n",
        status.version, status.data_dir
    );
    if status.offline {
        text.push_str("offline: nothing is asked of any upstream\n\n");
    }
    let (content, answers) = (&status.content, &status.answers);
    let from_here = answers.hit + answers.revalidated + answers.stale;
    let share = match from_here + answers.miss {
        0 => String::new(),
        all => format!(" ({:.1} % from here)", from_here as f64 * 100.0 / all as f64),
    };
    let mut lines = vec![
        vec![
            "content".to_owned(),
            [
                count(content.blobs, "blob"),
                count(content.manifests, "manifest"),
                count(content.tags, "tag"),
            ]
            .join(", "),
        ],
        vec!["room".to_owned(), room(&status.room)],
        vec![
            "answers".to_owned(),
            format!(
                "{}, {} revalidated, {} stale, {}, {} negative{share}",
                count(answers.hit, "hit"),
                number(answers.revalidated),
                number(answers.stale),
                if answers.miss == 1 {
                    "1 miss".to_owned()
                } else {
                    format!("{} misses", number(answers.miss))
                },
                number(answers.negative),
            ),
        ],
    ];
    if status.pins.pins > 0 {
        lines.insert(2, vec!["pins".to_owned(), pulls::totals(&status.pins)]);
    }
    text.push_str(&table(&lines, "", &[]));
    let mut rows = vec![cells([
        "upstream",
        "state",
        "pulls left",
        "answered",
        "failed",
        "",
    ])];
    rows.extend(status.upstreams.iter().map(|upstream| {
        vec![
            upstream.prefix.clone(),
            upstream.state.as_str().to_owned(),
            pulls_left(upstream).unwrap_or_else(|| "-".to_owned()),
            ago(upstream.answered_seconds),
            ago(upstream.failed_seconds),
            trouble_of(upstream),
        ]
    }));
    text.push('\n');
    text.push_str(&table(&rows, "", &[]));
    for upstream in &status.upstreams {
        if let Some(cap) = upstream.bandwidth {
            let _ = writeln!(
                text,
                "{} gives at most {} a second now",
                upstream.prefix,
                bytes(cap)
            );
        }
        for credential in &upstream.credentials {
            let Some(reason) = &credential.reason else {
                continue;
            };
            let again = match credential.set_aside_seconds {
                None | Some(0) => "tried with the next pull".to_owned(),
                Some(seconds) => format!("tried again in {}", span(seconds)),
            };
            let (name, prefix) = (&credential.name, &upstream.prefix);
            let _ = writeln!(
                text,
                "credential {name} of {prefix} is set aside ({reason}), {again}"
            );
        }
    }
    let rows: Vec<_> = status.upstreams.iter().flat_map(limits::rows).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&rows, "", &[]));
    }
    if !status.fills.is_empty() {
        let mut rows = vec![cells(["fetching", "for", "here", "", "readers"])];
        rows.extend(status.fills.iter().map(|fill| {
            let (here, share) = match fill.size {
                Some(size) if size > 0 => {
                    let share = format!("{} %", u128::from(fill.present) * 100 / u128::from(size));
                    (of(fill.present, size), share)
                }
                _ => (bytes(fill.present), String::new()),
            };
            let readers = fill.readers.to_string();
            vec![
                short(&fill.digest).to_owned(),
                fill.repository.clone(),
                here,
                share,
                readers,
            ]
        }));
        text.push('\n');
        text.push_str(&table(&rows, "", &[2, 3, 4]));
    }
    text
}

/// `wharfinger explain`
pub(super) fn explanation(told: &Explanation) -> String {
    let mut text = format!(
        "{}: {}\n{}\n\n",
        told.reference,
        told.expected.as_str(),
        told.reason
    );
    let upstream = &told.upstream;
    let mut line = format!(
        "{}, {}, {}",
        upstream.prefix,
        upstream.url,
        upstream.state.as_str()
    );
    if let (Some(failure), Some(seconds)) = (&upstream.failure, upstream.failed_seconds) {
        let _ = write!(line, ", failed {} ago ({failure})", span(seconds));
    }
    if let Some(left) = pulls_left(upstream) {
        let _ = write!(line, ", {left} pulls left");
    }
    let mut lines = vec![cells(["upstream", &line])];
    if let Some(tag) = &told.tag {
        let rule = tag
            .rule
            .as_ref()
            .map_or_else(|| "tag_ttl".to_owned(), |rule| format!("tag_rule {rule}"));
        let line = format!(
            "{}, confirmed {} ago, {rule} {}{}",
            tag.digest,
            span(tag.age_seconds),
            span(tag.ttl_seconds),
            tag.stretched_ttl_seconds
                .map_or_else(String::new, |ttl| format!(", now {}", span(ttl)))
        );
        lines.push(cells(["tag", &line]));
    }
    let (here, eviction) = (&told.here, &told.eviction);
    if here.of_bytes > 0 {
        let line = format!(
            "{} of {}, {}",
            number(here.blobs),
            count(here.of_blobs, "blob"),
            of(here.bytes, here.of_bytes)
        );
        lines.push(cells(["here", &line]));
        let mut line = format!("{} to fetch again", bytes(eviction.bytes));
        if let Some(shared) = eviction.shared_bytes.filter(|shared| *shared > 0) {
            let _ = write!(line, ", but {} of it stays for other images", bytes(shared));
        }
        lines.push(cells(["eviction", &line]));
    }
    if let Some(pinned) = &told.pinned {
        let mut line = format!("never evicted, pinned by {}", pinned.names.join(", "));
        if let Some(index) = &pinned.by {
            let _ = write!(line, " as part of {}", short(index));
        }
        lines.push(cells(["pin", &line]));
    }
    text.push_str(&table(&lines, "  ", &[]));
    let mut rows = Vec::new();
    if let Some(manifest) = &told.manifest {
        manifest_rows(manifest, 0, &mut rows);
    }
    if let Some(blob) = &told.blob {
        rows.push(blob_row(blob, "blob"));
    }
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&rows, "  ", &[3]));
    }
    text
}

fn manifest_rows(manifest: &ManifestReport, depth: usize, rows: &mut Vec<Vec<String>>) {
    let indent = "  ".repeat(depth);
    let mut notes: Vec<String> = manifest.platform.iter().cloned().collect();
    if let Some(at) = manifest.last_used {
        notes.push(format!("used {} ago", span(Timestamp::now().since(at).as_secs())));
    }
    rows.push(vec![
        format!("{indent}{}", manifest.kind.as_deref().unwrap_or("manifest")),
        short(&manifest.digest).to_owned(),
        manifest.state.as_str().to_owned(),
        bytes(manifest.size),
        notes.join(", "),
    ]);
    for blob in &manifest.blobs {
        let kind = match &blob.media_type {
            Some(kind) if kind.contains("config") || kind.contains("container.image.v1") => "config",
            _ => "layer",
        };
        rows.push(blob_row(blob, &format!("{indent}  {kind}")));
    }
    for child in &manifest.manifests {
        manifest_rows(child, depth + 1, rows);
    }
}

fn blob_row(blob: &BlobReport, kind: &str) -> Vec<String> {
    let size = if blob.state == State::Partial {
        of(blob.present, blob.size)
    } else {
        bytes(blob.size)
    };
    let mut notes = Vec::new();
    if let Some(others) = blob.shared_with.filter(|others| *others > 0) {
        notes.push(format!("shared with {}", count(others as u64, "other image")));
    }
    if let Some(left) = blob.negative_seconds {
        notes.push(format!("not found at the upstream, believed for {}", span(left)));
    }
    let state = blob.state.as_str().to_owned();
    vec![
        kind.to_owned(),
        short(&blob.digest).to_owned(),
        state,
        size,
        notes.join(", "),
    ]
}

/// `wharfinger refresh`
pub(super) fn refreshed(told: &Refreshed) -> String {
    let mut text = format!("{}: {}", told.reference, told.outcome.as_str());
    match (told.outcome, &told.from, &told.to) {
        (RefreshOutcome::Moved, Some(from), Some(to)) => {
            let _ = write!(text, "\n  from {from}\n  to   {to}");
        }
        (RefreshOutcome::Unchanged | RefreshOutcome::New, _, Some(to)) => {
            let _ = write!(text, ", {to}");
        }
        (_, _, Some(to)) => {
            let _ = write!(text, "\n  still served: {to}");
        }
        _ => {}
    }
    if let Some(reason) = &told.reason {
        let _ = write!(text, "\n  {reason}");
    }
    text
}

/// `wharfinger purge`
pub(super) fn purged(told: &Purged) -> String {
    if !told.removed {
        return match &told.kept {
            Some(reason) => format!("{}: stays, since {reason}", told.reference),
            None => format!("{}: was not here", told.reference),
        };
    }
    let mut text = format!("{}: removed", told.reference);
    if let Some(digest) = &told.digest {
        let _ = write!(text, ", it pointed at {digest}");
    }
    if let Some(freed) = &told.freed {
        let _ = write!(text, "; {}", done::freed(freed));
    }
    if let Some(reason) = &told.kept {
        let _ = write!(text, "; its content stays, since {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers() {
        for (size, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (32_715_571, "31.2 MiB"),
            (1_073_741_823, "1.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(size), expected);
        }
        assert_eq!(
            [1, 999, 1000, 1_234_567].map(number),
            ["1", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            (count(1, "blob"), count(0, "blob")),
            ("1 blob".to_owned(), "0 blobs".to_owned())
        );
        assert_eq!(short("sha256:0123456789abcdef"), "sha256:0123456789ab");
        assert_eq!(short("sha256:0123"), "sha256:0123");
    }

    #[test]
    fn columns() {
        let rows = [cells(["a", "1", "x"]), cells(["bbb", "22", ""])];
        assert_eq!(table(&rows, " ", &[1]), " a     1  x\n bbb  22\n");
    }
}
