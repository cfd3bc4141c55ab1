//! Docker Hub's limits: what a pull costs, who is served when few or none are left, and what outlives a restart. The Hub
//! here counts as the real one does, and time is moved by moving the stamps in what the daemon keeps.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::admin::{asked, run};
use crate::expect::{assert_error, assert_hit, assert_manifest, assert_stale, cached, get_all};
use crate::freshness::{APP, restart_with};
use crate::support::prelude::*;

const REFUSAL: &str = "You have reached your unauthenticated pull rate limit. You may increase the limit by \
                       authenticating and upgrading: https://www.docker.com/increase-rate-limit";

/// How a Hub counts.
pub(crate) struct Pulls {
    limit: u64,
    pub(crate) left: u64,
    /// GETs of manifests that were answered, and those that were refused.
    counted: usize,
    refused: usize,
    retry_after: Option<u64>,
    /// Nothing is told but by refusing.
    silent: bool,
    /// Repositories that are not counted.
    free: HashSet<String>,
    /// Accounts that have nothing left, and those without any limit, whatever the others have.
    pub(crate) empty: HashSet<&'static str>,
    pub(crate) unlimited: HashSet<&'static str>,
    /// HEADs are refused as GETs are.
    pub(crate) heads_too: bool,
}

/// A Docker Hub: GETs of manifests are counted, HEADs are not, and both tell what is left.
#[derive(Clone)]
pub(crate) struct Hub {
    pub(crate) upstream: Upstream,
    pulls: Arc<Mutex<Pulls>>,
}

impl Hub {
    pub(crate) async fn start(left: u64) -> Self {
        let upstream = Upstream::start().await;
        let pulls = Arc::new(Mutex::new(Pulls {
            limit: 100,
            left,
            counted: 0,
            refused: 0,
            retry_after: None,
            silent: false,
            free: HashSet::new(),
            empty: HashSet::new(),
            unlimited: HashSet::new(),
            heads_too: false,
        }));
        let hub = Self {
            upstream: upstream.clone(),
            pulls: pulls.clone(),
        };
        let its = upstream.clone();
        upstream.habit(manifests(), move |asked| {
            let account = its.account_of(asked).unwrap_or_default();
            let mut pulls = pulls.lock().expect("no panic");
            let repo = asked.path.trim_start_matches("/v2/");
            let repo = repo.split("/manifests/").next().expect("a repository");
            if pulls.free.contains(repo) || pulls.unlimited.contains(account.as_str()) {
                return None;
            }
            let left = if pulls.empty.contains(account.as_str()) {
                0
            } else {
                pulls.left
            };
            let mut plan = serve();
            if asked.method == Method::GET || pulls.heads_too && left == 0 {
                if left == 0 {
                    pulls.refused += 1;
                    let body = json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": REFUSAL }] });
                    plan = reply(429)
                        .header("content-type", "application/json")
                        .body(body.to_string());
                    if let Some(seconds) = pulls.retry_after {
                        plan = plan.header("retry-after", &seconds.to_string());
                    }
                } else {
                    pulls.left -= 1;
                    pulls.counted += 1;
                }
            }
            let left = left.min(pulls.left);
            if pulls.silent {
                return Some(plan);
            }
            Some(
                plan.header("ratelimit-limit", &format!("{};w=21600", pulls.limit))
                    .header("ratelimit-remaining", &format!("{left};w=21600"))
                    .header("docker-ratelimit-source", "192.0.2.7"),
            )
        });
        hub
    }

    pub(crate) fn pulls<T>(&self, act: impl FnOnce(&mut Pulls) -> T) -> T {
        act(&mut self.pulls.lock().expect("no panic"))
    }

    pub(crate) fn counted(&self) -> usize {
        self.pulls(|pulls| pulls.counted)
    }

    /// What it refused.
    pub(crate) fn refused(&self) -> usize {
        self.pulls(|pulls| pulls.refused)
    }

    /// Holds an image of its own for `repo`.
    pub(crate) fn put(&self, repo: &str, tag: &str, seed: u64) -> Image {
        let image = Image::simple(seed, 100);
        self.upstream.put(repo, tag, &image);
        image
    }

    /// A daemon over it, for which every tag is due at once.
    async fn daemon(&self) -> Daemon {
        self.daemon_with(&[]).await
    }

    /// The same, with further settings of the upstream.
    pub(crate) async fn daemon_with(&self, settings: &[(&str, &str)]) -> Daemon {
        let mut daemon = Daemon::over(&self.upstream)
            .setting("cache.tag_ttl", "\"0s\"")
            .setting("cache.negative_ttl", "\"0s\"")
            .setting("cache.revalidate_timeout", "\"20s\"");
        for (key, value) in settings {
            daemon = daemon.setting(&format!("upstream.docker-hub.{key}"), value);
        }
        daemon.start().await
    }
}

pub(crate) fn url(daemon: &Daemon, repo: &str, reference: &str) -> String {
    daemon.manifest_url(&format!("docker-hub/{repo}"), reference)
}

pub(crate) async fn pull(daemon: &Daemon, repo: &str, image: &impl Content) {
    assert_manifest(&get(url(daemon, repo, "1")).await, image, false);
}

/// A client without a copy is told that there are too many requests, and when to come again: in so many seconds.
pub(crate) fn assert_refused(answer: &Answer) -> u64 {
    assert_error(answer, 429, "TOOMANYREQUESTS");
    answer.header("retry-after").parse().expect("seconds")
}

/// Stops the daemon, makes what it keeps of its budgets older by so many seconds, and starts it again.
pub(crate) async fn let_pass(daemon: &mut Daemon, seconds: u64) {
    assert!(daemon.stop().await.success());
    let path = daemon.data_dir().join("notes/budgets.json");
    let text = std::fs::read_to_string(&path).expect("budgets");
    let mut note: Value = serde_json::from_str(&text).expect("JSON");
    let older = |stamp: &mut Value| {
        if let Some(at) = stamp.as_u64() {
            *stamp = json!(at - seconds * 1000);
        }
    };
    let budgets = &mut note["upstreams"]["docker-hub"]["budgets"];
    for budget in budgets.as_object_mut().expect("budgets").values_mut() {
        older(&mut budget["told"][1]);
        older(&mut budget["probed"]);
        if budget["exhausted"].is_object() {
            older(&mut budget["exhausted"]["until"]);
        }
    }
    std::fs::write(&path, note.to_string()).expect("a writable folder");
    daemon.restart().await;
}

pub(crate) async fn status(daemon: &Daemon) -> Value {
    let status = get(format!("{}/api/status", daemon.url())).await.json();
    status["upstreams"][0].clone()
}

#[tokio::test]
async fn an_unchanged_tag_costs_one_pull_for_ever() {
    let hub = Hub::start(100).await;
    let image = hub.put("library/app", "1", 1);
    let mut daemon = hub.daemon().await;
    // Clients that GET the tag each time, as podman and skopeo do; and those that HEAD it first.
    for round in 0..3 {
        for _ in 0..5 {
            pull(&daemon, "library/app", &image).await;
            assert_eq!(head(url(&daemon, "library/app", "1")).await.status, 200);
            assert_hit(&get(url(&daemon, "library/app", &image.digest())).await);
        }
        for answer in get_all((0..20).map(|_| url(&daemon, "library/app", "1"))).await {
            assert_manifest(&answer, &image, false);
        }
        if round == 0 {
            daemon.kill().await;
            daemon.run_again().await;
        } else {
            daemon.restart().await;
        }
    }
    assert_eq!(hub.counted(), 1, "{:#?}", hub.upstream.summary());
}

#[tokio::test]
async fn a_multi_arch_image_costs_its_index_and_each_platform_once() {
    let hub = Hub::start(100).await;
    let index = Index::of_platforms(2);
    let platforms = index.images();
    hub.upstream.put("library/app", "1", &index);
    hub.upstream.tag("library/app", "1.2", &index.digest());
    hub.upstream.tag("library/app", "latest", &index.digest());
    let mut daemon = hub.daemon().await;
    for round in 0..2 {
        for tag in ["1", "1.2", "latest"] {
            for image in platforms {
                assert_manifest(&get(url(&daemon, "library/app", tag)).await, &index, false);
                assert_manifest(
                    &get(url(&daemon, "library/app", &image.digest())).await,
                    image,
                    false,
                );
            }
        }
        assert_eq!(hub.counted(), 3, "round {round}: {:#?}", hub.upstream.summary());
        daemon.restart().await;
    }
}

#[tokio::test]
async fn a_head_for_a_tag_that_was_never_seen_and_a_get_by_digest_cost_one() {
    let hub = Hub::start(100).await;
    let daemon = hub.daemon().await;
    for (number, repo) in ["library/first", "library/second"].into_iter().enumerate() {
        let image = hub.put(repo, "1", number as u64);
        let told = head(url(&daemon, repo, "1")).await;
        assert_manifest(&told, &image, true);
        assert_manifest(&get(url(&daemon, repo, &image.digest())).await, &image, false);
        pull(&daemon, repo, &image).await;
        assert_eq!(hub.counted(), number + 1);
    }
    // A tag that is not there costs nothing, as often as it is asked for.
    for _ in 0..3 {
        assert_error(
            &get(url(&daemon, "library/first", "none")).await,
            404,
            "MANIFEST_UNKNOWN",
        );
    }
    assert_eq!((hub.counted(), hub.refused()), (2, 0));
}

#[tokio::test]
async fn who_may_see_what_is_learnt_for_nothing() {
    let hub = Hub::start(100).await;
    hub.upstream
        .require_bearer(Bearer::new().user("ci", "secret").private("acme/secret"));
    let daemon = Daemon::over(&hub.upstream)
        .setting("upstream.docker-hub.username", "\"ci\"")
        .setting("upstream.docker-hub.password", "\"secret\"")
        .setting("cache.tag_ttl", "\"0s\"")
        .start()
        .await;
    let image = hub.put("library/app", "1", 1);
    hub.put("acme/secret", "1", 2);
    for _ in 0..3 {
        pull(&daemon, "library/app", &image).await;
        assert_error(&get(url(&daemon, "acme/secret", "1")).await, 404, "NAME_UNKNOWN");
    }
    assert_eq!(hub.counted(), 1, "{:#?}", hub.upstream.summary());
    let told = status(&daemon).await;
    let used: Vec<_> = told["budgets"]
        .as_array()
        .expect("budgets")
        .iter()
        .map(|budget| budget["credential"].as_str().expect("a name"))
        .collect();
    assert_eq!(used, ["anonymous", "ci"]);
}

#[tokio::test]
async fn referrers_cost_one_pull_as_often_as_they_are_asked_for() {
    let hub = Hub::start(100).await;
    let image = hub.put("library/app", "1", 1);
    let signature = Image::simple(2, 20).referring_to(&image, "application/vnd.example.signature");
    hub.upstream.put_untagged("library/app", &signature);
    hub.upstream.put_referrers_tag("library/app", &image.digest());
    hub.upstream.always(referrers(), reply(404));
    let mut daemon = hub.daemon().await;
    let list = |daemon: &Daemon, digest: &str| format!("{}/v2/{APP}/referrers/{digest}", daemon.url());
    for _ in 0..2 {
        for _ in 0..3 {
            let told = get(list(&daemon, &image.digest())).await.json();
            assert_eq!(told["manifests"][0]["digest"], signature.digest());
            // Of an image without any a HEAD says so.
            let none = get(list(&daemon, &signature.digest())).await.json();
            assert_eq!(none["manifests"], json!([]));
        }
        daemon.restart().await;
    }
    assert_eq!(hub.counted(), 1, "{:#?}", hub.upstream.summary());
}

#[tokio::test]
async fn when_nothing_is_left_copies_are_served_and_nothing_more_is_asked() {
    let hub = Hub::start(2).await;
    let images: Vec<_> = (0..4)
        .map(|number| hub.put(&format!("library/app{number}"), "1", number))
        .collect();
    let daemon = Daemon::over(&hub.upstream)
        .mirror_door()
        .setting("cache.tag_ttl", "\"0s\"")
        .start()
        .await;
    pull(&daemon, "library/app0", &images[0]).await;
    pull(&daemon, "library/app1", &images[1]).await;
    // Nothing is left, and we know it.
    for _ in 0..3 {
        let answer = get(url(&daemon, "library/app2", "1")).await;
        assert!(
            (100..=180).contains(&assert_refused(&answer)),
            "{:?}",
            answer.header("retry-after")
        );
        assert!(answer.text().contains("not asked"), "{}", answer.text());
        let beside = get(format!("{}/v2/library/app3/manifests/1", daemon.mirror_url())).await;
        assert_error(&beside, 503, "UNAVAILABLE");
        assert_eq!(beside.header("retry-after"), answer.header("retry-after"));
    }
    // What is here is here; and what moved stays where it was.
    assert_eq!(
        cached(&get(url(&daemon, "library/app0", "1")).await),
        "wharfinger; hit; fwd=stale"
    );
    hub.put("library/app1", "1", 99);
    for _ in 0..3 {
        let answer = get(url(&daemon, "library/app1", "1")).await;
        assert_stale(&answer, None);
        assert_manifest(&answer, &images[1], false);
    }
    assert_eq!(
        (hub.counted(), hub.refused()),
        (2, 0),
        "{:#?}",
        hub.upstream.summary()
    );
    let told = status(&daemon).await;
    assert_eq!(
        (&told["state"], &told["remaining"]),
        (&json!("limited"), &json!(0))
    );
    assert_eq!(told["held"], json!({ "background": 0, "refresh": 1, "miss": 6 }));
    // Blobs are not counted.
    let layer = images[0].layer_digest(0);
    assert_eq!(
        get(daemon.blob_url("docker-hub/library/app0", &layer))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_refusal_is_taken_at_its_word_by_everybody() {
    let hub = Hub::start(0).await;
    hub.pulls(|pulls| (pulls.retry_after, pulls.silent) = (Some(600), true));
    for number in 0..10 {
        hub.put(&format!("library/app{number}"), "1", number);
    }
    let mut daemon = hub.daemon().await;
    assert_eq!(assert_refused(&get(url(&daemon, "library/app0", "1")).await), 600);
    for _ in 0..2 {
        let urls = (0..10).map(|number| url(&daemon, &format!("library/app{number}"), "1"));
        for answer in get_all(urls).await {
            assert!((570..=600).contains(&assert_refused(&answer)));
        }
        assert_eq!(hub.upstream.requests().len(), 1, "{:#?}", hub.upstream.summary());
        // Also after a restart.
        daemon.restart().await;
    }
    // It is over: one goes ahead, and as it is refused again, that is that.
    let_pass(&mut daemon, 600).await;
    let urls = (0..10).map(|number| url(&daemon, &format!("library/app{number}"), "1"));
    for answer in get_all(urls).await {
        assert_refused(&answer);
    }
    assert_eq!(hub.refused(), 2, "{:#?}", hub.upstream.summary());
}

#[tokio::test]
async fn a_free_question_learns_that_pulls_are_back_and_then_it_goes_on_at_once() {
    let hub = Hub::start(0).await;
    let images: Vec<_> = (0..10)
        .map(|number| hub.put(&format!("library/app{number}"), "1", number))
        .collect();
    let mut daemon = hub.daemon().await;
    let ask = async |daemon: &Daemon| {
        let asked = (0..10).map(|number| get(url(daemon, &format!("library/app{number}"), "1")));
        join_all(asked).await
    };
    assert_refused(&get(url(&daemon, "library/app0", "1")).await);
    hub.upstream.forget_requests();
    // Minutes later: one question, whoever asks; nothing is left.
    let_pass(&mut daemon, 300).await;
    for _ in 0..2 {
        ask(&daemon).await.iter().for_each(|answer| {
            assert_refused(answer);
        });
    }
    let heads = |hub: &Hub| (hub.upstream.manifest_heads(), hub.upstream.manifest_gets());
    assert_eq!(heads(&hub), (1, 0), "{:#?}", hub.upstream.summary());
    // Nobody is asked while nobody wants anything.
    let_pass(&mut daemon, 300).await;
    assert_eq!(heads(&hub), (1, 0));
    // A window ends earlier than we reckoned.
    hub.pulls(|pulls| pulls.left = 100);
    pull(&daemon, "library/app3", &images[3]).await;
    assert_eq!(heads(&hub), (2, 1), "{:#?}", hub.upstream.summary());
    for (answer, image) in ask(&daemon).await.iter().zip(&images) {
        assert_manifest(answer, image, false);
    }
    assert_eq!((hub.counted(), hub.refused()), (10, 1));
}

#[tokio::test]
async fn the_last_pulls_are_kept_for_the_reserve() {
    let hub = Hub::start(11).await;
    for (number, repo) in ["library/app", "library/alpine", "acme/deep/app", "library/nginx"]
        .into_iter()
        .enumerate()
    {
        hub.put(repo, "1", number as u64);
    }
    let daemon = Daemon::over(&hub.upstream)
        .setting("upstream.docker-hub.reserve", "[\"library/alpine\", \"acme/*\"]")
        .setting("upstream.docker-hub.reserve_share", "\"10%\"")
        .start()
        .await;
    // 11 of 100 are left, then 10.
    assert_eq!(get(url(&daemon, "library/app", "1")).await.status, 200);
    assert_refused(&get(url(&daemon, "library/nginx", "1")).await);
    assert_eq!(get(url(&daemon, "library/alpine", "1")).await.status, 200);
    assert_eq!(get(url(&daemon, "acme/deep/app", "1")).await.status, 200);
    assert_refused(&get(url(&daemon, "library/nginx", "1")).await);
    assert_eq!((hub.counted(), hub.refused()), (3, 0));
}

#[tokio::test]
async fn what_has_a_copy_waits_before_what_has_none() {
    let hub = Hub::start(30).await;
    let old = hub.put("library/app", "1", 1);
    let daemon = hub.daemon().await;
    pull(&daemon, "library/app", &old).await;
    // Enough for a tag that moved.
    let moved = hub.put("library/app", "1", 2);
    pull(&daemon, "library/app", &moved).await;
    // A fifth is left: the copy is served, a client without one is too.
    hub.pulls(|pulls| pulls.left = 20);
    hub.put("library/app", "1", 3);
    let answer = get(url(&daemon, "library/app", "1")).await;
    assert_stale(&answer, None);
    assert_manifest(&answer, &moved, false);
    let other = hub.put("library/other", "1", 4);
    pull(&daemon, "library/other", &other).await;
    assert_eq!((hub.counted(), hub.refused()), (3, 0));
}

#[tokio::test]
async fn what_nobody_waits_for_stops_first_and_a_client_may_have_it() {
    let hub = Hub::start(42).await;
    let images: Vec<_> = (0..3)
        .map(|number| hub.put(&format!("library/app{number}"), "1", number))
        .collect();
    let daemon = hub.daemon().await;
    pull(&daemon, "library/app0", &images[0]).await;
    // 41 are left, then 40.
    run(&daemon, &["pull", "docker-hub/library/app1:1"]).await.text();
    let held = run(&daemon, &["pull", "docker-hub/library/app2:1"]).await;
    assert!(held.printed().contains("not asked"), "{}", held.printed());
    assert_eq!(hub.counted(), 2);
    pull(&daemon, "library/app2", &images[2]).await;
    assert_eq!((hub.counted(), hub.refused()), (3, 0));
    let held = &status(&daemon).await["held"];
    assert!(
        held["background"].as_u64() >= Some(1) && held["miss"] == 0,
        "{held}"
    );
}

#[tokio::test]
async fn a_client_that_joins_what_nobody_waits_for_is_not_refused_with_it() {
    let hub = Hub::start(41).await;
    let old = hub.put("library/app", "1", 1);
    let daemon = Daemon::over(&hub.upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.stale_if_error", "\"0s\"")
        .start()
        .await;
    pull(&daemon, "library/app", &old).await;
    let moved = hub.put("library/app", "1", 2);
    let gate = hub.upstream.hold(manifests().head());
    let work = async { run(&daemon, &["pull", "docker-hub/library/app:1"]).await };
    let client = async {
        gate.reached().await;
        // Too old to be served without a word of the upstream's, who is being asked already.
        let client = tokio::spawn(get(url(&daemon, "library/app", "1")));
        status(&daemon).await;
        status(&daemon).await;
        gate.release();
        soon("the client's answer", client).await.expect("no panic")
    };
    let (pulled, answer) = tokio::join!(work, client);
    assert_manifest(&answer, &moved, false);
    // What is asked is asked for the client from then on.
    assert_eq!(pulled.code(), Some(0), "{}", pulled.printed());
    assert_eq!((hub.counted(), hub.refused()), (2, 0));
}

#[tokio::test]
async fn another_login_pulls_when_the_first_has_nothing_left() {
    let hub = Hub::start(1).await;
    let (first, second) = (hub.put("library/app", "1", 1), hub.put("library/other", "1", 2));
    hub.upstream
        .require_bearer(Bearer::new().user("one", "secret").user("two", "secret"));
    let credential = |name: &str| format!("{{ username = \"{name}\", password = \"secret\" }}");
    let credentials = format!("[{}, {}]", credential("one"), credential("two"));
    let daemon = Daemon::over(&hub.upstream)
        .setting("upstream.docker-hub.credential", &credentials)
        .setting("upstream.docker-hub.share_private", "true")
        .start()
        .await;
    pull(&daemon, "library/app", &first).await;
    // The other one's budget is another one's.
    hub.pulls(|pulls| {
        pulls.left = 50;
        pulls.empty.insert("one");
    });
    pull(&daemon, "library/other", &second).await;
    assert_eq!((hub.counted(), hub.refused()), (2, 0));
    let told = status(&daemon).await;
    let left = |index: usize| {
        (
            &told["budgets"][index]["credential"],
            &told["budgets"][index]["remaining"],
        )
    };
    assert_eq!(left(0), (&json!("one"), &json!(0)));
    assert_eq!(left(1), (&json!("two"), &json!(49)));
    assert_eq!(told["remaining"], 49);
}

#[tokio::test]
async fn what_is_not_counted_is_pulled_at_any_time() {
    let hub = Hub::start(1).await;
    hub.pulls(|pulls| pulls.free.insert("verified/app".to_owned()));
    let counted = hub.put("library/app", "1", 1);
    let mut daemon = hub.daemon().await;
    pull(&daemon, "library/app", &counted).await;
    pull(&daemon, "library/app", &counted).await;
    assert_eq!(status(&daemon).await["remaining"], 0);
    // It is not known to be free: the next free question finds out.
    let free = hub.put("verified/app", "1", 2);
    let_pass(&mut daemon, 300).await;
    pull(&daemon, "verified/app", &free).await;
    let moved = hub.put("verified/app", "1", 3);
    pull(&daemon, "verified/app", &moved).await;
    hub.put("library/other", "1", 4);
    assert_refused(&get(url(&daemon, "library/other", "1")).await);
    assert_eq!((hub.counted(), hub.refused()), (1, 0));
}

#[tokio::test]
async fn too_many_requests_of_any_kind_slow_everything_to_that_host() {
    let hub = Hub::start(100).await;
    let image = hub.put("library/app", "1", 1);
    for number in 0..20 {
        hub.put(&format!("library/app{number}"), "1", 100 + number);
    }
    let mut daemon = hub.daemon().await;
    pull(&daemon, "library/app", &image).await;
    hub.upstream.forget_requests();
    let bare = || {
        reply(429)
            .header("content-type", "text/plain")
            .body("Too Many Requests (HAP429)\n")
    };
    hub.upstream.always(any(), bare().header("retry-after", "60"));
    for _ in 0..3 {
        let urls = (0..20).map(|number| url(&daemon, &format!("library/app{number}"), "1"));
        for answer in get_all(urls).await {
            assert_eq!(assert_refused(&answer), 60);
        }
        let copy = get(url(&daemon, "library/app", "1")).await;
        assert_eq!((copy.status, &copy.body), (200, &image.root().bytes));
        let layer = image.layer_digest(0);
        assert_eq!(get(daemon.blob_url(APP, &layer)).await.status, 429);
    }
    // Those that were under way together are all that it saw.
    let seen = hub.upstream.requests().len();
    assert!((1..=20).contains(&seen), "{seen}");
    let told = status(&daemon).await;
    assert_eq!(told["slowed"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(
        (hub.counted(), &told["remaining"]),
        (1, &json!(99)),
        "its pulls are another matter"
    );

    // After one without a time it goes on by itself: one request goes ahead, then all of them.
    daemon.restart().await;
    hub.upstream.behave();
    hub.upstream.forget_requests();
    hub.upstream.once(any(), bare());
    let urls = (0..20).map(|number| url(&daemon, &format!("library/app{number}"), "1"));
    for answer in get_all(urls).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    daemon.wait_for_log("asked as usual again").await;
    assert_eq!(status(&daemon).await["slowed"], Value::Null);
}

#[tokio::test]
async fn few_pulls_make_tags_last_longer_and_an_operator_sees_it() {
    let hub = Hub::start(26).await;
    let image = hub.put("library/app", "1", 1);
    let daemon = Daemon::over(&hub.upstream)
        .setting("cache.tag_ttl", "\"1h\"")
        .start()
        .await;
    pull(&daemon, "library/app", &image).await;
    // A quarter is left: 8 to the power of a half.
    let explain = format!("{}/api/explain?ref=docker-hub/library/app:1", daemon.url());
    let told = get(explain).await.json();
    assert_eq!(told["tag"]["ttl_seconds"], 3600);
    assert_eq!(told["tag"]["stretched_ttl_seconds"], 10_180);
    assert_eq!(told["upstream"]["ttl_percent"], 283);
    let reason = told["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("instead of 1h, since 25 of 100 pulls are left"),
        "{reason}"
    );
    assert_eq!(
        (&told["expected"], &told["asks_upstream"]),
        (&json!("hit"), &json!(false))
    );
    // An operator's refresh asks all the same.
    hub.upstream.forget_requests();
    let refresh = asked(&daemon, &["refresh", "docker-hub/library/app:1"]).await;
    assert_eq!(refresh["outcome"], "unchanged");
    assert_eq!(hub.upstream.manifest_heads(), 1);
}

#[tokio::test]
async fn what_is_left_and_what_was_saved_is_told_and_outlives_the_daemon() {
    let hub = Hub::start(50).await;
    let image = hub.put("library/app", "1", 1);
    let mut daemon = Daemon::over(&hub.upstream).start().await;
    for _ in 0..5 {
        pull(&daemon, "library/app", &image).await;
    }
    // Not a pull.
    head(url(&daemon, "library/app", "1")).await;
    let told = status(&daemon).await;
    assert_eq!(
        (&told["pulls_saved"], &told["remaining"]),
        (&json!(4), &json!(49))
    );
    let budget = &told["budgets"][0];
    assert_eq!(budget["source"], "192.0.2.7");
    let back = budget["back_seconds"].as_u64().expect("seconds");
    assert!((21_000..=21_600).contains(&back), "{back}");
    assert!(
        budget["empty_seconds"]
            .as_u64()
            .is_some_and(|seconds| seconds > 100_000),
        "{budget}"
    );
    daemon.restart().await;
    pull(&daemon, "library/app", &image).await;
    let told = status(&daemon).await;
    assert_eq!(
        (&told["pulls_saved"], &told["remaining"]),
        (&json!(5), &json!(49))
    );
    let text = daemon.metrics().await;
    for line in [
        "wharfinger_upstream_ratelimit_remaining{credential=\"anonymous\",upstream=\"docker-hub\"} 49",
        "wharfinger_upstream_ratelimit_limit{credential=\"anonymous\",upstream=\"docker-hub\"} 100",
        "wharfinger_upstream_pulls_saved_total{upstream=\"docker-hub\"} 4",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    // A note that nobody can read is no reason not to start.
    assert!(daemon.stop().await.success());
    std::fs::write(daemon.data_dir().join("notes/budgets.json"), "{").expect("a writable folder");
    daemon.restart().await;
    assert_eq!(status(&daemon).await["pulls_saved"], 0);
    daemon.wait_for_log("the kept budgets cannot be read").await;
    assert_eq!(hub.counted(), 1);
}

#[tokio::test]
async fn a_window_that_has_passed_gives_everything_back() {
    let hub = Hub::start(1).await;
    let image = hub.put("library/app", "1", 1);
    let other = hub.put("library/other", "1", 2);
    let mut daemon = hub.daemon().await;
    pull(&daemon, "library/app", &image).await;
    assert_refused(&get(url(&daemon, "library/other", "1")).await);
    hub.pulls(|pulls| pulls.left = 100);
    let_pass(&mut daemon, 21_600).await;
    assert_eq!(status(&daemon).await["remaining"], 100);
    pull(&daemon, "library/other", &other).await;
    // And what does not depend on time: another configuration keeps its budget.
    restart_with(
        &mut daemon,
        "revalidate_timeout = \"20s\"",
        "revalidate_timeout = \"19s\"",
    )
    .await;
    assert_eq!(status(&daemon).await["remaining"], 99);
}
