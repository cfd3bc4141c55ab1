//! What an owner decides of a hosted repository. Kept as JSON in its row; fields to come have defaults.

use serde::{Deserialize, Serialize};

use crate::oci::Tag;

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether tags may move.
    pub tags: TagMutability,
    /// Bytes of blobs and manifests that it may hold; what it shares with others counts for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
}

/// Whether tags may move (ECR's `imageTagMutability`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagMutability {
    /// All may.
    #[default]
    Mutable,
    /// None may.
    Immutable,
    /// Those that match one of the patterns may not.
    MutableExcept(Vec<String>),
    /// Those that match one of the patterns may.
    ImmutableExcept(Vec<String>),
}

impl Settings {
    pub(super) fn of_json(value: serde_json::Value) -> Self {
        // Written by us; what a newer version wrote otherwise falls back to the strictest reading of it.
        serde_json::from_value(value).unwrap_or_else(|_| Self {
            tags: TagMutability::Immutable,
            ..Self::default()
        })
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl TagMutability {
    /// Whether `tag` may be pointed elsewhere.
    pub fn may_move(&self, tag: &Tag) -> bool {
        let excepted = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, tag.as_str()));
        match self {
            Self::Mutable => true,
            Self::Immutable => false,
            Self::MutableExcept(patterns) => !excepted(patterns),
            Self::ImmutableExcept(patterns) => excepted(patterns),
        }
    }
}

/// `*` stands for any characters, or none; the whole tag is meant. Takes time in proportion to both lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("latest", "latest", true),
            ("latest", "latest2", false),
            ("v*", "v1.2", true),
            ("v*", "av1", false),
            ("*-dev", "1-dev", true),
            ("*-dev", "-dev", true),
            ("*-dev", "1-develop", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("1.2", "1x2", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn which_tags_may_move() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let dev = || vec!["dev-*".to_owned()];
        for (tags, moving, staying) in [
            (TagMutability::Mutable, Some("v1"), None),
            (TagMutability::Immutable, None, Some("dev-1")),
            (TagMutability::MutableExcept(dev()), Some("v1"), Some("dev-1")),
            (TagMutability::ImmutableExcept(dev()), Some("dev-1"), Some("v1")),
        ] {
            assert!(moving.is_none_or(|text| tags.may_move(&tag(text))), "{tags:?}");
            assert!(staying.is_none_or(|text| !tags.may_move(&tag(text))), "{tags:?}");
            let settings = Settings {
                tags,
                ..Settings::default()
            };
            assert_eq!(Settings::of_json(settings.to_json()), settings);
        }
        assert_eq!(Settings::of_json(serde_json::json!({})), Settings::default());
        let newer = serde_json::json!({ "tags": "weekly" });
        assert_eq!(Settings::of_json(newer).tags, TagMutability::Immutable);
    }
}
