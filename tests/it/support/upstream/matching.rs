//! Which requests a rule or a count is about: a request's target is parsed once, matchers are built
//! from small words (`blob(&digest).get()`), and the same words script and count.

use std::sync::Arc;

use http::{HeaderMap, Method};

/// Where token services live.
const TOKEN_PATHS: [&str; 8] = [
    "/token",
    "/token/",
    "/v2/token",
    "/v2/auth",
    "/jwt/auth",
    "/proxy_auth",
    "/service/token",
    "/oauth2/token",
];

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
}

impl Asked {
    /// The value of the first header line of this name, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The decoded values of all query parameters of this name.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// The decoded value of the first query parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    pub(super) fn target(&self) -> Target<'_> {
        Target::parse(&self.path)
    }
}

/// What a path means to a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Ping,
    Token,
    Signed { digest: &'a str },
    Manifest { repo: &'a str, reference: &'a str },
    Blob { repo: &'a str, digest: &'a str },
    Referrers { repo: &'a str, digest: &'a str },
    Tags { repo: &'a str },
    Other,
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Self {
        if let Some(signed) = path.strip_prefix("/signed/") {
            return Self::Signed {
                digest: signed.split('/').next().unwrap_or_default(),
            };
        }
        match path {
            "/v2/" | "/v2" => return Self::Ping,
            path if TOKEN_PATHS.contains(&path) => return Self::Token,
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Self::Other;
        };
        if let Some(repo) = rest.strip_suffix("/tags/list") {
            return Self::Tags { repo };
        }
        // From the right: a repository's name may itself contain "manifests" or "blobs".
        let Some((head, last)) = rest.rsplit_once('/') else {
            return Self::Other;
        };
        match head.rsplit_once('/') {
            Some((repo, "manifests")) => Self::Manifest {
                repo,
                reference: last,
            },
            Some((repo, "blobs")) => Self::Blob { repo, digest: last },
            Some((repo, "referrers")) => Self::Referrers { repo, digest: last },
            _ => Self::Other,
        }
    }

    pub(super) fn repo(&self) -> Option<&'a str> {
        match self {
            Self::Manifest { repo, .. }
            | Self::Blob { repo, .. }
            | Self::Referrers { repo, .. }
            | Self::Tags { repo } => Some(repo),
            _ => None,
        }
    }
}

/// A set of requests.
#[derive(Clone)]
pub struct Match(Arc<dyn Fn(&Asked) -> bool + Send + Sync>);

impl Match {
    /// The requests for which `test` says true.
    pub fn when(test: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(test))
    }

    /// Of these, those for which `test` says true too.
    pub fn and(self, test: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Self {
        Self::when(move |asked| self.matches(asked) && test(asked))
    }

    /// Of these, the GETs.
    pub fn get(self) -> Self {
        self.and(|asked| asked.method == Method::GET)
    }

    /// Of these, the HEADs.
    pub fn head(self) -> Self {
        self.and(|asked| asked.method == Method::HEAD)
    }

    /// Of these, those with a Range.
    pub fn ranged(self) -> Self {
        self.and(|asked| asked.headers.contains_key("range"))
    }

    /// Of these, those about this repository.
    pub fn in_repo(self, name: &str) -> Self {
        let name = name.to_owned();
        self.and(move |asked| asked.target().repo() == Some(name.as_str()))
    }

    /// Whether it is about this request.
    pub fn matches(&self, asked: &Asked) -> bool {
        (self.0)(asked)
    }
}

/// Every request.
pub fn any() -> Match {
    Match::when(|_| true)
}

/// Requests whose path contains this text.
pub fn path_has(text: &str) -> Match {
    let text = text.to_owned();
    Match::when(move |asked| asked.path.contains(&text))
}

/// `/v2/` itself.
pub fn ping() -> Match {
    Match::when(|asked| asked.target() == Target::Ping)
}

/// The token service.
pub fn tokens() -> Match {
    Match::when(|asked| asked.target() == Target::Token)
}

/// GET or HEAD of this blob in any repository, or by a signed URL.
pub fn blob(digest: &str) -> Match {
    let wanted = digest.to_owned();
    blobs().and(move |asked| match asked.target() {
        Target::Blob { digest, .. } | Target::Signed { digest } => digest == wanted,
        _ => false,
    })
}

/// GET or HEAD of any blob, also by a signed URL.
pub fn blobs() -> Match {
    Match::when(|asked| matches!(asked.target(), Target::Blob { .. } | Target::Signed { .. }))
}

/// What asks this server as a CDN, by a signed URL.
pub fn signed() -> Match {
    Match::when(|asked| matches!(asked.target(), Target::Signed { .. }))
}

/// GET or HEAD of the manifest by exactly this tag or digest.
pub fn manifest(reference: &str) -> Match {
    let wanted = reference.to_owned();
    Match::when(
        move |asked| matches!(asked.target(), Target::Manifest { reference, .. } if reference == wanted),
    )
}

/// GET or HEAD of any manifest.
pub fn manifests() -> Match {
    Match::when(|asked| matches!(asked.target(), Target::Manifest { .. }))
}

/// Lists of tags.
pub fn tags() -> Match {
    Match::when(|asked| matches!(asked.target(), Target::Tags { .. }))
}

/// The referrers API.
pub fn referrers() -> Match {
    Match::when(|asked| matches!(asked.target(), Target::Referrers { .. }))
}
