//! What is answered at once: status, explain, refresh, purge, pins and offline.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{Turn, request};
use crate::api::Asking;
use crate::api::body::Content;
use crate::api::reply::{JSON, Reply};
use crate::api::rescue::Failure;
use crate::registry::report::Answers;

static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
static NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Which reference a command is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    #[serde(rename = "ref")]
    reference: String,
}

/// What is to be removed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    #[serde(rename = "ref")]
    reference: String,
    /// With all that it reaches and nothing else needs.
    #[serde(default)]
    content: bool,
}

/// How the switch is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    offline: bool,
}

/// What is to be unpinned.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unpin {
    refs: Vec<String>,
}

pub(super) async fn offline(asking: &mut Asking<'_>, turn: Turn) -> Result<Reply, Failure> {
    let wanted = match turn {
        Turn::Read => None,
        Turn::Write => {
            let Switch { offline } = request::json(asking).await?;
            asking.note_about(if offline { "offline on" } else { "offline off" });
            Some(offline)
        }
    };
    let told = asking.shared.registry.offline(wanted).await;
    reply(&told.map_err(Failure::Registry)?)
}

pub(super) async fn status(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let shared = asking.shared;
    let outcomes = shared.metrics.outcomes();
    let of = |word: &str| outcomes.get(word).copied().unwrap_or_default();
    let answers = Answers {
        hit: of("hit"),
        revalidated: of("revalidated"),
        stale: of("stale"),
        miss: of("miss"),
        negative: of("negative"),
    };
    let (uptime, data_dir) = (shared.started.elapsed(), &shared.options.data_dir);
    let status = shared.registry.status(uptime, data_dir, answers).await;
    reply(&status.map_err(Failure::Registry)?)
}

pub(super) async fn explain(asking: &mut Asking<'_>, reference: &str) -> Result<Reply, Failure> {
    let told = asking.shared.registry.explain(reference).await;
    reply(&told.map_err(Failure::Registry)?)
}

pub(super) async fn refresh(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let About { reference } = request::json(asking).await?;
    asking.note_about(format!("refresh {reference}"));
    let told = asking.shared.registry.refresh(&reference).await;
    let told = told.map_err(Failure::Registry)?;
    tracing::info!(
        reference = told.reference,
        outcome = told.outcome.as_str(),
        reason = told.reason,
        "refreshed by an operator"
    );
    reply(&told)
}

pub(super) async fn purge(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let Purge { reference, content } = request::json(asking).await?;
    asking.note_about(format!("purge {reference}"));
    let told = asking.shared.registry.purge(&reference, content).await;
    let told = told.map_err(Failure::Registry)?;
    tracing::info!(
        reference = told.reference,
        removed = told.removed,
        freed = told.freed.map(|freed| freed.bytes),
        "purged by an operator"
    );
    reply(&told)
}

pub(super) async fn pins(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let told = asking.shared.registry.pins().await;
    reply(&told.map_err(Failure::Registry)?)
}

pub(super) async fn unpin(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let Unpin { refs } = request::json(asking).await?;
    asking.note_about(format!("unpin {}", refs.join(" ")));
    let told = asking.shared.registry.unpin(&refs).await;
    let told = told.map_err(Failure::Registry)?;
    for unpinned in told.iter().filter(|told| told.unpinned) {
        tracing::info!(reference = unpinned.reference, "unpinned by an operator");
    }
    reply(&told)
}

pub(super) fn reply(told: &impl Serialize) -> Result<Reply, Failure> {
    let mut text = serde_json::to_vec(told).map_err(|_| Failure::Registry(unsaid()))?;
    text.push(b'\n');
    let reply = Reply::new(StatusCode::OK, Content::Full(Bytes::from(text)));
    Ok(guarded(reply).with(header::CONTENT_TYPE, JSON.clone()))
}

/// Plain data always serializes.
fn unsaid() -> crate::registry::Error {
    crate::registry::Error::new(crate::registry::ErrorKind::Internal, "internal error")
}

/// What every answer of the admin API carries.
pub(super) fn guarded(reply: Reply) -> Reply {
    reply
        .with(header::CACHE_CONTROL, NO_STORE.clone())
        .with(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF.clone())
}
