//! Hosted repositories for an operator: list, show, create, change, remove, and what a lifecycle policy would delete.

use serde::{Deserialize, Serialize};

use super::commands::reply;
use super::request::{self, BadRequest};
use crate::api::Asking;
use crate::api::query;
use crate::api::reply::Reply;
use crate::api::rescue::Failure;
use crate::auth::action::Action;
use crate::auth::identity::Kind;
use crate::auth::policy::{Document, Usage};
use crate::oci::RepositoryName;
use crate::registry::{Mutability, RepositoryReport, SettingsChange, Unwilling, Wish};

/// Repositories that are told at a time, when the client does not say; and the most.
const PAGE: usize = 100;
const MOST: usize = 1000;

/// Who came through the socket, or when nobody can log in.
const OPERATOR: &str = "operator";

/// A page of repositories.
#[derive(Serialize)]
pub(super) struct Page {
    repositories: Vec<RepositoryReport>,
    /// What to ask for as `last` for the next page; none after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What is to be made or changed. What is not said stays; `null` takes a quota or a policy away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    tags: Option<Mutability>,
    #[serde(default)]
    quota: Wish<u64>,
    #[serde(default)]
    sparse: Option<bool>,
    #[serde(default)]
    lifecycle: Wish<String>,
    #[serde(default)]
    policy: Wish<String>,
}

/// What is to be removed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    name: String,
    #[serde(default)]
    force: bool,
}

/// Of what a preview is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preview {
    name: String,
    /// Instead of the policy that it has.
    #[serde(default)]
    lifecycle: Option<String>,
}

pub(super) async fn list(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let query = asking.uri.query().unwrap_or_default();
    let after = query::get(query, "last").unwrap_or_default().into_owned();
    let count = match query::get(query, "n") {
        None => PAGE,
        Some(n) => n
            .parse()
            .map_err(|_| invalid("n must be a whole number".to_owned()))?,
    };
    let count = count.clamp(1, MOST);
    let told = asking.shared.registry.repository_reports(&after, count + 1).await;
    let mut repositories = told.map_err(failure)?;
    let more = repositories.len() > count;
    repositories.truncate(count);
    let next = repositories.last().filter(|_| more).map(|last| last.name.clone());
    reply(&Page { repositories, next })
}

pub(super) async fn show(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let query = asking.uri.query().unwrap_or_default();
    let text = query::get(query, "name").filter(|text| !text.is_empty());
    let name = name(&text.ok_or(Failure::Request(BadRequest::Name))?)?;
    let told = asking.shared.registry.repository_report(&name).await;
    reply(&told.map_err(failure)?)
}

pub(super) async fn create(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let (name, change) = wanted(asking).await?;
    let by = match asking.caller.identity.kind() {
        Kind::Anonymous | Kind::Operator => OPERATOR.to_owned(),
        _ => asking.caller.key(),
    };
    let told = asking.shared.registry.create_repository(&name, &by, change).await;
    let told = told.map_err(failure)?;
    tracing::info!(repository = %name, "created by an operator");
    reply(&told)
}

pub(super) async fn change(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let (name, change) = wanted(asking).await?;
    let told = asking.shared.registry.change_repository(&name, change).await;
    let told = told.map_err(failure)?;
    tracing::info!(repository = %name, "changed by an operator");
    reply(&told)
}

pub(super) async fn remove(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let Remove { name: text, force } = request::json(asking).await?;
    let name = name(&text)?;
    asking.note_repository(&name);
    let told = asking.shared.registry.remove_repository(&name, force).await;
    let told = told.map_err(failure)?;
    tracing::info!(repository = %name, bytes = told.bytes, force, "deleted by an operator");
    reply(&told)
}

pub(super) async fn preview(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let Preview {
        name: text,
        lifecycle,
    } = request::json(asking).await?;
    let name = name(&text)?;
    let registry = &asking.shared.registry;
    let told = registry.preview_retention(&name, lifecycle.as_deref()).await;
    reply(&told.map_err(failure)?)
}

async fn wanted(asking: &mut Asking<'_>) -> Result<(RepositoryName, SettingsChange), Failure> {
    let wanted: Wanted = request::json(asking).await?;
    let name = name(&wanted.name)?;
    asking.note_repository(&name);
    if wanted.policy != Wish::Stays {
        // Who writes policies says who may do what, which is more than to look after content.
        asking.admit_to(Action::AdminIdentities)?;
    }
    if let Wish::Is(text) = &wanted.policy {
        let document = Document::parse_for(text, Usage::Repository)
            .map_err(|faults| invalid(format!("the policy cannot be used: {faults}")))?;
        // A misspelt one would deny nothing.
        if let Some(action) = document.unknown_actions().first() {
            return Err(invalid(format!(
                "the policy cannot be used: there is no action {action}"
            )));
        }
    }
    let change = SettingsChange {
        description: wanted.description,
        tags: wanted.tags,
        quota: wanted.quota,
        sparse: wanted.sparse,
        lifecycle: wanted.lifecycle,
        policy: wanted.policy,
    };
    Ok((name, change))
}

fn name(text: &str) -> Result<RepositoryName, Failure> {
    text.parse()
        .map_err(|error| invalid(format!("`{text}`: {error}")))
}

fn invalid(reason: String) -> Failure {
    Failure::Request(BadRequest::Invalid(reason))
}

fn failure(unwilling: Unwilling) -> Failure {
    let reason = unwilling.to_string();
    Failure::Request(match unwilling {
        Unwilling::Failed(error) => return Failure::Hosted(error),
        Unwilling::Unknown(_) => BadRequest::Absent(reason),
        Unwilling::Exists(_) | Unwilling::NotEmpty(_) | Unwilling::NoLifecycle(_) => {
            BadRequest::Impossible(reason)
        }
        Unwilling::Elsewhere(..) | Unwilling::Lifecycle(_) => BadRequest::Invalid(reason),
    })
}
