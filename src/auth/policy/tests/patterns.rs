//! Patterns: stars, question marks, variables.

use proptest::prelude::*;

use crate::auth::policy::pattern::{Case, Pattern, Signs};

const ALL: Signs = Signs {
    wildcards: true,
    variables: true,
};

fn lookup(key: &str) -> Option<String> {
    match key {
        "aws:username" => Some("alice".to_owned()),
        "aws:principaltag/team" => Some("a*b".to_owned()),
        _ => None,
    }
}

fn matches(pattern: &str, text: &str) -> Option<bool> {
    Pattern::parse(pattern, ALL)
        .unwrap()
        .matches(text, Case::Matters, &lookup)
}

#[test]
fn table() {
    let cases = [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("*", "anything: at/all", true),
        ("?", "", false),
        ("?", "a", true),
        ("?", "ü", true),
        ("?", "ab", false),
        ("a*", "a", true),
        ("a*c", "abbbc", true),
        ("a*c", "abbbcd", false),
        ("*a*b*", "xxaxxbxx", true),
        ("*a*b", "ab ab a", false),
        ("*aab", "aaab", true),
        ("a?c*", "abcd", true),
        ("a?c*", "ac", false),
        ("*?", "", false),
        ("*?", "a", true),
        ("?*?", "a", false),
        ("**", "", true),
        ("A", "a", false),
        ("a.c", "abc", false),
        ("[a-z]", "b", false),
        ("ecr:Get*", "ecr:GetDownloadUrlForLayer", true),
        ("ecr:Get*", "ecr:PutImage", false),
        ("user/${aws:username}", "user/alice", true),
        ("user/${aws:username}", "user/bob", false),
        ("user/${AWS:UserName}/*", "user/alice/x", true),
        ("${aws:PrincipalTag/team}", "a*b", true),
        ("${aws:PrincipalTag/team}", "axb", false),
        ("${aws:username, 'nobody'}", "alice", true),
        ("${aws:missing, 'nobody'}", "nobody", true),
        ("${aws:missing, ''}", "", true),
        ("${aws:missing, 'a'}/${aws:other,'b' }", "a/b", true),
        ("${*}", "*", true),
        ("${*}", "x", false),
        ("${?}${$}{x}", "?${x}", true),
        ("$x{y}", "$x{y}", true),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(matches(pattern, text), Some(expected), "{pattern} {text}");
    }
    // Without a value there is nothing to compare with.
    assert_eq!(matches("*${aws:missing}*", "anything"), None);
}

#[test]
fn malformed_variables() {
    for text in [
        "${", "${}", "a${x", "${x y}", "${x,y}", "${x,'y}", "${x,'y'", "${'x'}", "${a${b}}",
    ] {
        assert!(Pattern::parse(text, ALL).is_err(), "{text}");
        // To the old version they are text.
        let old = Signs {
            wildcards: true,
            variables: false,
        };
        let pattern = Pattern::parse(text, old).unwrap();
        assert_eq!(
            pattern.matches(text, Case::Matters, &lookup),
            Some(true),
            "{text}"
        );
    }
}

#[test]
fn signs_that_are_not_asked_for_are_text() {
    let plain = Signs {
        wildcards: false,
        variables: false,
    };
    for text in ["*", "a?", "${aws:username}"] {
        let pattern = Pattern::parse(text, plain).unwrap();
        assert_eq!(
            pattern.matches(text, Case::Matters, &lookup),
            Some(true),
            "{text}"
        );
        assert_eq!(
            pattern.matches("alice", Case::Matters, &lookup),
            Some(false),
            "{text}"
        );
    }
    let pattern = Pattern::parse("Straße", plain).unwrap();
    assert_eq!(pattern.matches("sTRAßE", Case::Ignored, &lookup), Some(true));
    assert_eq!(pattern.matches("sTRAßE", Case::Matters, &lookup), Some(false));
}

#[test]
fn arns_are_split_outside_of_variables() {
    let parts = Pattern::parse("a:${aws:username}:b:c:d:e", ALL).unwrap().split(4);
    let expected = ["a", "alice", "b", "c:d:e"];
    assert_eq!(parts.len(), expected.len());
    for (part, text) in parts.iter().zip(expected) {
        assert_eq!(part.matches(text, Case::Matters, &lookup), Some(true), "{text}");
    }
}

#[test]
fn the_worst_pattern_is_bounded() {
    // Exponential for one who goes back to every star: this test would not end.
    let pattern = Pattern::parse(&"*a".repeat(5_000), ALL).unwrap();
    let text = "a".repeat(4_999) + "b";
    assert_eq!(pattern.matches(&text, Case::Matters, &lookup), Some(false));
}

/// The definition, as slow as it is plain.
fn slowly(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|taken| slowly(rest, &text[taken..])),
        Some((wanted, rest)) => text
            .split_first()
            .is_some_and(|(found, after)| (*wanted == '?' || wanted == found) && slowly(rest, after)),
    }
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

proptest! {
    #[test]
    fn as_defined(pattern in "[abü*?]{0,8}", text in "[abü]{0,10}") {
        prop_assert_eq!(matches(&pattern, &text), Some(slowly(&chars(&pattern), &chars(&text))));
    }

    #[test]
    fn any_text_is_judged(pattern in "\\PC{0,40}", text in "\\PC{0,40}") {
        if let Ok(pattern) = Pattern::parse(&pattern, ALL) {
            let _ = pattern.matches(&text, Case::Ignored, &lookup);
            let _ = pattern.split(6);
        }
    }
}
