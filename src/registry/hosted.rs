//! The hosted side of the door: which names are ours, and the repositories that a push makes.

use std::sync::Arc;

use crate::cache::{Error, ErrorKind};
use crate::config::Glob;
use crate::oci::{Digest, RepositoryName};
use crate::repository::hosted::{Error as HostedError, HostedRepository, Settings};

use super::resolve::Asked;
use super::{Door, Registry, Repository};

/// The namespace of Docker Hub's own images.
const OFFICIAL: &str = "library";

/// Upstreams' repositories that a mount is tried from that names none.
const MOST_SOURCES: usize = 16;

/// Where a name leads.
#[derive(Clone)]
pub enum Located {
    /// To an upstream, through the cache.
    PullThrough(Repository),
    /// To a repository of ours.
    Hosted(Arc<HostedRepository>),
    /// To one that would be ours, and does not exist.
    Absent(RepositoryName),
}

impl Located {
    /// What policies call it: the name of a repository of ours, or the upstream's prefix and its name there.
    pub fn name(&self) -> &str {
        match self {
            Self::PullThrough(repository) => repository.key(),
            Self::Hosted(repository) => repository.name.as_str(),
            Self::Absent(name) => name.as_str(),
        }
    }
}

/// Which repositories a push makes, and how: the first that matches.
#[derive(Clone, Debug, Default)]
pub struct Templates(Vec<Template>);

/// How a repository is made.
#[derive(Clone, Debug)]
pub struct Template {
    /// The names that it is about.
    pub pattern: Glob,
    /// Its settings.
    pub settings: Settings,
}

impl Templates {
    /// In the order in which they are looked at.
    pub fn new(templates: Vec<Template>) -> Self {
        Self(templates)
    }

    fn settings(&self, name: &RepositoryName) -> Option<Settings> {
        let found = self
            .0
            .iter()
            .find(|template| template.pattern.matches(name.as_str()));
        found.map(|template| template.settings.clone())
    }

    /// Whether a name is ours because of a template, before anything was pushed: one that says its first component, like
    /// `acme/*`. One like `*` would take all names from the mirrored upstream.
    fn claim(&self, name: &RepositoryName) -> bool {
        let says_first = |pattern: &Glob| {
            let first = pattern.as_str().split('/').next().unwrap_or_default();
            !first.contains('*')
        };
        self.0
            .iter()
            .any(|template| says_first(&template.pattern) && template.pattern.matches(name.as_str()))
    }
}

/// What is to be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Something is asked for.
    Read,
    /// Something is pushed or removed, which no upstream is asked to do for a name that does not say it.
    Write,
}

impl Registry {
    /// Where the name that a client asks by leads. Ours come before the mirrored upstream's, and never before a name that
    /// says its upstream; on the mirror door there are none.
    ///
    /// # Errors
    /// "Name unknown", when no upstream is meant.
    pub async fn locate(&self, asked: &Asked<'_>, intent: Intent) -> Result<Located, Lost> {
        let bare =
            asked.door == Door::Main && asked.ns.is_none_or(|ns| self.is_own(ns)) && asked.host.is_none();
        if bare && !self.names.leads_elsewhere(asked.name) {
            if let Some(found) = self.hosted.repository(asked.name).await? {
                return Ok(Located::Hosted(found));
            }
            let would_be = intent == Intent::Write && self.templates.settings(asked.name).is_some();
            // Without a mirrored upstream it can be nobody else's, and is answered like those that are there and hidden.
            let known = would_be || asked.ns.is_some() || !self.names.mirrors();
            if known || self.is_ours(asked.name).await? {
                return Ok(Located::Absent(asked.name.clone()));
            }
        }
        let found = self.names.resolve(asked)?;
        // On the mirror door nothing of ours stands in for an upstream's image.
        let located = if asked.door == Door::Main && found.place().upstream.config().overlay {
            self.overlaid(found, intent).await?
        } else {
            Located::PullThrough(found)
        };
        if let (Located::PullThrough(found), Intent::Read) = (&located, intent) {
            self.keep_from(found)?;
        }
        Ok(located)
    }

    /// Fails for what the mirrored upstream must not be asked for, by whatever way it is named: what nodes call `acme/app`
    /// they ask the mirror door for, or by `ns`, and somebody else may have it there.
    fn keep_from(&self, found: &Repository) -> Result<(), Error> {
        let first = found.name().namespace();
        let ours = self.namespaces.iter().any(|ours| &**ours == first);
        if !ours || !self.names.is_mirrored(found.upstream()) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NameUnknown,
            format!(
                "`{first}` is a namespace of this registry (hosted.namespaces): no upstream is asked for it"
            ),
        ))
    }

    /// The hosted repository that lies over an upstream's, by the upstream's prefix and its name there.
    async fn overlaid(&self, found: Repository, intent: Intent) -> Result<Located, Lost> {
        let Ok(name) = found.key().parse::<RepositoryName>() else {
            return Ok(Located::PullThrough(found));
        };
        Ok(match self.hosted.repository(&name).await? {
            Some(hosted) => Located::Hosted(hosted),
            None if intent == Intent::Write && self.templates.settings(&name).is_some() => {
                Located::Absent(name)
            }
            None => Located::PullThrough(found),
        })
    }

    /// Names of upstreams' repositories, by prefix, that a blob is kept for here: some, since each is asked about.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn cached_in(&self, digest: &Digest) -> Result<Vec<RepositoryName>, Error> {
        let keys = self.cache.kept_for(digest, MOST_SOURCES).await?;
        Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
    }

    /// Makes a repository that a push by `by` goes to, if a template says so.
    ///
    /// # Errors
    /// "Name unknown", when none does.
    pub async fn make(&self, name: &RepositoryName, by: &str) -> Result<Arc<HostedRepository>, HostedError> {
        let Some(settings) = self.templates.settings(name) else {
            return Err(HostedError::NameUnknown);
        };
        let (made, new) = self.hosted.create(name, by, settings).await?;
        if new {
            tracing::info!(repository = %name, by, "a push made this repository");
        }
        Ok(made)
    }

    /// Whether a host of `ns` is our own.
    fn is_own(&self, host: &str) -> bool {
        let own = self.own.host.as_deref();
        own.is_some_and(|own| own.eq_ignore_ascii_case(host))
    }

    /// Whether no upstream is asked for a name: the configuration says so, or a repository of ours has, or had, a name of
    /// the same first component.
    async fn is_ours(&self, name: &RepositoryName) -> Result<bool, HostedError> {
        let first = name.namespace();
        if self.namespaces.iter().any(|ours| &**ours == first) || self.templates.claim(name) {
            return Ok(true);
        }
        // One repository there must not hide all of Docker Hub's own images.
        Ok(first != OFFICIAL && self.hosted.is_namespace(first).await?)
    }
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Lost {
    /// No upstream is meant by it.
    #[error(transparent)]
    PullThrough(#[from] Error),
    /// It is one of ours, and does not exist.
    #[error(transparent)]
    Hosted(#[from] HostedError),
}
