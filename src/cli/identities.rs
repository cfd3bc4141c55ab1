//! `wharfinger user`, `robot`, `token` and `access-key`: who can log in, and with what. What is made is told once.

use std::io::BufRead as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DaemonArguments;
use super::admin::Told;
use super::client::{CallError, Client};
use super::show::table;
use crate::clock::Timestamp;
use crate::config::{Config, HumanDuration};
use crate::identities::{Changed, Command, Done, IdentityReport, Kind, Made, New};

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Make a user: with the password on standard input, or with a secret that is made and shown once
    Add(AddArguments),
    /// Change a user; what is not said stays
    Set(SetArguments),
    /// Give a user another password, read from standard input. Tokens made before are void
    Password(NameArguments),
    /// Who there is
    List(DaemonArguments),
    /// Remove a user, at once: tokens made before are void
    Remove(NameArguments),
}

#[derive(Subcommand)]
pub(super) enum RobotCommand {
    /// Make a robot, which may what its scopes say and no more. Its secret is shown once
    Add(AddArguments),
    /// Change a robot; what is not said stays
    Set(SetArguments),
    /// Which there are
    List(DaemonArguments),
    /// Remove a robot, at once: tokens made before are void
    Remove(NameArguments),
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make one more secret for a user or robot, to log in with in the password's place. It is shown once
    Create(TokenArguments),
    /// Those of a user or robot
    List(NameArguments),
    /// Take one away, at once
    Revoke(IdArguments),
}

#[derive(Subcommand)]
pub(super) enum AccessKeyCommand {
    /// Make an access key for a user or robot: an id and a secret, which log in as name and password do. The secret is shown once
    Create(NameArguments),
    /// Those of a user or robot
    List(NameArguments),
    /// Take one away, at once
    Remove(IdArguments),
}

#[derive(Args)]
pub(super) struct NameArguments {
    /// The user or robot
    name: String,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct IdArguments {
    /// The user or robot
    name: String,
    /// Which, as `list` tells
    id: String,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct AddArguments {
    /// What it is called: 1 to 64 of a-z, A-Z, 0-9 and +=,.@_-
    name: String,
    /// Read the password, a line, from standard input
    #[arg(long)]
    password_stdin: bool,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// End after so long: 12h, 90d
    #[arg(long, value_name = "SPAN")]
    expires: Option<HumanDuration>,
    /// All that it may: `pull,push:team/*`. Words: pull, push, delete, list, admin. Can be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Attach the policy in this file, in the language of IAM
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct SetArguments {
    /// The user or robot
    name: String,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Shut it out
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Let it in again
    #[arg(long)]
    enable: bool,
    /// End so long from now: 12h, 90d; or `never`
    #[arg(long, value_name = "SPAN")]
    expires: Option<Expiry>,
    /// All that it may, instead of what was said before. Can be given several times
    #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "no_scopes")]
    scopes: Vec<String>,
    /// Bound a user no longer
    #[arg(long)]
    no_scopes: bool,
    /// Attach the policy in this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "no_policy")]
    policy: Option<PathBuf>,
    /// Take the policy away
    #[arg(long)]
    no_policy: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
pub(super) struct TokenArguments {
    /// The user or robot
    name: String,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// End after so long: 12h, 90d
    #[arg(long, value_name = "SPAN")]
    expires: Option<HumanDuration>,
    /// What it is good for at the most, within what its owner may: `pull:team/*`. Can be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// A span from now, or never.
#[derive(Clone, Copy)]
struct Expiry(Option<HumanDuration>);

impl std::str::FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self(None)),
            span => span.parse().map(|span| Self(Some(span))),
        }
    }
}

/// What a group of commands is about.
pub(super) enum Group {
    User(UserCommand),
    Robot(RobotCommand),
    Token(TokenCommand),
    AccessKey(AccessKeyCommand),
}

impl Group {
    pub(super) fn daemon(&self) -> &DaemonArguments {
        match self {
            Self::User(UserCommand::Add(arguments)) | Self::Robot(RobotCommand::Add(arguments)) => {
                &arguments.daemon
            }
            Self::User(UserCommand::Set(arguments)) | Self::Robot(RobotCommand::Set(arguments)) => {
                &arguments.daemon
            }
            Self::User(UserCommand::List(daemon)) | Self::Robot(RobotCommand::List(daemon)) => daemon,
            Self::User(UserCommand::Password(arguments) | UserCommand::Remove(arguments))
            | Self::Robot(RobotCommand::Remove(arguments))
            | Self::Token(TokenCommand::List(arguments))
            | Self::AccessKey(AccessKeyCommand::Create(arguments) | AccessKeyCommand::List(arguments)) => {
                &arguments.daemon
            }
            Self::Token(TokenCommand::Create(arguments)) => &arguments.daemon,
            Self::Token(TokenCommand::Revoke(arguments))
            | Self::AccessKey(AccessKeyCommand::Remove(arguments)) => &arguments.daemon,
        }
    }

    /// Does it.
    pub(super) async fn run(&self, config: &Config) -> Result<Told, CallError> {
        let call = Call {
            client: Client::new(config),
            json: self.daemon().json,
        };
        match self {
            Self::User(UserCommand::Add(arguments)) => call.add(Kind::User, arguments).await,
            Self::Robot(RobotCommand::Add(arguments)) => call.add(Kind::Robot, arguments).await,
            Self::User(UserCommand::Set(arguments)) => call.set(Kind::User, arguments).await,
            Self::Robot(RobotCommand::Set(arguments)) => call.set(Kind::Robot, arguments).await,
            Self::User(UserCommand::Password(arguments)) => call.password(&arguments.name).await,
            Self::User(UserCommand::List(_)) => call.list(Kind::User).await,
            Self::Robot(RobotCommand::List(_)) => call.list(Kind::Robot).await,
            Self::User(UserCommand::Remove(arguments)) => call.remove(Kind::User, &arguments.name).await,
            Self::Robot(RobotCommand::Remove(arguments)) => call.remove(Kind::Robot, &arguments.name).await,
            Self::Token(TokenCommand::Create(arguments)) => call.create_token(arguments).await,
            Self::Token(TokenCommand::List(arguments)) => call.secrets(&arguments.name).await,
            Self::Token(TokenCommand::Revoke(IdArguments { name, id, .. })) => {
                let (name, id) = (name.clone(), id.clone());
                call.run(Command::RevokeSecret { name, id }, "taken away").await
            }
            Self::AccessKey(AccessKeyCommand::Create(arguments)) => {
                let name = arguments.name.clone();
                call.run(Command::AddAccessKey { name }, "").await
            }
            Self::AccessKey(AccessKeyCommand::List(arguments)) => call.access_keys(&arguments.name).await,
            Self::AccessKey(AccessKeyCommand::Remove(IdArguments { name, id, .. })) => {
                let (name, id) = (name.clone(), id.clone());
                call.run(Command::RemoveAccessKey { name, id }, "taken away")
                    .await
            }
        }
    }
}

struct Call {
    client: Client,
    json: bool,
}

impl Call {
    async fn add(&self, kind: Kind, arguments: &AddArguments) -> Result<Told, CallError> {
        let password = arguments.password_stdin.then(read_password).transpose()?;
        let new = New {
            kind,
            description: arguments.description.clone(),
            password,
            expires_at: arguments.expires.map(from_now),
            scopes: Some(arguments.scopes.clone()).filter(|scopes| !scopes.is_empty()),
            policy: arguments
                .policy
                .as_ref()
                .map(std::fs::read_to_string)
                .transpose()
                .map_err(CallError::Local)?,
        };
        let name = arguments.name.clone();
        self.run(Command::Create { name, new }, "made").await
    }

    async fn set(&self, kind: Kind, arguments: &SetArguments) -> Result<Told, CallError> {
        self.one(kind, &arguments.name).await?;
        let policy = match &arguments.policy {
            Some(path) => Some(Some(std::fs::read_to_string(path).map_err(CallError::Local)?)),
            None => arguments.no_policy.then_some(None),
        };
        let changed = Changed {
            description: arguments.description.clone(),
            password: None,
            disabled: (arguments.disable || arguments.enable).then_some(arguments.disable),
            expires_at: arguments.expires.map(|expiry| expiry.0.map(from_now)),
            scopes: (arguments.no_scopes || !arguments.scopes.is_empty()).then(|| arguments.scopes.clone()),
            policy,
        };
        let name = arguments.name.clone();
        self.run(Command::Change { name, changed }, "changed").await
    }

    async fn password(&self, name: &str) -> Result<Told, CallError> {
        let changed = Changed {
            password: Some(read_password()?),
            ..Changed::default()
        };
        let name = name.to_owned();
        self.run(Command::Change { name, changed }, "changed").await
    }

    async fn remove(&self, kind: Kind, name: &str) -> Result<Told, CallError> {
        self.one(kind, name).await?;
        let name = name.to_owned();
        self.run(Command::Remove { name }, "removed").await
    }

    async fn create_token(&self, arguments: &TokenArguments) -> Result<Told, CallError> {
        let command = Command::AddSecret {
            name: arguments.name.clone(),
            description: arguments.description.clone(),
            expires_at: arguments.expires.map(from_now),
            scopes: Some(arguments.scopes.clone()).filter(|scopes| !scopes.is_empty()),
        };
        self.run(command, "").await
    }

    /// Has the daemon do it; `done` says so where nothing was made.
    async fn run(&self, command: Command, done: &str) -> Result<Told, CallError> {
        let name = command.name().to_owned();
        let key = matches!(command, Command::AddAccessKey { .. });
        let answer = self.client.post("/api/identities", &command).await?;
        let told: Done = self.client.parse(&answer)?;
        let text = match &told.made {
            _ if self.json => answer,
            None => format!("{name}: {done}"),
            Some(made) if key => access_key(&name, made),
            Some(made) => secret(&name, made),
        };
        Ok(Told { text, well: true })
    }

    async fn all(&self) -> Result<Vec<IdentityReport>, CallError> {
        self.client.parse(&self.client.get("/api/identities").await?)
    }

    /// The one of this name; of another kind, it is not meant.
    async fn one(&self, kind: Kind, name: &str) -> Result<(), CallError> {
        let found = self
            .all()
            .await?
            .into_iter()
            .any(|one| one.name == name && one.kind == kind);
        if found { Ok(()) } else { Err(missing(kind, name)) }
    }

    async fn list(&self, kind: Kind) -> Result<Told, CallError> {
        let all: Vec<_> = self
            .all()
            .await?
            .into_iter()
            .filter(|one| one.kind == kind)
            .collect();
        Ok(self.told(&all, || {
            let mut rows = vec![words([
                "NAME",
                "STATE",
                "LOGS IN WITH",
                "MAY AT THE MOST",
                "MADE BY",
                "DESCRIPTION",
            ])];
            for one in &all {
                rows.push(vec![
                    one.name.clone(),
                    state(one.disabled, one.expires_at),
                    opens(one),
                    one.scopes
                        .as_ref()
                        .map_or_else(String::new, |scopes| scopes.join(" ")),
                    one.created_by.clone(),
                    one.description.clone(),
                ]);
            }
            match (all.is_empty(), kind) {
                (false, _) => table(&rows, "", &[]),
                (true, Kind::User) => "no users: `wharfinger user add NAME` makes one".to_owned(),
                (true, Kind::Robot) => {
                    "no robots: `wharfinger robot add NAME --scope pull:team/*` makes one".to_owned()
                }
            }
        }))
    }

    async fn named(&self, name: &str) -> Result<IdentityReport, CallError> {
        let found = self.all().await?.into_iter().find(|one| one.name == name);
        found.ok_or_else(|| missing(Kind::User, name))
    }

    async fn secrets(&self, name: &str) -> Result<Told, CallError> {
        let secrets = self.named(name).await?.secrets;
        Ok(self.told(&secrets, || {
            let mut rows = vec![words([
                "ID",
                "MADE",
                "BY",
                "STATE",
                "GOOD FOR AT THE MOST",
                "DESCRIPTION",
            ])];
            for one in &secrets {
                rows.push(vec![
                    one.id.clone(),
                    one.created_at.rfc3339(),
                    one.created_by.clone(),
                    state(false, one.expires_at),
                    one.scopes
                        .as_ref()
                        .map_or_else(String::new, |scopes| scopes.join(" ")),
                    one.description.clone(),
                ]);
            }
            table(&rows, "", &[])
        }))
    }

    async fn access_keys(&self, name: &str) -> Result<Told, CallError> {
        let keys = self.named(name).await?.access_keys;
        Ok(self.told(&keys, || {
            let mut rows = vec![words(["ID", "MADE", "BY"])];
            rows.extend(
                keys.iter()
                    .map(|key| vec![key.id.clone(), key.created_at.rfc3339(), key.created_by.clone()]),
            );
            table(&rows, "", &[])
        }))
    }

    fn told<T: serde::Serialize>(&self, value: &T, words: impl FnOnce() -> String) -> Told {
        let text = if self.json {
            // Plain data always serializes.
            serde_json::to_string(value).unwrap_or_default()
        } else {
            words()
        };
        Told { text, well: true }
    }
}

fn words<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn missing(kind: Kind, name: &str) -> CallError {
    let kind = match kind {
        Kind::User => "user",
        Kind::Robot => "robot",
    };
    CallError::Refused {
        status: http::StatusCode::NOT_FOUND,
        message: format!("there is no {kind} `{name}`"),
    }
}

fn state(disabled: bool, expires_at: Option<Timestamp>) -> String {
    match expires_at {
        _ if disabled => "disabled".to_owned(),
        None => "good".to_owned(),
        Some(end) if end <= Timestamp::now() => "ended".to_owned(),
        Some(end) => format!("good until {}", end.rfc3339()),
    }
}

fn opens(one: &IdentityReport) -> String {
    let count = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(one.to_owned()),
        count => Some(format!("{count} {many}")),
    };
    let with = [
        one.password.then(|| "password".to_owned()),
        count(one.secrets.len(), "token", "tokens"),
        count(one.access_keys.len(), "access key", "access keys"),
    ];
    let with: Vec<_> = with.into_iter().flatten().collect();
    with.join(", ")
}

fn secret(name: &str, made: &Made) -> String {
    format!(
        "{}\n\n{name} logs in with this, in the password's place; it is not shown again. Its id is {}.",
        made.secret, made.id
    )
}

fn access_key(name: &str, made: &Made) -> String {
    format!(
        "aws_access_key_id     = {}\naws_secret_access_key = {}\n\n{name} logs in with these as name and password; the secret \
         is not shown again.",
        made.id, made.secret
    )
}

fn from_now(span: HumanDuration) -> Timestamp {
    Timestamp::now().after(span.0)
}

/// A line of standard input.
fn read_password() -> Result<String, CallError> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(CallError::Local)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
