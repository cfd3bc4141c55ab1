//! Manifests and indexes as upstreams send them, with the words in them: digests, media types, names, tags.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::oci::{Digest, Kind, Manifest, MediaType, Reference, RepositoryName, Tag};

fuzz_target!(|input: (&str, &[u8])| {
    let (content_type, bytes) = input;
    let announced = MediaType::new(content_type);
    for media_type in [None, Some(&announced)] {
        if let Ok(manifest) = Manifest::parse(bytes, media_type) {
            if manifest.kind == Kind::Image {
                assert!(manifest.manifests.is_empty());
            }
            let again = Manifest::parse(bytes, Some(&manifest.media_type)).expect("what it said itself");
            assert_eq!(again.blobs.len(), manifest.blobs.len());
            for named in manifest.blobs.iter().chain(&manifest.manifests) {
                words(&named.digest);
            }
        }
    }
    words(content_type);
});

/// What is read as a word is written as it was read.
fn words(text: &str) {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_key(&digest.to_key()), Some(digest));
    }
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(!text.contains("..") && !text.starts_with('/'));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(!text.contains('/'));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
}
