//! What is refused, in the words of ECR, and what is not.

use serde_json::{Value, json};

use super::{age, archive, count, expire, patterns, prefixes, text, with};
use crate::repository::lifecycle::{MAX_TEXT, Policy};

#[test]
fn faults_are_told_in_ecrs_words() {
    let good = || expire(1, count("untagged", 30));
    let selection = |selection: Value| text(&[expire(1, selection)]);
    let action = |action: Value| text(&[with(good(), "action", action)]);
    let no_schema = "instance failed to match exactly one schema (matched 0 out of 2)";
    let without = |mut rule: Value, key: &str| {
        rule.as_object_mut().unwrap().remove(key);
        text(&[rule])
    };
    let select_without = |mut from: Value, key: &str| {
        from.as_object_mut().unwrap().remove(key);
        selection(from)
    };
    let required = |name: &str| format!("object has missing required properties ([\"{name}\"])");
    let unknown = |names: &str| {
        format!("object instance has properties which are not allowed by the schema: ([{names}])")
    };
    let unmapped = "Could not map policyString into LifecyclePolicy.".to_owned();
    let low = |minimum, found| {
        format!("numeric instance is lower than the required minimum (minimum: {minimum}, found: {found})")
    };
    let kind = |found: &str, allowed: &str| {
        format!(
            "instance type ({found}) does not match any allowed primitive type (allowed: [\"{allowed}\"])"
        )
    };
    let archive_class = |from: Value| with(from, "storageClass", json!("archive"));
    let tagged = || count("tagged", 1);
    let cases = [
        ("no JSON", "some invalid input".to_owned(), unmapped.clone()),
        ("a surplus brace", text(&[good()]) + "}", unmapped.clone()),
        ("no object", json!([good()]).to_string(), unmapped),
        (
            "no rules",
            json!({"no_rules": "test"}).to_string(),
            required("rules"),
        ),
        (
            "rules are no list",
            json!({"rules": good()}).to_string(),
            required("rules"),
        ),
        (
            "more than rules",
            json!({"rules": [], "version": 1}).to_string(),
            unknown("\"version\""),
        ),
        (
            "a rule is no object",
            json!({"rules": ["x"]}).to_string(),
            kind("string", "object"),
        ),
        (
            "no priority",
            without(good(), "rulePriority"),
            required("rulePriority"),
        ),
        (
            "no selection",
            without(good(), "selection"),
            required("selection"),
        ),
        ("no action", without(good(), "action"), required("action")),
        (
            "nothing",
            text(&[json!({})]),
            required("action\",\"rulePriority\",\"selection"),
        ),
        (
            "more",
            text(&[with(with(good(), "z", json!(1)), "a", json!(1))]),
            unknown("\"a\",\"z\""),
        ),
        ("priority 0", text(&[expire(0, count("any", 1))]), low(1, 0)),
        (
            "priority in words",
            text(&[with(good(), "rulePriority", json!("1"))]),
            kind("string", "integer"),
        ),
        (
            "half a priority",
            text(&[with(good(), "rulePriority", json!(1.5))]),
            kind("number", "integer"),
        ),
        (
            "no description",
            text(&[with(good(), "description", Value::Null)]),
            kind("null", "string"),
        ),
        ("an empty action", action(json!({})), required("type")),
        (
            "an action with more",
            action(json!({"type": "expire", "unknown": 1})),
            unknown("\"unknown\""),
        ),
        (
            "another action",
            action(json!({"type": "keep"})),
            "instance value (keep) not found in enum (possible values: [\"expire\",\"transition\"])"
                .to_owned(),
        ),
        (
            "a transition to nowhere",
            action(json!({"type": "transition"})),
            no_schema.to_owned(),
        ),
        (
            "an expiry with a target that is null",
            action(json!({"type": "expire", "targetStorageClass": null})),
            no_schema.to_owned(),
        ),
        (
            "no tag status",
            select_without(count("any", 1), "tagStatus"),
            required("tagStatus"),
        ),
        (
            "no count type",
            select_without(count("any", 1), "countType"),
            required("countType"),
        ),
        (
            "no count number",
            select_without(count("any", 1), "countNumber"),
            required("countNumber"),
        ),
        (
            "a selection with more",
            selection(with(count("any", 1), "unknown", json!(1))),
            unknown("\"unknown\""),
        ),
        (
            "another tag status",
            selection(count("unknown", 1)),
            "instance value (unknown) not found in enum (possible values: [\"any\",\"tagged\",\"untagged\"])"
                .to_owned(),
        ),
        (
            "another count type",
            selection(with(count("any", 1), "countType", json!("unknown"))),
            no_schema.to_owned(),
        ),
        (
            "another unit",
            selection(with(count("any", 1), "countUnit", json!("hours"))),
            "instance value (hours) not found in enum (possible values: [\"days\"])".to_owned(),
        ),
        (
            "a unit that is null",
            selection(with(count("any", 1), "countUnit", Value::Null)),
            no_schema.to_owned(),
        ),
        (
            "a unit of counts",
            selection(with(count("any", 1), "countUnit", json!("days"))),
            no_schema.to_owned(),
        ),
        (
            "an age without unit",
            select_without(age("any", "sinceImagePushed", 1), "countUnit"),
            no_schema.to_owned(),
        ),
        ("a count of 0", selection(count("any", 0)), low(1, 0)),
        (
            "a count below",
            selection(with(count("any", 1), "countNumber", json!(-1))),
            "numeric instance is lower than the required minimum (minimum: 1, found: -1)".to_owned(),
        ),
        (
            "expiry of what is not pulled",
            selection(age("any", "sinceImagePulled", 9)),
            no_schema.to_owned(),
        ),
        (
            "archived for too short",
            selection(archive_class(age("any", "sinceImageTransitioned", 89))),
            low(90, 89),
        ),
        (
            "archived, but in the standard class",
            selection(age("any", "sinceImageTransitioned", 90)),
            no_schema.to_owned(),
        ),
        (
            "counts in the archive",
            selection(archive_class(count("any", 1))),
            no_schema.to_owned(),
        ),
        (
            "archiving what is archived",
            text(&[archive(
                1,
                archive_class(age("any", "sinceImageTransitioned", 90)),
            )]),
            no_schema.to_owned(),
        ),
        (
            "tagged, and no tags",
            selection(tagged()),
            "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.".to_owned(),
        ),
        (
            "tagged, and an empty list",
            selection(prefixes(tagged(), &[])),
            "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.".to_owned(),
        ),
        (
            "both lists",
            selection(patterns(prefixes(tagged(), &["a"]), &["a"])),
            "Must specify either tagPrefixList or tagPatternList, not both".to_owned(),
        ),
        (
            "any with tags",
            selection(prefixes(count("any", 1), &[])),
            "Cannot specify tagPrefixList or tagPatternList when tagStatus=ANY.".to_owned(),
        ),
        (
            "untagged with tags",
            selection(patterns(count("untagged", 1), &["a"])),
            "Cannot specify tagPrefixList or tagPatternList when tagStatus=UNTAGGED.".to_owned(),
        ),
        (
            "too many stars",
            selection(patterns(tagged(), &["ok", "test*1*2*3*4*5*6"])),
            "tag pattern (test*1*2*3*4*5*6) has more than 4 wildcards".to_owned(),
        ),
        (
            "a tag that is none",
            selection(with(tagged(), "tagPrefixList", json!([1]))),
            kind("integer", "string"),
        ),
        (
            "tags that are no list",
            selection(with(tagged(), "tagPrefixList", json!("a"))),
            kind("string", "array"),
        ),
        (
            "a priority twice",
            text(&[good(), expire(1, count("any", 1))]),
            "rulePriority must be unique, 1 is there twice".to_owned(),
        ),
        (
            "any before others",
            text(&[expire(1, count("any", 1)), expire(2, count("untagged", 1))]),
            "Rule for tagStatus=ANY must have the lowest priority per storage class".to_owned(),
        ),
        (
            "untagged twice",
            text(&[good(), expire(2, age("untagged", "sinceImagePushed", 1))]),
            "Only one rule can select Untagged images per storage class".to_owned(),
        ),
        (
            "the same tags twice",
            text(&[
                expire(1, patterns(tagged(), &["a", "b"])),
                expire(2, patterns(age("tagged", "sinceImagePushed", 1), &["b", "a"])),
            ]),
            "Rules must have different lists of tags per storage class".to_owned(),
        ),
        (
            "too long",
            " ".repeat(MAX_TEXT + 1),
            "the policy is longer than 30720 characters".to_owned(),
        ),
    ];
    for (name, text, expected) in cases {
        let fault = Policy::parse(&text).map(|_| ()).unwrap_err();
        assert_eq!(
            fault.to_string(),
            format!("Lifecycle policy validation failure: {expected}"),
            "{name}"
        );
        assert!(fault.message().starts_with(
            "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle"
        ),);
    }
}

#[test]
fn what_is_taken() {
    let archive_class = |from: Value| with(from, "storageClass", json!("archive"));
    let tagged = |number| count("tagged", number);
    let cases = [
        (
            "four stars",
            vec![expire(1, patterns(tagged(1), &["*test*1*2*3", "test*1*2*3*"]))],
        ),
        (
            "a list of tags in each storage class",
            vec![
                archive(1, patterns(age("tagged", "sinceImagePulled", 9), &["a"])),
                expire(
                    2,
                    archive_class(patterns(age("tagged", "sinceImageTransitioned", 90), &["a"])),
                ),
            ],
        ),
        (
            "the same words as prefixes and as patterns",
            vec![
                expire(1, patterns(tagged(1), &["a"])),
                expire(2, prefixes(tagged(1), &["a"])),
                expire(3, prefixes(tagged(1), &["a", "b"])),
            ],
        ),
        (
            "a last rule for each storage class",
            vec![
                archive(1, age("any", "sinceImagePulled", 9)),
                expire(2, archive_class(age("any", "sinceImageTransitioned", 90))),
            ],
        ),
        (
            "a description",
            vec![with(expire(999, count("any", 1)), "description", json!("why"))],
        ),
    ];
    for (name, rules) in cases {
        assert!(Policy::parse(&text(&rules)).is_ok(), "{name}");
    }
}
