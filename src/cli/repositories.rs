//! `wharfinger repository`: hosted repositories over the admin API. Called by `cli`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cache::report::span;
use crate::clock::Timestamp;
use crate::config::{Config, Glob};
use crate::registry::{RepositoryReport, RetentionPreview};

use super::DaemonArguments;
use super::admin::{Told, tell};
use super::client::{CallError, Client};
use super::show::{bytes, cells, number, short, table};

/// Images of a preview that are told in words; all of them with `--json`.
const MOST_IMAGES: usize = 200;

#[derive(Subcommand)]
pub(super) enum RepositoryCommand {
    /// Make a repository
    Create(CreateArguments),
    /// All repositories, in the order of their names
    List(ListArguments),
    /// One repository: its settings, what it holds, when it was made and by whom
    Show(NameArguments),
    /// Change what is said of it here; the rest stays
    Set(SetArguments),
    /// Delete a repository; one that holds images only with --force
    Delete(DeleteArguments),
    /// Which images expire, in the language of Amazon ECR's lifecycle policies
    #[command(subcommand)]
    Lifecycle(LifecycleCommand),
    /// Who may do what, in the language of IAM
    #[command(subcommand)]
    Policy(PolicyCommand),
}

#[derive(Subcommand)]
pub(super) enum LifecycleCommand {
    /// Print the policy
    Get(NameArguments),
    /// Take the policy of a file
    Set(FileArguments),
    /// Take the policy away: nothing expires
    Delete(NameArguments),
    /// What would expire now, by its policy or by one in a file. Deletes nothing
    Preview(PreviewArguments),
}

#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Print the policy
    Get(NameArguments),
    /// Take the policy of a file
    Set(FileArguments),
    /// Take the policy away
    Delete(NameArguments),
}

#[derive(Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct NameArguments {
    /// The repository: acme/app
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct FileArguments {
    /// The repository: acme/app
    #[arg(value_name = "NAME")]
    name: String,
    /// The file; - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct PreviewArguments {
    /// The repository: acme/app
    #[arg(value_name = "NAME")]
    name: String,
    /// A policy to try instead of the one that it has; - for standard input
    #[arg(value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct CreateArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    #[command(flatten)]
    about: NameArguments,
}

#[derive(Args)]
pub(super) struct SetArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    #[command(flatten)]
    about: NameArguments,
}

#[derive(Args)]
struct SettingsArguments {
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Whether tags may move
    #[arg(long, value_name = "mutable|immutable")]
    tags: Option<Tags>,
    /// Tags for which the opposite holds; * stands for any characters. Five patterns at the most
    #[arg(long, value_name = "PATTERN", requires = "tags")]
    except: Vec<String>,
    /// What it may hold: 50GiB; or none, for no limit
    #[arg(long, value_name = "SIZE|none", value_parser = quota)]
    quota: Option<Quota>,
    /// Take manifests that name what was not pushed, like an index of which only some platforms are here
    #[arg(long, value_name = "true|false")]
    sparse: Option<bool>,
    /// A lifecycle policy; - for standard input
    #[arg(long, value_name = "FILE")]
    lifecycle: Option<String>,
}

#[derive(Clone, Copy)]
struct Quota(Option<u64>);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tags {
    Mutable,
    Immutable,
}

#[derive(Args)]
pub(super) struct DeleteArguments {
    /// With all the images that it holds
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    about: NameArguments,
}

fn quota(text: &str) -> Result<Quota, String> {
    if text == "none" {
        return Ok(Quota(None));
    }
    let size: ByteSize = text
        .parse()
        .map_err(|_| "write a size like 50GiB, or none".to_owned())?;
    Ok(Quota(Some(size.as_u64())))
}

impl RepositoryCommand {
    /// Which daemon is asked.
    pub(super) fn daemon(&self) -> &DaemonArguments {
        match self {
            Self::Create(create) => &create.about.daemon,
            Self::List(list) => &list.daemon,
            Self::Show(about)
            | Self::Lifecycle(LifecycleCommand::Get(about) | LifecycleCommand::Delete(about))
            | Self::Policy(PolicyCommand::Get(about) | PolicyCommand::Delete(about)) => &about.daemon,
            Self::Set(set) => &set.about.daemon,
            Self::Delete(delete) => &delete.about.daemon,
            Self::Lifecycle(LifecycleCommand::Set(file)) | Self::Policy(PolicyCommand::Set(file)) => {
                &file.daemon
            }
            Self::Lifecycle(LifecycleCommand::Preview(preview)) => &preview.daemon,
        }
    }
}

/// Runs a subcommand.
pub(super) async fn run(config: &Config, command: &RepositoryCommand) -> Result<Told, CallError> {
    let (client, json) = (Client::new(config), command.daemon().json);
    match command {
        RepositoryCommand::Create(CreateArguments { settings, about }) => {
            let body = settings.body(&about.name)?;
            put(&client, "create", &body, json, |made| {
                format!("{} is there\n{}", made.name, shown(made))
            })
            .await
        }
        RepositoryCommand::Set(SetArguments { settings, about }) => {
            let body = settings.body(&about.name)?;
            put(&client, "set", &body, json, shown).await
        }
        RepositoryCommand::List(_) => list(&client, json).await,
        RepositoryCommand::Show(about) => {
            let answer = show(&client, &about.name).await?;
            let (_, text) = tell(&client, answer, json, shown)?;
            Ok(Told::well(text))
        }
        RepositoryCommand::Delete(delete) => {
            let body = json!({ "name": delete.about.name, "force": delete.force });
            put(&client, "delete", &body, json, |was| {
                format!("{} is deleted, which held {}", was.name, bytes(was.bytes))
            })
            .await
        }
        RepositoryCommand::Lifecycle(command) => match command {
            LifecycleCommand::Get(about) => text_of(&client, about, "lifecycle", "lifecycle policy").await,
            LifecycleCommand::Set(file) => {
                let body = json!({ "name": file.name, "lifecycle": read(&file.file)? });
                put(&client, "set", &body, json, |_| String::new()).await
            }
            LifecycleCommand::Delete(about) => {
                let body = json!({ "name": about.name, "lifecycle": null });
                put(&client, "set", &body, json, |_| String::new()).await
            }
            LifecycleCommand::Preview(preview) => {
                let text = preview.file.as_deref().map(read).transpose()?;
                let body = json!({ "name": preview.name, "lifecycle": text });
                let answer = client.post("/api/lifecycle-preview", &body).await?;
                let (_, text) = tell(&client, answer, json, previewed)?;
                Ok(Told::well(text))
            }
        },
        RepositoryCommand::Policy(command) => match command {
            PolicyCommand::Get(about) => text_of(&client, about, "policy", "policy").await,
            PolicyCommand::Set(file) => {
                let body = json!({ "name": file.name, "policy": read(&file.file)? });
                put(&client, "set", &body, json, |_| String::new()).await
            }
            PolicyCommand::Delete(about) => {
                let body = json!({ "name": about.name, "policy": null });
                put(&client, "set", &body, json, |_| String::new()).await
            }
        },
    }
}

impl SettingsArguments {
    /// What is asked of the daemon: only what was said.
    fn body(&self, name: &str) -> Result<Value, CallError> {
        let mut body = Map::new();
        body.insert("name".to_owned(), name.into());
        if let Some(description) = &self.description {
            body.insert("description".to_owned(), description.as_str().into());
        }
        if let Some(tags) = self.tags {
            let setting = match (tags, self.except.is_empty()) {
                (Tags::Mutable, true) => "MUTABLE",
                (Tags::Mutable, false) => "MUTABLE_WITH_EXCLUSION",
                (Tags::Immutable, true) => "IMMUTABLE",
                (Tags::Immutable, false) => "IMMUTABLE_WITH_EXCLUSION",
            };
            body.insert(
                "tags".to_owned(),
                json!({ "setting": setting, "filters": self.except }),
            );
        }
        if let Some(Quota(quota)) = self.quota {
            body.insert("quota".to_owned(), json!(quota));
        }
        if let Some(sparse) = self.sparse {
            body.insert("sparse".to_owned(), json!(sparse));
        }
        if let Some(file) = &self.lifecycle {
            body.insert("lifecycle".to_owned(), read(file)?.into());
        }
        Ok(body.into())
    }
}

/// The text of a file, or of standard input.
fn read(file: &str) -> Result<String, CallError> {
    if file == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        return read.map(|_| text).map_err(CallError::Local);
    }
    let read = std::fs::read_to_string(Path::new(file));
    // The name belongs to the reason.
    read.map_err(|error| CallError::Local(std::io::Error::new(error.kind(), format!("{file}: {error}"))))
}

async fn show(client: &Client, name: &str) -> Result<String, CallError> {
    let query: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    client.get(&format!("/api/repository?name={query}")).await
}

/// A policy as it was given.
async fn text_of(client: &Client, about: &NameArguments, key: &str, what: &str) -> Result<Told, CallError> {
    let told: Value = client.parse(&show(client, &about.name).await?)?;
    Ok(match told[key].as_str() {
        Some(text) if about.daemon.json => Told::well(json!({ key: text }).to_string()),
        Some(text) => Told::well(text),
        None => Told {
            text: format!("{} has no {what}", about.name),
            well: false,
        },
    })
}

async fn put(
    client: &Client,
    what: &str,
    body: &Value,
    json: bool,
    words: impl FnOnce(&RepositoryReport) -> String,
) -> Result<Told, CallError> {
    let answer = client.post(&format!("/api/repository-{what}"), body).await?;
    let (_, text) = tell(client, answer, json, words)?;
    Ok(Told::well(text))
}

async fn list(client: &Client, json: bool) -> Result<Told, CallError> {
    #[derive(Deserialize)]
    struct Page {
        repositories: Vec<Value>,
        #[serde(default)]
        next: Option<String>,
    }
    let (mut all, mut last) = (Vec::new(), String::new());
    loop {
        let query: String = url::form_urlencoded::byte_serialize(last.as_bytes()).collect();
        let answer = client.get(&format!("/api/repositories?last={query}")).await?;
        let page: Page = client.parse(&answer)?;
        all.extend(page.repositories);
        match page.next {
            Some(next) => last = next,
            None => break,
        }
    }
    if json {
        return Ok(Told::well(Value::Array(all).to_string()));
    }
    let mut rows = Vec::new();
    for one in all {
        let one: RepositoryReport = client.parse(&one.to_string())?;
        rows.push(vec![
            one.name.clone(),
            bytes(one.bytes),
            one.settings
                .quota
                .map_or_else(String::new, |quota| format!("of {}", bytes(quota))),
            tags(&one),
            one.settings.description,
        ]);
    }
    if rows.is_empty() {
        return Ok(Told::well("no repository is hosted here"));
    }
    Ok(Told::well(table(&rows, "", &[1])))
}

/// Whether its tags may move, in words.
fn tags(told: &RepositoryReport) -> String {
    let setting = told.settings.tags.as_str();
    let word = if setting.starts_with("IMMUTABLE") {
        "immutable"
    } else {
        "mutable"
    };
    let except: Vec<_> = told.settings.tags.filters().iter().map(Glob::as_str).collect();
    if except.is_empty() {
        word.to_owned()
    } else {
        format!("{word} except {}", except.join(", "))
    }
}

/// `wharfinger repository show`
fn shown(told: &RepositoryReport) -> String {
    let mut rows = vec![cells(["name", &told.name])];
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    if !told.settings.description.is_empty() {
        row("description", told.settings.description.clone());
    }
    row("tags", tags(told));
    if told.settings.sparse {
        row("takes", "manifests of which only some is here".to_owned());
    }
    let quota = told.settings.quota;
    let quota = quota.map_or_else(String::new, |quota| format!(" of {}", bytes(quota)));
    row("size", format!("{}{quota}", bytes(told.bytes)));
    if let Some(holds) = told.holds {
        let plural = |of: u64, what: &str| super::show::count(of, what);
        let mut text = format!(
            "{}, {}, {}",
            plural(holds.manifests, "manifest"),
            plural(holds.tags, "tag"),
            plural(holds.blobs, "blob")
        );
        if holds.uploads > 0 {
            // Writing into a String cannot fail.
            let _ = write!(text, ", {} waiting", plural(holds.uploads, "upload"));
        }
        row("holds", text);
    }
    let ago = span(Timestamp::now().since(told.created_at).as_secs());
    let by = if told.created_by.is_empty() {
        "by a push".to_owned()
    } else {
        format!("by {}", told.created_by)
    };
    row("made", format!("{ago} ago {by}"));
    let there = |text: &Option<String>| if text.is_some() { "yes" } else { "none" }.to_owned();
    row("lifecycle", there(&told.settings.lifecycle));
    row("policy", there(&told.settings.policy));
    table(&rows, "", &[])
}

/// `wharfinger repository lifecycle preview`
fn previewed(told: &RetentionPreview) -> String {
    let mut text = format!(
        "{} of {} would be deleted\n",
        number(told.expiring.len() as u64),
        super::show::count(told.manifests, "manifest")
    );
    let now = Timestamp::now();
    let rows: Vec<_> = told
        .expiring
        .iter()
        .take(MOST_IMAGES)
        .map(|image| {
            let why = match (image.rule, &image.subject) {
                (Some(rule), _) => format!("rule {rule}"),
                (None, Some(subject)) => format!("refers to {}", short(subject)),
                (None, None) => String::new(),
            };
            vec![
                short(&image.digest).to_owned(),
                format!("pushed {} ago", span(now.since(image.pushed_at).as_secs())),
                why,
                image.tags.join(", "),
            ]
        })
        .collect();
    text.push_str(&table(&rows, "  ", &[]));
    if let Some(more @ 1..) = told.expiring.len().checked_sub(MOST_IMAGES) {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  and {} more", number(more as u64));
    }
    text
}
