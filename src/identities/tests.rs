//! Rows: what is kept is read back, what changes logs out whom it should, and what cannot be read lets nobody in.

use std::time::Duration;

use super::row::{Changed, Kind, New, Row};
use super::*;
use crate::auth::password::Htpasswd;
use crate::auth::token::{KeySource, Keys, Tokens};
use crate::auth::{Arrival, Authenticator, Offered, Spans, Unproved};

fn new(kind: Kind, scopes: &[&str]) -> New {
    New {
        kind,
        description: String::new(),
        password: None,
        expires_at: None,
        scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
        policy: None,
    }
}

#[test]
fn rows_are_read_back_and_become_logins() {
    let mut row = Row::of(
        new(Kind::Robot, &["push,pull:team/*"]),
        "operator:root",
        None,
        Timestamp(7),
    )
    .unwrap();
    let made = row
        .add_secret(
            "for CI".to_owned(),
            Some(Timestamp(9)),
            None,
            "user:dora",
            Timestamp(8),
        )
        .unwrap();
    let back = Row::decode(&row.encode()).unwrap();
    assert_eq!(
        (&*back.created_by, &*back.secrets[0].created_by),
        ("operator:root", "user:dora")
    );
    let login = back.login("ci", &Account::default()).unwrap();
    assert_eq!(login.identity.arn(), Some("arn:aws:iam::000000000000:user/ci"));
    assert_eq!(login.scopes.unwrap()[0].to_string(), "pull,push:team/*");
    assert!(login.secrets[0].stored.verify(&made.secret));
    assert!(!login.secrets[0].stored.verify("whf_other"));
    assert_eq!(login.generation, row.generation);
    assert!(Row::decode(b"{}").is_none());
    let mut broken = row.clone();
    broken.secrets[0].hash = "plain".to_owned();
    assert!(broken.login("ci", &Account::default()).is_err());
}

#[test]
fn what_changes_the_way_in_voids_tokens_and_a_description_does_not() {
    let row = Row::of(new(Kind::Robot, &["pull:a"]), "root", None, Timestamp(7)).unwrap();
    let voids = |changed: Changed| {
        let mut row = row.clone();
        let before = row.generation;
        row.change(changed, None).unwrap();
        row.generation != before
    };
    assert!(!voids(Changed {
        description: Some("x".to_owned()),
        ..Changed::default()
    }));
    assert!(voids(Changed {
        disabled: Some(true),
        ..Changed::default()
    }));
    assert!(voids(Changed {
        scopes: Some(vec!["pull:b".to_owned()]),
        ..Changed::default()
    }));
    let bad = Changed {
        policy: Some(Some("{}".to_owned())),
        ..Changed::default()
    };
    assert!(row.clone().change(bad, None).is_err());
    assert!(Row::of(new(Kind::Robot, &[]), "root", None, Timestamp(7)).is_err());
}

#[test]
fn rows_of_before_are_read() {
    let row = serde_json::json!({
        "kind": "user", "created_at": 7, "created_by": "root", "generation": 1,
        "secrets": [{"id": "a", "hash": "sha256:x", "created_at": 8}],
        "access_keys": [{"id": "AKIA", "secret": "x", "created_at": 9}],
    });
    let row = Row::decode(row.to_string().as_bytes()).unwrap();
    let told = report::of("alice", &row);
    assert_eq!(told.created_by, "root");
    assert_eq!(
        (&*told.secrets[0].created_by, &*told.access_keys[0].created_by),
        ("", "")
    );
}

/// Keys that no other process needs.
struct Forgotten;

impl KeySource for Forgotten {
    fn load(&self) -> Option<Vec<u8>> {
        None
    }

    fn save(&self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_read_hides_the_user_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("htpasswd");
    let hash = Stored::hash("correct horse").unwrap();
    std::fs::write(
        &file,
        ["alice", "bob"]
            .map(|name| format!("{name}:{}\n", hash.as_str()))
            .concat(),
    )
    .unwrap();
    let htpasswd = Arc::new(Htpasswd::open(&file).unwrap());
    let index = Arc::new(Index::open(folder.path(), false, None).unwrap());
    let account = Account::default();
    let now = Timestamp::now();
    let open = || {
        let master = MasterKey::at(folder.path().join("master.key"));
        let identities = Identities::open(index.clone(), account.clone(), master).unwrap();
        let keys = Arc::new(Keys::open(Arc::new(Forgotten), now).unwrap());
        let spans = Spans {
            access: Duration::from_mins(5),
            refresh: Duration::from_hours(1),
        };
        let tokens = Tokens::new(keys, "wharfinger");
        let store = Arc::new(identities.clone());
        let authenticator = Authenticator::new(
            store,
            Some(htpasswd.clone()),
            Vec::new(),
            tokens,
            account.clone(),
            spans,
        )
        .unwrap();
        (identities, authenticator)
    };
    let arrival = Arrival {
        from: None,
        private: true,
        certificate: None,
        now,
        shown_at: now,
    };
    let shown = |name: &str| Offered::Basic(name.to_owned(), "correct horse".to_owned());
    let (_, before) = open();
    let alice = before.prove(&shown("alice"), arrival).await.unwrap();
    let token = before.issue(&alice, Vec::new(), false, now).unwrap().access;
    assert!(before.prove(&Offered::Bearer(token), arrival).await.is_ok());

    let unreadable = serde_json::json!({
        "kind": "user", "created_at": 7, "generation": 1, "disabled": true, "policy": "of another time",
    });
    for row in [&b"\xff not JSON"[..], unreadable.to_string().as_bytes()] {
        index
            .commit(vec![Change::put_identity("alice", row.to_vec())])
            .await
            .unwrap();
        let (identities, authenticator) = open();
        let refused = authenticator.prove(&shown("alice"), arrival).await;
        assert_eq!(refused.err(), Some(Unproved::Wrong));
        // Nor does a token that was made of the file's.
        let token = authenticator
            .issue(&alice, Vec::new(), false, now)
            .unwrap()
            .access;
        assert!(
            authenticator
                .prove(&Offered::Bearer(token), arrival)
                .await
                .is_err()
        );
        assert!(authenticator.prove(&shown("bob"), arrival).await.is_ok());
        // Once it is gone, the file's user is there again.
        identities.remove("alice").await.unwrap();
        assert!(authenticator.prove(&shown("alice"), arrival).await.is_ok());
    }
}
