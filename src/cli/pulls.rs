//! The subcommands that see to it that images are here tomorrow: pull, warm, pin, unpin, pins. Called by `cli`.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::report::{Pin, PinTotals, Pins, State, Unpinned, span};
use crate::clock::Timestamp;
use crate::config::{Config, ImagePattern};
use crate::job::Job as _;
use crate::oci::WantedPlatform;
use crate::preserve::{
    Amount, Brought, BroughtResult, PinAll, PinnedAll, Pull, PullOptions, Pulled, Warm, WarmOptions, Warmed,
};

use super::DaemonArguments;
use super::admin::Told;
use super::client::{CallError, Client};
use super::job;
use super::show::{bytes, cells, count, number, of, short, table};

#[derive(Args)]
pub(super) struct PullArguments {
    /// Images, as for explain; in tags `*` stands for any characters: 'docker-hub/library/alpine:3.*'
    #[arg(value_name = "REF", required = true)]
    images: Vec<ImagePattern>,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct PinArguments {
    /// Images, as for pull. None: list what is pinned
    #[arg(value_name = "REF")]
    images: Vec<ImagePattern>,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,
}

#[derive(Args)]
struct PlatformArguments {
    /// For this platform, linux/amd64 or linux/arm/v7, instead of this machine's own; may be given several times
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<WantedPlatform>,
    /// For all platforms that there are
    #[arg(long, conflicts_with = "platforms")]
    all_platforms: bool,
}

#[derive(Args)]
pub(super) struct UnpinArguments {
    /// The references that were pinned, as pins lists them
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,
}

fn options(images: &[ImagePattern], platforms: &PlatformArguments) -> PullOptions {
    PullOptions {
        refs: images.iter().map(|image| image.as_str().to_owned()).collect(),
        platforms: platforms.platforms.iter().map(ToString::to_string).collect(),
        all_platforms: platforms.all_platforms,
    }
}

/// What a job told in the end, as its own type; none from a daemon of another version.
fn read<T: DeserializeOwned>(result: &serde_json::Value) -> Option<T> {
    serde_json::from_value(result.clone()).ok()
}

fn told<T: DeserializeOwned>(words: impl FnOnce(&T) -> String) -> impl FnOnce(&serde_json::Value) -> String {
    |result| match read(result) {
        Some(told) => words(&told),
        None => "the daemon's answer is not understood: is it of another version?".to_owned(),
    }
}

fn well<T: DeserializeOwned>(judge: impl FnOnce(&T) -> bool) -> impl FnOnce(&serde_json::Value) -> bool {
    |result| read(result).is_some_and(|told| judge(&told))
}

/// `wharfinger pull`
pub(super) async fn pull(config: &Config, arguments: &PullArguments) -> Result<Told, CallError> {
    let options = options(&arguments.images, &arguments.platforms);
    let (words, judge) = (told(pulled), well(Pulled::is_well));
    job::run_judged(config, Pull::NAME, &options, arguments.daemon.json, words, judge).await
}

/// `wharfinger warm`
pub(super) async fn warm(config: &Config, json: bool) -> Result<Told, CallError> {
    let (words, judge) = (told(warmed), well(Warmed::is_well));
    job::run_judged(config, Warm::NAME, &WarmOptions {}, json, words, judge).await
}

/// `wharfinger pin`
pub(super) async fn pin(config: &Config, arguments: &PinArguments) -> Result<Told, CallError> {
    if arguments.images.is_empty() {
        return pins(config, arguments.daemon.json).await;
    }
    let options = options(&arguments.images, &arguments.platforms);
    let (words, judge) = (told(pinned), well(|told: &PinnedAll| told.pulled.is_well()));
    job::run_judged(
        config,
        PinAll::NAME,
        &options,
        arguments.daemon.json,
        words,
        judge,
    )
    .await
}

/// `wharfinger pins`
pub(super) async fn pins(config: &Config, json: bool) -> Result<Told, CallError> {
    let client = Client::new(config);
    let answer = client.get("/api/pins").await?;
    let told: Pins = client.parse(&answer)?;
    let text = if json { answer } else { list(&told) };
    Ok(Told { text, well: true })
}

#[derive(Serialize)]
struct Unpin<'a> {
    refs: &'a [String],
}

/// `wharfinger unpin`
pub(super) async fn unpin(config: &Config, arguments: &UnpinArguments) -> Result<Told, CallError> {
    let client = Client::new(config);
    let refs = &arguments.references;
    let answer = client.post("/api/unpin", &Unpin { refs }).await?;
    let told: Vec<Unpinned> = client.parse(&answer)?;
    let well = told.iter().all(|told| told.unpinned);
    let text = if arguments.daemon.json {
        answer
    } else {
        told.iter().map(unpinned).collect()
    };
    Ok(Told { text, well })
}

fn unpinned(told: &Unpinned) -> String {
    let mut text = if told.unpinned {
        format!("{}: unpinned", told.reference)
    } else {
        format!("{}: was not pinned by this name", told.reference)
    };
    if !told.still_by.is_empty() {
        // Writing into a String cannot fail.
        let _ = write!(text, "; it stays pinned by {}", told.still_by.join(", "));
    }
    text.push('\n');
    text
}

/// How many images came out how, in a line.
fn sum(images: &[Brought]) -> String {
    let of = |result| images.iter().filter(|image| image.result == result).count() as u64;
    let mut parts = vec![count(images.len() as u64, "image")];
    for (result, word) in [
        (BroughtResult::Fetched, "fetched"),
        (BroughtResult::Here, "here already"),
        (BroughtResult::Stale, "here, but perhaps not the newest"),
        (BroughtResult::Failed, "failed"),
    ] {
        if of(result) > 0 {
            parts.push(format!("{} {word}", number(of(result))));
        }
    }
    let fetched = images.iter().fold(Amount::default(), |all, image| Amount {
        manifests: all.manifests + image.fetched.manifests,
        blobs: all.blobs + image.fetched.blobs,
        bytes: all.bytes + image.fetched.bytes,
    });
    let (head, rest) = parts.split_at(1);
    let mut text = format!("{}: {}", head.concat(), rest.join(", "));
    if fetched != Amount::default() {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "; {} in {}, {}",
            bytes(fetched.bytes),
            count(fetched.manifests, "manifest"),
            count(fetched.blobs, "blob"),
        );
    }
    text
}

fn pulled(told: &Pulled) -> String {
    let mut text = sum(&told.images);
    if told.stopped {
        text.push_str("; stopped before the end");
    }
    text
}

fn warmed(told: &Warmed) -> String {
    if told.lists.is_empty() && !told.stopped {
        return "no [[warm]] list is configured".to_owned();
    }
    let mut lines: Vec<_> = told
        .lists
        .iter()
        .map(|run| format!("list {}, {}", run.list, sum(&run.images)))
        .collect();
    if told.stopped {
        lines.push("stopped before the end".to_owned());
    }
    lines.join("\n")
}

fn pinned(told: &PinnedAll) -> String {
    let mut text = format!("{}\n{}", pulled(&told.pulled), totals(&told.pins));
    if !told.pulled.is_well() {
        text.push_str("\nwhat failed is not pinned");
    }
    text
}

/// All pins in a line, and what is wrong with them.
pub(super) fn totals(totals: &PinTotals) -> String {
    let mut text = format!(
        "{}, {}",
        count(totals.pins, "pinned image"),
        of(totals.bytes, totals.of_bytes)
    );
    if let Some(limit) = totals.limit.filter(|_| totals.too_large) {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            ": more than the room for it ({}), so not all of it can stay",
            bytes(limit)
        );
    }
    text
}

fn list(told: &Pins) -> String {
    if told.pins.is_empty() {
        return "nothing is pinned".to_owned();
    }
    let mut rows = vec![cells(["pinned", "digest", "state", "blobs", "size", "since", ""])];
    let row = |pin: &Pin| {
        let blobs = if pin.state == State::Here {
            number(pin.blobs)
        } else {
            format!("{} of {}", number(pin.blobs), number(pin.of_blobs))
        };
        vec![
            pin.names.join(", "),
            short(&pin.digest).to_owned(),
            pin.state.as_str().to_owned(),
            blobs,
            bytes(pin.bytes),
            format!("{} ago", span(Timestamp::now().since(pin.since).as_secs())),
            if pin.listed { "by a list" } else { "" }.to_owned(),
        ]
    };
    rows.extend(told.pins.iter().map(row));
    format!("{}\n{}", table(&rows, "", &[3, 4]), totals(&told.totals))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brought(result: BroughtResult, bytes: u64) -> Brought {
        Brought {
            reference: "docker-hub/library/a:1".to_owned(),
            result,
            digest: None,
            platforms: Vec::new(),
            fetched: Amount {
                manifests: 1,
                blobs: 2,
                bytes,
            },
            here: Amount::default(),
            reason: None,
        }
    }

    #[test]
    fn sums() {
        let images = [
            brought(BroughtResult::Fetched, 1024),
            brought(BroughtResult::Failed, 0),
            brought(BroughtResult::Fetched, 1024),
        ];
        assert_eq!(
            sum(&images),
            "3 images: 2 fetched, 1 failed; 2.0 KiB in 3 manifests, 6 blobs"
        );
        let here = Brought {
            fetched: Amount::default(),
            ..brought(BroughtResult::Here, 0)
        };
        assert_eq!(sum(&[here]), "1 image: 1 here already");
        let told = PinTotals {
            pins: 2,
            bytes: 1024,
            of_bytes: 4096,
            limit: Some(2048),
            too_large: true,
        };
        let told = totals(&told);
        assert!(
            told.starts_with("2 pinned images, 1.0 KiB of 4.0 KiB: more than the room for it (2.0 KiB)"),
            "{told}"
        );
    }
}
