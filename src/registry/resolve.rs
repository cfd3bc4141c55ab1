//! From the ways that clients ask to one repository: prefix, host in the path, `ns`, host before `/v2`, root mirror.
//!
//! `ns` and hosts are chosen by the client: they select among the configured upstreams and never name a machine to
//! connect to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::{Error, ErrorKind, Place};
use crate::oci::RepositoryName;
use crate::upstream::Upstream;

use super::Repository;

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/v2/`: every way of asking.
    Main,
    /// `/mirror/v2/` or the mirror's own port: the mirrored upstream or `ns`, nothing by path.
    Mirror,
}

/// How a client named a repository.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The door.
    pub door: Door,
    /// The path component before `/v2`.
    pub host: Option<&'a str>,
    /// The query parameter `ns`.
    pub ns: Option<&'a str>,
    /// The name between `/v2/` and the operation.
    pub name: &'a RepositoryName,
}

/// The names of all upstreams.
pub struct Names {
    upstreams: HashMap<String, Arc<Upstream>>,
    mirror: Option<Arc<Upstream>>,
}

/// Whose one-component names are kept under `library/`.
const DOCKER_HUB: &str = "docker.io";

impl Names {
    /// By prefix and host; `mirror` is the prefix of the upstream that names without either mean.
    pub fn new(upstreams: &[Arc<Upstream>], mirror: Option<&str>) -> Self {
        let mut names = HashMap::new();
        for upstream in upstreams {
            let config = upstream.config();
            for name in config.hosts.iter().chain([&config.prefix]) {
                names.insert(name.to_ascii_lowercase(), upstream.clone());
            }
        }
        let mirror = mirror.and_then(|prefix| names.get(prefix).cloned());
        Self {
            upstreams: names,
            mirror,
        }
    }

    /// Whether a prefix or host of this name is configured.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All upstreams, by prefix.
    pub(super) fn upstreams(&self) -> Vec<&Arc<Upstream>> {
        let mut all: Vec<_> = self.upstreams.values().collect();
        all.sort_by_key(|upstream| upstream.prefix());
        all.dedup_by_key(|upstream| upstream.prefix());
        all
    }

    fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name).or_else(|| {
            let lower = name
                .bytes()
                .any(|b| b.is_ascii_uppercase())
                .then(|| name.to_ascii_lowercase())?;
            self.upstreams.get(&lower)
        })
    }

    /// Whether a name without prefix and host means an upstream.
    pub(super) fn mirrors(&self) -> bool {
        self.mirror.is_some()
    }

    /// Whether those names mean this upstream, by its prefix.
    pub(super) fn is_mirrored(&self, prefix: &str) -> bool {
        self.mirror
            .as_ref()
            .is_some_and(|mirror| mirror.prefix() == prefix)
    }

    /// Whether a name begins with an upstream's prefix or host, or with what can only be a host.
    pub(super) fn leads_elsewhere(&self, name: &RepositoryName) -> bool {
        let first = name.as_str().split('/').next().unwrap_or_default();
        self.knows(first) || first.contains('.')
    }

    /// Whether a hosted repository of this name lies over one of an upstream, by its prefix.
    pub(super) fn overlays(&self, name: &RepositoryName) -> bool {
        let first = name.namespace();
        self.get(first).is_some_and(|upstream| {
            let config = upstream.config();
            config.overlay && config.prefix == first
        })
    }

    /// Which repository a client means; "name unknown" when it means none of ours.
    pub(super) fn resolve(&self, asked: &Asked<'_>) -> Result<Repository, Error> {
        let (upstream, name) = match asked.door {
            Door::Main => self.on_main(asked)?,
            Door::Mirror => self.on_mirror(asked)?,
        };
        let name = official(upstream, name)?;
        let place = Place::new(upstream.clone(), name);
        Ok(Repository {
            place,
            namespace: asked.ns.map(Arc::from),
        })
    }

    fn on_main<'a>(&'a self, asked: &Asked<'a>) -> Result<(&'a Arc<Upstream>, RepositoryName), Error> {
        let whole = asked.name;
        let first = whole.namespace();
        let by_path = self.get(first);
        if let Some(explicit) = self.explicit(asked)? {
            // The client's mirror path and its `ns` say the same thing twice. With the host before /v2 the path has said it
            // already.
            let twice = asked.host.is_none()
                && by_path.is_some_and(|upstream| Arc::ptr_eq(upstream, explicit))
                && is_no_namespace(explicit, first);
            let rest = twice.then(|| whole.inside_namespace()).flatten();
            return Ok((explicit, rest.unwrap_or_else(|| whole.clone())));
        }
        match by_path {
            Some(upstream) => match whole.inside_namespace() {
                Some(rest) => Ok((upstream, rest)),
                None => Err(unknown(format!(
                    "{first} names an upstream: a repository has to follow"
                ))),
            },
            // A host that we do not know must not turn into a repository of Docker Hub.
            None if first.contains('.') && whole.as_str() != first => {
                Err(unknown(format!("no upstream is configured for {first}")))
            }
            None => self.mirrored().map(|upstream| (upstream, whole.clone())),
        }
    }

    fn on_mirror<'a>(&'a self, asked: &Asked<'a>) -> Result<(&'a Arc<Upstream>, RepositoryName), Error> {
        let upstream = match self.explicit(asked)? {
            Some(upstream) => upstream,
            None => self.mirrored()?,
        };
        Ok((upstream, asked.name.clone()))
    }

    /// The upstream that `ns` and the host before `/v2` name, if any.
    fn explicit(&self, asked: &Asked<'_>) -> Result<Option<&Arc<Upstream>>, Error> {
        let find = |name: &str| {
            self.get(name)
                .ok_or_else(|| unknown(format!("no upstream is configured for {}", shown(name))))
        };
        match (asked.ns.map(find).transpose()?, asked.host.map(find).transpose()?) {
            (Some(ns), Some(host)) if !Arc::ptr_eq(ns, host) => {
                Err(unknown("the path and ns name different upstreams".to_owned()))
            }
            (ns, host) => Ok(ns.or(host)),
        }
    }

    fn mirrored(&self) -> Result<&Arc<Upstream>, Error> {
        self.mirror.as_ref().ok_or_else(|| {
            unknown(
                "no upstream is named, and none is mirrored (cache.mirror): put its prefix before the name"
                    .to_owned(),
            )
        })
    }
}

/// Whether `first` can only be meant as the upstream's name. `ghcr.io/github/...` and `quay.io/quay/...` are real
/// repositories, so beside an `ns` a bare prefix is part of the name, but for Docker Hub's: no namespace there has a
/// hyphen.
fn is_no_namespace(upstream: &Upstream, first: &str) -> bool {
    let config = upstream.config();
    first.contains('.') || (first.contains('-') && config.hosts.iter().any(|host| host == DOCKER_HUB))
}

/// Docker Hub keeps its official images under `library/`; clients that ask the registry directly leave that out.
fn official(upstream: &Upstream, name: RepositoryName) -> Result<RepositoryName, Error> {
    let is_hub = || upstream.config().hosts.iter().any(|host| host == DOCKER_HUB);
    if name.as_str().contains('/') || !is_hub() {
        return Ok(name);
    }
    let name: Result<RepositoryName, _> = format!("library/{name}").parse();
    name.map_err(|error| Error::new(ErrorKind::NameUnknown, error.to_string()))
}

fn unknown(message: String) -> Error {
    Error::new(ErrorKind::NameUnknown, message)
}

/// Client's text for an error message: short and printable.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
