//! Repository names, tags and references, by the grammar of the distribution spec (section "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::{Digest, DigestError};

/// Longest name that clients agree on: many cap host, slash and name at 255.
const MAX_NAME: usize = 255;

/// Why a string is no repository name or tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name of the spec.
    #[error(
        "malformed repository name: components of a-z, 0-9 and single separators . _ __ - joined by /, at most 255 characters"
    )]
    Name,
    /// Not a tag of the spec.
    #[error("malformed tag: 1 to 128 of A-Z a-z 0-9 _ . - and no leading . or -")]
    Tag,
}

/// A repository name: `library/nginx`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first component: `acme` of `acme/team/app`.
    pub fn namespace(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// What follows its first component, if anything does: `team/app` of `acme/team/app`.
    pub fn inside_namespace(&self) -> Option<Self> {
        let (_, inside) = self.0.split_once('/')?;
        // Components of a name, and fewer of them: a name.
        Some(Self(inside.into()))
    }

    /// Whether `text` is one path component of a name.
    pub fn is_component(text: &str) -> bool {
        let bytes = text.as_bytes();
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
            return false;
        };
        if !alnum(first) || !alnum(last) {
            return false;
        }
        // Between letters: one dot, one or two underscores, or any number of dashes.
        let mut at = 0;
        while at < bytes.len() {
            if alnum(bytes[at]) {
                at += 1;
                continue;
            }
            let separator = bytes[at];
            let run = bytes[at..].iter().take_while(|b| **b == separator).count();
            let allowed = match separator {
                b'.' => run == 1,
                b'_' => run <= 2,
                b'-' => true,
                _ => false,
            };
            // Another separator directly behind this one is refused by the next check.
            if !allowed || !alnum(bytes[at + run]) {
                return false;
            }
            at += run;
        }
        true
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME || !text.split('/').all(Self::is_component) {
            return Err(NameError::Name);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tag: `1.27-alpine`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let rest = |b: &u8| word(b) || matches!(b, b'.' | b'-');
        if bytes.len() > 128 || !bytes.first().is_some_and(word) || !bytes.iter().all(rest) {
            return Err(NameError::Tag);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What names a manifest in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A moving name.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Why a string is neither tag nor digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has a colon, so it was meant as a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It was meant as a tag.
    #[error(transparent)]
    Tag(#[from] NameError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        // A tag cannot contain a colon.
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_by_the_grammar() {
        for good in [
            "nginx",
            "library/nginx",
            "a__b",
            "a---b",
            "a.b/c-d/e_f",
            "docker.io",
            "manifests/blobs",
            "0",
        ] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a.-b",
            "host:5000/a",
            "a/../b",
            "é",
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert!("a".repeat(256).parse::<RepositoryName>().is_err());
    }

    #[test]
    fn tags_by_the_grammar() {
        for good in ["latest", "_x", "1.2-3", "A", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a:b", "a/b", "a b", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn names_match_the_specs_expression(name in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}){0,3}") {
            prop_assert!(name.parse::<RepositoryName>().is_ok());
        }

        #[test]
        fn parsing_never_panics(text in "[a-z._/:A-Z0-9-]{0,40}") {
            let _ = text.parse::<RepositoryName>();
            let _ = text.parse::<Reference>();
        }
    }
}
