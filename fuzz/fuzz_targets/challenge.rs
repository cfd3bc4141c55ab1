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
        let words = ["realm", "service", "scope", "error"];
        let known: Vec<_> = words
            .iter()
            .filter_map(|word| Some((word, challenge.parameter(word)?)))
            .collect();
        // Written again, it is read the same.
        let written: Vec<_> = known
            .iter()
            .map(|(word, value)| format!("{word}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
            .collect();
        let written = format!("{} {}", challenge.scheme, written.join(", "));
        let again = parse_challenges([written.as_str()]);
        assert_eq!(again.len(), 1, "{written}");
        assert_eq!(again[0].scheme, challenge.scheme);
        for (word, value) in known {
            assert_eq!(again[0].parameter(word), Some(value), "{written}");
        }
    }
    if let Some(target) = next_link(text) {
        assert!(text.contains(target) && !target.contains('>'));
    }
});
