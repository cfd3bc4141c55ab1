//! What policies do: the examples of ECR's User Guide, each sentence of its rules, and what holds for all.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    NOW, acted, age, ago, archive, archived, count, expire, image, needed, patterns, prefixes, text,
    verdicts, with,
};
use crate::clock::Timestamp;
use crate::repository::lifecycle::{Act, ImageFacts, Policy, evaluate};

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
            let mut seen = BTreeSet::new();
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
