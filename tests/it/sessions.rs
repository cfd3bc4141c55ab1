//! How many upload sessions there may be, and for how long: what clients leave behind is bounded.

use crate::collect::job;
use crate::expect::assert_error;
use crate::hosting::{APP, Hosting, closing, hosting};
use crate::login::{Login as _, basic};
use crate::support::prelude::*;

/// Begins a session, if it may.
async fn begin(hosting: &Hosting, headers: &[(&str, &str)]) -> Answer {
    let url = hosting.at(APP, "blobs/uploads/");
    send(Method::POST, url, headers, "").await
}

fn assert_too_many(answer: &Answer, most: usize) {
    assert_error(answer, 429, "TOOMANYREQUESTS");
    assert!(
        answer
            .text()
            .contains(&format!("{most} uploads of yours are open")),
        "{}",
        answer.text()
    );
    let after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
}

#[tokio::test]
async fn so_many_are_open_and_no_more_whatever_comes_at_once() {
    let mut hosting = Hosting::of(hosting().setting("hosted.max_uploads", "3")).await;
    let crowd = futures_util::future::join_all((0..12).map(|_| begin(&hosting, &[]))).await;
    let (begun, refused): (Vec<_>, Vec<_>) = crowd.iter().partition(|answer| answer.status == 202);
    assert_eq!(begun.len(), 3);
    for answer in refused {
        assert_too_many(answer, 3);
    }
    // A blob that comes whole is one, too; one that is mounted is none.
    let bytes = random(1, 1000);
    let whole = closing(&hosting.at(APP, "blobs/uploads/"), &sha256(&bytes));
    assert_too_many(&send(Method::POST, &whole, &[], bytes.clone()).await, 3);
    // Those that exist go on, and with each that ends there is place for another.
    let mut sessions: Vec<_> = begun.iter().map(|answer| hosting.follow(answer)).collect();
    let session = sessions.pop().expect("a session");
    let answer = send(
        Method::PUT,
        closing(&session, &sha256(&bytes)),
        &[],
        bytes.clone(),
    )
    .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let mount = hosting.at(
        "acme/other",
        &format!("blobs/uploads/?mount={}&from={APP}", sha256(&bytes)),
    );
    assert_eq!(send(Method::POST, &mount, &[], "").await.status, 201);
    // One that fails leaves none.
    for _ in 0..5 {
        let answer = send(Method::POST, &whole, &[], "something else").await;
        assert_error(&answer, 400, "DIGEST_INVALID");
    }
    sessions.push(hosting.begin(APP).await);
    assert_too_many(&begin(&hosting, &[]).await, 3);
    // They are counted over a restart.
    hosting.daemon.kill().await;
    hosting.daemon.restart().await;
    assert_too_many(&begin(&hosting, &[]).await, 3);
    let (_, path) = sessions[0].split_once("/v2/").expect("a path");
    let session = format!("{}/v2/{path}", hosting.daemon.url());
    assert_eq!(request(Method::DELETE, &session, &[]).await.status, 204);
    hosting.begin(APP).await;
    assert_too_many(&begin(&hosting, &[]).await, 3);
}

#[tokio::test]
async fn each_has_its_own_number_and_nobody_in_particular_by_address() {
    let builder = hosting()
        .setting("hosted.max_uploads", "2")
        .setting("auth.writers", r#"["ann", "bob"]"#)
        .setting("server.trusted_proxies", r#"["127.0.0.1"]"#)
        .setting("server.allow_plain_http", "true");
    let hosting = Hosting::of(builder).await;
    for name in ["ann", "bob"] {
        hosting.daemon.user(name, "a long password").await;
    }
    let logins = [basic("ann", "a long password"), basic("bob", "a long password")];
    // From wherever they come.
    for login in &logins {
        for (from, expected) in [("10.0.0.1", 202), ("10.0.0.2", 202), ("10.0.0.3", 429)] {
            let headers = [("authorization", &**login), ("x-forwarded-for", from)];
            let answer = begin(&hosting, &headers).await;
            assert_eq!(answer.status, expected, "{from}: {}", answer.text());
        }
    }
    for (address, expected) in [
        ("10.0.0.1", 202),
        ("10.0.0.1", 202),
        ("10.0.0.1", 429),
        ("10.0.0.2", 202),
        ("2001:db8::1", 202),
        ("2001:db8::2", 202),
        // One machine has all of a /64.
        ("2001:db8::3", 429),
        ("2001:db8:0:1::3", 202),
    ] {
        let answer = begin(&hosting, &[("x-forwarded-for", address)]).await;
        assert_eq!(answer.status, expected, "{address}: {}", answer.text());
    }
}

/// Makes all that is known of sessions look as if their last bytes had come two hours ago.
fn make_old(hosting: &Hosting) {
    let folder = hosting.daemon.data_dir().join("uploads");
    for file in folder.read_dir().expect("a folder").flatten() {
        if file.path().extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let text = std::fs::read(file.path()).expect("a record");
        let mut record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let at = record["at"].as_u64().expect("a time");
        record["at"] = (at - 2 * 60 * 60 * 1000).into();
        std::fs::write(file.path(), record.to_string()).expect("a record");
    }
}

#[tokio::test]
async fn only_bytes_keep_one_not_questions() {
    let mut hosting = Hosting::of(hosting().setting("hosted.upload_timeout", "\"1h\"")).await;
    let mut paths = Vec::new();
    for seed in 0..3 {
        let session = hosting.begin(APP).await;
        let answer = send(Method::PATCH, &session, &[], random(seed, 1000)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let (_, path) = session.split_once("/v2/").expect("a path");
        paths.push(path.to_owned());
    }
    hosting.daemon.stop().await;
    make_old(&hosting);
    hosting.daemon.run_again().await;
    let at = |path: &str| format!("{}/v2/{path}", hosting.daemon.url());
    for _ in 0..3 {
        assert_eq!(get(at(&paths[0])).await.status, 204);
    }
    // Nothing is no more than a question; a byte is.
    assert_eq!(send(Method::PATCH, at(&paths[1]), &[], "").await.status, 202);
    assert_eq!(send(Method::PATCH, at(&paths[2]), &[], "x").await.status, 202);
    let done = job(&hosting, "collect", &serde_json::json!({})).await;
    assert_eq!(done["uploads"], 2, "{done}");
    let statuses = [
        get(at(&paths[0])).await.status,
        get(at(&paths[1])).await.status,
        get(at(&paths[2])).await.status,
    ];
    assert_eq!(statuses, [404, 404, 204]);
    assert_eq!(hosting.upload_files(), 2);
}
