//! `allow` and `deny` of an upstream: which of its repositories and tags may be pulled through here, whoever asks. Used by
//! `registry`.

use super::freshness::{repository_pattern, tag_pattern};
use super::glob::Glob;
use super::reader::Reader;

/// What may be pulled.
#[derive(Clone, Debug, Default)]
pub struct PullLists {
    /// These alone; all, where nobody said.
    allow: Option<Vec<Listed>>,
    /// These not.
    deny: Vec<Listed>,
    /// Why, for people.
    reason: Option<String>,
}

/// Repositories, or tags of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    repository: Glob,
    tag: Option<Glob>,
}

impl PullLists {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let list = |reader: &mut Reader<'_>, key| reader.take(key, |entry| entry.list(listed));
        let lists = Self {
            allow: list(reader, "allow"),
            deny: list(reader, "deny").unwrap_or_default(),
            reason: None,
        };
        let reason = reader.take_entry("deny_reason", |entry| entry.filled().map(str::to_owned));
        let lists_are_there = lists.allow.is_some() || !lists.deny.is_empty();
        if let Some((_, origin)) = &reason
            && !lists_are_there
            && !reader.failed("allow")
            && !reader.failed("deny")
        {
            reader.fault(origin, "deny_reason", "does nothing without allow or deny");
        }
        Self {
            reason: reason.map(|(reason, _)| reason),
            ..lists
        }
    }

    /// Why `repository` (its name at the upstream) may not be pulled, or this tag of it; `None` when it may. What is asked
    /// for by digest has no tag: it may, where some tag of the repository may.
    pub fn refusal(&self, repository: &str, tag: Option<&str>) -> Option<String> {
        let is_listed = |listed: &Listed| listed.repository.matches(repository);
        let denies = |listed: &Listed| match (&listed.tag, tag) {
            (None, _) => true,
            (Some(pattern), Some(tag)) => pattern.matches(tag),
            (Some(_), None) => false,
        };
        let allows = |listed: &Listed| match (&listed.tag, tag) {
            (Some(pattern), Some(tag)) => pattern.matches(tag),
            _ => true,
        };
        let denied = self.deny.iter().any(|listed| is_listed(listed) && denies(listed));
        let allowed = match &self.allow {
            None => true,
            Some(list) => list.iter().any(|listed| is_listed(listed) && allows(listed)),
        };
        if allowed && !denied {
            return None;
        }
        let what = match tag {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.to_owned(),
        };
        let why = match (&self.reason, denied) {
            (Some(reason), _) => reason.as_str(),
            (None, true) => "it is on the list of what is denied",
            (None, false) => "it is not on the list of what is allowed",
        };
        Some(format!("{what} may not be pulled here: {why}"))
    }
}

/// `library/nginx`, `acme/*`, `library/nginx:1.*`.
fn listed(item: &str) -> Result<Listed, String> {
    let item = item.trim();
    let (repository, tag) = match item.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (item, None),
    };
    Ok(Listed {
        repository: Glob::new(repository_pattern(repository)?),
        tag: tag.map(tag_pattern).transpose()?.map(Glob::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_wins_and_an_allow_list_is_all_there_is() {
        let list = |items: &[&str]| items.iter().map(|item| listed(item).unwrap()).collect::<Vec<_>>();
        let lists = |allow: Option<&[&str]>, deny: &[&str]| PullLists {
            allow: allow.map(list),
            deny: list(deny),
            reason: None,
        };
        let (open, named) = (
            lists(None, &["evil/*", "library/nginx:latest"]),
            lists(Some(&["library/*", "acme/app:1.*"]), &["library/nginx"]),
        );
        for (lists, repository, tag, may) in [
            (&open, "library/alpine", Some("latest"), true),
            (&open, "evil/app", None, false),
            (&open, "evil/app", Some("1"), false),
            (&open, "library/nginx", Some("latest"), false),
            (&open, "library/nginx", Some("1.27"), true),
            // Whoever knows the digest asks for no tag.
            (&open, "library/nginx", None, true),
            (&named, "library/alpine", Some("3"), true),
            (&named, "library/nginx", Some("1.27"), false),
            (&named, "acme/app", Some("1.2"), true),
            (&named, "acme/app", Some("2.0"), false),
            (&named, "acme/app", None, true),
            (&named, "acme/other", None, false),
        ] {
            assert_eq!(
                lists.refusal(repository, tag).is_none(),
                may,
                "{repository} {tag:?}"
            );
        }
        assert!(lists(Some(&[]), &[]).refusal("a", None).is_some());
        assert!(PullLists::default().refusal("a", Some("b")).is_none());
        assert!(listed("").is_err() && listed("a:").is_err() && listed("A").is_err());
    }
}
