//! Lifecycle policies: what is understood acts on each image once at the most, and on none that another needs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::clock::Timestamp;
use wharfinger::oci::{Algorithm, Digest};
use wharfinger::repository::lifecycle::{ImageFacts, Policy, StorageClass, evaluate};

const DAY: u64 = 86_400_000;

fuzz_target!(|text: &str| {
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(fault) => {
            assert!(fault.message().contains("Lifecycle policy validation failure: "));
            return;
        }
    };
    assert_eq!(policy.text(), text);
    let tags = ["", "latest", "v1.0", "v1.0 latest", "dev-1", "prod-1 beta-1"];
    let images: Vec<ImageFacts> = (0..24_u8)
        .map(|number| {
            let archived = number % 5 == 0;
            let at = Timestamp(u64::from(number / 2) * 10 * DAY);
            ImageFacts {
                digest: Digest::from_hash(Algorithm::Sha256, &[number; 32]).expect("32 bytes"),
                tags: tags[usize::from(number) % tags.len()]
                    .split_whitespace()
                    .map(|tag| tag.parse().expect("a tag"))
                    .collect(),
                pushed_at: at,
                pulled_at: (number % 3 == 0).then_some(Timestamp(at.0 + DAY)),
                class: if archived {
                    StorageClass::Archive
                } else {
                    StorageClass::Standard
                },
                archived_at: archived.then_some(at),
                activated_at: None,
                needed: number % 7 == 0,
            }
        })
        .collect();
    let verdicts = evaluate(&policy, &images, Timestamp(200 * DAY));
    for (at, verdict) in verdicts.iter().enumerate() {
        let image = images.iter().find(|image| image.digest == verdict.digest);
        assert!(!image.expect("one of them").needed);
        assert!(verdicts[..at].iter().all(|other| other.digest != verdict.digest));
    }
    assert!(verdicts.is_sorted_by_key(|verdict| verdict.rule_priority));
});
