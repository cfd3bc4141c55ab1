//! No text does harm, whatever is read says the same when it is read again, and no wait is longer than it should be.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::auth::password::throttle::{Network, Throttle};
use crate::auth::password::{Stored, Users};

const GOOD: [&str; 3] = [
    "$2a$04$7m3MoFcHJFiOsfgdDuoNs.ioKApoWwYB0pb6ubv0OwJRzbnIgEuTy",
    "$argon2id$v=19$m=64,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
    "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
];

/// A good hash with a character put in, taken out or exchanged.
fn damaged() -> impl Strategy<Value = String> {
    (0..GOOD.len(), any::<prop::sample::Index>(), any::<char>(), 0..4).prop_map(|(which, at, with, how)| {
        let mut text: Vec<char> = GOOD[which].chars().collect();
        let at = at.index(text.len());
        match how {
            0 => text.insert(at, with),
            1 => text[at] = with,
            2 => text.truncate(at),
            _ => {
                text.remove(at);
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof!["\\PC*", damaged(), "\\$(2y|argon2id|5)\\$.*"]) {
        match Stored::parse(&text) {
            Ok(stored) => {
                prop_assert_eq!(stored.as_str(), &text);
                prop_assert_eq!(format!("{stored:?}"), format!("Stored({})", stored.kind()));
                prop_assert!(Stored::parse(stored.as_str()) == Ok(stored));
            }
            Err(unusable) => prop_assert!(text.len() < 20 || !unusable.to_string().contains(&text)),
        }
    }

    #[test]
    fn a_digest_is_of_its_text_alone(secret in "\\PC+", other in "\\PC+") {
        let stored = Stored::digest(&secret);
        prop_assert!(stored.verify(&secret));
        prop_assert_eq!(stored.verify(&other), other == secret);
    }

    #[test]
    fn any_file_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let users = Users::parse(&bytes);
        prop_assert_eq!(users.len(), users.iter().count());
    }

    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::btree_map("[a-zа-я_.@-][a-z :#]{0,8}", 0..GOOD.len(), 0..20),
        crlf in any::<bool>(),
        comment in "(:[a-z:]{0,5})?",
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let fits = |name: &&String| !name.contains(':') && name.trim() == name.as_str();
        let good: Vec<_> = entries.iter().filter(|(name, _)| fits(name)).collect();
        let lines: Vec<_> = good
            .iter()
            .map(|(name, which)| format!("{name}:{}{comment}{end}", GOOD[**which]))
            .collect();
        let text = lines.concat();
        let users = Users::parse(text.as_bytes());
        prop_assert_eq!(users.faults(), []);
        prop_assert_eq!(users.len(), good.len());
        for (name, which) in good {
            prop_assert_eq!(users.find(name).unwrap().as_str().to_owned(), GOOD[*which]);
        }
    }

    #[test]
    fn no_wait_is_longer_than_about_a_minute(
        steps in prop::collection::vec((0_u64..200_000, 0_u8..4, 0_u8..3, 0_u8..10), 1..300),
    ) {
        let throttle = Throttle::new();
        let mut now = Instant::now();
        for (pause, host, name, right) in steps {
            now += Duration::from_millis(pause);
            let from = Network::of(Some([192, 0, 2, host].into()));
            let name = [name; 32];
            if right == 0 {
                throttle.right(from, &name, now);
            } else if throttle.wait(from, &name, now).is_none() {
                throttle.wrong(from, &name, now);
            }
            let wait = throttle.wait(from, &name, now).unwrap_or_default();
            prop_assert!(wait <= Duration::from_secs(64));
            prop_assert_eq!(throttle.wait(from, &name, now + wait), None);
        }
    }
}
