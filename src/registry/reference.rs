//! References as people type them: `nginx`, `docker.io/library/nginx:1.27`, `docker-hub/library/nginx@sha256:...`,
//! `localhost:5000/quay.io/org/app`. Resolved by the same names as requests.

use crate::cache::{Error, ErrorKind};
use crate::oci::{Reference, RepositoryName};

use super::resolve::{Asked, Door, Names};
use super::{Registry, Repository};

/// Under which addresses clients reach us: what may stand before a name without being part of it.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// The ports of our doors.
    pub ports: Vec<(u16, Door)>,
    /// Our public host, with its port where it has one.
    pub host: Option<String>,
}

impl OwnAddresses {
    /// The door that `host`, as written before a name, means. A host that is not ours but has one of our ports counts
    /// as ours: the machine has names that we do not know, and as an upstream it was looked for before.
    fn door(&self, host: &str) -> Option<Door> {
        if self
            .host
            .as_deref()
            .is_some_and(|own| own.eq_ignore_ascii_case(host))
        {
            return Some(Door::Main);
        }
        let (_, port) = host.rsplit_once(':')?;
        let port = port.parse::<u16>().ok()?;
        let found = self.ports.iter().find(|(own, _)| *own == port);
        found.map(|(_, door)| *door)
    }
}

impl Registry {
    /// The repository and the tag or digest that `text` means: without a tag it is `latest`; with tag and digest the
    /// digest counts.
    pub fn find(&self, text: &str) -> Result<(Repository, Reference), Error> {
        find(&self.names, &self.own, text)
    }
}

pub(super) fn find(names: &Names, own: &OwnAddresses, text: &str) -> Result<(Repository, Reference), Error> {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (text, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon before the last slash belongs to a port.
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    let reference = match (digest, tag) {
        (Some(digest), _) => Reference::Digest(digest.parse().map_err(malformed)?),
        (None, tag) => Reference::Tag(tag.unwrap_or("latest").parse().map_err(malformed)?),
    };
    let repository = match name.split_once('/') {
        Some((host, rest)) if is_host(host) => match (names.knows(host), own.door(host)) {
            (false, Some(door)) => names.resolve_text(door, None, rest)?,
            _ => names.resolve_text(Door::Main, Some(host), rest)?,
        },
        _ => names.resolve_text(Door::Main, None, name)?,
    };
    Ok((repository, reference))
}

impl Names {
    fn resolve_text(&self, door: Door, host: Option<&str>, name: &str) -> Result<Repository, Error> {
        // Behind our own address a host may stand again; and neither it nor a prefix counts for the name's length.
        let (host, name) = match name.split_once('/') {
            Some((first, rest))
                if host.is_none() && door == Door::Main && (is_host(first) || self.knows(first)) =>
            {
                (Some(first), rest)
            }
            _ => (host, name),
        };
        let name: RepositoryName = name.parse().map_err(malformed)?;
        let ns = None;
        self.resolve(&Asked {
            door,
            host,
            ns,
            name: &name,
        })
    }
}

/// Whether the first component of a name is a host, by the rule of docker: no other holds a dot, a colon or capitals.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::ReferenceInvalid, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::upstream::Upstream;
    use std::sync::Arc;

    fn names(mirror: Option<&str>) -> Names {
        let text = "[upstream.corp]\nurl = \"http://127.0.0.1:1\"\nhosts = [\"registry.corp:8443\"]\n";
        let config = Config::from_toml_str(text, "test.toml").unwrap();
        let upstreams: Vec<_> = config
            .upstreams
            .iter()
            .map(|upstream| Upstream::new(upstream.clone(), Arc::new(())).unwrap())
            .collect();
        Names::new(&upstreams, mirror)
    }

    fn own() -> OwnAddresses {
        OwnAddresses {
            ports: vec![(5000, Door::Main), (5001, Door::Mirror)],
            host: Some("cache.example.com".to_owned()),
        }
    }

    fn told(names: &Names, text: &str) -> String {
        match find(names, &own(), text) {
            Ok((repository, reference)) => format!("{} {reference}", repository.key()),
            Err(error) => format!("{:?}", error.kind),
        }
    }

    #[test]
    fn what_people_type() {
        let names = names(Some("docker-hub"));
        let digest = format!("sha256:{}", "ab".repeat(32));
        let long = "a/".repeat(127) + "a";
        let nginx = "docker-hub/library/nginx";
        for (text, expected) in [
            ("nginx", format!("{nginx} latest")),
            ("nginx:1.27", format!("{nginx} 1.27")),
            ("library/nginx", format!("{nginx} latest")),
            ("acme/app:v1", "docker-hub/acme/app v1".to_owned()),
            ("docker.io/nginx", format!("{nginx} latest")),
            ("Docker.io/library/nginx:1", format!("{nginx} 1")),
            ("docker.io/library/nginx:1.27", format!("{nginx} 1.27")),
            ("docker-hub/library/nginx:1", format!("{nginx} 1")),
            ("docker://docker.io/nginx:1", format!("{nginx} 1")),
            ("ghcr.io/org/app:tag", "github/org/app tag".to_owned()),
            ("registry.corp:8443/team/app", "corp/team/app latest".to_owned()),
            ("corp/team/app", "corp/team/app latest".to_owned()),
            (
                "localhost:5000/docker-hub/library/nginx:latest",
                format!("{nginx} latest"),
            ),
            ("127.0.0.1:5000/quay.io/org/app:1", "quay/org/app 1".to_owned()),
            ("[::1]:5000/nginx", format!("{nginx} latest")),
            ("cachehost:5000/nginx:2", format!("{nginx} 2")),
            (
                "localhost:5001/docker-hub/app",
                "docker-hub/docker-hub/app latest".to_owned(),
            ),
            ("cache.example.com/quay/org/app", "quay/org/app latest".to_owned()),
            (
                "http://cache.example.com/registry.corp:8443/a:1",
                "corp/a 1".to_owned(),
            ),
            (&format!("nginx@{digest}"), format!("{nginx} {digest}")),
            (
                &format!("quay.io/org/app:1@{digest}"),
                format!("quay/org/app {digest}"),
            ),
            (&format!("docker.io/{long}:1"), format!("docker-hub/{long} 1")),
            (&format!("docker-hub/{long}:1"), format!("docker-hub/{long} 1")),
            (&format!("localhost:5000/quay/{long}:1"), format!("quay/{long} 1")),
            ("unknown.example/org/app", "NameUnknown".to_owned()),
            ("localhost:7000/org/app", "NameUnknown".to_owned()),
            ("docker-hub", "NameUnknown".to_owned()),
            ("", "ReferenceInvalid".to_owned()),
            ("nginx:", "ReferenceInvalid".to_owned()),
            ("nginx@sha256:12", "ReferenceInvalid".to_owned()),
            ("a//b", "ReferenceInvalid".to_owned()),
            ("docker.io/", "ReferenceInvalid".to_owned()),
        ] {
            assert_eq!(told(&names, text), expected, "{text}");
        }
    }

    #[test]
    fn without_a_mirror_a_bare_name_means_nothing() {
        assert_eq!(told(&names(None), "nginx"), "NameUnknown");
    }
}
