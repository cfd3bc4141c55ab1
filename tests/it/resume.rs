//! An upstream that cuts is continued by `Range` where it stopped, and the client sees one body.

use crate::scene::Scene;
use crate::support::prelude::*;

#[tokio::test]
async fn a_cut_at_half_is_continued_where_it_stopped() {
    let scene = Scene::start().await;
    let blob = scene.put(random(1, 1 << 20));
    let half = blob.size() / 2;
    scene.upstream.once(blob.get(), serve().cut_at(half));
    let answer = get(&blob.url).await;
    assert_eq!(answer.header("content-length"), blob.size().to_string());
    assert!(answer.ok() == blob.bytes);
    assert_eq!(scene.ranges(&blob), [String::new(), format!("bytes={half}-")]);
    assert_eq!(scene.upstream.bytes_sent(), blob.size());
    scene.hit(&blob).await;
    assert_eq!(scene.gets(&blob), 2);
}

#[tokio::test]
async fn a_blob_that_comes_in_five_pieces_is_one_body_for_all() {
    let scene = Scene::start().await;
    let blob = scene.put(random(2, 500_000));
    let gate = scene.upstream.hold(blob.get());
    let clients = (0..4)
        .map(|_| tokio::spawn(get(blob.url.clone())))
        .collect::<Vec<_>>();
    gate.reached().await;
    // The rule of the held answer is used up by it: it is cut off without an answer, and asked again.
    scene.upstream.always(blob.get(), serve().cut_after(100_000));
    gate.cut();
    for client in clients {
        assert!(soon("a client", client).await.expect("no panic").ok() == blob.bytes);
    }
    let ranges = scene.ranges(&blob);
    assert_eq!(
        ranges[ranges.len() - 4..],
        [1, 2, 3, 4].map(|piece| format!("bytes={piece}00000-"))
    );
}

#[tokio::test]
async fn a_stall_in_the_middle_holds_back_nothing_that_came() {
    let scene = Scene::start().await;
    // In the middle of a large blob more is waited for, for a moment.
    let blob = scene.put(random(9, 4 << 20));
    let (stall, cut) = (1_500_001, 2_500_001);
    let gate = Gate::new();
    let plan = serve().stall_at(stall as u64, &gate).cut_at(cut);
    scene.upstream.once(blob.get(), plan);
    let mut client = open(&blob.url).await;
    assert!(client.read(stall).await == &blob.bytes[..stall]);
    gate.release();
    assert!(client.finish().await.ok() == blob.bytes);
    assert_eq!(scene.ranges(&blob), [String::new(), format!("bytes={cut}-")]);
    assert_eq!(scene.upstream.bytes_sent(), blob.size());
}

#[tokio::test]
async fn a_cut_without_content_length_is_continued() {
    let scene = Scene::start().await;
    let blob = scene.put(random(3, 300_000));
    scene
        .upstream
        .once(blob.get(), serve().no_length().cut_at(123_456));
    let mut client = Raw::get(&blob.url).await;
    let head = client.head().await.expect("a head");
    assert_eq!((head.status, head.header("transfer-encoding")), (200, "chunked"));
    let (body, ending) = client.finish().await;
    assert_eq!(ending, Ending::Complete);
    assert!(body == blob.bytes);
    assert_eq!(scene.ranges(&blob), ["", "bytes=123456-"]);
}

#[tokio::test]
async fn a_body_without_length_that_lacks_only_its_end_is_whole() {
    let scene = Scene::start().await;
    let blob = scene.put(random(4, 100_000));
    scene
        .upstream
        .once(blob.get(), serve().no_length().cut_at(blob.size()));
    assert!(get(&blob.url).await.ok() == blob.bytes);
    assert_eq!(scene.ranges(&blob), ["", "bytes=100000-"]);
}

#[tokio::test]
async fn an_upstream_that_ignores_the_range_starts_over_and_nothing_comes_twice() {
    let scene = Scene::start().await;
    let blob = scene.put(random(5, 400_000));
    scene.upstream.once(blob.get(), serve().cut_at(250_001));
    scene.upstream.once(blob.get(), serve().ignore_range());
    assert!(get(&blob.url).await.ok() == blob.bytes);
    // Cut again before it came to where we were.
    let blob = scene.put(random(6, 400_000));
    scene.upstream.once(blob.get(), serve().cut_at(250_001));
    scene
        .upstream
        .once(blob.get(), serve().ignore_range().cut_at(100_000));
    scene
        .upstream
        .once(blob.get(), serve().ignore_range().no_length());
    assert!(get(&blob.url).await.ok() == blob.bytes);
    assert_eq!(scene.ranges(&blob), ["", "bytes=250001-", "bytes=250001-"]);
}

#[tokio::test]
async fn another_range_than_asked_for_is_not_taken() {
    let scene = Scene::start().await;
    for (seed, by) in [(7, 1), (8, -1)] {
        let blob = scene.put(random(seed, 200_000));
        scene.upstream.once(blob.get(), serve().cut_at(100_000));
        scene.upstream.once(blob.get().ranged(), serve().shift_range(by));
        assert!(get(&blob.url).await.ok() == blob.bytes);
        assert_eq!(scene.ranges(&blob), ["", "bytes=100000-", "bytes=100000-"]);
    }
}

#[tokio::test]
async fn an_upstream_that_is_away_for_a_moment_is_waited_for() {
    let scene = Scene::start().await;
    let blob = scene.put(random(9, 1 << 20));
    let gate = scene.upstream.stall(blob.get(), 600_000);
    let client = open(&blob.url).await;
    gate.reached().await;
    scene.upstream.refuse().await;
    scene.logged(&["continuing", &blob.digest, "offset=600000"]).await;
    scene.upstream.resume();
    assert!(client.finish().await.ok() == blob.bytes);
    assert_eq!(scene.ranges(&blob), ["", "bytes=600000-"]);
}

#[tokio::test]
async fn an_upstream_that_answers_503_for_a_moment_is_asked_again() {
    let scene = Scene::start().await;
    let blob = scene.put(random(10, 200_000));
    scene.upstream.once(blob.get(), serve().cut_at(100_000));
    scene.upstream.once(blob.get().ranged(), reply(503));
    assert!(get(&blob.url).await.ok() == blob.bytes);
    assert_eq!(scene.ranges(&blob), ["", "bytes=100000-", "bytes=100000-"]);
}

#[tokio::test]
async fn a_signed_url_is_asked_for_anew() {
    let scene = Scene::start().await;
    let cdn = Upstream::start().await;
    let blob = scene.put(random(11, 200_000));
    scene.upstream.always(blob.get(), via_cdn(&cdn, 307, 1));
    cdn.once(blob.get(), serve().cut_at(99_999));
    assert!(get(&blob.url).await.ok() == blob.bytes);
    assert_eq!(scene.gets(&blob), 2, "{:?}", scene.upstream.summary());
    let asked = cdn.requests_of(&signed().get());
    assert_eq!(asked.len(), 2, "{:?}", cdn.summary());
    assert_ne!(asked[0].path(), asked[1].path());
    assert_eq!(asked[1].header("range"), "bytes=99999-");
}

#[tokio::test]
async fn a_blob_that_changes_its_size_on_the_way_is_broken_off() {
    let scene = Scene::start().await;
    let blob = scene.put(random(12, 200_000));
    let gate = scene.upstream.stall(blob.get(), 100_000);
    let mut client = Raw::get(&blob.url).await;
    client.head().await.expect("a head");
    gate.reached().await;
    scene
        .upstream
        .put_blob_as(crate::scene::REPO, &blob.digest, random(12, 200_001));
    gate.cut();
    let (body, ending) = client.finish().await;
    assert_eq!((body.len(), ending), (100_000, Ending::Short(100_000)));
    scene.failed(&blob).await;
    assert!(scene.files(&blob).is_empty());
}

#[tokio::test]
async fn what_is_cut_for_ever_is_broken_off_and_goes_on_with_the_next_client() {
    let scene = Scene::start().await;
    let (sized, unsized_) = (scene.put(random(13, 200_000)), scene.put(random(14, 200_000)));
    scene.upstream.always(sized.get(), serve().cut_at(100_000));
    scene
        .upstream
        .always(unsized_.get(), serve().no_length().cut_at(100_000));
    let (mut first, mut second) = (Raw::get(&sized.url).await, Raw::get(&unsized_.url).await);
    first.head().await.expect("a head");
    second.head().await.expect("a head");
    let ((body, ending), (tail, tail_ending)) = tokio::join!(first.finish(), second.finish());
    assert_eq!((body.len(), ending), (100_000, Ending::Short(100_000)));
    // The resumed answers told the size, so that all but nothing is withheld of what came.
    assert!(unsized_.bytes.starts_with(&tail) && tail.len() <= 100_000);
    assert_eq!(tail_ending, Ending::NoFinalChunk);
    for blob in [sized, unsized_] {
        let line = scene.failed(&blob).await;
        assert!(line.contains("100000"), "{line}");
        // Not as good, but for who comes next.
        assert!(
            scene
                .files(&blob)
                .iter()
                .all(|file| file.parent().is_some_and(|folder| folder.ends_with("partial")))
        );
        assert!(
            (3..=8).contains(&scene.gets(&blob)),
            "{:?}",
            scene.upstream.summary()
        );
        scene.upstream.behave();
        assert!(get(&blob.url).await.ok() == blob.bytes);
        assert_eq!(scene.ranges(&blob).last().unwrap(), "bytes=100000-");
        scene.hit(&blob).await;
    }
}
