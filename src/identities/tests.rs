//! Rows: what is kept is read back, and what changes logs out whom it should.

use super::row::{Changed, Kind, New, Row};
use super::*;

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
        "root",
        None,
        Timestamp(7),
    )
    .unwrap();
    let made = row
        .add_secret("for CI".to_owned(), Some(Timestamp(9)), None, Timestamp(8))
        .unwrap();
    let back = Row::decode(&row.encode()).unwrap();
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
