//! What an owner decides of a hosted repository. Kept as JSON in its row; fields to come have defaults.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::Glob;
use crate::repository::immutability::Mutability;

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether tags may move.
    pub tags: Mutability,
    /// Bytes of blobs and manifests that it may hold; what it shares with others counts for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Whether a manifest may name what was not pushed, like single platforms of an index.
    #[serde(skip_serializing_if = "is_false")]
    pub sparse: bool,
    /// Which images expire: the text of a lifecycle policy in ECR's language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<String>,
    /// Who may do what: the text of a policy in IAM's language, which `auth` understands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// [`Mutability`] as it is kept: by the words of ECR.
#[derive(Serialize, Deserialize)]
struct Tags {
    setting: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    filters: Vec<String>,
}

impl Serialize for Mutability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kept = Tags {
            setting: self.as_str().to_owned(),
            filters: self
                .filters()
                .iter()
                .map(|glob| Glob::as_str(glob).to_owned())
                .collect(),
        };
        kept.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Mutability {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let kept = Tags::deserialize(input)?;
        let filters: Vec<_> = kept
            .filters
            .iter()
            .map(|filter| ("WILDCARD", filter.as_str()))
            .collect();
        Self::parse(&kept.setting, &filters).map_err(serde::de::Error::custom)
    }
}

impl Settings {
    pub(super) fn of_json(value: serde_json::Value) -> Self {
        // Written by us; what a newer version wrote otherwise falls back to the strictest reading of it.
        serde_json::from_value(value).unwrap_or_else(|error| {
            tracing::error!(%error, "the settings of a hosted repository cannot be read: its tags stay where they are");
            Self {
                tags: Mutability::Immutable,
                ..Self::default()
            }
        })
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_back_and_what_is_not_understood_is_strict() {
        let globs = || vec![Glob::new("dev-*")];
        for tags in [
            Mutability::Mutable,
            Mutability::Immutable,
            Mutability::MutableExcept(globs()),
            Mutability::ImmutableExcept(globs()),
        ] {
            let settings = Settings {
                description: "what for".to_owned(),
                tags,
                quota: Some(7),
                sparse: true,
                lifecycle: Some("{}".to_owned()),
                policy: Some("{\"a\": 1}".to_owned()),
            };
            assert_eq!(Settings::of_json(settings.to_json()), settings);
        }
        assert_eq!(Settings::of_json(serde_json::json!({})), Settings::default());
        let newer = serde_json::json!({ "tags": { "setting": "WEEKLY" } });
        assert_eq!(Settings::of_json(newer).tags, Mutability::Immutable);
    }
}
