//! What operators do to identities, as the admin API takes it and the subcommands send it.

use serde::{Deserialize, Deserializer, Serialize};

use super::{Changed, Error, Identities, Made, New};
use crate::clock::Timestamp;

/// One thing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Make a user or a robot.
    Create {
        /// The name.
        name: String,
        /// What is said of it.
        new: New,
    },
    /// Change one.
    Change {
        /// Whose.
        name: String,
        /// What is to be another.
        changed: Changed,
    },
    /// Remove one.
    Remove {
        /// Whose.
        name: String,
    },
    /// Make a secret.
    AddSecret {
        /// Whose.
        name: String,
        /// What it is for.
        #[serde(default)]
        description: String,
        /// When it ends.
        #[serde(default)]
        expires_at: Option<Timestamp>,
        /// What it is good for at the most.
        #[serde(default)]
        scopes: Option<Vec<String>>,
    },
    /// Take a secret away.
    RevokeSecret {
        /// Whose.
        name: String,
        /// Which.
        id: String,
    },
    /// Make an access key.
    AddAccessKey {
        /// Whose.
        name: String,
    },
    /// Take an access key away.
    RemoveAccessKey {
        /// Whose.
        name: String,
        /// Which.
        id: String,
    },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// What was made, told this once.
    pub made: Option<Made>,
}

impl Command {
    /// Who it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Create { name, .. }
            | Self::Change { name, .. }
            | Self::Remove { name }
            | Self::AddSecret { name, .. }
            | Self::RevokeSecret { name, .. }
            | Self::AddAccessKey { name }
            | Self::RemoveAccessKey { name, .. } => name,
        }
    }

    /// What it does, for the log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Change { .. } => "change",
            Self::Remove { .. } => "remove",
            Self::AddSecret { .. } => "add-secret",
            Self::RevokeSecret { .. } => "revoke-secret",
            Self::AddAccessKey { .. } => "add-access-key",
            Self::RemoveAccessKey { .. } => "remove-access-key",
        }
    }
}

impl Identities {
    /// Does what `command` says, for `by` (kind and name, as `Caller::key` gives them).
    ///
    /// # Errors
    /// Why it is not done.
    pub async fn run(&self, command: Command, by: &str, now: Timestamp) -> Result<Done, Error> {
        let made = match command {
            Command::Create { name, new } => self.create(&name, new, by, now).await?,
            Command::Change { name, changed } => self.change(&name, changed).await.map(|()| None)?,
            Command::Remove { name } => self.remove(&name).await.map(|()| None)?,
            Command::AddSecret {
                name,
                description,
                expires_at,
                scopes,
            } => Some(
                self.add_secret(&name, description, expires_at, scopes, by, now)
                    .await?,
            ),
            Command::RevokeSecret { name, id } => self.revoke_secret(&name, &id).await.map(|()| None)?,
            Command::AddAccessKey { name } => Some(self.add_access_key(&name, by, now).await?),
            Command::RemoveAccessKey { name, id } => {
                self.remove_access_key(&name, &id).await.map(|()| None)?
            }
        };
        Ok(Done { made })
    }
}

/// What is there counts, also when it is nothing.
pub(super) fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}
