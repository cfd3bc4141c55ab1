//! Blobs in chunks, through the door: of any size or of a least one, in their order and out of it, with a range or without.

use crate::expect::assert_error;
use crate::hosting::{APP, Hosting, assert_at, begin_request, chunk, closing, finish, hosting, write_chunk};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn in_chunks_of_any_size_with_the_last_one_either_way() {
    let hosting = Hosting::start().await;
    for (last_by_put, long) in [(false, false), (true, false), (false, true), (true, true)] {
        let bytes = random(u64::from(last_by_put) + 2 * u64::from(long), 300_000);
        let digest = if long { sha512(&bytes) } else { sha256(&bytes) };
        let query = if long { "?digest-algorithm=sha512" } else { "" };
        // No least size is asked for: any is taken.
        let begun = send(
            Method::POST,
            hosting.at(APP, &format!("blobs/uploads/{query}")),
            &[],
            "",
        )
        .await;
        assert_eq!(begun.header("oci-chunk-min-length"), "");
        let mut session = hosting.follow(&begun);
        let (mut at, sizes) = (0, [1, 70_000, 2, 100_000, 129_997]);
        for (number, size) in sizes.into_iter().enumerate() {
            let piece = &bytes[at..at + size];
            if last_by_put && number + 1 == sizes.len() {
                let range = format!("{at}-{}", bytes.len() - 1);
                let url = closing(&session, &digest);
                let answer = send(Method::PUT, url, &[("content-range", &range)], piece.to_vec()).await;
                assert_eq!(answer.status, 201, "{}", answer.text());
            } else {
                let answer = chunk(&session, piece, at).await;
                assert_eq!(answer.status, 202, "{}", answer.text());
                at += size;
                assert_eq!(answer.header("range"), format!("0-{}", at - 1));
                session = hosting.follow(&answer);
                assert_at(&hosting, &session, at).await;
            }
        }
        if !last_by_put {
            let answer = finish(&session, &digest).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert!(get(hosting.follow(&answer)).await.ok() == bytes);
        }
        assert!(get(hosting.at(APP, &format!("blobs/{digest}"))).await.ok() == bytes);
        assert_error(&get(&session).await, 404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(hosting.upload_files(), 0);
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_told_where_to_go_on() {
    let hosting = Hosting::start().await;
    let bytes = random(1, 4 * MIB);
    let session = hosting.begin(APP).await;
    let refused = async |answer: Answer, at: usize| {
        assert_error(&answer, 416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), format!("0-{}", at - 1));
        assert_eq!(hosting.follow(&answer), session);
        assert_at(&hosting, &session, at).await;
    };
    assert_eq!(chunk(&session, &bytes[..100], 0).await.status, 202);
    // A gap, a repetition, an overlap; small, and larger than any buffer between us, which must not hide the answer.
    for (first, length) in [(101, 10), (0, 100), (99, 10), (101, 3 * MIB), (0, 3 * MIB)] {
        refused(chunk(&session, &bytes[first..first + length], first).await, 100).await;
    }
    let digest = sha256(&bytes);
    let (url, range) = (closing(&session, &digest), format!("200-{}", bytes.len() - 1));
    let answer = send(Method::PUT, url, &[("content-range", &range)], bytes.slice(200..)).await;
    refused(answer, 100).await;
    assert_eq!(chunk(&session, &bytes[100..], 100).await.status, 202);
    assert_eq!(finish(&session, &digest).await.status, 201);
}

#[tokio::test]
async fn a_range_that_is_none_or_not_the_bodys_takes_nothing_in() {
    let hosting = Hosting::start().await;
    let session = hosting.begin(APP).await;
    for range in [
        "",
        "0",
        "-",
        "a-b",
        "0-x",
        "9-0",
        "-1-3",
        "0-3",
        "0-5",
        "0-18446744073709551615",
        "+0-4",
        "0,4",
    ] {
        let answer = send(Method::PATCH, &session, &[("content-range", range)], "hello").await;
        assert_error(&answer, 400, "BLOB_UPLOAD_INVALID");
        assert_at(&hosting, &session, 0).await;
    }
    // A body of unknown length that is not as long as its range.
    for (range, sent) in [("0-3", "hello"), ("0-9", "hello")] {
        let framing = format!("Transfer-Encoding: chunked\r\nContent-Range: {range}");
        let mut raw = begin_request("PATCH", &session, &framing).await;
        write_chunk(&mut raw, sent.as_bytes()).await;
        raw.write("0\r\n\r\n").await;
        assert_eq!(raw.head().await.expect("an answer").status, 400, "{range}");
    }
    // As some clients write it.
    let session = hosting.begin(APP).await;
    let answer = send(
        Method::PATCH,
        &session,
        &[("content-range", "bytes 0-4/*")],
        "hello",
    )
    .await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-4"));
}

#[tokio::test]
async fn streamed_without_a_range_pieces_follow_each_other() {
    let hosting = Hosting::start().await;
    let bytes = random(2, 3 * MIB + 7);
    let session = hosting.begin(APP).await;
    // Of unknown length, in pieces of odd sizes.
    let mut raw = begin_request("PATCH", &session, "Transfer-Encoding: chunked").await;
    for piece in bytes[..2 * MIB].chunks(99_991) {
        assert!(write_chunk(&mut raw, piece).await);
    }
    raw.write("0\r\n\r\n").await;
    let head = raw.head().await.expect("an answer");
    assert_eq!((head.status, head.header("range")), (202, "0-2097151"));
    // And of known length.
    let answer = send(Method::PATCH, &session, &[], bytes.slice(2 * MIB..)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let digest = sha256(&bytes);
    assert_eq!(finish(&session, &digest).await.status, 201);
    assert!(get(hosting.at(APP, &format!("blobs/{digest}"))).await.ok() == bytes);
}

#[tokio::test]
async fn a_least_size_of_chunks_is_told_and_held_to() {
    const LEAST: usize = 64 * 1024;
    let mut hosting = Hosting::of(hosting().setting("hosted.min_chunk_size", "\"64KiB\"")).await;
    let bytes = random(9, 3 * LEAST);
    let begun = send(Method::POST, hosting.at(APP, "blobs/uploads/"), &[], "").await;
    assert_eq!(begun.header("oci-chunk-min-length"), LEAST.to_string());
    // The last may have any length, in either request, and a single one is the last.
    for (sizes, last_by_put) in [
        (&[LEAST, LEAST + 1, 10][..], false),
        (&[LEAST, 10], true),
        (&[10], false),
        (&[10], true),
    ] {
        let session = hosting.begin(APP).await;
        let (mut at, all) = (0, sizes.iter().sum::<usize>());
        let digest = sha256(&bytes[..all]);
        for size in sizes {
            let piece = bytes.slice(at..at + size);
            let is_end = last_by_put && at + size == all;
            let answer = if is_end {
                send(Method::PUT, closing(&session, &digest), &[], piece).await
            } else {
                chunk(&session, &piece, at).await
            };
            assert_eq!(answer.status, if is_end { 201 } else { 202 }, "{}", answer.text());
            at += size;
        }
        if !last_by_put {
            assert_eq!(finish(&session, &digest).await.status, 201);
        }
    }
    // What follows a short one is not taken, in neither request and by no way of sending it; over a restart, too.
    let mut session = hosting.begin(APP).await;
    assert_eq!(chunk(&session, &bytes[..LEAST], 0).await.status, 202);
    assert_eq!(
        chunk(&session, &bytes[LEAST..2 * LEAST - 1], LEAST).await.status,
        202
    );
    for restarted in [false, true] {
        let at = 2 * LEAST - 1;
        let more = bytes.slice(at..);
        let digest = sha256(&bytes);
        let refused = [
            chunk(&session, &more, at).await,
            send(Method::PATCH, &session, &[], more.clone()).await,
            send(Method::PUT, closing(&session, &digest), &[], more).await,
        ];
        for answer in refused {
            assert_error(&answer, 400, "BLOB_UPLOAD_INVALID");
            assert!(
                answer.text().contains("OCI-Chunk-Min-Length"),
                "{}",
                answer.text()
            );
            assert_at(&hosting, &session, at).await;
        }
        // Where it goes on comes first.
        assert_error(
            &chunk(&session, &bytes[..10], 0).await,
            416,
            "BLOB_UPLOAD_INVALID",
        );
        if !restarted {
            hosting.daemon.restart().await;
            let (_, path) = session.split_once("/v2/").expect("a path");
            session = format!("{}/v2/{path}", hosting.daemon.url());
        }
    }
    // It was the last one then.
    let digest = sha256(&bytes[..2 * LEAST - 1]);
    assert_eq!(send(Method::PATCH, &session, &[], "").await.status, 202);
    assert_eq!(finish(&session, &digest).await.status, 201);
    // A chunk that broke off and goes on is one.
    let session = hosting.begin(APP).await;
    let framing = format!("Content-Length: {LEAST}");
    let mut raw = begin_request("PATCH", &session, &framing).await;
    assert!(raw.try_write(&bytes[..1000]).await);
    drop(raw);
    let status = async {
        while get(&session).await.header("range") != "0-999" {
            tokio::task::yield_now().await;
        }
    };
    soon("what was sent", status).await;
    assert_eq!(chunk(&session, &bytes[1000..LEAST], 1000).await.status, 202);
    assert_eq!(chunk(&session, &bytes[LEAST..], LEAST).await.status, 202);
    assert_eq!(finish(&session, &sha256(&bytes)).await.status, 201);
}
