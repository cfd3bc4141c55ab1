//! From `[[hosted.template]]` to what the registry makes repositories by. Called by `app`, and before by `check-config`.

use anyhow::Context;

use crate::config::{Config, RepositoryTemplate};
use crate::registry::{Mutability, Settings, Template, Templates, lifecycle};

/// The templates of the configuration.
pub(super) fn read(config: &Config) -> anyhow::Result<Templates> {
    let read = |template: &RepositoryTemplate| {
        if let Some(file) = &template.lifecycle {
            lifecycle(&file.text)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("hosted.template.lifecycle_file: {}", file.path.display()))?;
        }
        let setting = match (template.mutable, template.except.is_empty()) {
            (true, true) => "MUTABLE",
            (true, false) => "MUTABLE_WITH_EXCLUSION",
            (false, true) => "IMMUTABLE",
            (false, false) => "IMMUTABLE_WITH_EXCLUSION",
        };
        let except: Vec<_> = template
            .except
            .iter()
            .map(|glob| ("WILDCARD", glob.as_str()))
            .collect();
        let tags = Mutability::parse(setting, &except)
            .with_context(|| format!("hosted.template.except of {:?}", template.pattern.as_str()))?;
        Ok(Template {
            pattern: template.pattern.clone(),
            settings: Settings {
                description: template.description.clone(),
                tags,
                quota: template.quota,
                lifecycle: template.lifecycle.as_ref().map(|file| file.text.clone()),
                policy: None,
                sparse: template.sparse,
            },
        })
    };
    let templates: anyhow::Result<Vec<_>> = config.hosted.templates.iter().map(read).collect();
    Ok(Templates::new(templates?))
}
