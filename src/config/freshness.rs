//! How long what is known may be used: the spans of `[cache]`, of an upstream's own table, and of the rules for single
//! tags (`[[cache.tag_rule]]`, `[[upstream.<prefix>.tag_rule]]`), folded into one [`Freshness`] per case. What is made
//! of a span is in `cache::freshness`.

use std::time::Duration;

use super::fault::Fault;
use super::glob::Glob;
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Section};

/// How long what is known about content of an upstream may be used, or about one tag there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// How long a tag is taken to point where it pointed; zero asks every time.
    pub tag_ttl: Duration,
    /// How long after that it may still be served while the upstream fails; zero is never.
    pub stale_if_error: Duration,
    /// How long "not found" is believed.
    pub negative_ttl: Duration,
    /// How long a client waits for a tag to be revalidated before it gets the stale answer.
    pub revalidate_timeout: Duration,
    /// How long a tag is still served after its healthy upstream said that it no longer has it.
    pub gone_ttl: Duration,
    /// How long a client waits for the head of any answer: `server.answer_timeout`.
    pub answer_timeout: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            tag_ttl: Duration::from_mins(5),
            stale_if_error: Duration::from_secs(30 * DAY),
            negative_ttl: Duration::from_secs(10),
            revalidate_timeout: Duration::from_secs(2),
            gone_ttl: Duration::from_secs(DAY),
            answer_timeout: Duration::from_secs(25),
        }
    }
}

impl Freshness {
    /// How long to wait for the upstream where a copy could be served instead.
    pub fn wait_with_copy(&self) -> Duration {
        self.revalidate_timeout.min(self.wait_with_less())
    }

    /// How long to wait for the upstream where something lesser than a copy could be served instead of an error. The
    /// rest of `answer_timeout` is for serving it.
    pub fn wait_with_less(&self) -> Duration {
        self.answer_timeout.mul_f64(0.9)
    }
}

/// Some of the spans, as one table gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    tag_ttl: Option<Duration>,
    stale_if_error: Option<Duration>,
    negative_ttl: Option<Duration>,
    revalidate_timeout: Option<Duration>,
    gone_ttl: Option<Duration>,
}

impl Spans {
    /// The five keys of a section.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            tag_ttl: reader.take("tag_ttl", Entry::span),
            stale_if_error: reader.take("stale_if_error", Entry::span),
            negative_ttl: reader.take("negative_ttl", Entry::span),
            revalidate_timeout: reader.take("revalidate_timeout", Entry::time_out),
            gone_ttl: reader.take("gone_ttl", Entry::span),
        }
    }

    /// These, and `base` for the rest.
    pub(super) fn over(self, base: Freshness) -> Freshness {
        Freshness {
            tag_ttl: self.tag_ttl.unwrap_or(base.tag_ttl),
            stale_if_error: self.stale_if_error.unwrap_or(base.stale_if_error),
            negative_ttl: self.negative_ttl.unwrap_or(base.negative_ttl),
            revalidate_timeout: self.revalidate_timeout.unwrap_or(base.revalidate_timeout),
            gone_ttl: self.gone_ttl.unwrap_or(base.gone_ttl),
            answer_timeout: base.answer_timeout,
        }
    }
}

/// Spans for the tags that a pattern stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRule {
    /// The repositories, as upstream prefix and name (`docker-hub/library/nginx`); all of the upstream when unset.
    pub repository: Option<Glob>,
    /// The tags.
    pub pattern: Glob,
    /// What holds for them; spans that the rule does not give are the upstream's.
    pub freshness: Freshness,
}

impl TagRule {
    /// Whether it is about this tag. `repository` is upstream prefix and name.
    pub fn is_about(&self, repository: &str, tag: &str) -> bool {
        self.pattern.matches(tag)
            && self
                .repository
                .as_ref()
                .is_none_or(|glob| glob.matches(repository))
    }
}

/// A rule as it was written: what it does not say is filled in for each upstream.
#[derive(Clone, Debug)]
pub(super) struct RuleDraft {
    repository: Option<Glob>,
    pattern: Glob,
    spans: Spans,
    /// For faults: `cache.tag_rule[2]`, and who wrote it.
    name: String,
    origin: Origin,
}

impl RuleDraft {
    /// The rule in an upstream where `base` holds otherwise.
    pub(super) fn over(&self, base: Freshness) -> TagRule {
        TagRule {
            repository: self.repository.clone(),
            pattern: self.pattern.clone(),
            freshness: self.spans.over(base),
        }
    }

    /// Faults a global rule whose repositories belong to no upstream that there is: it would never apply.
    pub(super) fn check_prefix(&self, prefixes: &[String], faults: &mut Vec<Fault>) {
        let Some(glob) = &self.repository else { return };
        // The prefix, as far as it is literal.
        let (head, rest) = glob.as_str().split_once('/').unwrap_or((glob.as_str(), ""));
        if head.contains('*') {
            return;
        }
        let known = prefixes.iter().any(|prefix| prefix == head);
        let reason = match (known, rest) {
            (true, "") => format!("`{head}` is the upstream alone: write \"{head}/*\" for all of it"),
            (true, _) => return,
            (false, _) => {
                let near = keys::nearest(head, prefixes.iter().map(String::as_str));
                let hint = near.map(|near| format!(" (did you mean `{near}`?)"));
                format!(
                    "`{head}` is no upstream's prefix{}: write \"docker-hub/library/*\"",
                    hint.unwrap_or_default()
                )
            }
        };
        self.fault(format!("{}.repository", self.name), reason, faults);
    }

    /// Faults a rule that an earlier one of its list leaves nothing to.
    fn check_reached(&self, earlier: &[Self], faults: &mut Vec<Fault>) {
        let covers = |other: &&Self| {
            (other.pattern == self.pattern || other.pattern.is_everything())
                && (other.repository.is_none() || other.repository == self.repository)
        };
        if let Some(other) = earlier.iter().find(covers) {
            let reason = format!(
                "never applies: {} comes first and is about all of this; put it behind",
                other.name
            );
            self.fault(format!("{}.pattern", self.name), reason, faults);
        }
    }

    fn fault(&self, key: String, reason: String, faults: &mut Vec<Fault>) {
        faults.push(Fault::new(&self.origin.label(), key, reason));
    }
}

/// Reads the rules of the table `owner`: `cache`, or `upstream.<prefix>`. The repositories of an upstream's rule are
/// named without its `prefix`, which is put before them.
pub(super) fn read_rules(
    owner: &str,
    prefix: Option<&str>,
    tables: Option<(Vec<toml::Table>, Origin)>,
    faults: &mut Vec<Fault>,
) -> Vec<RuleDraft> {
    let (tables, origin) = tables.unwrap_or((Vec::new(), Origin::Default));
    let mut rules: Vec<RuleDraft> = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        // People count from one.
        let name = format!("{owner}.tag_rule[{}]", index + 1);
        let section = Section::of(&name, table, &origin);
        let given = [
            "tag_ttl",
            "stale_if_error",
            "negative_ttl",
            "revalidate_timeout",
            "gone_ttl",
        ];
        let has_span = given.iter().any(|key| section.entries.contains_key(*key));
        let mut reader = Reader::new(section, keys::TAG_RULE, faults);
        let pattern = reader.take("pattern", |entry| tag_pattern(entry.text()?));
        let repository = reader.take("repository", |entry| repository_pattern(entry.text()?));
        let spans = Spans::read(&mut reader);
        if pattern.is_none() && !reader.failed("pattern") {
            reader.fault(
                &origin,
                "pattern",
                "is required, like \"latest\" or \"v1.*\"; \"*\" is every tag",
            );
        }
        if !has_span {
            reader.fault(
                &origin,
                "tag_ttl",
                format!("the rule changes nothing: give it {}", given.join(", or ")),
            );
        }
        reader.finish();
        let Some(pattern) = pattern else { continue };
        let rule = RuleDraft {
            repository: repository.map(|glob| match prefix {
                Some(prefix) => Glob::new(format!("{prefix}/{glob}")),
                None => Glob::new(glob),
            }),
            pattern: Glob::new(pattern),
            spans,
            name,
            origin: origin.clone(),
        };
        rule.check_reached(&rules, faults);
        rules.push(rule);
    }
    rules
}

/// A pattern for tags (`[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`, OCI distribution-spec, "Pulling manifests").
pub(super) fn tag_pattern(text: &str) -> Result<String, String> {
    let in_tag = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    check_pattern(text, 128, in_tag, "tag")?;
    if text.starts_with(['.', '-']) {
        return Err(format!("`{text}` stands for no tag: none begins with `.` or `-`"));
    }
    Ok(text.to_owned())
}

/// A pattern for repositories' names.
pub(super) fn repository_pattern(text: &str) -> Result<String, String> {
    let in_name =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-' | '/');
    check_pattern(text, 255, in_name, "repository")?;
    if text.starts_with('/') || text.ends_with('/') || text.contains("//") {
        return Err(format!(
            "`{text}` stands for no repository: names have no empty component"
        ));
    }
    Ok(text.to_owned())
}

fn check_pattern(text: &str, most: usize, fits: impl Fn(char) -> bool, what: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("is empty: write \"*\" for every {what}"));
    }
    if let Some(odd) = text.chars().find(|c| *c != '*' && !fits(*c)) {
        return Err(format!(
            "`{}` is in no {what}'s name: only `*` has a meaning of its own (any characters, or none)",
            odd.escape_default()
        ));
    }
    if text.chars().filter(|c| *c != '*').count() > most {
        return Err(format!("is longer than any {what}'s name"));
    }
    Ok(())
}
