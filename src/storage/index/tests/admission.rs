//! Pushes that are let in, and those that are not.

use super::*;
use crate::oci::RepositoryName;
use crate::storage::error::Error;

const KEY: &str = "hosted:acme/app";

fn name() -> RepositoryName {
    "acme/app".parse().unwrap()
}

/// That the repository was made at this time.
fn made(at: u64) -> Change {
    let row = RepositoryRow {
        created_at: Timestamp(at),
        created_by: String::new(),
        settings: serde_json::json!({}),
    };
    Change::put_repository(&name(), &row)
}

/// A blob of so many bytes, pushed to a repository with this quota.
fn push(byte: u8, size: u64, quota: u64) -> Vec<Change> {
    vec![
        Change::admit(&name(), Timestamp(1), Some(quota)),
        Change::put_link(KEY, &digest(byte), &link(size)),
        Change::put_uploaded(&digest(byte), &blob(size, 1)),
    ]
}

#[tokio::test]
async fn whatever_comes_at_once_a_quota_holds() {
    let scene = Scene::new();
    scene.commit(vec![made(1)]).await;
    let pushes = (0..30).map(|byte| scene.index.remove(push(byte, 100, 450)));
    let outcomes = futures_util::future::join_all(pushes).await;
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(taken, 4);
    for (byte, outcome) in (0..30).zip(outcomes) {
        // All of a submission, or nothing.
        let is_here = outcome.is_ok();
        assert!(
            is_here || matches!(outcome, Err(Error::Quota(450))),
            "{outcome:?}"
        );
        assert_eq!(scene.index.blob(&digest(byte)).unwrap().is_some(), is_here);
        assert_eq!(scene.index.link(KEY, &digest(byte)).unwrap().is_some(), is_here);
    }
    assert_eq!(scene.index.usage(KEY).unwrap(), 400);
    audit(&scene.index);
    // Nothing of what was refused comes back.
    let scene = scene.reopen(true);
    assert_eq!(scene.index.usage(KEY).unwrap(), 400);
}

#[tokio::test]
async fn what_adds_nothing_is_let_in_and_the_same_twice_counts_once() {
    let scene = Scene::new();
    scene.commit(vec![made(1)]).await;
    scene.commit(push(1, 300, 300)).await;
    // The quota was made smaller.
    scene.commit(push(1, 300, 100)).await;
    let more = scene.index.remove(push(1, 301, 100)).await;
    assert!(matches!(more, Err(Error::Quota(100))), "{more:?}");
    scene.commit(push(1, 200, 100)).await;
    let mut twice = push(2, 50, 250);
    twice.push(Change::put_link(KEY, &digest(2), &link(50)));
    scene.commit(twice).await;
    assert_eq!(scene.index.usage(KEY).unwrap(), 250);
    // Another repository's links are not this one's.
    let mut other = push(1, 200, 250);
    other.push(Change::put_link("hosted:acme/other", &digest(3), &link(9000)));
    scene.commit(other).await;
}

#[tokio::test]
async fn nothing_is_pushed_to_a_repository_that_went_meanwhile() {
    let scene = Scene::new();
    let early = scene.index.remove(push(1, 1, 10)).await;
    assert!(matches!(early, Err(Error::RepositoryGone)), "{early:?}");
    scene.commit(vec![made(1)]).await;
    scene.commit(push(1, 1, 10)).await;
    // What is in one batch is decided in its order.
    let removed = scene.index.remove(vec![Change::remove_repository(&name())]);
    let (removed, late) = tokio::join!(removed, scene.index.remove(push(2, 1, 10)));
    removed.unwrap();
    assert!(matches!(late, Err(Error::RepositoryGone)), "{late:?}");
    // One that was made anew is another one.
    scene.commit(vec![made(2)]).await;
    let late = scene.index.remove(push(2, 1, 10)).await;
    assert!(matches!(late, Err(Error::RepositoryGone)), "{late:?}");
    assert!(scene.index.blob(&digest(2)).unwrap().is_none());
}
