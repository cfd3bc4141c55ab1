//! Lifecycle policies by table and by property: `rules` what they do, `faults` what is refused and in which words.

mod faults;
mod rules;

use serde_json::{Value, json};

use super::{ImageFacts, Policy, StorageClass, Verdict, evaluate};
use crate::clock::Timestamp;
use crate::oci::Digest;

const DAY: u64 = 24 * 60 * 60 * 1000;
const NOW: Timestamp = Timestamp(1_000 * DAY);

fn ago(days: u64) -> Timestamp {
    Timestamp(NOW.0 - days * DAY)
}

fn digest(name: char) -> Digest {
    format!("sha256:{:064x}", u32::from(name)).parse().unwrap()
}

fn name(digest: &Digest) -> char {
    char::from(digest.hash()[31])
}

/// The image of this name, with tags between spaces, pushed so many days ago.
fn image(name: char, tags: &str, days: u64) -> ImageFacts {
    ImageFacts {
        digest: digest(name),
        tags: tags.split_whitespace().map(|tag| tag.parse().unwrap()).collect(),
        pushed_at: ago(days),
        pulled_at: None,
        class: StorageClass::Standard,
        archived_at: None,
        activated_at: None,
        needed: false,
    }
}

fn archived(name: char, pushed: u64, archived: u64) -> ImageFacts {
    ImageFacts {
        class: StorageClass::Archive,
        archived_at: Some(ago(archived)),
        ..image(name, "", pushed)
    }
}

fn needed(image: ImageFacts) -> ImageFacts {
    ImageFacts {
        needed: true,
        ..image
    }
}

fn expire(priority: u64, selection: Value) -> Value {
    let rule = json!({"rulePriority": priority, "action": {"type": "expire"}});
    with(rule, "selection", selection)
}

fn archive(priority: u64, selection: Value) -> Value {
    let action = json!({"type": "transition", "targetStorageClass": "archive"});
    let rule = json!({"rulePriority": priority, "action": action});
    with(rule, "selection", selection)
}

fn count(status: &str, number: u64) -> Value {
    json!({"tagStatus": status, "countType": "imageCountMoreThan", "countNumber": number})
}

fn age(status: &str, kind: &str, days: u64) -> Value {
    json!({"tagStatus": status, "countType": kind, "countUnit": "days", "countNumber": days})
}

fn with(mut selection: Value, key: &str, value: Value) -> Value {
    selection[key] = value;
    selection
}

fn patterns(selection: Value, patterns: &[&str]) -> Value {
    with(selection, "tagPatternList", json!(patterns))
}

fn prefixes(selection: Value, prefixes: &[&str]) -> Value {
    with(selection, "tagPrefixList", json!(prefixes))
}

fn text(rules: &[Value]) -> String {
    json!({ "rules": rules }).to_string()
}

fn verdicts(rules: &[Value], images: &[ImageFacts]) -> Vec<Verdict> {
    let policy = Policy::parse(&text(rules)).unwrap();
    evaluate(&policy, images, NOW)
}

/// The images acted on and by which rule, in the order of the verdicts: `A1 B1`.
fn acted(rules: &[Value], images: &[ImageFacts]) -> String {
    let each = verdicts(rules, images).into_iter();
    let each = each.map(|verdict| format!("{}{}", name(&verdict.digest), verdict.rule_priority));
    each.collect::<Vec<_>>().join(" ")
}
