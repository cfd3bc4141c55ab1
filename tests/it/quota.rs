//! Quotas of hosted repositories, through the door: what is pushed at the same time never passes one together, and what
//! cannot fit is refused while it comes.

use serde_json::Value;

use crate::admin::{asked, run};
use crate::crash::audit;
use crate::expect::assert_error;
use crate::hosting::{APP, Hosting, closing, hosting};
use crate::support::image::Part;
use crate::support::prelude::*;

const KIB: usize = 1024;

/// A daemon whose repositories hold so much each.
async fn of(quota: usize) -> Hosting {
    let template = format!(r#"[{{ pattern = "acme/*", quota = "{quota}B", sparse = true }}]"#);
    Hosting::of(hosting().setting("hosted.template", &template)).await
}

async fn shown(hosting: &Hosting, name: &str) -> Value {
    asked(&hosting.daemon, &["repository", "show", name]).await
}

/// How many of these went well; the others were refused for the quota.
fn taken(answers: &[Answer]) -> usize {
    let (well, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    for answer in refused {
        assert_error(answer, 403, "DENIED");
        assert!(answer.text().contains("quota"), "{}", answer.text());
    }
    well.len()
}

/// The files of blobs.
fn files(hosting: &Hosting) -> usize {
    let folder = hosting.daemon.data_dir().join("blobs/sha256");
    let folders = folder.read_dir().expect("a folder").flatten();
    folders
        .map(|folder| folder.path().read_dir().expect("a folder").count())
        .sum()
}

/// A manifest of `size` bytes that needs nothing, told apart by its number.
fn manifest_of(number: usize, size: usize) -> Part {
    let fill = |text: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"n":"{number:04}","fill":"{text}"}}}}"#
        )
    };
    let text = fill(&"x".repeat(size - fill("").len()));
    Part {
        digest: sha256(text.as_bytes()),
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        bytes: text.into(),
    }
}

#[tokio::test]
async fn uploads_that_end_together_never_pass_it() {
    const EACH: usize = 10 * KIB;
    let mut hosting = of(4 * EACH + 5 * KIB).await;
    for round in 0..4_u64 {
        let name = format!("acme/round{round}");
        let mut ends = Vec::new();
        for number in 0..16 {
            let bytes = random(100 * round + number, EACH);
            let session = hosting.begin(&name).await;
            let answer = send(Method::PATCH, &session, &[], bytes.clone()).await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            ends.push((session, sha256(&bytes)));
        }
        let puts = ends
            .iter()
            .map(|(session, digest)| send(Method::PUT, closing(session, digest), &[], ""));
        let answers = futures_util::future::join_all(puts).await;
        // Each was looked at in the transaction that would have written it.
        assert_eq!(taken(&answers), 4);
        assert_eq!(shown(&hosting, &name).await["bytes"], 4 * EACH);
        for (answer, (_, digest)) in answers.iter().zip(&ends) {
            let expected = if answer.status == 201 { 200 } else { 404 };
            assert_eq!(hosting.status(&name, &format!("blobs/{digest}")).await, expected);
        }
        // What was refused at the last moment left no file behind.
        assert_eq!(files(&hosting), 4 * (round as usize + 1));
    }
    hosting.daemon.stop().await;
    assert_eq!(audit(&hosting.daemon).await, 16);
}

#[tokio::test]
async fn manifests_mounts_and_whole_blobs_count_together() {
    const EACH: usize = 4 * KIB;
    let hosting = of(5 * EACH).await;
    let mut mounted = Vec::new();
    for number in 0..5 {
        mounted.push(hosting.push_blob("acme/source", random(number, EACH)).await);
    }
    let mut asked = Vec::new();
    for (number, digest) in mounted.iter().enumerate() {
        let query = format!("blobs/uploads/?mount={digest}&from=acme/source");
        asked.push((Method::POST, hosting.at(APP, &query), Vec::new()));
        let bytes = random(100 + number as u64, EACH);
        let url = closing(&hosting.at(APP, "blobs/uploads/"), &sha256(&bytes));
        asked.push((Method::POST, url, bytes.to_vec()));
        let part = manifest_of(number, EACH);
        let url = hosting.at(APP, &format!("manifests/v{number}"));
        asked.push((Method::PUT, url, part.bytes.to_vec()));
    }
    let kind = [("content-type", "application/vnd.oci.image.index.v1+json")];
    let pushes = asked
        .into_iter()
        .map(|(method, url, body)| send(method, url, &kind, body));
    let answers = futures_util::future::join_all(pushes).await;
    assert_eq!(taken(&answers), 5);
    assert_eq!(shown(&hosting, APP).await["bytes"], 5 * EACH);
    // The quota is each repository's; and whole uploads that were refused left nothing.
    assert_eq!(shown(&hosting, "acme/source").await["bytes"], 5 * EACH);
    let gone = async { while hosting.upload_files() > 0 {} };
    soon("no session", gone).await;
}

#[tokio::test]
async fn what_is_there_already_adds_nothing() {
    let hosting = of(40 * KIB).await;
    let (bytes, part) = (random(1, 30 * KIB), manifest_of(1, 5 * KIB));
    hosting.push_blob(APP, bytes.clone()).await;
    assert_eq!(hosting.put(APP, "v1", &part).await.status, 201);
    for quota in ["40KiB", "1KiB"] {
        // It may be made smaller than what is there: then nothing more is let in.
        let arguments = ["repository", "set", APP, "--quota", quota];
        assert_eq!(run(&hosting.daemon, &arguments).await.code(), Some(0));
        hosting.push_blob(APP, bytes.clone()).await;
        let url = closing(&hosting.at(APP, "blobs/uploads/"), &sha256(&bytes));
        let answer = send(Method::POST, url, &[], bytes.clone()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(hosting.put(APP, "v2", &part).await.status, 201);
        let refused = hosting.put(APP, "v3", &manifest_of(3, 6 * KIB)).await;
        assert_eq!(taken(&[refused]), 0);
        assert_eq!(shown(&hosting, APP).await["bytes"], 35 * KIB);
    }
    // With what is deleted there is room again.
    let arguments = ["repository", "set", APP, "--quota", "40KiB"];
    assert_eq!(run(&hosting.daemon, &arguments).await.code(), Some(0));
    let deleted = hosting.delete(APP, &format!("blobs/{}", sha256(&bytes))).await;
    assert_eq!(deleted.status, 202, "{}", deleted.text());
    hosting.push_blob(APP, random(2, 34 * KIB)).await;
}

#[tokio::test]
async fn what_cannot_fit_is_refused_while_it_comes() {
    let quota = 4 * KIB * KIB;
    let hosting = of(quota).await;
    hosting.push_blob(APP, random(1, KIB * KIB)).await;
    let piece = random(2, KIB * KIB);
    for method in ["PATCH", "PUT", "POST"] {
        // One that says how much comes is refused before any of it.
        let session = hosting.begin(APP).await;
        let url = match method {
            "POST" => closing(&hosting.at(APP, "blobs/uploads/"), &sha256(b"x")),
            "PUT" => closing(&session, &sha256(b"x")),
            _ => session.clone(),
        };
        let uri: http::Uri = url.parse().expect("a URL");
        let path = uri.path_and_query().expect("a path");
        let begin = |framing: &str| format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
        let framing = format!("Content-Length: {}", 9 * KIB * KIB);
        let mut raw = Raw::connect(&url).await;
        raw.write(&begin(&framing)).await;
        assert_eq!(raw.head().await.expect("an answer").status, 403, "{method}");
        // One that does not is refused once there is too much.
        let mut raw = Raw::connect(&url).await;
        raw.write(&begin("Transfer-Encoding: chunked")).await;
        let mut sent = 0;
        let size = format!("{:x}\r\n", piece.len());
        while sent < 64 && raw.try_write(size.as_bytes()).await {
            if !(raw.try_write(&piece).await && raw.try_write(b"\r\n").await) {
                break;
            }
            sent += 1;
        }
        assert!(sent < 64, "{method} takes all");
        let head = raw.head().await.expect("an answer, before the connection ends");
        assert_eq!(head.status, 403, "{method}");
        // What came before waits, and is no more than fits.
        let at = get(&session).await;
        assert_eq!(at.status, 204, "{}", at.text());
        let last = at.header("range").strip_prefix("0-").expect("a range");
        assert!(last.parse::<usize>().expect("a number") < 3 * KIB * KIB, "{last}");
        assert_eq!(request(Method::DELETE, &session, &[]).await.status, 204);
    }
    // A range that ends behind it says so, too; and what fits is taken.
    let session = hosting.begin(APP).await;
    let range = format!("0-{}", 3 * KIB * KIB);
    let mut raw = Raw::connect(&session).await;
    let headers = [
        ("content-range", &*range),
        ("transfer-encoding", "chunked"),
        ("expect", "100-continue"),
    ];
    raw.ask("PATCH", &session, &headers).await;
    assert_eq!(raw.head().await.expect("an answer").status, 403);
    let bytes = random(3, 3 * KIB * KIB);
    let answer = send(Method::PUT, closing(&session, &sha256(&bytes)), &[], bytes).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(shown(&hosting, APP).await["bytes"], quota);
}
