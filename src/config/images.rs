//! Images as people name them, with a pattern for tags where several are meant: `nginx:1.27`,
//! `docker-hub/library/alpine:3.*`. Used by the lists of `[[warm]]`, and by the subcommands that take references.

use std::fmt;
use std::str::FromStr;

use crate::oci::{Digest, RepositoryName, Tag};

use super::freshness::tag_pattern;
use super::glob::Glob;

/// One image, or all whose tags a pattern stands for. Its words are well formed; what upstream they name is for those
/// to find who know them.
#[derive(Clone, PartialEq, Eq)]
pub struct ImagePattern {
    text: String,
    /// What comes before the tags, when they are a pattern.
    tags: Option<(usize, Glob)>,
}

impl ImagePattern {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The repository as it was written and the pattern of its tags; `None` when it is one image.
    pub fn tags(&self) -> Option<(&str, &Glob)> {
        let (end, glob) = self.tags.as_ref()?;
        Some((&self.text[..*end], glob))
    }

    /// What comes before the first slash: a host, a prefix, or the beginning of a name; and whether anything follows.
    pub(super) fn head(&self) -> (&str, bool) {
        let name = split(&self.text).0;
        name.split_once('/')
            .map_or((name, false), |(head, _)| (head, true))
    }
}

/// The name, and what follows it: with its colon, or its at sign.
fn split(text: &str) -> (&str, &str) {
    if let Some(at) = text.find('@') {
        let name = split(&text[..at]).0;
        return (name, &text[at..]);
    }
    match text.rfind(':') {
        // A colon before the last slash belongs to a port.
        Some(at) if !text[at..].contains('/') => text.split_at(at),
        _ => (text, ""),
    }
}

impl FromStr for ImagePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        if text.is_empty() {
            return Err("is empty: write \"docker-hub/library/alpine:3.*\"".to_owned());
        }
        let (name, rest) = split(text);
        let (head, components) = name.split_once('/').unwrap_or((name, ""));
        let host = head.contains(['.', ':']) || head == "localhost";
        if name.contains('*') {
            return Err(format!("`{text}`: `*` is for tags alone, name each repository"));
        }
        let well_formed = if name.contains('/') {
            (host || RepositoryName::is_component(head)) && components.parse::<RepositoryName>().is_ok()
        } else {
            !host && RepositoryName::is_component(head)
        };
        if !well_formed {
            return Err(format!(
                "`{text}` names no image: write \"docker-hub/library/alpine:3.20\""
            ));
        }
        let mut tags = None;
        if let Some(digest) = rest.strip_prefix('@') {
            digest
                .parse::<Digest>()
                .map_err(|error| format!("`{text}`: {error}"))?;
        } else if let Some(tag) = rest.strip_prefix(':') {
            if tag.contains('*') {
                let glob = tag_pattern(tag).map_err(|reason| format!("`{text}`: {reason}"))?;
                tags = Some((name.len(), Glob::new(glob)));
            } else {
                tag.parse::<Tag>().map_err(|error| format!("`{text}`: {error}"))?;
            }
        }
        let text = text.to_owned();
        Ok(Self { text, tags })
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let pinned = format!("ghcr.io/acme/app:1@{digest}");
        for (text, tags, head) in [
            ("nginx", None, ("nginx", false)),
            ("nginx:1.27", None, ("nginx", false)),
            (" docker://docker.io/nginx:1 ", None, ("docker.io", true)),
            (
                "docker-hub/library/alpine:3.*",
                Some(("docker-hub/library/alpine", "3.*")),
                ("docker-hub", true),
            ),
            (
                "localhost:5000/a/b:*",
                Some(("localhost:5000/a/b", "*")),
                ("localhost:5000", true),
            ),
            ("localhost:5000/a/b", None, ("localhost:5000", true)),
            (&pinned, None, ("ghcr.io", true)),
        ] {
            let parsed: ImagePattern = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let found = parsed.tags().map(|(name, glob)| (name, glob.as_str()));
            assert_eq!((found, parsed.head()), (tags, head), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (text, reason) in [
            ("", "is empty"),
            ("docker-hub/library/*:3", "for tags alone"),
            ("alpine:3.?*", "only `*` has a meaning"),
            ("alpine:.*", "stands for no tag"),
            ("alpine:", "malformed tag"),
            ("alpine@sha256:12", "digest"),
            ("Alpine", "names no image"),
            ("docker-hub//alpine", "names no image"),
            ("docker.io", "names no image"),
            ("a b", "names no image"),
        ] {
            let error = text.parse::<ImagePattern>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
