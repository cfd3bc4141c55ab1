//! What an operator does with hosted repositories: make, look at, change, remove, and see what would expire. Called by
//! the admin API.

use serde::{Deserialize, Deserializer};

use crate::oci::RepositoryName;
use crate::repository::hosted::{
    Error as HostedError, Mutability, RepositoryReport, RetentionPreview, Settings,
};
use crate::repository::lifecycle::Policy;

use super::Registry;

/// What is to become of a repository's settings; what is not said stays.
#[derive(Clone, Debug, Default)]
pub struct SettingsChange {
    /// What it is for.
    pub description: Option<String>,
    /// Whether tags may move.
    pub tags: Option<Mutability>,
    /// Bytes that it may hold.
    pub quota: Wish<u64>,
    /// Whether a manifest may name what was not pushed.
    pub sparse: Option<bool>,
    /// The text of its lifecycle policy.
    pub lifecycle: Wish<String>,
    /// The text of its policy, which the caller has understood.
    pub policy: Wish<String>,
}

/// What is to become of something that a repository need not have. In JSON: absent, `null`, or the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wish<T> {
    /// It stays as it is.
    #[default]
    Stays,
    /// It goes.
    Goes,
    /// It is this from now on.
    Is(T),
}

impl<T> Wish<T> {
    fn apply(self, to: Option<T>) -> Option<T> {
        match self {
            Self::Stays => to,
            Self::Goes => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Wish<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(match Option::deserialize(input)? {
            Some(value) => Self::Is(value),
            None => Self::Goes,
        })
    }
}

/// Why an operator's wish is not granted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unwilling {
    /// There is none of this name.
    #[error("there is no hosted repository {0}")]
    Unknown(RepositoryName),
    /// There is one already.
    #[error("the repository {0} exists already")]
    Exists(RepositoryName),
    /// Clients that ask for this name would not get there.
    #[error("{0} cannot be hosted: names that begin with `{1}` lead to an upstream")]
    Elsewhere(RepositoryName, String),
    /// It holds images.
    #[error("{0} still holds images: delete them first, or all at once with --force")]
    NotEmpty(RepositoryName),
    /// Nothing says what is to expire.
    #[error("{0} has no lifecycle policy")]
    NoLifecycle(RepositoryName),
    /// The lifecycle policy cannot be used.
    #[error("{0}")]
    Lifecycle(String),
    /// Our own disk or index.
    #[error(transparent)]
    Failed(HostedError),
}

impl SettingsChange {
    fn apply(self, to: Settings) -> Settings {
        Settings {
            description: self.description.unwrap_or(to.description),
            tags: self.tags.unwrap_or(to.tags),
            quota: self.quota.apply(to.quota),
            sparse: self.sparse.unwrap_or(to.sparse),
            lifecycle: self.lifecycle.apply(to.lifecycle),
            policy: self.policy.apply(to.policy),
        }
    }

    fn check(&self) -> Result<(), Unwilling> {
        match &self.lifecycle {
            Wish::Is(text) => lifecycle(text).map(drop).map_err(Unwilling::Lifecycle),
            Wish::Stays | Wish::Goes => Ok(()),
        }
    }
}

/// Understands a lifecycle policy of which all can be done here.
///
/// # Errors
/// What is wrong with it, in the words of ECR; or that it archives, for which there is no place here.
pub fn lifecycle(text: &str) -> Result<Policy, String> {
    let policy = Policy::parse(text).map_err(|fault| fault.to_string())?;
    if policy.archives() {
        return Err(
            "Lifecycle policy validation failure: there is no archive here, so no rule can have the action \
             `transition`"
                .to_owned(),
        );
    }
    Ok(policy)
}

impl Registry {
    /// Makes a repository.
    ///
    /// # Errors
    /// `Exists`, `Elsewhere`, `Lifecycle`.
    pub async fn create_repository(
        &self,
        name: &RepositoryName,
        by: &str,
        change: SettingsChange,
    ) -> Result<RepositoryReport, Unwilling> {
        change.check()?;
        if self.names.leads_elsewhere(name) && !self.names.overlays(name) {
            return Err(Unwilling::Elsewhere(name.clone(), name.namespace().to_owned()));
        }
        let settings = change.apply(Settings::default());
        match self.hosted.create(name, by, settings).await {
            Ok((made, true)) => self.hosted.report(&made).await.map_err(Unwilling::Failed),
            Ok((_, false)) => Err(Unwilling::Exists(name.clone())),
            Err(error) => Err(told(name, error)),
        }
    }

    /// A repository, with what it holds.
    pub async fn repository_report(&self, name: &RepositoryName) -> Result<RepositoryReport, Unwilling> {
        let found = self.hosted.repository(name).await.map_err(Unwilling::Failed)?;
        let found = found.ok_or_else(|| Unwilling::Unknown(name.clone()))?;
        self.hosted.report(&found).await.map_err(Unwilling::Failed)
    }

    /// Repositories after `after` in byte order, `most` at the most, without what they hold.
    pub async fn repository_reports(
        &self,
        after: &str,
        most: usize,
    ) -> Result<Vec<RepositoryReport>, Unwilling> {
        self.hosted.reports(after, most).await.map_err(Unwilling::Failed)
    }

    /// Gives a repository other settings.
    ///
    /// # Errors
    /// `Unknown`, `Lifecycle`.
    pub async fn change_repository(
        &self,
        name: &RepositoryName,
        change: SettingsChange,
    ) -> Result<RepositoryReport, Unwilling> {
        change.check()?;
        let changed = self.hosted.change_by(name, |present| change.apply(present)).await;
        let changed = changed.map_err(|error| told(name, error))?;
        self.hosted.report(&changed).await.map_err(Unwilling::Failed)
    }

    /// Removes a repository: with all that it holds if `force`. Gives what it was.
    ///
    /// # Errors
    /// `Unknown`, `NotEmpty`.
    pub async fn remove_repository(
        &self,
        name: &RepositoryName,
        force: bool,
    ) -> Result<RepositoryReport, Unwilling> {
        let report = self.repository_report(name).await?;
        let removed = self.hosted.remove(name, force).await;
        removed.map(|()| report).map_err(|error| told(name, error))
    }

    /// What would expire in a repository now: by `text`, or by the policy that it has. Deletes nothing.
    ///
    /// # Errors
    /// `Unknown`, `NoLifecycle`, `Lifecycle`.
    pub async fn preview_retention(
        &self,
        name: &RepositoryName,
        text: Option<&str>,
    ) -> Result<RetentionPreview, Unwilling> {
        let found = self.hosted.repository(name).await.map_err(Unwilling::Failed)?;
        let found = found.ok_or_else(|| Unwilling::Unknown(name.clone()))?;
        let text = text.or(found.settings.lifecycle.as_deref());
        let text = text.ok_or_else(|| Unwilling::NoLifecycle(name.clone()))?;
        let policy = lifecycle(text).map_err(Unwilling::Lifecycle)?;
        let preview = self.hosted.preview_retention(&found, &policy).await;
        preview.map_err(Unwilling::Failed)
    }
}

fn told(name: &RepositoryName, error: HostedError) -> Unwilling {
    match error {
        HostedError::NameUnknown => Unwilling::Unknown(name.clone()),
        HostedError::NotEmpty => Unwilling::NotEmpty(name.clone()),
        other => Unwilling::Failed(other),
    }
}
