//! Without a copy a client gets an answer or a clear error within `server.answer_timeout`, whatever there is to wait
//! for, and what was begun goes on behind. Every gate is shut until the client has its error.

use futures_util::future::join_all;

use crate::expect::assert_error;
use crate::scene::{NAME, REPO};
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::upstream_auth::{PASSWORD, login};

/// A daemon that gives up on behalf of its clients at once, and waits long itself.
fn prompt(upstream: &Upstream) -> Builder {
    Daemon::over(upstream)
        .mirror_door()
        .setting("server.answer_timeout", "\"150ms\"")
        .setting("upstream.docker-hub.header_timeout", "\"1h\"")
        .setting("upstream.docker-hub.idle_timeout", "\"1h\"")
}

/// [`assert_late_get`], and the same for HEAD.
async fn assert_late(daemon: &Daemon, rest: &str) {
    let doors = assert_late_get(daemon, rest).await;
    let heads = join_all(doors.iter().map(|(url, _)| head(url))).await;
    for ((url, status), answer) in doors.iter().zip(heads) {
        assert_eq!(answer.status, *status, "{url}");
    }
}

/// The error at every door: it says which upstream, and makes a client with another place to ask go there.
async fn assert_late_get(daemon: &Daemon, rest: &str) -> [(String, u16); 4] {
    let (main, mirror) = (daemon.url(), daemon.mirror_url());
    let doors = [
        (format!("{main}/v2/{NAME}/{rest}"), 504),
        (format!("{main}/v2/{REPO}/{rest}?ns=docker.io"), 503),
        (format!("{main}/mirror/v2/{REPO}/{rest}"), 503),
        (format!("{mirror}/v2/{REPO}/{rest}"), 503),
    ];
    let answers = join_all(doors.iter().map(|(url, _)| get(url))).await;
    for ((url, status), answer) in doors.iter().zip(answers) {
        assert_error(&answer, *status, "UNAVAILABLE");
        assert!(
            answer.text().contains("upstream docker-hub did not answer"),
            "{}",
            answer.text()
        );
        assert!(
            answer.text().contains(answer.header("x-request-id")),
            "{}",
            answer.text()
        );
        assert_eq!(answer.header("retry-after"), "5", "{url}");
        assert_eq!(answer.header("cache-status"), "wharfinger; fwd=miss", "{url}");
    }
    doors
}

#[tokio::test]
async fn whatever_is_asked_for_the_answer_comes_in_time() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 100);
    upstream.put(REPO, "1", &image);
    let daemon = prompt(&upstream).start().await;
    let gate = Gate::new();
    upstream.always(any(), serve().hold_head(&gate));
    for rest in [
        "manifests/1".to_owned(),
        format!("manifests/{}", image.digest()),
        format!("blobs/{}", image.layer_digest(0)),
        "tags/list".to_owned(),
        format!("referrers/{}", image.digest()),
    ] {
        assert_late(&daemon, &rest).await;
    }
    gate.release();
    let wait = async { while get(daemon.manifest_url(NAME, "1")).await.status != 200 {} };
    soon("the manifest", wait).await;
}

#[tokio::test]
async fn whatever_is_waited_for_the_answer_comes_in_time() {
    // The token service; the fallback tag of referrers; what a redirect leads to.
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 100);
    upstream.put(REPO, "1", &image);
    upstream.require_bearer(Bearer::new());
    let daemon = prompt(&upstream).start().await;
    let gate = Gate::new();
    upstream.always(tokens(), serve().hold_head(&gate));
    assert_late(&daemon, "manifests/1").await;
    assert_late(&daemon, &format!("blobs/{}", image.layer_digest(0))).await;
    gate.release();

    let upstream = Upstream::start().await;
    upstream.put(REPO, "1", &image);
    let daemon = prompt(&upstream).start().await;
    let gate = Gate::new();
    upstream.always(referrers(), reply(404));
    upstream.always(manifests().head(), serve().hold_head(&gate));
    assert_late(&daemon, &format!("referrers/{}", image.digest())).await;
    gate.release();

    let (upstream, storage) = (Upstream::start().await, Upstream::start().await);
    upstream.put(REPO, "1", &image);
    let daemon = prompt(&upstream).start().await;
    let gate = Gate::new();
    upstream.always(blobs(), via_cdn(&storage, 307, 9));
    storage.always(any(), serve().hold_head(&gate));
    assert_late(&daemon, &format!("blobs/{}", image.layer_digest(0))).await;
    gate.release();
}

#[tokio::test]
async fn the_anonymous_questions_are_within_it() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 100);
    upstream.put(REPO, "1", &image);
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD));
    let daemon = login(prompt(&upstream), "docker-hub", PASSWORD)
        .setting("upstream.docker-hub.share_private", "false")
        .start()
        .await;
    let gate = Gate::new();
    let anonymous = tokens().and(|asked| asked.header("authorization").is_empty());
    upstream.always(anonymous, serve().hold_head(&gate));
    assert_late(&daemon, "manifests/1").await;
    assert_late(&daemon, &format!("blobs/{}", image.layer_digest(0))).await;
    gate.release();
}

#[tokio::test]
async fn waiting_for_a_turn_is_within_it_and_the_fill_goes_on() {
    let upstream = Upstream::start().await;
    let daemon = prompt(&upstream)
        .setting("server.answer_timeout", "\"500ms\"")
        .setting("upstream.docker-hub.max_connections", "1")
        .start()
        .await;
    let first = upstream.put_blob(REPO, random(1, 10_000));
    let bytes = random(2, 10_000);
    let second = upstream.put_blob(REPO, bytes.clone());
    let gate = upstream.stall(blob(&first), 5000);
    let mut reading = open(daemon.blob_url(NAME, &first)).await;
    gate.reached().await;
    assert_late_get(&daemon, &format!("blobs/{second}")).await;
    // Now the first one ends, and with it the second begins, though nobody waits for it.
    gate.release();
    reading.read(usize::MAX).await;
    upstream
        .wait_for(|upstream| {
            let fetched = upstream.requests_of(&blob(&second).get());
            fetched.iter().any(|asked| asked.outcome == Outcome::Complete)
        })
        .await;
    assert_eq!(get(daemon.blob_url(NAME, &second)).await.ok(), bytes);
    // Those who asked how large it is did so in a turn as well.
    let whole = blob(&second)
        .get()
        .and(|asked| !asked.headers.contains_key("range"));
    assert_eq!(upstream.count_of(&whole), 1, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn a_size_that_does_not_come_is_within_it() {
    let upstream = Upstream::start().await;
    let daemon = prompt(&upstream).start().await;
    let bytes = random(1, 10_000);
    let digest = upstream.put_blob(REPO, bytes.clone());
    let gate = Gate::new();
    upstream.once(blobs(), serve().no_length().stall_at(5000, &gate));
    let url = daemon.blob_url(NAME, &digest);
    let answer = get_with(&url, &[("range", "bytes=-10")]).await;
    assert_error(&answer, 504, "UNAVAILABLE");
    gate.release();
    let wait = async {
        loop {
            let answer = get_with(&url, &[("range", "bytes=-10")]).await;
            if answer.status == 206 {
                return answer.body;
            }
        }
    };
    assert_eq!(soon("the end of the blob", wait).await, bytes.slice(9990..));
    assert_eq!(upstream.blob_gets(&digest), 1);
}

#[tokio::test]
async fn what_is_here_is_not_in_any_hurry() {
    let upstream = Upstream::start().await;
    let daemon = prompt(&upstream)
        .setting("server.answer_timeout", "\"1s\"")
        .start()
        .await;
    let bytes = random(1, 100_000);
    let digest = upstream.put_blob(REPO, bytes.clone());
    let gate = upstream.stall(blob(&digest), 50_000);
    // The limit is on the head: a body may take as long as it takes.
    let mut reading = open(daemon.blob_url(NAME, &digest)).await;
    assert_eq!(reading.read(50_000).await.len(), 50_000);
    assert_error(
        &get(daemon.manifest_url(NAME, "none")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
    let slow = upstream.hold(manifests());
    assert_error(&get(daemon.manifest_url(NAME, "slow")).await, 504, "UNAVAILABLE");
    slow.release();
    gate.release();
    assert_eq!(reading.finish().await.ok(), bytes);
}
