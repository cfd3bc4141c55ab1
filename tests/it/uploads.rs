//! Upload sessions, through the door: broken off, resumed, over restarts and kills, by two clients at once, and by clients
//! that mean no good. Chunks are in `chunks`.

use crate::expect::assert_error;
use crate::hosting::{APP, Hosting, assert_at, begin_request, chunk, closing, finish, hosting, write_chunk};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_session_is_cancelled_or_was_never_there() {
    let hosting = Hosting::start().await;
    let session = hosting.begin(APP).await;
    assert_eq!(chunk(&session, b"hello", 0).await.status, 202);
    let elsewhere = session.replace(APP, "acme/other");
    hosting.begin("acme/other").await;
    let nobodys = hosting.at(APP, "blobs/uploads/8d6f2d6c-95c4-4b3c-b3ad-3b4a1a1f6c10");
    let spelled = session
        .to_uppercase()
        .replace("/V2/ACME/APP/BLOBS/UPLOADS", "/v2/acme/app/blobs/uploads");
    let spelled = spelled.replace("HTTP", "http");
    for url in [
        &elsewhere,
        &nobodys,
        &spelled,
        &hosting.at(APP, "blobs/uploads/x"),
        &format!("{session}0"),
    ] {
        for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
            let answer = request(method.clone(), closing(url, &sha256(b"hello")), &[]).await;
            assert_error(&answer, 404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    assert_at(&hosting, &session, 5).await;
    let answer = request(Method::DELETE, &session, &[]).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
        let answer = request(method, closing(&session, &sha256(b"hello")), &[]).await;
        assert_error(&answer, 404, "BLOB_UPLOAD_UNKNOWN");
    }
    // That of the other repository is left.
    assert_eq!(hosting.upload_files(), 2);
    assert_eq!(request(Method::POST, &session, &[]).await.status, 405);
}

#[tokio::test]
async fn the_end_says_what_it_is_or_nothing_is_kept() {
    let hosting = Hosting::start().await;
    let session = hosting.begin(APP).await;
    assert_eq!(chunk(&session, b"hello", 0).await.status, 202);
    // What is no digest changes nothing.
    assert_error(&send(Method::PUT, &session, &[], "").await, 400, "DIGEST_INVALID");
    for digest in [
        "",
        "sha256:short",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "hello",
    ] {
        assert_error(&finish(&session, digest).await, 400, "DIGEST_INVALID");
    }
    assert_at(&hosting, &session, 5).await;
    let wrong = sha256(b"goodbye");
    assert_error(&finish(&session, &wrong).await, 400, "DIGEST_INVALID");
    assert_eq!(hosting.status(APP, &format!("blobs/{wrong}")).await, 404);
    assert_eq!(
        hosting.status(APP, &format!("blobs/{}", sha256(b"hello"))).await,
        404
    );
    assert_error(&get(&session).await, 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(hosting.upload_files(), 0);
    let unknown = hosting.at(APP, "blobs/uploads/?digest-algorithm=md5");
    assert_error(&send(Method::POST, unknown, &[], "").await, 400, "DIGEST_INVALID");
    // Begun by one algorithm, named by the other.
    for (query, digest) in [
        ("", sha512(b"hello")),
        ("?digest-algorithm=sha512", sha256(b"hello")),
    ] {
        let session = hosting.begin_with(APP, query).await;
        assert_eq!(chunk(&session, b"hel", 0).await.status, 202);
        let answer = send(Method::PUT, closing(&session, &digest), &[], "lo").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert!(get(hosting.follow(&answer)).await.ok() == "hello");
    }
}

#[tokio::test]
async fn it_goes_on_after_a_restart_and_after_a_kill() {
    let mut hosting = Hosting::start().await;
    let bytes = random(3, 3 * MIB);
    let path = |session: &str| session.split_once("/v2/").expect("a path").1.to_owned();
    let mut sessions = Vec::new();
    for query in ["", "?digest-algorithm=sha512"] {
        sessions.push(path(&hosting.begin_with(APP, query).await));
    }
    let mut at = 0;
    for kill in [true, false, true] {
        for session in &sessions {
            let url = format!("{}/v2/{session}", hosting.daemon.url());
            assert_eq!(chunk(&url, &bytes[at..at + 700_001], at).await.status, 202);
        }
        at += 700_001;
        if kill {
            hosting.daemon.kill().await;
        }
        hosting.daemon.restart().await;
        for session in &sessions {
            let url = format!("{}/v2/{session}", hosting.daemon.url());
            assert_at(&hosting, &url, at).await;
        }
    }
    for (session, digest) in sessions.iter().zip([sha256(&bytes), sha512(&bytes)]) {
        let url = format!("{}/v2/{session}", hosting.daemon.url());
        assert_eq!(chunk(&url, &bytes[at..], at).await.status, 202);
        let answer = finish(&url, &digest).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        // What was answered with 201 is there after a kill at once.
        hosting.daemon.kill().await;
        hosting.daemon.restart().await;
        assert!(get(hosting.at(APP, &format!("blobs/{digest}"))).await.ok() == bytes);
    }
    assert_eq!(hosting.upload_files(), 0);
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_chunk_leaves_what_was_told() {
    let mut hosting = Hosting::start().await;
    let bytes = random(4, 4 * MIB);
    let session = hosting.begin(APP).await;
    assert_eq!(chunk(&session, &bytes[..MIB], 0).await.status, 202);
    let framing = format!("Content-Length: {}", 3 * MIB);
    let mut raw = begin_request("PATCH", &session, &framing).await;
    assert!(raw.try_write(&bytes[MIB..3 * MIB + 12345]).await);
    // Some of that is on its way to the file.
    let folder = hosting.daemon.data_dir().join("uploads");
    let written = async {
        while !folder
            .read_dir()
            .expect("a folder")
            .flatten()
            .any(|file| file.metadata().is_ok_and(|file| file.len() > MIB as u64))
        {
            tokio::task::yield_now().await;
        }
    };
    soon("bytes of the chunk to be written", written).await;
    hosting.daemon.kill().await;
    hosting.daemon.restart().await;
    let (_, path) = session.split_once("/v2/").expect("a path");
    let session = format!("{}/v2/{path}", hosting.daemon.url());
    assert_at(&hosting, &session, MIB).await;
    assert_eq!(chunk(&session, &bytes[MIB..], MIB).await.status, 202);
    let digest = sha256(&bytes);
    assert_eq!(finish(&session, &digest).await.status, 201);
    assert!(get(hosting.at(APP, &format!("blobs/{digest}"))).await.ok() == bytes);
}

#[tokio::test]
async fn a_client_that_goes_away_finds_what_it_sent() {
    let hosting = Hosting::start().await;
    let bytes = random(5, 3 * MIB);
    let digest = sha256(&bytes);
    // By its length, in chunks, and in the closing request.
    for (method, framing) in [
        ("PATCH", format!("Content-Length: {}", bytes.len())),
        ("PATCH", "Transfer-Encoding: chunked".to_owned()),
        ("PUT", format!("Content-Length: {}", bytes.len())),
    ] {
        let session = hosting.begin("acme/gone").await;
        let url = if method == "PUT" {
            closing(&session, &digest)
        } else {
            session.clone()
        };
        let mut raw = begin_request(method, &url, &framing).await;
        let sent = 2 * MIB + 3;
        if framing.starts_with('C') {
            assert!(raw.try_write(&bytes[..sent]).await);
        } else {
            assert!(write_chunk(&mut raw, &bytes[..sent]).await);
        }
        // All of it has arrived, since it was acknowledged; the end of the connection comes behind it.
        drop(raw);
        let status = async {
            loop {
                let answer = get(&session).await;
                assert_eq!(answer.status, 204, "{}", answer.text());
                let at = answer
                    .header("range")
                    .strip_prefix("0-")
                    .and_then(|at| at.parse::<usize>().ok());
                match at.expect("a range") {
                    0 => tokio::task::yield_now().await,
                    last => return last + 1,
                }
            }
        };
        let at = soon("what was sent", status).await;
        assert!(at <= sent, "{at}");
        assert_eq!(chunk(&session, &bytes[at..], at).await.status, 202);
        let answer = finish(&session, &digest).await;
        assert_eq!(answer.status, 201, "{method} {framing}: {}", answer.text());
        assert!(
            get(hosting.at("acme/gone", &format!("blobs/{digest}")))
                .await
                .ok()
                == bytes
        );
        assert_eq!(
            hosting
                .delete("acme/gone", &format!("blobs/{digest}"))
                .await
                .status,
            202
        );
    }
}

#[tokio::test]
async fn two_clients_of_one_session_never_mix_their_bytes() {
    let hosting = Hosting::start().await;
    let bytes = random(6, 2 * MIB);
    let session = hosting.begin(APP).await;
    let framing = format!("Content-Length: {}", bytes.len());
    let mut first = begin_request("PATCH", &session, &framing).await;
    assert!(first.try_write(&bytes[..MIB]).await);
    let folder = hosting.daemon.data_dir().join("uploads");
    let held = async {
        while folder
            .read_dir()
            .expect("a folder")
            .flatten()
            .all(|file| file.metadata().map_or(0, |file| file.len()) < 1000)
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the first to have it", held).await;
    // Whatever the second one does, the first one has it.
    let others = [Method::GET, Method::PATCH, Method::PUT, Method::DELETE];
    let others = others.map(|method| send(method, closing(&session, &sha256(b"x")), &[], "x"));
    for answer in futures_util::future::join_all(others).await {
        assert_error(&answer, 409, "BLOB_UPLOAD_INVALID");
    }
    assert!(first.try_write(&bytes[MIB..]).await);
    assert_eq!(first.head().await.expect("an answer").status, 202);
    // A crowd that sends the same chunk: one of them, and no byte twice.
    let more = random(7, 1000);
    let crowd = (0..8).map(|_| chunk(&session, &more, bytes.len()));
    let statuses: Vec<_> = futures_util::future::join_all(crowd).await;
    let count = |status| statuses.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(202), count(416)), (1, 7));
    let whole = [&bytes[..], &more[..]].concat();
    let digest = sha256(&whole);
    let ends = (0..4).map(|_| finish(&session, &digest));
    let ends = futures_util::future::join_all(ends).await;
    assert_eq!(ends.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(
        get(hosting.at(APP, &format!("blobs/{}", sha256(&whole))))
            .await
            .ok()
            == whole
    );
}

#[tokio::test]
async fn a_body_without_end_stops_at_the_room_there_is() {
    let most = 24 * MIB;
    let hosting =
        Hosting::of(hosting().setting("storage.hosted_max_size", &format!("\"{}MiB\"", most / MIB))).await;
    let piece = random(8, MIB);
    for method in ["PATCH", "PUT", "POST"] {
        let session = match method {
            "POST" => hosting.at(APP, "blobs/uploads/"),
            _ => hosting.begin(APP).await,
        };
        let url = if method == "PATCH" {
            session.clone()
        } else {
            closing(&session, &sha256(b"x"))
        };
        let mut raw = begin_request(method, &url, "Transfer-Encoding: chunked").await;
        let mut sent = 0;
        while sent < 200 * MIB && write_chunk(&mut raw, &piece).await {
            sent += MIB;
        }
        assert!(sent < 200 * MIB, "{method} takes all");
        let head = raw.head().await.expect("an answer, before the connection ends");
        assert_eq!(head.status, 507, "{method}");
        let folder = hosting.daemon.data_dir().join("uploads");
        // Beside each is a small record.
        let files = folder.read_dir().expect("a folder").flatten();
        let files = files.filter(|file| file.path().extension().is_none());
        let taken: u64 = files
            .map(|file| file.metadata().map_or(0, |file| file.len()))
            .sum();
        assert!(taken <= most as u64, "{method}: {taken}");
        if method != "POST" {
            assert_eq!(request(Method::DELETE, &session, &[]).await.status, 204);
        }
    }
    // One that says its size is refused before it is read.
    let framing = format!("Content-Length: {}", 1_u64 << 40);
    let url = closing(&hosting.at(APP, "blobs/uploads/"), &sha256(b"x"));
    let mut raw = begin_request("POST", &url, &framing).await;
    assert_eq!(raw.head().await.expect("an answer").status, 507);
}
