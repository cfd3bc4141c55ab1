//! Manifests and indexes as upstreams send them: read again by the type that they were found to have, they are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::oci::{Digest, Kind, Manifest, MediaType};

fuzz_target!(|input: (&str, &[u8])| {
    let (content_type, bytes) = input;
    let announced = MediaType::new(content_type);
    for media_type in [None, Some(&announced)] {
        if let Ok(manifest) = Manifest::parse(bytes, media_type) {
            if manifest.kind == Kind::Image {
                assert!(manifest.manifests.is_empty());
            }
            let again = Manifest::parse(bytes, Some(&manifest.media_type)).expect("what it said itself");
            assert_eq!(
                (again.kind, &again.media_type),
                (manifest.kind, &manifest.media_type)
            );
            assert_eq!(
                (&again.blobs, &again.manifests),
                (&manifest.blobs, &manifest.manifests)
            );
            for named in manifest.blobs.iter().chain(&manifest.manifests) {
                // Only what can be served is ever looked for.
                if let Ok(digest) = named.digest.parse::<Digest>() {
                    assert_eq!(digest.to_string(), named.digest);
                }
            }
        }
    }
});
