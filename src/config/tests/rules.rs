//! Rules for single tags: which one holds, and what is wrong with those that do not load.

use super::*;

#[test]
fn the_first_rule_about_a_tag_holds_and_an_upstreams_own_come_first() {
    let config = parse(
        "[server]\nanswer_timeout = \"9s\"\n[cache]\ngone_ttl = \"3d\"\ntag_ttl = \"4m\"\n\
         [[cache.tag_rule]]\npattern = \"latest\"\ntag_ttl = \"1m\"\n\
         [[cache.tag_rule]]\npattern = \"v*\"\nrepository = \"docker-hub/library/*\"\ntag_ttl = \"1d\"\ngone_ttl = \"0s\"\n\
         [[cache.tag_rule]]\npattern = \"*.sig\"\nnegative_ttl = \"1m\"\n\
         [upstream.quay]\ntag_ttl = \"1h\"\n\
         [[upstream.quay.tag_rule]]\npattern = \"latest\"\nrepository = \"team/*\"\nstale_if_error = \"1h\"\n\
         [[upstream.quay.tag_rule]]\npattern = \"v*\"\ntag_ttl = \"2d\"\n",
    )
    .expect("valid");
    let minutes = |prefix: &str, repository: &str, tag: &str| {
        let upstream = config.upstream(prefix).expect("it is there");
        let spans = upstream.freshness_of(&format!("{prefix}/{repository}"), tag);
        assert_eq!(spans.answer_timeout, Duration::from_secs(9));
        spans.tag_ttl.as_secs() / 60
    };
    // No rule: the upstream's own span, else that of [cache].
    assert_eq!(minutes("github", "a/b", "edge"), 4);
    assert_eq!(minutes("quay", "a/b", "edge"), 60);
    // A rule for all upstreams.
    assert_eq!(minutes("github", "a/b", "latest"), 1);
    assert_eq!(minutes("quay", "a/b", "latest"), 1);
    assert_eq!(minutes("docker-hub", "library/nginx", "v1"), 24 * 60);
    assert_eq!(minutes("docker-hub", "acme/nginx", "v1"), 4);
    // One of the upstream's own, which leaves the rest of the spans as they are there.
    assert_eq!(minutes("quay", "a/b", "v1"), 2 * 24 * 60);
    assert_eq!(minutes("quay", "team/b", "latest"), 60);
    let quay = config.upstream("quay").expect("built in");
    assert_eq!(
        quay.freshness_of("quay/team/b", "latest").stale_if_error,
        Duration::from_hours(1)
    );
    let signature = quay.freshness_of("quay/a/b", "sha256-abc.sig");
    assert_eq!(
        (signature.negative_ttl, signature.gone_ttl),
        (Duration::from_mins(1), Duration::from_hours(72))
    );
}

#[test]
fn a_copy_is_served_before_the_client_is_told_that_there_is_no_answer() {
    let config = parse(
        "[server]\nanswer_timeout = \"10s\"\n[cache]\nrevalidate_timeout = \"1m\"\n\
         [upstream.quay]\nrevalidate_timeout = \"1s\"\n",
    )
    .expect("valid");
    let waits = |prefix: &str| {
        let spans = config.upstream(prefix).expect("it is there").freshness;
        (spans.wait_with_copy(), spans.wait_with_less())
    };
    let nine = Duration::from_secs(9);
    assert_eq!(waits("github"), (nine, nine));
    assert_eq!(waits("quay"), (Duration::from_secs(1), nine));
}

/// The faults of rules: the lines after `[[cache.tag_rule]]`, then the key within the rule and what the reason must hold.
#[test]
fn faults_of_rules() {
    let cases = [
        ("tag_ttl = \"1m\"", "pattern", "is required"),
        ("pattern = \"\"\ntag_ttl = \"1m\"", "pattern", "is empty"),
        ("pattern = 1\ntag_ttl = \"1m\"", "pattern", "not an integer"),
        ("pattern = \"v?\"\ntag_ttl = \"1m\"", "pattern", "only `*`"),
        ("pattern = \"v[0-9]\"\ntag_ttl = \"1m\"", "pattern", "only `*`"),
        ("pattern = \" latest\"\ntag_ttl = \"1m\"", "pattern", "only `*`"),
        (
            "pattern = \"nginx:latest\"\ntag_ttl = \"1m\"",
            "pattern",
            "only `*`",
        ),
        ("pattern = \"-slim\"\ntag_ttl = \"1m\"", "pattern", "no tag"),
        ("pattern = \"latest\"", "tag_ttl", "changes nothing"),
        (
            "pattern = \"latest\"\nrepository = \"quay/*\"",
            "tag_ttl",
            "changes nothing",
        ),
        (
            "pattern = \"latest\"\ntag_ttl = \"soon\"",
            "tag_ttl",
            "not a span",
        ),
        ("pattern = \"latest\"\ntag_ttl = 5", "tag_ttl", "lacks a unit"),
        (
            "pattern = \"latest\"\nrevalidate_timeout = \"0s\"",
            "revalidate_timeout",
            "longer than zero",
        ),
        (
            "patern = \"latest\"\ntag_ttl = \"1m\"",
            "patern",
            "did you mean `pattern`",
        ),
        (
            "pattern = \"latest\"\ntag_ttl = \"1m\"\nmirror = \"quay\"",
            "mirror",
            "belongs to [cache]",
        ),
        (
            "pattern = \"*\"\ntag_ttl = \"1m\"\nrepository = \"library/*\"",
            "repository",
            "no upstream's prefix",
        ),
        (
            "pattern = \"*\"\ntag_ttl = \"1m\"\nrepository = \"docker-hup/*\"",
            "repository",
            "did you mean `docker-hub`",
        ),
        (
            "pattern = \"*\"\ntag_ttl = \"1m\"\nrepository = \"quay\"",
            "repository",
            "write \"quay/*\"",
        ),
        (
            "pattern = \"*\"\ntag_ttl = \"1m\"\nrepository = \"quay/A*\"",
            "repository",
            "only `*`",
        ),
        (
            "pattern = \"*\"\ntag_ttl = \"1m\"\nrepository = \"quay//a\"",
            "repository",
            "no empty component",
        ),
    ];
    for (lines, key, reason) in cases {
        let found = parse(&format!("[[cache.tag_rule]]\n{lines}\n")).expect_err(lines);
        let own =
            |fault: &Fault| fault.key == format!("cache.tag_rule[1].{key}") && fault.reason.contains(reason);
        assert!(found.faults().iter().any(own), "{lines}: {found}");
        assert_eq!(
            found.faults().len(),
            1 + usize::from(key == "patern"),
            "{lines}: {found}"
        );
    }
    let shapes = [
        (
            "[cache]\ntag_rule = \"latest\"",
            "cache.tag_rule",
            "not a string: write [[cache.tag_rule]]",
        ),
        (
            "[cache.tag_rule]\npattern = \"x\"",
            "cache.tag_rule",
            "not a table: write [[cache.tag_rule]]",
        ),
        (
            "[upstream.quay]\ntag_rule = [1]",
            "upstream.quay.tag_rule",
            "not an integer: write [[upstream.quay.tag_rule]]",
        ),
    ];
    for (text, key, reason) in shapes {
        let found = parse(text).expect_err(text);
        let own = |fault: &Fault| fault.key == key && fault.reason.contains(reason);
        assert!(found.faults().iter().any(own), "{text}: {found}");
    }
}

#[test]
fn a_rule_behind_one_that_leaves_it_nothing_is_a_fault() {
    let rule = |pattern: &str, repository: &str| {
        format!("[[cache.tag_rule]]\npattern = \"{pattern}\"\ntag_ttl = \"1m\"\n{repository}\n")
    };
    let quay = "repository = \"quay/*\"";
    let lists = [
        (vec![("latest", ""), ("latest", "")], true),
        (vec![("*", ""), ("latest", "")], true),
        (vec![("*", ""), ("latest", quay)], true),
        (vec![("*", quay), ("v1", quay)], true),
        (vec![("latest", ""), ("*", "")], false),
        (vec![("*", quay), ("latest", "")], false),
        (vec![("latest", quay), ("latest", "")], false),
    ];
    for (rules, faulty) in lists {
        let text: String = rules
            .iter()
            .map(|(pattern, repository)| rule(pattern, repository))
            .collect();
        match parse(&text) {
            Ok(_) => assert!(!faulty, "{text}"),
            Err(found) => {
                assert!(faulty, "{text}: {found}");
                assert_eq!(found.faults()[0].key, "cache.tag_rule[2].pattern", "{found}");
                assert!(
                    found.faults()[0].reason.contains("cache.tag_rule[1] comes first"),
                    "{found}"
                );
            }
        }
    }
}
