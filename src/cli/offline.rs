//! Commands that work on a data folder while no daemon runs. Called by `cli`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use crate::config::StorageConfig;
use crate::job::{Event, Unit};
use crate::storage::{self, Rebuilt};

use super::bars::Bars;
use super::show::{bytes, count};
use super::{complain, say};

/// `wharfinger rebuild-index`
pub(super) fn rebuild_index(config: &StorageConfig, verify: bool, json: bool) -> ExitCode {
    let mut bars = Bars::new(!json && std::io::stderr().is_terminal());
    let rebuilt = storage::rebuild(config, verify, |done, total| {
        bars.show(&Event::Progress {
            done,
            total: Some(total),
            unit: Unit::Bytes,
        });
    });
    bars.end();
    match rebuilt {
        Ok(rebuilt) if json => match serde_json::to_string(&rebuilt) {
            Ok(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            // A path that is no text.
            Err(error) => failed(&error.to_string()),
        },
        Ok(rebuilt) => {
            say(&words(&rebuilt));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(reason: &str) -> ExitCode {
    complain(&format!("wharfinger: {reason}"));
    ExitCode::FAILURE
}

fn words(rebuilt: &Rebuilt) -> String {
    let mut lines = vec![
        format!(
            "the index was made anew of the {}: {}, {}, {}",
            if rebuilt.source == "index" {
                "old one, which was whole"
            } else {
                "journal"
            },
            count(rebuilt.manifests, "manifest"),
            count(rebuilt.tags, "tag"),
            count(rebuilt.links, "link"),
        ),
        format!(
            "{}, {}, of the files that are there",
            count(rebuilt.blobs, "blob"),
            bytes(rebuilt.blob_bytes)
        ),
    ];
    let mut note = |of: u64, what: &str, more: &str| {
        if of > 0 {
            lines.push(format!("{} {more}", count(of, what)));
        }
    };
    note(
        rebuilt.damaged_records,
        "record",
        "of the journal could not be read",
    );
    note(rebuilt.wrong_manifests, "manifest", "with wrong bytes left out");
    note(rebuilt.dangling_tags, "tag", "without manifest left out");
    for digest in &rebuilt.rotten_blobs {
        lines.push(format!("{digest} is rotten: put aside into quarantine"));
    }
    for path in &rebuilt.foreign_files {
        lines.push(format!("{} is no blob: left alone", path.display()));
    }
    if let Some(old) = &rebuilt.old_index {
        lines.push(format!(
            "the old index is kept as {}: remove it when all is well",
            old.display()
        ));
    }
    lines.join("\n")
}
