//! Ranges of blobs that are not here, that are arriving, and that are here: the bytes asked for, never a 200 where a
//! range could be served, and never more than the one download.

use crate::scene::{Blob, Scene};
use crate::support::prelude::*;

const SIZE: u64 = 200_000;

/// A `Range` for a blob of [`SIZE`] bytes, and the bytes that it means (start, end); `None`: 416.
const RANGES: &[(&str, Option<(u64, u64)>)] = &[
    ("bytes=0-0", Some((0, 1))),
    ("bytes=10-19", Some((10, 20))),
    ("bytes=0-", Some((0, SIZE))),
    ("bytes=150000-", Some((150_000, SIZE))),
    ("bytes=-7", Some((SIZE - 7, SIZE))),
    ("bytes=-200000", Some((0, SIZE))),
    ("bytes=-300000", Some((0, SIZE))),
    ("bytes=1000-200000", Some((1_000, SIZE))),
    ("bytes=199999-999999999999", Some((SIZE - 1, SIZE))),
    ("bytes=199999-199999", Some((SIZE - 1, SIZE))),
    ("bytes=200000-", None),
    ("bytes=200000-200001", None),
    ("bytes=500-0", None),
    ("bytes=-0", None),
];

/// What a `Range` that is none is answered with: the whole blob.
const IGNORED: &[&str] = &["bytes=abc", "lines=1-2", "bytes=1"];

fn check(blob: &Blob, range: &str, span: Option<(u64, u64)>, answer: &Answer) {
    let size = blob.size();
    let Some((start, end)) = span else {
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(
            answer.header("content-range"),
            format!("bytes */{size}"),
            "{range}"
        );
        return;
    };
    assert_eq!(answer.status, 206, "{range}");
    let expected = format!("bytes {start}-{}/{size}", end - 1);
    assert_eq!(answer.header("content-range"), expected, "{range}");
    assert_eq!(
        answer.header("content-length"),
        (end - start).to_string(),
        "{range}"
    );
    assert_eq!(answer.header("docker-content-digest"), blob.digest, "{range}");
    assert!(answer.is_complete(), "{range}: {:?}", answer.error);
    assert!(answer.body == blob.bytes[start as usize..end as usize], "{range}");
}

#[tokio::test]
async fn ranges_of_what_is_here() {
    let scene = Scene::start().await;
    let blob = scene.put(random(1, SIZE as usize));
    scene.hit(&blob).await;
    for (range, span) in RANGES {
        let answer = get_with(&blob.url, &[("range", range)]).await;
        check(&blob, range, *span, &answer);
        if span.is_some() {
            assert_eq!(answer.header("cache-status"), "wharfinger; hit", "{range}");
        }
        let framed = h2_get_with(&blob.url, &[("range", range)]).await;
        assert_eq!(framed.end, H2End::Clean, "{range}");
        let (status, body) = match span {
            Some((start, end)) => (206, blob.bytes.slice(*start as usize..*end as usize)),
            None => (416, framed.body.clone()),
        };
        assert_eq!(framed.status, status, "{range}");
        assert!(framed.body == body, "{range}");
    }
    for range in IGNORED {
        let answer = get_with(&blob.url, &[("range", range)]).await;
        assert_eq!(answer.status, 200, "{range}");
        assert!(answer.ok() == blob.bytes, "{range}");
    }
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn ranges_of_what_is_not_here_cost_one_download() {
    let scene = Scene::start().await;
    for (number, (range, span)) in RANGES.iter().enumerate() {
        let blob = scene.put(random(100 + number as u64, SIZE as usize));
        let answer = get_with(&blob.url, &[("range", range)]).await;
        check(&blob, range, *span, &answer);
        scene.hit(&blob).await;
        let ranges = scene.ranges(&blob);
        // What is not satisfiable may be found out by asking for the size alone.
        let whole = ranges.iter().filter(|range| range.is_empty()).count();
        assert!(
            whole == 1 && (ranges.len() == 1 || span.is_none()),
            "{range}: {ranges:?}"
        );
    }
    for (number, range) in IGNORED.iter().enumerate() {
        let blob = scene.put(random(200 + number as u64, SIZE as usize));
        let answer = get_with(&blob.url, &[("range", range)]).await;
        assert_eq!(answer.status, 200, "{range}");
        assert!(answer.ok() == blob.bytes, "{range}");
        assert_eq!(scene.gets(&blob), 1, "{range}");
    }
    let blob = scene.put(random(300, SIZE as usize));
    let framed = h2_get_with(&blob.url, &[("range", "bytes=-9")]).await;
    assert_eq!((framed.status, &framed.end), (206, &H2End::Clean));
    assert!(framed.body == blob.bytes.slice(SIZE as usize - 9..));
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn ranges_of_a_blob_without_length_are_answered_with_the_size() {
    let scene = Scene::start().await;
    for (number, (range, span)) in RANGES.iter().enumerate() {
        let blob = scene.put(random(400 + number as u64, SIZE as usize));
        scene.upstream.times(2, blob.get(), serve().no_length());
        let answer = get_with(&blob.url, &[("range", range)]).await;
        check(&blob, range, *span, &answer);
    }
}

#[tokio::test]
async fn ranges_of_what_is_arriving() {
    let scene = Scene::start().await;
    let blob = scene.put(random(2, SIZE as usize));
    let gate = scene.upstream.stall(blob.get(), 100_000);
    let whole = open(&blob.url).await;
    gate.reached().await;
    // What has come is answered at once, and is not verified.
    for (range, span) in [("bytes=0-9", (0, 10)), ("bytes=50000-99999", (50_000, 100_000))] {
        let answer = get_with(&blob.url, &[("range", range)]).await;
        check(&blob, range, Some(span), &answer);
        let status = answer.header("cache-status");
        assert_eq!(
            status, "wharfinger; fwd=miss; stored; collapsed; detail=unverified",
            "{range}"
        );
        let framed = h2_get_with(&blob.url, &[("range", range)]).await;
        assert!(
            framed.body == blob.bytes.slice(span.0 as usize..span.1 as usize),
            "{range}"
        );
    }
    // Where nothing can ever come, the size is enough.
    let answer = get_with(&blob.url, &[("range", "bytes=200000-")]).await;
    check(&blob, "bytes=200000-", None, &answer);
    // What has not come is waited for.
    let mut across = Raw::connect(&blob.url).await;
    across
        .ask("GET", &blob.url, &[("Range", "bytes=90000-109999")])
        .await;
    let head = across.head().await.expect("a head");
    assert_eq!(
        (head.status, head.header("content-range")),
        (206, "bytes 90000-109999/200000")
    );
    assert!(across.read(10_000).await == blob.bytes[90_000..100_000]);
    let waiting = [
        ("bytes=150000-150009", (150_000, 150_010)),
        ("bytes=-5", (SIZE - 5, SIZE)),
    ]
    .map(|(range, span)| {
        let url = blob.url.clone();
        let task = tokio::spawn(async move { get_with(&url, &[("range", range)]).await });
        (range, span, task)
    });
    gate.release();
    let (rest, ending) = across.finish().await;
    assert_eq!(ending, Ending::Complete);
    assert!(rest == blob.bytes[100_000..110_000]);
    for (range, span, task) in waiting {
        check(
            &blob,
            range,
            Some(span),
            &soon(range, task).await.expect("no panic"),
        );
    }
    assert!(whole.finish().await.ok() == blob.bytes);
    assert_eq!(scene.gets(&blob), 1, "{:?}", scene.upstream.summary());
}

#[tokio::test]
async fn a_client_that_hangs_up_on_its_range_costs_no_second_download() {
    // containerd's parallel pull: open-ended ranges, of each one chunk is read.
    let scene = Scene::start().await;
    let blob = scene.put(random(3, 1 << 20));
    let gate = scene.upstream.stall(blob.get(), 700_000);
    for start in [0, 200_000, 400_000, 600_000] {
        let mut part = open_with(&blob.url, &[("range", &format!("bytes={start}-"))]).await;
        assert_eq!(part.status(), 206);
        assert!(part.read(100_000).await[..100_000] == blob.bytes[start..start + 100_000]);
    }
    gate.release();
    scene.hit(&blob).await;
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn a_range_that_the_lie_has_spoilt_is_broken_off() {
    let scene = Scene::start().await;
    let blob = scene.put(random(4, SIZE as usize));
    scene.upstream.once(blob.get(), serve().flip_at(SIZE - 10));
    let mut client = Raw::connect(&blob.url).await;
    // To the end, so that the digest decides; a range that the client bounded itself may be given before, and says so.
    let range = format!("bytes={}-", SIZE - 100);
    client.ask("GET", &blob.url, &[("Range", &range)]).await;
    if client.head().await.is_some() {
        let (body, ending) = client.finish().await;
        assert!(
            matches!(ending, Ending::Short(1..)),
            "{ending:?} after {} bytes",
            body.len()
        );
    }
    scene.failed(&blob).await;
    assert!(scene.files(&blob).is_empty());
}

#[tokio::test]
async fn if_range_holds_the_range_to_the_same_content() {
    let scene = Scene::start().await;
    let blob = scene.put(random(5, SIZE as usize));
    let whole = get(&blob.url).await;
    let tag = whole.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.contains(&blob.digest), "{tag}");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    scene.hit(&blob).await;
    let asked = |condition: String| {
        let url = blob.url.clone();
        async move { get_with(url, &[("range", "bytes=5-14"), ("if-range", &condition)]).await }
    };
    let answer = asked(tag.clone()).await;
    check(&blob, "If-Range", Some((5, 15)), &answer);
    let others = [
        "\"sha256:0\"".to_owned(),
        format!("W/{tag}"),
        "Wed, 21 Oct 2015 07:28:00 GMT".to_owned(),
    ];
    for other in others {
        let answer = asked(other.clone()).await;
        assert_eq!(answer.status, 200, "{other}");
        assert!(answer.ok() == blob.bytes);
    }
}

#[tokio::test]
async fn head_tells_the_whole_size_whatever_the_range() {
    let scene = Scene::start().await;
    let blob = scene.put(random(6, SIZE as usize));
    for _ in 0..2 {
        let answer = head_with(&blob.url, &[("range", "bytes=0-9")]).await;
        assert_eq!((answer.status, answer.header("content-length")), (200, "200000"));
        assert_eq!(answer.header("accept-ranges"), "bytes");
        scene.hit(&blob).await;
    }
}

#[tokio::test]
async fn an_empty_blob_has_no_range() {
    let scene = Scene::start().await;
    let blob = scene.put(bytes::Bytes::new());
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let answer = get_with(&blob.url, &[("range", range)]).await;
        check(&blob, range, None, &answer);
    }
    let answer = get(&blob.url).await;
    assert_eq!(answer.header("content-length"), "0");
    assert!(answer.ok().is_empty());
    scene.hit(&blob).await;
    let answer = get_with(&blob.url, &[("range", "bytes=0-")]).await;
    check(&blob, "warm", None, &answer);
    assert_eq!(head(&blob.url).await.header("content-length"), "0");
}
