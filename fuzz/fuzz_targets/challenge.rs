//! `WWW-Authenticate`: one header or several, several challenges in one, quoted commas. And the `Link` of a next page.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::oci::{next_link, parse_challenges};

fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.lines().collect();
    let challenges = parse_challenges(lines.iter().copied());
    for challenge in &challenges {
        assert!(!challenge.scheme.is_empty());
        assert_eq!(challenge.scheme, challenge.scheme.to_ascii_lowercase());
        // What was written somehow is found by its one name.
        let bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
        let realm = challenge.parameter("realm");
        assert!(!bearer || realm.is_none_or(|realm| realm.len() <= text.len()));
    }
    if let Some(target) = next_link(text) {
        assert!(text.contains(target) && !target.contains('>'));
    }
});
