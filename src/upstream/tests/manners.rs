//! Turns on the wire: who waits, who is promoted, and how many small requests there are at a time; what is learnt of ranges.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::server::{Server, answer, stalled};
use super::{WHOLE, config, configured, name, reference, sha256, upstream, upstream_with};
use crate::upstream::{Access, Errand, Purpose};

#[tokio::test]
async fn what_a_client_joins_gets_its_turn_at_once() {
    let server = Server::start(|_| async { stalled(200, &[("content-length", "100")], b"begun") }).await;
    let mut config = config(&server.url);
    config.max_connections = 2;
    let upstream = upstream_with(config);
    let digest = sha256(b"x");
    let background = Errand::new(Access::Configured, Purpose::Background);
    let joined = Errand::new(Access::Configured, Purpose::Background);
    let repository = name("a");
    let first = upstream
        .blob(&repository, &digest, WHOLE, &background)
        .await
        .unwrap();
    let mut second = Box::pin(upstream.blob(&repository, &digest, WHOLE, &joined));
    // The other turn is for clients.
    assert!((&mut second).now_or_never().is_none());
    assert_eq!(server.log().len(), 1);
    joined.purpose.raise(Purpose::Miss);
    let second = second.await.unwrap();
    assert_eq!(server.log().len(), 2);
    drop((first, second));
}

#[tokio::test]
async fn a_burst_of_small_requests_waits_for_its_turns() {
    const BURST: usize = 200;
    let (gate, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let server = Server::start({
        let (gate, open) = (gate.clone(), open.clone());
        move |_| {
            let (gate, open) = (gate.clone(), open.clone());
            async move {
                open.add_permits(1);
                gate.acquire().await.unwrap().forget();
                answer(200, &[("docker-content-digest", &sha256(b"x").to_string())], "")
            }
        }
    })
    .await;
    let upstream = upstream(&server);
    let (repository, tag, errand) = (name("a"), reference("v1"), configured());
    let asked = join_all((0..BURST).map(|_| upstream.manifest_head(&repository, &tag, &errand)));
    let held = async {
        // Each one that is let go makes room for one.
        for done in 0..BURST {
            let running = 64.min(BURST - done);
            open.acquire_many(u32::try_from(running).unwrap())
                .await
                .unwrap()
                .forget();
            assert_eq!(server.log().len(), done + running);
            open.add_permits(running - 1);
            gate.add_permits(1);
        }
    };
    let (answers, ()) = tokio::join!(asked, held);
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
}

#[tokio::test]
async fn whether_parts_are_given_is_remembered() {
    let whole = Bytes::from_static(b"0123456789");
    let server = Server::start(move |asked| {
        let whole = whole.clone();
        async move {
            match asked.header("range") {
                Some("bytes=5-") => answer(206, &[("content-range", "bytes 5-9/10")], whole.slice(5..)),
                _ => answer(200, &[], whole),
            }
        }
    })
    .await;
    let upstream = upstream(&server);
    let (repository, digest, errand) = (name("a"), sha256(b"x"), configured());
    for (part, room) in [((0, None), true), ((4, None), false), ((5, None), true)] {
        let body = upstream.blob(&repository, &digest, part, &errand).await.unwrap();
        assert_eq!(body.source().has_room(), room, "{part:?}");
        assert!(!body.source().is_crowded());
    }
}
