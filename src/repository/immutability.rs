//! Which tags may be moved: a repository's setting and its exceptions, by the words of ECR (`PutImageTagMutability`). Pure;
//! asked by pushes, parsed where the setting comes in.

use crate::config::Glob;
use crate::oci::{Digest, Tag};

/// The most exceptions that a setting has.
const MAX_FILTERS: usize = 5;
/// The longest pattern, in characters.
const MAX_FILTER: usize = 128;

/// Whether a repository's tags may be moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mutability {
    /// All may.
    #[default]
    Mutable,
    /// None may.
    Immutable,
    /// All but those may that a pattern stands for.
    MutableExcept(Vec<Glob>),
    /// Only those may that a pattern stands for.
    ImmutableExcept(Vec<Glob>),
}

/// What is wrong with a setting, in the words of `InvalidParameterException`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid parameter at '{parameter}' failed to satisfy constraint: '{constraint}'")]
pub struct Fault {
    /// The parameter of the API.
    pub parameter: &'static str,
    /// What it should be.
    pub constraint: String,
}

/// What a push makes of its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagChange {
    /// There was none of this name.
    New,
    /// It points there already.
    Same,
    /// It is moved; what it pointed to stays, without it.
    Moved,
    /// It may not be moved.
    Refused,
}

impl Mutability {
    /// The setting by its name, with the patterns of its exceptions as pairs of `filterType` and `filter`.
    pub fn parse(setting: &str, filters: &[(&str, &str)]) -> Result<Self, Fault> {
        const FILTERS: &str = "imageTagMutabilityExclusionFilters";
        let fault = |constraint: String| Fault {
            parameter: FILTERS,
            constraint,
        };
        let globs = || {
            if filters.is_empty() || filters.len() > MAX_FILTERS {
                return Err(fault(format!("{setting} takes 1 to {MAX_FILTERS} filters")));
            }
            let glob = |(kind, text): &(&str, &str)| {
                if *kind != "WILDCARD" {
                    return Err(fault("Member must satisfy enum value set: [WILDCARD]".to_owned()));
                }
                let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._*-".contains(&byte);
                if text.is_empty() || text.len() > MAX_FILTER || !text.bytes().all(known) {
                    return Err(fault(
                        "Member must satisfy regular expression pattern: ^[0-9a-zA-Z._*-]{1,128}$".to_owned(),
                    ));
                }
                Ok(Glob::new(*text))
            };
            filters.iter().map(glob).collect::<Result<Vec<_>, _>>()
        };
        let plain = |mutability| {
            if filters.is_empty() {
                Ok(mutability)
            } else {
                Err(fault(format!("{setting} takes no filters")))
            }
        };
        match setting {
            "MUTABLE" => plain(Self::Mutable),
            "IMMUTABLE" => plain(Self::Immutable),
            "MUTABLE_WITH_EXCLUSION" => globs().map(Self::MutableExcept),
            "IMMUTABLE_WITH_EXCLUSION" => globs().map(Self::ImmutableExcept),
            _ => Err(Fault {
                parameter: "imageTagMutability",
                constraint: "Member must satisfy enum value set: \
                    [IMMUTABLE, MUTABLE, MUTABLE_WITH_EXCLUSION, IMMUTABLE_WITH_EXCLUSION]"
                    .to_owned(),
            }),
        }
    }

    /// The name of the setting.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Mutable => "MUTABLE",
            Self::Immutable => "IMMUTABLE",
            Self::MutableExcept(_) => "MUTABLE_WITH_EXCLUSION",
            Self::ImmutableExcept(_) => "IMMUTABLE_WITH_EXCLUSION",
        }
    }

    /// The patterns of its exceptions.
    pub fn filters(&self) -> &[Glob] {
        match self {
            Self::Mutable | Self::Immutable => &[],
            Self::MutableExcept(filters) | Self::ImmutableExcept(filters) => filters,
        }
    }

    /// Whether this tag may be moved. A pattern stands for the whole of a tag.
    pub fn may_move(&self, tag: &Tag) -> bool {
        let excepted = self.filters().iter().any(|filter| filter.matches(tag.as_str()));
        match self {
            Self::Mutable | Self::MutableExcept(_) => !excepted,
            Self::Immutable | Self::ImmutableExcept(_) => excepted,
        }
    }

    /// What becomes of a tag that points to `present` when it is to point to `wanted`. Deleting is another matter: no
    /// setting prevents it.
    pub fn judge(&self, tag: &Tag, present: Option<&Digest>, wanted: &Digest) -> TagChange {
        match present {
            None => TagChange::New,
            Some(present) if present == wanted => TagChange::Same,
            Some(_) if self.may_move(tag) => TagChange::Moved,
            Some(_) => TagChange::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn set(setting: &str, filters: &[&str]) -> Mutability {
        let filters: Vec<_> = filters.iter().map(|text| ("WILDCARD", *text)).collect();
        Mutability::parse(setting, &filters).unwrap()
    }

    #[test]
    fn exceptions_are_whole_tags() {
        let (mutable, immutable) = ("MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION");
        let cases: &[(&str, &[&str], &str, bool)] = &[
            ("MUTABLE", &[], "latest", true),
            ("IMMUTABLE", &[], "latest", false),
            (immutable, &["latest"], "latest", true),
            (immutable, &["latest"], "latest-2", false),
            (immutable, &["latest"], "the-latest", false),
            (immutable, &["dev-*"], "dev-", true),
            (immutable, &["dev-*"], "dev-1.2", true),
            (immutable, &["dev-*"], "my-dev-1", false),
            (immutable, &["*-rc*"], "1.2-rc1", true),
            (immutable, &["1.2"], "1x2", false),
            (immutable, &["a", "b"], "b", true),
            (immutable, &["*"], "anything", true),
            (immutable, &["Latest"], "latest", false),
            (mutable, &["v*"], "v1", false),
            (mutable, &["v*"], "latest", true),
            (mutable, &["v1.*"], "v12", true),
        ];
        for (setting, filters, name, expected) in cases {
            let setting = set(setting, filters);
            assert_eq!(setting.may_move(&tag(name)), *expected, "{setting:?} {name}");
        }
    }

    #[test]
    fn tags_are_judged_by_where_they_point() {
        let one: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        let two: Digest = format!("sha256:{}", "2".repeat(64)).parse().unwrap();
        let (open, shut) = (set("MUTABLE", &[]), set("IMMUTABLE", &[]));
        let cases = [
            ("absent", None, TagChange::New, TagChange::New),
            ("there already", Some(&two), TagChange::Same, TagChange::Same),
            ("elsewhere", Some(&one), TagChange::Moved, TagChange::Refused),
        ];
        for (name, present, if_open, if_shut) in cases {
            assert_eq!(open.judge(&tag("t"), present, &two), if_open, "{name}");
            assert_eq!(shut.judge(&tag("t"), present, &two), if_shut, "{name}");
        }
    }

    type Filters<'a> = &'a [(&'a str, &'a str)];

    #[test]
    fn settings_are_read_and_faults_named() {
        for setting in ["MUTABLE", "IMMUTABLE"] {
            assert_eq!(set(setting, &[]).as_str(), setting);
        }
        for setting in ["MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION"] {
            let read = set(setting, &["a*", "b"]);
            let filters: Vec<_> = read.filters().iter().map(Glob::as_str).collect();
            assert_eq!((read.as_str(), filters), (setting, vec!["a*", "b"]));
        }
        let long = "x".repeat(129);
        let cases: &[(&str, Filters<'_>, &str, &str)] = &[
            (
                "INVALID",
                &[],
                "imageTagMutability",
                "[IMMUTABLE, MUTABLE, MUTABLE_WITH_EXCLUSION, IMMUTABLE_WITH_EXCLUSION]",
            ),
            (
                "MUTABLE",
                &[("WILDCARD", "a")],
                "imageTagMutabilityExclusionFilters",
                "no filters",
            ),
            (
                "IMMUTABLE",
                &[("WILDCARD", "a")],
                "imageTagMutabilityExclusionFilters",
                "no filters",
            ),
            (
                "IMMUTABLE_WITH_EXCLUSION",
                &[],
                "imageTagMutabilityExclusionFilters",
                "1 to 5",
            ),
            (
                "IMMUTABLE_WITH_EXCLUSION",
                &[("WILDCARD", "a"); 6],
                "imageTagMutabilityExclusionFilters",
                "1 to 5",
            ),
            (
                "MUTABLE_WITH_EXCLUSION",
                &[("PREFIX", "a")],
                "imageTagMutabilityExclusionFilters",
                "[WILDCARD]",
            ),
            (
                "MUTABLE_WITH_EXCLUSION",
                &[("WILDCARD", "")],
                "imageTagMutabilityExclusionFilters",
                "{1,128}",
            ),
            (
                "MUTABLE_WITH_EXCLUSION",
                &[("WILDCARD", "a?")],
                "imageTagMutabilityExclusionFilters",
                "{1,128}",
            ),
            (
                "MUTABLE_WITH_EXCLUSION",
                &[("WILDCARD", &long)],
                "imageTagMutabilityExclusionFilters",
                "{1,128}",
            ),
        ];
        for (setting, filters, parameter, part) in cases {
            let fault = Mutability::parse(setting, filters).unwrap_err();
            assert_eq!(fault.parameter, *parameter);
            assert!(fault.to_string().contains(part), "{fault}");
            assert!(
                fault
                    .to_string()
                    .starts_with("Invalid parameter at 'imageTagMutability")
            );
        }
    }
}
