//! The text of a lifecycle policy, understood. Faults are told in the words of ECR (`InvalidParameterException`), which
//! speak like the JSON schema that it checks with; people and tools know them. Used by `evaluate`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::config::Glob;

/// The longest policy that is taken, in bytes (ECR: `lifecyclePolicyText`).
pub const MAX_TEXT: usize = 30_720;
/// The most stars in a tag pattern.
const MAX_STARS: usize = 4;
/// For how long an archived image is kept at least, in days.
const MIN_ARCHIVED: u64 = 90;

/// A lifecycle policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    text: String,
    /// By ascending priority.
    pub(super) rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) priority: u64,
    pub(super) tags: Tags,
    pub(super) class: StorageClass,
    pub(super) count: Count,
    pub(super) act: Act,
}

/// Which images a rule identifies.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tags {
    Any,
    Untagged,
    /// Images with tags for each of these; one tag may do for several.
    Patterns(Vec<Glob>),
    Prefixes(Vec<String>),
}

/// Which of those it acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// All but so many of the newest.
    MoreThan(u64),
    /// Those that were pushed more than so many days ago.
    DaysSincePushed(u64),
    /// Those that were last pulled more than so many days ago.
    DaysSincePulled(u64),
    /// Those that went to the archive more than so many days ago.
    DaysSinceArchived(u64),
}

/// What is done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// It is deleted.
    Expire,
    /// It goes to the archive.
    Archive,
}

impl Act {
    /// ECR's word, as in previews: `EXPIRE`, `TRANSITION`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expire => "EXPIRE",
            Self::Archive => "TRANSITION",
        }
    }
}

/// Where an image is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageClass {
    /// Ready to be pulled.
    #[default]
    Standard,
    /// In the archive.
    Archive,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Lifecycle policy validation failure: {0}")]
pub struct Fault(String);

impl Fault {
    /// The whole message of `InvalidParameterException`.
    pub fn message(&self) -> String {
        format!("Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: '{self}'")
    }
}

impl Policy {
    /// Understands the text of a policy.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > MAX_TEXT {
            return Err(Fault(format!("the policy is longer than {MAX_TEXT} characters")));
        }
        let unreadable = || Fault("Could not map policyString into LifecyclePolicy.".to_owned());
        let json: Value = serde_json::from_str(text).map_err(|_| unreadable())?;
        let Value::Object(document) = json else {
            return Err(unreadable());
        };
        let Some(Value::Array(rules)) = document.get("rules") else {
            return Err(missing(&["rules"]));
        };
        only(&document, &["rules"])?;
        let mut rules = rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        rules.sort_by_key(|rule| rule.priority);
        check(&rules)?;
        let text = text.to_owned();
        Ok(Self { text, rules })
    }

    /// Whether a rule sends images to the archive.
    pub fn archives(&self) -> bool {
        self.rules.iter().any(|rule| rule.act == Act::Archive)
    }

    /// The text, as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn missing(names: &[&str]) -> Fault {
    Fault(format!(
        "object has missing required properties ({})",
        list(names)
    ))
}

/// No schema of the alternatives fits: what is there is at odds with itself.
fn no_schema() -> Fault {
    Fault("instance failed to match exactly one schema (matched 0 out of 2)".to_owned())
}

fn list(names: &[&str]) -> String {
    Value::from(names).to_string()
}

/// `json` as an object with all that is required, and nothing but that and what may be.
fn object<'a>(
    json: &'a Value,
    required: &[&str],
    optional: &[&str],
) -> Result<&'a Map<String, Value>, Fault> {
    let Value::Object(members) = json else {
        return Err(of_type(json, "object"));
    };
    let mut absent: Vec<&str> = required.to_vec();
    absent.retain(|name| !members.contains_key(*name));
    absent.sort_unstable();
    if !absent.is_empty() {
        return Err(missing(&absent));
    }
    only(members, &[required, optional].concat())?;
    Ok(members)
}

fn only(members: &Map<String, Value>, known: &[&str]) -> Result<(), Fault> {
    let mut unknown: Vec<&str> = members.keys().map(String::as_str).collect();
    unknown.retain(|name| !known.contains(name));
    unknown.sort_unstable();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Fault(format!(
        "object instance has properties which are not allowed by the schema: ({})",
        list(&unknown)
    )))
}

fn of_type(found: &Value, allowed: &str) -> Fault {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Fault(format!(
        "instance type ({found}) does not match any allowed primitive type (allowed: [\"{allowed}\"])"
    ))
}

fn string(json: &Value) -> Result<&str, Fault> {
    json.as_str().ok_or_else(|| of_type(json, "string"))
}

fn one_of<'a>(json: &'a Value, allowed: &[&str]) -> Result<&'a str, Fault> {
    let text = string(json)?;
    if allowed.contains(&text) {
        return Ok(text);
    }
    Err(Fault(format!(
        "instance value ({text}) not found in enum (possible values: {})",
        list(allowed)
    )))
}

fn at_least(json: &Value, minimum: u64) -> Result<u64, Fault> {
    let lower = |found: &dyn std::fmt::Display| {
        Fault(format!(
            "numeric instance is lower than the required minimum (minimum: {minimum}, found: {found})"
        ))
    };
    match (json.as_u64(), json.as_i64()) {
        (Some(number), _) if number >= minimum => Ok(number),
        (Some(number), _) => Err(lower(&number)),
        (None, Some(number)) => Err(lower(&number)),
        (None, None) => Err(of_type(json, "integer")),
    }
}

fn rule(json: &Value) -> Result<Rule, Fault> {
    let members = object(json, &["rulePriority", "selection", "action"], &["description"])?;
    if let Some(description) = members.get("description") {
        string(description)?;
    }
    let priority = at_least(&members["rulePriority"], 1)?;
    let act = act(&members["action"])?;
    let selection = object(
        &members["selection"],
        &["tagStatus", "countType", "countNumber"],
        &["tagPatternList", "tagPrefixList", "storageClass", "countUnit"],
    )?;
    let tags = tags(selection)?;
    let (class, count) = count(selection)?;
    // ECR archives what is not pulled, and expires what is archived; nothing else with either.
    let fits = match count {
        Count::MoreThan(_) | Count::DaysSincePushed(_) => true,
        Count::DaysSincePulled(_) => act == Act::Archive,
        Count::DaysSinceArchived(_) => act == Act::Expire,
    };
    if !fits {
        return Err(no_schema());
    }
    Ok(Rule {
        priority,
        tags,
        class,
        count,
        act,
    })
}

fn act(json: &Value) -> Result<Act, Fault> {
    let members = object(json, &["type"], &["targetStorageClass"])?;
    let kind = one_of(&members["type"], &["expire", "transition"])?;
    match (kind, members.get("targetStorageClass")) {
        ("expire", None) => Ok(Act::Expire),
        ("transition", Some(Value::String(class))) if class == "archive" => Ok(Act::Archive),
        _ => Err(no_schema()),
    }
}

fn tags(selection: &Map<String, Value>) -> Result<Tags, Fault> {
    let status = one_of(&selection["tagStatus"], &["any", "tagged", "untagged"])?;
    let patterns = selection.get("tagPatternList").map(strings).transpose()?;
    let prefixes = selection.get("tagPrefixList").map(strings).transpose()?;
    match (status, patterns, prefixes) {
        ("any", None, None) => Ok(Tags::Any),
        ("untagged", None, None) => Ok(Tags::Untagged),
        ("tagged", Some(_), Some(_)) => Err(Fault(
            "Must specify either tagPrefixList or tagPatternList, not both".to_owned(),
        )),
        ("tagged", Some(patterns), None) if !patterns.is_empty() => {
            if let Some(pattern) = patterns.iter().find(|text| text.matches('*').count() > MAX_STARS) {
                return Err(Fault(format!(
                    "tag pattern ({pattern}) has more than {MAX_STARS} wildcards"
                )));
            }
            Ok(Tags::Patterns(patterns.into_iter().map(Glob::new).collect()))
        }
        ("tagged", None, Some(prefixes)) if !prefixes.is_empty() => Ok(Tags::Prefixes(prefixes)),
        ("tagged", _, _) => Err(Fault(
            "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.".to_owned(),
        )),
        (status, _, _) => Err(Fault(format!(
            "Cannot specify tagPrefixList or tagPatternList when tagStatus={}.",
            status.to_uppercase()
        ))),
    }
}

fn strings(json: &Value) -> Result<Vec<String>, Fault> {
    let list = json.as_array().ok_or_else(|| of_type(json, "array"))?;
    list.iter().map(|text| string(text).map(str::to_owned)).collect()
}

/// What the rule counts, and in which storage class.
fn count(selection: &Map<String, Value>) -> Result<(StorageClass, Count), Fault> {
    let kind = string(&selection["countType"])?;
    let minimum = if kind == "sinceImageTransitioned" {
        MIN_ARCHIVED
    } else {
        1
    };
    let class = match selection.get("storageClass") {
        None => None,
        Some(class) => Some(one_of(class, &["standard", "archive"])?),
    };
    let days = match selection.get("countUnit") {
        None => false,
        Some(Value::Null) => return Err(no_schema()),
        Some(unit) => one_of(unit, &["days"])? == "days",
    };
    let number = at_least(&selection["countNumber"], minimum)?;
    match (kind, days, class) {
        ("imageCountMoreThan", false, None | Some("standard")) => {
            Ok((StorageClass::Standard, Count::MoreThan(number)))
        }
        ("sinceImagePushed", true, None | Some("standard")) => {
            Ok((StorageClass::Standard, Count::DaysSincePushed(number)))
        }
        ("sinceImagePulled", true, None | Some("standard")) => {
            Ok((StorageClass::Standard, Count::DaysSincePulled(number)))
        }
        ("sinceImageTransitioned", true, Some("archive")) => {
            Ok((StorageClass::Archive, Count::DaysSinceArchived(number)))
        }
        _ => Err(no_schema()),
    }
}

/// What rules, in the order of their priorities, must not be to each other.
fn check(rules: &[Rule]) -> Result<(), Fault> {
    let mut lists = BTreeSet::new();
    for (number, rule) in rules.iter().enumerate() {
        let after = &rules[number + 1..];
        if after.first().is_some_and(|next| next.priority == rule.priority) {
            return Err(Fault(format!(
                "rulePriority must be unique, {} is there twice",
                rule.priority
            )));
        }
        let mut beside = after.iter().filter(|other| other.class == rule.class);
        match &rule.tags {
            Tags::Any => {
                if beside.next().is_some() {
                    return Err(Fault(
                        "Rule for tagStatus=ANY must have the lowest priority per storage class".to_owned(),
                    ));
                }
            }
            Tags::Untagged => {
                if beside.any(|other| other.tags == Tags::Untagged) {
                    return Err(Fault(
                        "Only one rule can select Untagged images per storage class".to_owned(),
                    ));
                }
            }
            Tags::Patterns(_) | Tags::Prefixes(_) => {
                if !lists.insert((rule.class, rule.tags.key())) {
                    return Err(Fault(
                        "Rules must have different lists of tags per storage class".to_owned(),
                    ));
                }
            }
        }
    }
    Ok(())
}

impl Tags {
    /// What makes a list of tags the same as another: the order does not tell them apart.
    fn key(&self) -> (bool, BTreeSet<&str>) {
        match self {
            Self::Any | Self::Untagged => (false, BTreeSet::new()),
            Self::Patterns(patterns) => (true, patterns.iter().map(Glob::as_str).collect()),
            Self::Prefixes(prefixes) => (false, prefixes.iter().map(String::as_str).collect()),
        }
    }
}
