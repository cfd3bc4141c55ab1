//! Lifecycle policies: the examples of ECR's User Guide, each sentence of its rules, and what is refused in which words.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Act, ImageFacts, Policy, StorageClass, Verdict, evaluate};
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
    json!({"rulePriority": priority, "selection": selection, "action": {"type": "expire"}})
}

fn archive(priority: u64, selection: Value) -> Value {
    let action = json!({"type": "transition", "targetStorageClass": "archive"});
    json!({"rulePriority": priority, "selection": selection, "action": action})
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

#[test]
fn examples_of_the_guide() {
    let three = || {
        vec![
            image('A', "beta-1 prod-1", 10),
            image('B', "beta-2 prod-2", 9),
            image('C', "beta-3", 8),
        ]
    };
    let six = || {
        vec![
            image('A', "alpha-1", 12),
            image('B', "beta-1", 11),
            image('C', "alpha-2 beta-2", 10),
            image('D', "alpha-3", 4),
            image('E', "beta-3", 3),
            image('F', "alpha-4 beta-4", 2),
        ]
    };
    let all_tags = || {
        vec![
            image('A', "alpha-1 beta-1 gamma-1", 10),
            image('B', "alpha-2 beta-2", 9),
            image('C', "alpha-3 beta-3 gamma-2", 8),
        ]
    };
    let tagged = |number| count("tagged", number);
    let cases = [
        (
            "image age: prod* older than 14 days",
            vec![expire(
                1,
                patterns(age("tagged", "sinceImagePushed", 14), &["prod*"]),
            )],
            vec![
                image('A', "prod-1", 15),
                image('B', "prod-2", 14),
                image('C', "dev", 90),
            ],
            "A1",
        ),
        (
            "image count: one untagged image is kept",
            vec![expire(1, count("untagged", 1))],
            vec![
                image('A', "", 3),
                image('B', "x", 9),
                image('C', "", 2),
                image('D', "", 1),
            ],
            "A1 C1",
        ),
        (
            "multiple rules, A",
            vec![
                expire(1, patterns(tagged(1), &["prod*"])),
                expire(2, patterns(tagged(1), &["beta*"])),
            ],
            three(),
            "A1",
        ),
        (
            "multiple rules, B",
            vec![
                expire(1, patterns(tagged(1), &["beta*"])),
                expire(2, patterns(tagged(1), &["prod*"])),
            ],
            three(),
            "A1 B1",
        ),
        (
            "multiple tags in a rule, A",
            vec![expire(
                1,
                patterns(age("tagged", "sinceImagePushed", 5), &["alpha*", "beta*"]),
            )],
            six(),
            "C1",
        ),
        (
            "multiple tags in a rule, B",
            vec![expire(1, patterns(tagged(1), &["alpha*", "beta*"]))],
            all_tags(),
            "A1 B1",
        ),
        (
            "the same with prefixes",
            vec![expire(1, prefixes(tagged(1), &["alpha", "beta"]))],
            all_tags(),
            "A1 B1",
        ),
        (
            "all images, A",
            vec![expire(1, count("any", 1))],
            vec![
                image('A', "alpha-1", 4),
                image('B', "beta-1", 3),
                image('C', "", 2),
                image('D', "alpha-2", 1),
            ],
            "A1 B1 C1",
        ),
        (
            "all images, B",
            vec![
                expire(1, patterns(tagged(1), &["alpha*"])),
                expire(2, age("untagged", "sinceImagePushed", 1)),
                expire(3, count("any", 1)),
            ],
            vec![
                image('A', "alpha-1 beta-1", 4),
                image('B', "", 3),
                image('C', "alpha-2", 2),
                image('D', "git-hash", 1),
                image('E', "", 1),
            ],
            "A1 B2 D3",
        ),
    ];
    for (name, rules, images, expected) in cases {
        assert_eq!(acted(&rules, &images), expected, "{name}");
    }
}

#[test]
fn each_sentence_of_the_rules() {
    let tagged = |number| count("tagged", number);
    let pulled = |image: ImageFacts, days| ImageFacts {
        pulled_at: Some(ago(days)),
        ..image
    };
    let cases = [
        (
            "the order of the rules in the text says nothing",
            vec![
                expire(7, count("any", 1)),
                expire(3, patterns(tagged(1), &["p*"])),
            ],
            vec![
                image('A', "p1", 4),
                image('B', "p2", 3),
                image('C', "x", 2),
                image('D', "y", 1),
            ],
            "A3 C7",
        ),
        (
            "who is identified by a rule is shielded from later ones, though not acted on",
            vec![
                expire(1, patterns(tagged(9999), &["release-*"])),
                expire(2, count("any", 1)),
            ],
            vec![
                image('A', "release-1", 90),
                image('B', "dev-1", 80),
                image('C', "release-2 dev-2", 70),
                image('D', "dev-3", 1),
            ],
            "B2",
        ),
        (
            "any counts all, also those that it may not act on",
            vec![
                expire(1, patterns(tagged(9999), &["keep*"])),
                expire(2, count("any", 2)),
            ],
            vec![
                image('A', "a", 4),
                image('B', "b", 3),
                image('C', "keep1", 2),
                image('D', "keep2", 1),
            ],
            "A2 B2",
        ),
        (
            "a rule counts what an earlier one expires",
            vec![
                expire(1, patterns(age("tagged", "sinceImagePushed", 5), &["old*"])),
                expire(2, patterns(tagged(2), &["*-x"])),
            ],
            vec![image('A', "1-x", 9), image('B', "old-x", 8), image('C', "2-x", 1)],
            "B1 A2",
        ),
        (
            "one tag may fit several patterns",
            vec![expire(1, patterns(tagged(1), &["*a*", "*b*"]))],
            vec![image('A', "ab", 3), image('B', "a", 2), image('C', "a b", 1)],
            "A1",
        ),
        (
            "patterns stand for whole tags, and a dot for itself",
            vec![expire(
                1,
                patterns(age("tagged", "sinceImagePushed", 1), &["1.2"]),
            )],
            vec![
                image('A', "1.2", 9),
                image('B', "1x2", 9),
                image('C', "1.2.3", 9),
                image('D', "01.2", 9),
            ],
            "A1",
        ),
        (
            "a star of a prefix is a star",
            vec![expire(1, prefixes(age("tagged", "sinceImagePushed", 1), &["v*"]))],
            vec![image('A', "v1", 9)],
            "",
        ),
        (
            "untagged is about images without tags alone",
            vec![expire(1, age("untagged", "sinceImagePushed", 1))],
            vec![image('A', "", 2), image('B', "x", 2)],
            "A1",
        ),
        (
            "exactly as old is not older",
            vec![expire(1, age("any", "sinceImagePushed", 7))],
            vec![image('A', "", 8), image('B', "", 7), image('C', "", 6)],
            "A1",
        ),
        (
            "what an index needs stays until that is gone, and counts",
            vec![expire(1, count("any", 1))],
            vec![
                needed(image('A', "", 4)),
                image('B', "index", 3),
                image('C', "", 2),
                image('D', "", 1),
            ],
            "B1 C1",
        ),
        (
            "nor is it archived before",
            vec![archive(1, age("any", "sinceImagePulled", 30))],
            vec![needed(image('A', "", 90)), image('B', "", 80)],
            "B1",
        ),
        (
            "pulled lately, or never, or pushed again since",
            vec![archive(1, age("any", "sinceImagePulled", 30))],
            vec![
                pulled(image('A', "", 90), 29),
                pulled(image('B', "", 89), 31),
                image('C', "", 88),
                image('D', "", 29),
                pulled(image('E', "", 20), 40),
            ],
            "B1 C1",
        ),
        (
            "what came back from the archive begins anew",
            vec![archive(1, age("any", "sinceImagePulled", 30))],
            vec![
                ImageFacts {
                    activated_at: Some(ago(10)),
                    ..pulled(image('A', "", 200), 150)
                },
                ImageFacts {
                    activated_at: Some(ago(40)),
                    ..image('B', "", 200)
                },
            ],
            "B1",
        ),
        (
            "the archive is for its own rules, and not for the others",
            vec![
                archive(1, age("any", "sinceImagePulled", 30)),
                expire(
                    2,
                    with(
                        age("any", "sinceImageTransitioned", 90),
                        "storageClass",
                        json!("archive"),
                    ),
                ),
            ],
            vec![
                archived('A', 900, 91),
                archived('B', 800, 90),
                archived('C', 700, 1),
                image('D', "", 600),
            ],
            "D1 A2",
        ),
        (
            "standard rules do not see the archive",
            vec![expire(
                1,
                with(count("any", 1), "storageClass", json!("standard")),
            )],
            vec![archived('A', 9, 9), image('B', "", 2), image('C', "", 1)],
            "B1",
        ),
        ("nothing is nothing", vec![], vec![image('A', "", 900)], ""),
    ];
    for (name, rules, images, expected) in cases {
        assert_eq!(acted(&rules, &images), expected, "{name}");
    }
}

#[test]
fn of_the_same_moment_the_later_push_is_newer() {
    let images = vec![image('B', "", 1), image('A', "", 1), image('C', "", 1)];
    assert_eq!(acted(&[expire(1, count("any", 1))], &images), "B1 A1");
}

#[test]
fn actions_are_told() {
    let rules = [archive(4, age("any", "sinceImagePulled", 1))];
    let [verdict] = verdicts(&rules, &[image('A', "x", 9)])[..] else {
        panic!("one verdict");
    };
    assert_eq!((verdict.rule_priority, verdict.action), (4, Act::Archive));
    assert_eq!(
        (Act::Expire.as_str(), Act::Archive.as_str()),
        ("EXPIRE", "TRANSITION")
    );
}

#[test]
fn ages_beyond_all_clocks() {
    let rules = [expire(1, age("any", "sinceImagePushed", u64::MAX))];
    assert_eq!(acted(&rules, &[image('A', "", 900)]), "");
    let rules = [expire(1, count("any", u64::MAX))];
    assert_eq!(acted(&rules, &[image('A', "", 900)]), "");
    // A push in the future is as young as can be.
    let mut future = image('A', "", 0);
    future.pushed_at = Timestamp(u64::MAX);
    assert_eq!(
        acted(&[expire(1, age("any", "sinceImagePushed", 1))], &[future]),
        ""
    );
}

#[test]
fn texts_are_kept_as_given() {
    let written = " {\"rules\" : [ ] }\n";
    assert_eq!(Policy::parse(written).unwrap().text(), written);
}

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
            " ".repeat(super::MAX_TEXT + 1),
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

fn some_rule() -> impl Strategy<Value = Value> {
    let selection = prop_oneof![
        (1..4_u64).prop_map(|number| count("any", number)),
        (1..4_u64).prop_map(|number| count("untagged", number)),
        (1..9_u64).prop_map(|days| age("any", "sinceImagePushed", days)),
        (1..4_u64, "[ab*]{1,2}").prop_map(|(number, glob)| patterns(count("tagged", number), &[&glob])),
        (1..9_u64, "[ab]{1,2}")
            .prop_map(|(days, tag)| prefixes(age("tagged", "sinceImagePushed", days), &[&tag])),
    ];
    (1..20_u64, selection).prop_map(|(priority, selection)| expire(priority, selection))
}

proptest! {
    /// Whatever the policy: each image is acted on once at the most, never one that is needed, and an image that the
    /// verdicts spare for its youth is younger than none that its rule expires by count.
    #[test]
    fn no_image_twice_and_none_that_is_needed(
        rules in prop::collection::vec(some_rule(), 0..5),
        images in prop::collection::vec((("[ab]{0,2} [ab]{0,2}"), 0..12_u64, any::<bool>()), 0..12),
    ) {
        if let Ok(policy) = Policy::parse(&text(&rules)) {
            let names = 'A'..='Z';
            let images: Vec<ImageFacts> = names
                .zip(&images)
                .map(|(name, (tags, days, need))| ImageFacts { needed: *need, ..image(name, tags, *days) })
                .collect();
            let verdicts = evaluate(&policy, &images, NOW);
            let mut seen = std::collections::BTreeSet::new();
            for verdict in &verdicts {
                prop_assert!(seen.insert(verdict.digest));
                let image = images.iter().find(|image| image.digest == verdict.digest).unwrap();
                prop_assert!(!image.needed);
            }
            prop_assert!(verdicts.is_sorted_by_key(|verdict| verdict.rule_priority));
            // The same of the policy as it was kept.
            let again = Policy::parse(policy.text()).unwrap();
            prop_assert_eq!(evaluate(&again, &images, NOW), verdicts);
        }
    }

    #[test]
    fn any_text_is_judged(text in "\\PC{0,200}") {
        let _ = Policy::parse(&text);
    }
}
