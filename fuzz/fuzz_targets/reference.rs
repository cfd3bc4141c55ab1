//! References as people type them, and the words that they are made of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::oci::{Digest, Reference, RepositoryName, Tag};

fuzz_target!(|text: &str| {
    wharfinger::registry::fuzzing::reference(text);
    // What is read as a word is written as it was read, and can stand in a path.
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_key(&digest.to_key()), Some(digest));
        assert_eq!(Digest::from_hash(digest.algorithm(), digest.hash()), Some(digest));
        assert!(text.ends_with(&digest.hex()));
    }
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.split('/').all(RepositoryName::is_component));
        assert!(!text.contains("..") && text.len() <= 255);
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(!text.contains(['/', ':', '@']) && !text.starts_with('.'));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
        assert_eq!(matches!(reference, Reference::Digest(_)), text.contains(':'));
    }
});
