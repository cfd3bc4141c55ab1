//! Who guesses passwords of ours waits longer and longer; who knows theirs does not.

use super::{Login as _, basic, hosting};
use crate::expect::assert_error;
use crate::support::prelude::*;

/// Far more than are free, since waits end while hashes are computed.
const MOST: usize = 200;

/// Guesses for this name until one is not even looked at.
async fn guess(daemon: &Daemon, name: &str, path: &str) -> Answer {
    let url = format!("{}{path}", daemon.url());
    for number in 0..MOST {
        let shown = basic(name, &format!("guess number {number}"));
        let answer = get_with(&url, &[("authorization", &shown)]).await;
        match answer.status {
            401 => {}
            // Whoever mistypes once or twice is not made to wait.
            429 if number > 2 => return answer,
            other => panic!("{other}: {}", answer.text()),
        }
    }
    panic!("{MOST} guesses, and no wait");
}

#[tokio::test]
async fn who_guesses_waits_and_who_knows_does_not() {
    let daemon = hosting().setting("auth.writers", r#"["*"]"#).start().await;
    for name in ["alice", "bob", "carol"] {
        daemon.user(name, "correct horse").await;
    }
    let (alice, bob) = (basic("alice", "correct horse"), basic("bob", "correct horse"));
    assert_eq!(daemon.push("team/app", &alice).await, 202);
    // A name of ours and one that nobody has, on either way in: guesses tell nothing apart.
    for (name, path) in [("alice", "/v2/"), ("nobody", "/v2/"), ("carol", "/token")] {
        let refused = guess(&daemon, name, path).await;
        assert_error(&refused, 429, "TOOMANYREQUESTS");
        let after: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=64).contains(&after), "{after}");
        assert_eq!(refused.header("www-authenticate"), "");
        // The same address, the same name: her password is known.
        assert_eq!(daemon.push("team/app", &alice).await, 202);
    }
    // And somebody else at that address, who was not seen before.
    assert_eq!(daemon.push("team/app", &bob).await, 202);
    // Operators are told.
    daemon.wait_for_log("too many wrong passwords").await;
}
