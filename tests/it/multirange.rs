//! Several ranges in one request, as zstd:chunked pulls, stargz and SOCI ask: `multipart/byteranges`.

use bytes::Bytes;

use crate::scene::{Blob, Scene};
use crate::support::prelude::*;

const SIZE: usize = 300_000;

/// A part: its first and last position, the size that it tells, its bytes.
type Part = (u64, u64, u64, Bytes);

/// Takes a multipart body apart by the letter of RFC 2046 section 5.1.1 and RFC 9110 section 14.6.
fn parts_of(answer: &Answer) -> Vec<Part> {
    let kind = answer.header("content-type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap_or_else(|| panic!("{kind}"));
    assert!((1..=70).contains(&boundary.len()));
    assert_eq!(answer.header("content-range"), "");
    let mut rest = answer.body.clone();
    let delimiter = format!("--{boundary}");
    assert!(rest.starts_with(delimiter.as_bytes()));
    let mut parts = Vec::new();
    loop {
        rest = rest.slice(delimiter.len()..);
        if &rest[..] == b"--\r\n" {
            return parts;
        }
        let end = rest
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(rest[..end].to_vec()).expect("text");
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {head}"))
                .trim()
                .to_owned()
        };
        assert_eq!(header("Content-Type:"), "application/octet-stream");
        let range = header("Content-Range:");
        let (span, size) = range
            .strip_prefix("bytes ")
            .and_then(|it| it.split_once('/'))
            .expect("a range");
        let (first, last) = span.split_once('-').expect("a span");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let (first, last) = (number(first), number(last));
        let body = rest.slice(end + 4..end + 4 + (last - first + 1) as usize);
        rest = rest.slice(end + 4 + body.len()..);
        assert!(rest.starts_with(b"\r\n--"), "a delimiter after the part");
        rest = rest.slice(2..);
        parts.push((first, last, number(size), body));
    }
}

/// Asks, and holds the parts against the blob; gives their first and last positions.
async fn ask(blob: &Blob, range: &str) -> (Answer, Vec<(u64, u64)>) {
    let answer = get_with(&blob.url, &[("range", range)]).await;
    assert_eq!(answer.status, 206, "{range}");
    assert!(answer.is_complete());
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert_eq!(answer.header("docker-content-digest"), blob.digest);
    let parts = parts_of(&answer);
    for (first, last, size, bytes) in &parts {
        assert_eq!(*size, blob.size());
        assert!(*bytes == blob.bytes[*first as usize..=*last as usize], "{range}");
    }
    let spans = parts.iter().map(|(first, last, ..)| (*first, *last)).collect();
    (answer, spans)
}

#[tokio::test]
async fn parts_come_in_the_order_asked_for_cold_and_warm() {
    let scene = Scene::start().await;
    let blob = scene.put(random(1, SIZE));
    for _ in 0..2 {
        let (_, spans) = ask(&blob, "bytes=200000-200099, 0-1 ,-5").await;
        assert_eq!(spans, [(200_000, 200_099), (0, 1), (299_995, 299_999)]);
        let (_, spans) = ask(&blob, "bytes=0-99999,100000-199999,200000-").await;
        assert_eq!(spans, [(0, 99_999), (100_000, 199_999), (200_000, 299_999)]);
        // What lies past the end is clamped or left out; what overlaps becomes one.
        let (_, spans) = ask(&blob, "bytes=500-600,299000-999999,400000-400001").await;
        assert_eq!(spans, [(500, 600), (299_000, 299_999)]);
        let (_, spans) = ask(&blob, "bytes=50-150,1000-1001,0-100").await;
        assert_eq!(spans, [(0, 150), (1000, 1001)]);
        scene.hit(&blob).await;
    }
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn one_part_left_is_no_multipart_and_none_is_416() {
    let scene = Scene::start().await;
    let blob = scene.put(random(2, SIZE));
    for _ in 0..2 {
        for (range, first, last) in [
            ("bytes=5-9,400000-", 5, 9),
            ("bytes=0-10,5-20", 0, 20),
            ("bytes=18446744073709551615-,-1", SIZE - 1, SIZE - 1),
        ] {
            let answer = get_with(&blob.url, &[("range", range)]).await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (206, "application/octet-stream")
            );
            assert_eq!(
                answer.header("content-range"),
                format!("bytes {first}-{last}/{SIZE}")
            );
            assert!(answer.body == blob.bytes[first..=last]);
        }
        let none = get_with(&blob.url, &[("range", "bytes=300000-,-0,999999-9999999")]).await;
        assert_eq!(
            (none.status, none.header("content-range")),
            (416, "bytes */300000")
        );
        scene.hit(&blob).await;
    }
    // More ranges than anybody needs are an attack, or a mistake: the whole.
    let many: Vec<String> = (0..2000)
        .map(|at| format!("{}-{}", at * 10, at * 10 + 1))
        .collect();
    let answer = get_with(&blob.url, &[("range", &format!("bytes={}", many.join(",")))]).await;
    assert!(answer.ok() == blob.bytes);
}

#[tokio::test]
async fn if_range_and_head_and_http_2() {
    let scene = Scene::start().await;
    let blob = scene.put(random(3, SIZE));
    scene.hit(&blob).await;
    let several = ("range", "bytes=0-9,20-29");
    let tag = format!("\"{}\"", blob.digest);
    let same = get_with(&blob.url, &[several, ("if-range", &tag)]).await;
    assert_eq!(parts_of(&same).len(), 2);
    let other = get_with(&blob.url, &[several, ("if-range", "\"sha256:00\"")]).await;
    assert!(other.ok() == blob.bytes);
    let head = head_with(&blob.url, &[several]).await;
    assert_eq!((head.status, head.header("content-length")), (200, "300000"));
    let answer = h2_get_with(&blob.url, &[several]).await;
    assert_eq!(answer.status, 206);
}

#[tokio::test]
async fn a_lazy_puller_gets_parts_far_ahead_without_waiting() {
    // zstd:chunked and SOCI: the table of contents at the end, then chunks from everywhere.
    let scene = Scene::start().await;
    let blob = scene.put(random(4, 6 << 20));
    let gate = scene.upstream.stall(blob.get(), 50_000);
    let (answer, spans) = ask(&blob, "bytes=0-999,3000000-3000999,6290000-6290999").await;
    assert_eq!(spans.len(), 3);
    assert!(answer.header("cache-status").contains("unverified"));
    let (_, spans) = ask(&blob, "bytes=3000500-3000599,100-199").await;
    assert_eq!(spans, [(3_000_500, 3_000_599), (100, 199)]);
    assert_eq!(scene.gets(&blob), 3, "{:?}", scene.ranges(&blob));
    gate.release();
    scene.hit(&blob).await;
    let (answer, _) = ask(&blob, "bytes=0-999,3000000-3000999").await;
    assert_eq!(answer.header("cache-status"), "wharfinger; hit");
}

#[tokio::test]
async fn any_set_of_ranges_is_what_the_bytes_say() {
    let scene = Scene::start().await;
    let blob = scene.put(random(5, SIZE));
    scene.hit(&blob).await;
    for seed in 0..64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let set: Vec<(usize, usize)> = (0..random.usize(2..20))
            .map(|_| (random.usize(..SIZE + 1000), random.usize(..70_000)))
            .collect();
        let ranges: Vec<String> = set
            .iter()
            .map(|(start, length)| format!("{start}-{}", start + length))
            .collect();
        let header = format!("bytes={}", ranges.join(","));
        let answer = get_with(&blob.url, &[("range", &header)]).await;
        let mut wanted = vec![false; SIZE];
        for (start, length) in &set {
            wanted[(*start).min(SIZE)..(start + length + 1).min(SIZE)].fill(true);
        }
        if answer.status == 416 {
            assert!(!wanted.contains(&true), "{header}");
            continue;
        }
        assert_eq!(answer.status, 206, "{header}");
        let range = answer.header("content-range").to_owned();
        let parts = if range.is_empty() {
            parts_of(&answer)
        } else {
            let span = range["bytes ".len()..].split_once('/').expect("a range").0;
            let (first, last) = span.split_once('-').expect("a span");
            vec![(
                first.parse().expect("first"),
                last.parse().expect("last"),
                SIZE as u64,
                answer.body.clone(),
            )]
        };
        let mut sent = vec![false; SIZE];
        for (first, last, _, bytes) in parts {
            let (first, last) = (first as usize, last as usize);
            assert!(bytes == blob.bytes[first..=last], "{header}");
            assert!(!sent[first..=last].contains(&true), "twice: {header}");
            sent[first..=last].fill(true);
        }
        assert!(sent == wanted, "{header}");
    }
}
