//! What is cached is for whom it is allowed, whoever had it fetched.

use super::{Login as _, PULLED, basic, bearer, token_of};
use crate::support::prelude::*;

#[tokio::test]
async fn what_was_fetched_for_one_is_not_given_to_another() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10_000);
    upstream.put("library/app", "latest", &image);
    let daemon = Daemon::over(&upstream)
        .setting("auth.anonymous", "[]")
        .setting("auth.readers", r#"["alice"]"#)
        .mirror_door()
        .start()
        .await;
    for name in ["alice", "bob"] {
        daemon.user(name, "correct horse").await;
    }
    let (alice, bob) = (basic("alice", "correct horse"), basic("bob", "correct horse"));
    let of = |rest: String| format!("/v2/{PULLED}/{rest}");
    let ways = [
        of("manifests/latest".to_owned()),
        of(format!("manifests/{}", image.digest())),
        of(format!("blobs/{}", image.layer_digest(0))),
        of("tags/list".to_owned()),
        of(format!("referrers/{}", image.digest())),
    ];
    let query = format!("service=wharfinger&scope=repository:{PULLED}:pull");
    let tokens = [&alice, &bob].map(async |shown| bearer(&token_of(&daemon.token(&query, shown).await)));
    let [hers, his] = tokens;
    let (hers, his) = (hers.await, his.await);
    for round in ["cold", "warm"] {
        for path in &ways {
            for method in ["GET", "HEAD"] {
                let status = async |shown: &str| daemon.ask(method, path, shown).await.status;
                let told = format!("{round} {method} {path}");
                assert_eq!(status("").await, 401, "{told}");
                assert_eq!(status(&bob).await, 403, "{told}");
                assert_eq!(status(&his).await, 403, "{told}");
            }
        }
        // Before anybody may, nobody had it fetched.
        if round == "cold" {
            assert!(upstream.requests_of(&any().in_repo("library/app")).is_empty());
        }
        for path in &ways {
            for shown in [&alice, &hers] {
                assert_eq!(daemon.ask("GET", path, shown).await.status, 200, "{round} {path}");
            }
        }
    }
    let mirrored = format!("{}/v2/library/app/manifests/latest", daemon.mirror_url());
    assert_eq!(get(&mirrored).await.status, 403);
}
