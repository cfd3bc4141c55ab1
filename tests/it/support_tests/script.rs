//! The script: each departure from the correct answer does exactly what it says, and no more.

use bytes::Bytes;

use crate::support::prelude::*;

/// An upstream with one blob: its digest, its URL, its bytes.
async fn one_blob(size: usize) -> (Upstream, String, String, Bytes) {
    let upstream = Upstream::start().await;
    let content = random(3, size);
    let digest = upstream.put_blob("library/app", content.clone());
    let url = format!("{}/v2/library/app/blobs/{digest}", upstream.url());
    (upstream, digest, url, content)
}

#[tokio::test]
async fn a_stall_is_exact_and_ends_by_release_or_cut() {
    let (upstream, digest, url, content) = one_blob(200_000).await;
    let gate = upstream.stall(blob(&digest), 70_001);
    let mut slow = open(&url).await;
    gate.reached().await;
    assert_eq!(slow.read(70_001).await, &content[..70_001]);
    assert_eq!((upstream.bytes_sent(), gate.arrivals()), (70_001, 1));
    assert_eq!(upstream.requests()[0].outcome, Outcome::Running);
    gate.release();
    assert_eq!(slow.finish().await.ok(), content);

    let gate = Gate::new();
    upstream.always(blob(&digest), serve().stall_at(100_000, &gate));
    let both = tokio::join!(Raw::get(&url), Raw::get(&url));
    gate.reached_by(2).await;
    assert_eq!(
        get_with(&url, &[("range", "bytes=150000-")]).await.ok(),
        content[150_000..]
    );
    gate.cut();
    for mut raw in [both.0, both.1] {
        raw.head().await.expect("a head");
        assert_eq!(
            raw.finish().await,
            (content.slice(..100_000), Ending::Short(100_000))
        );
    }
    upstream
        .wait_for(|up| {
            up.requests()
                .iter()
                .filter(|seen| seen.outcome == Outcome::Cut)
                .count()
                == 2
        })
        .await;
}

#[tokio::test]
async fn a_cut_is_exact_and_a_range_continues_it() {
    let (upstream, digest, url, content) = one_blob(1_000_000).await;
    upstream.once(blob(&digest), serve().cut_at(500_000));
    let first = get(&url).await;
    assert_eq!(
        (first.status, first.header("content-length"), first.is_complete()),
        (200, "1000000", false)
    );
    assert_eq!(first.body, content[..500_000]);
    assert_eq!(
        get_with(&url, &[("range", "bytes=500000-")]).await.ok(),
        content[500_000..]
    );

    upstream.always(blob(&digest), serve().cut_after(300_000));
    let sizes = [0, 300_000, 600_000, 900_000].map(|start| (start, format!("bytes={start}-")));
    for (start, range) in sizes {
        let answer = get_with(&url, &[("range", &range)]).await;
        assert_eq!(answer.body, content[start..(start + 300_000).min(1_000_000)]);
        assert_eq!(answer.is_complete(), start == 900_000);
    }
    assert_eq!(upstream.blob_gets(&digest), 6);
    assert_eq!(upstream.requests()[0].outcome, Outcome::Cut);
}

#[tokio::test]
async fn a_cut_before_the_first_byte_and_no_answer_at_all() {
    let (upstream, digest, url, _) = one_blob(1000).await;
    upstream.once(blob(&digest), serve().cut_at(0));
    upstream.once(blob(&digest), serve().hang_up());
    let mut raw = Raw::get(&url).await;
    assert_eq!(raw.head().await.expect("a head").status, 200);
    assert_eq!(raw.finish().await, (Bytes::new(), Ending::Short(1000)));
    assert!(Raw::get(&url).await.head().await.is_none());
}

#[tokio::test]
async fn one_byte_is_wrong_also_in_a_range() {
    let (upstream, digest, url, content) = one_blob(100_000).await;
    upstream.always(blob(&digest), serve().flip_at(60_000));
    let lie = get(&url).await.ok();
    let wrong: Vec<usize> = (0..content.len()).filter(|at| lie[*at] != content[*at]).collect();
    assert_eq!(wrong, [60_000]);
    assert_ne!(
        get_with(&url, &[("range", "bytes=60000-60000")]).await.ok(),
        content[60_000..=60_000]
    );
    assert_eq!(
        get_with(&url, &[("range", "bytes=60001-")]).await.ok(),
        content[60_001..]
    );
    upstream.put_blob_as("library/app", &digest, "altogether different");
    upstream.behave();
    assert_eq!(get(&url).await.ok(), "altogether different");
}

#[tokio::test]
async fn lengths_lie_both_ways_or_are_missing() {
    let (upstream, digest, url, content) = one_blob(50_000).await;
    upstream.once(blob(&digest), serve().claim_length(60_000));
    upstream.once(blob(&digest), serve().claim_length(40_000));
    upstream.once(blob(&digest), serve().no_length());
    upstream.once(blob(&digest), serve().no_length().cut_at(50_000));
    for (length, body, ending) in [
        ("60000", &content[..], Ending::Short(10_000)),
        ("40000", &content[..40_000], Ending::Complete),
        ("", &content[..], Ending::Complete),
        ("", &content[..], Ending::NoFinalChunk),
    ] {
        let mut raw = Raw::get(&url).await;
        assert_eq!(raw.head().await.expect("a head").header("content-length"), length);
        let (got, how) = raw.finish().await;
        assert_eq!((&got[..], how), (body, ending));
    }
}

#[tokio::test]
async fn ranges_are_ignored_or_answered_wrongly() {
    let (upstream, digest, url, content) = one_blob(1000).await;
    let range = [("range", "bytes=100-199")];
    let lie: Plan = serve().header("content-range", "bytes 0-99/1000");
    for plan in [serve().ignore_range(), serve().shift_range(50), lie] {
        upstream.once(blob(&digest).ranged(), plan);
    }
    let ignored = get_with(&url, &range).await;
    assert_eq!(
        (
            ignored.status,
            ignored.body.len(),
            ignored.header("content-range")
        ),
        (200, 1000, "")
    );
    let shifted = get_with(&url, &range).await;
    assert_eq!(
        (shifted.status, shifted.header("content-range")),
        (206, "bytes 150-249/1000")
    );
    assert_eq!(shifted.body, content[150..250]);
    assert_eq!(
        get_with(&url, &range).await.header("content-range"),
        "bytes 0-99/1000"
    );
    assert_eq!(get_with(&url, &range).await.ok(), content[100..200]);
}

#[tokio::test]
async fn statuses_headers_and_html_in_the_order_of_the_script() {
    let (upstream, digest, url, content) = one_blob(1000).await;
    upstream.always(blob(&digest), reply(500));
    upstream.always(blob(&digest), reply(503).body("busy"));
    upstream.times(2, blob(&digest).get(), reply(429).header("retry-after", "7"));
    upstream.once(blob(&digest), html());
    upstream.decorate(any(), "ratelimit-remaining", "76;w=21600");
    for _ in 0..2 {
        let limited = get(&url).await;
        assert_eq!((limited.status, limited.header("retry-after")), (429, "7"));
        assert_eq!(limited.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    }
    let page = head(&url).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let busy = get(&url).await;
    assert_eq!((busy.status, busy.text().as_str()), (503, "busy"));
    assert_eq!(busy.header("ratelimit-remaining"), "76;w=21600");
    upstream.behave();
    assert_eq!(get(&url).await.ok(), content);
    // A rule about the body waits for a GET.
    upstream.once(blob(&digest), serve().cut_at(10));
    assert_eq!(head(&url).await.header("content-length"), "1000");
    assert_eq!(get(&url).await.body.len(), 10);
}

#[tokio::test]
async fn heads_are_refused_or_say_less() {
    let (upstream, _, url, _) = one_blob(10).await;
    upstream.put("library/app", "1", &Image::simple(1, 10));
    upstream.always(blobs().head(), reply(401));
    upstream.always(manifest("1").head(), serve().without("docker-content-digest"));
    assert_eq!(head(&url).await.status, 401);
    assert_eq!(get(&url).await.status, 200);
    let manifest = format!("{}/v2/library/app/manifests/1", upstream.url());
    let answer = head_with(&manifest, &[("accept", "*/*")]).await;
    assert_eq!((answer.status, answer.header("docker-content-digest")), (200, ""));
    assert!(!get(&manifest).await.header("docker-content-digest").is_empty());
    assert_eq!(
        upstream.requests_of(&manifests().head())[0].header("accept"),
        "*/*"
    );
}

#[tokio::test]
async fn a_held_head_waits_and_a_client_that_goes_is_seen() {
    let (upstream, digest, url, content) = one_blob(10).await;
    let gate = upstream.hold(blob(&digest));
    let answer = tokio::spawn(get(url.clone()));
    gate.reached().await;
    assert_eq!(upstream.requests()[0].status, 0);
    gate.release();
    assert_eq!(
        soon("the held answer", answer).await.expect("an answer").ok(),
        content
    );

    let gate = upstream.stall(blob(&digest), 5);
    let leaving = open(&url).await;
    gate.reached().await;
    drop(leaving);
    upstream
        .wait_for(|up| up.requests()[1].outcome == Outcome::ClientGone)
        .await;

    let gate = upstream.hold(blob(&digest));
    let mut raw = Raw::get(&url).await;
    gate.reached().await;
    gate.cut();
    assert!(raw.head().await.is_none());
    assert_eq!(upstream.summary().len(), 3);
}

#[tokio::test]
async fn redirects_lead_elsewhere_and_signed_urls_expire() {
    let (upstream, digest, url, content) = one_blob(100_000).await;
    let cdn = Upstream::start().await;
    upstream.once(blob(&digest), redirect(308, "/elsewhere"));
    let moved = get(&url).await;
    assert_eq!((moved.status, moved.header("location")), (308, "/elsewhere"));

    upstream.always(blobs().get(), via_cdn(&cdn, 307, 2));
    cdn.once(signed().ranged(), serve().cut_at(60_000));
    let first = get(&url).await.header("location").to_owned();
    assert!(
        first.starts_with(&cdn.url()) && first.contains("signature="),
        "{first}"
    );
    assert_ne!(get(&url).await.header("location"), first);
    assert_eq!(head(&first).await.status, 403);
    assert_eq!(
        get_with(&first, &[("authorization", "Bearer x")]).await.status,
        400
    );
    assert_eq!(get(&first).await.ok(), content);
    let part = get_with(&first, &[("range", "bytes=50000-")]).await;
    assert_eq!((part.status, part.body), (206, content.slice(50_000..60_000)));
    assert_eq!(get(&first).await.status, 403);
    assert_eq!((upstream.blob_gets(&digest), cdn.blob_gets(&digest)), (3, 4));

    let image = Image::simple(1, 10);
    upstream.put("library/app", "1", &image);
    upstream.always(manifests(), via_cdn(&cdn, 302, 1));
    let manifest = get(format!("{}/v2/library/app/manifests/1", upstream.url())).await;
    assert_eq!(
        sha256(&get(manifest.header("location")).await.ok()),
        image.digest()
    );
    assert_eq!(
        get(format!("{}/v2/library/app/blobs/sha256:none", upstream.url()))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn it_refuses_connections_and_comes_back_on_the_same_port() {
    let (upstream, digest, url, content) = one_blob(1000).await;
    let gate = upstream.stall(blob(&digest), 500);
    let mut running = Raw::get(&url).await;
    gate.reached().await;
    upstream.refuse().await;
    running.head().await.expect("a head");
    assert_ne!(running.finish().await.1, Ending::Complete);
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", upstream.port())).await;
    assert_eq!(
        refused.map_err(|error| error.kind()).err(),
        Some(std::io::ErrorKind::ConnectionRefused)
    );
    upstream.resume();
    assert_eq!(get(&url).await.ok(), content);
}

#[tokio::test]
async fn a_rule_can_be_about_anything() {
    let (upstream, _, url, _) = one_blob(10).await;
    let picky = Match::when(|asked| asked.header("user-agent").starts_with("picky"));
    upstream.always(picky.clone(), reply(406));
    upstream.always(path_has("/metrics"), reply(200).body("up 1"));
    assert_eq!(get_with(&url, &[("user-agent", "picky/1")]).await.status, 406);
    assert_eq!(get(&url).await.status, 200);
    assert_eq!(
        get(format!("{}/metrics?a=b", upstream.url())).await.text(),
        "up 1"
    );
    let seen: Vec<Recorded> = upstream.requests();
    assert_eq!((upstream.count_of(&picky), seen[2].query()), (1, "a=b"));
    assert_eq!(
        seen[2].headers().get("host").map(http::HeaderValue::len),
        Some(upstream.url().len() - 7)
    );
}
