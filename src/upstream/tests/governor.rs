//! The governor: who is given leave with whose budget, what is learnt from answers, and what outlives a run.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use reqwest::header::HeaderMap;

use super::server::{Server, answer};
use super::{MANIFEST, config, configured, name, nobody, reference, tuning};
use crate::clock::Timestamp;
use crate::config::{Config, Glob};
use crate::upstream::governor::Governor;
use crate::upstream::logins::ANONYMOUS;
use crate::upstream::{Access, BudgetStore, Errand, ErrorKind, Ledger, Limit, Purpose, Stretch, Upstream};

fn governor(reserve: &[&str]) -> Arc<Governor> {
    let patterns = reserve
        .iter()
        .map(|text| format!("\"{text}\""))
        .collect::<Vec<_>>();
    let text = format!("[upstream.quay]\nreserve = [{}]\n", patterns.join(", "));
    let config = Config::from_toml_str(&text, "test.toml").unwrap();
    let globs: Vec<Glob> = config.upstream("quay").unwrap().reserve.clone();
    Arc::new(Governor::new("quay", None, (globs, 10), nobody()))
}

fn limits(limit: u64, remaining: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("ratelimit-limit", format!("{limit};w=21600").parse().unwrap());
    headers.insert(
        "ratelimit-remaining",
        format!("{remaining};w=21600").parse().unwrap(),
    );
    headers
}

/// A free question was answered so.
fn heard(governor: &Arc<Governor>, credential: &str, remaining: u64) {
    let question = governor.free(credential);
    question.hear(&limits(100, remaining));
    question.answered(&name("asked/about"), true);
}

fn may(governor: &Arc<Governor>, credential: &str, purpose: Purpose, repository: &str) -> bool {
    governor
        .admit(credential, purpose, &name(repository), Timestamp::now())
        .map(|spending| spending.answered(&name(repository), false))
        .is_ok()
}

#[test]
fn the_last_pull_is_one_requests() {
    for _ in 0..200 {
        let governor = governor(&[]);
        heard(&governor, "ci", 1);
        let start = std::sync::Barrier::new(4);
        let ask = || {
            start.wait();
            governor.admit("ci", Purpose::Miss, &name("acme/app"), Timestamp::now())
        };
        let given: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap().ok())
                .collect()
        });
        assert_eq!(given.len(), 1);
    }
}

#[test]
fn each_credential_has_its_own_and_the_last_are_kept_for_the_reserve() {
    let governor = governor(&["library/alpine", "acme/*"]);
    heard(&governor, "ci", 10);
    heard(&governor, ANONYMOUS, 100);
    assert!(may(&governor, "ci", Purpose::Miss, "library/alpine"));
    assert!(may(&governor, "ci", Purpose::Miss, "acme/deep/er"));
    assert!(!may(&governor, "ci", Purpose::Miss, "library/nginx"));
    assert!(!may(&governor, "ci", Purpose::Refresh, "acme/app"));
    assert!(may(&governor, ANONYMOUS, Purpose::Background, "library/nginx"));
    let report = governor.report(Timestamp::now());
    let told: Vec<_> = report
        .iter()
        .map(|one| (one.credential.as_str(), one.left, one.in_use))
        .collect();
    assert_eq!(told, [(ANONYMOUS, Some(100), true), ("ci", Some(10), true)]);
}

#[test]
fn what_tells_no_limit_at_a_registry_that_tells_one_is_not_counted() {
    let governor = governor(&[]);
    let verified = name("verified/publisher");
    heard(&governor, "ci", 0);
    assert!(!may(&governor, "ci", Purpose::Miss, "verified/publisher"));
    assert!(governor.counts_in(&verified));
    // Free questions tell limits here, so silence means something.
    governor.free("ci").answered(&verified, true);
    assert!(may(&governor, "ci", Purpose::Background, "verified/publisher"));
    assert!(!may(&governor, "ci", Purpose::Miss, "library/nginx"));
    assert!(!governor.counts_in(&verified));
    // Until it is refused after all, or tells a limit.
    let spending = governor
        .admit("ci", Purpose::Miss, &verified, Timestamp::now())
        .ok()
        .unwrap();
    spending.refused(&verified, None);
    assert!(!may(&governor, "ci", Purpose::Miss, "verified/publisher"));
    // Where only GETs tell, the silence of a HEAD means nothing.
    let gets = self::governor(&[]);
    let get = gets
        .admit("ci", Purpose::Miss, &verified, Timestamp::now())
        .ok()
        .unwrap();
    get.hear(&limits(100, 0));
    get.answered(&verified, true);
    gets.free("ci").answered(&verified, true);
    assert!(!may(&gets, "ci", Purpose::Miss, "verified/publisher"));
}

#[tokio::test]
async fn who_may_soon_have_enough_waits_for_the_answers_under_way() {
    let governor = governor(&[]);
    let repository = name("a");
    heard(&governor, "ci", 1);
    let first = governor
        .counted("ci", Purpose::Miss, &repository)
        .await
        .ok()
        .unwrap();
    let mut second = Box::pin(governor.counted("ci", Purpose::Miss, &repository));
    assert!((&mut second).now_or_never().is_none());
    // A copy is served instead of waiting.
    let refresh = governor
        .counted("ci", Purpose::Refresh, &repository)
        .now_or_never();
    assert!(refresh.unwrap().is_err());
    // It was not counted: the other may have it.
    first.answered(&repository, false);
    let second = second.await.ok().unwrap();
    let mut third = Box::pin(governor.counted("ci", Purpose::Miss, &repository));
    assert!((&mut third).now_or_never().is_none());
    second.hear(&limits(100, 0));
    let held = third.await.err().unwrap();
    assert!(!held.soon && !held.probe, "{held:?}");
}

#[test]
fn few_pulls_make_long_spans() {
    let governor = governor(&[]);
    assert_eq!(governor.stretch(), Stretch::NONE);
    heard(&governor, ANONYMOUS, 1);
    assert_eq!(governor.stretch(), Stretch::NONE, "nothing is pulled with it");
    for (left, factor) in [(100, 1.0), (51, 1.0), (25, 2.83), (0, 8.0)] {
        let spending = governor.admit("ci", Purpose::Miss, &name("a"), Timestamp::now());
        let spending = spending.ok().unwrap();
        spending.hear(&limits(100, left));
        spending.answered(&name("a"), true);
        assert!(
            (governor.stretch().factor() - factor).abs() < 0.01,
            "{left}: {:?}",
            governor.stretch()
        );
    }
}

#[test]
fn a_stretched_span() {
    let table = [
        (1.0, 300, 300),
        (0.5, 300, 300),
        (0.25, 300, 848),
        (0.0, 300, 2400),
        (0.0, 0, 0),
        (f64::NAN, 300, 300),
        (-1.0, 300, 2400),
    ];
    for (share, span, expected) in table {
        let stretched = Stretch::of_share(share).apply(Duration::from_secs(span));
        assert_eq!(stretched.as_secs(), expected, "{share}");
    }
    assert_eq!(Stretch::NONE.apply(Duration::MAX), Duration::MAX);
}

proptest! {
    #[test]
    fn the_less_is_left_the_longer_and_never_by_leaps(left in 0.0..1.0_f64, more in 0.0..0.01_f64, secs in 0..10_000_000_u64) {
        let span = Duration::from_secs(secs);
        let (less, much) = (Stretch::of_share(left), Stretch::of_share(left + more));
        prop_assert!(less.apply(span) >= much.apply(span));
        prop_assert!(less.factor() <= much.factor() * 1.05);
        prop_assert!(less.apply(span) >= span && less.apply(span) <= span * 8);
    }
}

/// Keeps what it is given in memory.
#[derive(Default)]
struct Store(Mutex<Option<Vec<u8>>>);

impl BudgetStore for Store {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }

    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        *self.0.lock().unwrap() = Some(bytes.to_owned());
        Ok(())
    }
}

/// A registry that has so many pulls left, and gives none when there are none.
async fn counting(remaining: u64) -> Server {
    let left = Arc::new(Mutex::new(remaining));
    Server::start(move |asked| {
        let mut left = left.lock().unwrap();
        let refused = asked.method == "GET" && *left == 0;
        if asked.method == "GET" {
            *left = left.saturating_sub(1);
        }
        let told = left.to_string();
        async move {
            let limits = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", told.as_str())];
            let message = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
            if refused { answer(429, &limits, message) } else { answer(200, &limits, MANIFEST) }
        }
    })
    .await
}

#[tokio::test]
async fn what_is_known_outlives_a_run() {
    let server = counting(1).await;
    let store = Arc::new(Store::default());
    let start = || {
        let upstream = Upstream::tuned(config(&server.url), nobody(), &tuning()).unwrap();
        let ledger = Ledger::open(vec![upstream.clone()], store.clone());
        (upstream, ledger)
    };
    let (upstream, ledger) = start();
    ledger.save();
    assert!(store.load().is_none(), "nothing to keep");
    let pull = async |upstream: &Upstream| {
        upstream
            .manifest(&name("a"), &reference("v1"), &configured())
            .await
    };
    pull(&upstream).await.unwrap();
    upstream.pull_saved();
    ledger.save();
    let (upstream, _) = start();
    let pulls = upstream.pulls();
    assert_eq!((pulls.saved, pulls.budgets[0].left), (1, Some(0)));
    assert!((upstream.stretch().factor() - 8.0).abs() < 0.001);
    // Nothing is asked for what is known to be refused.
    let error = pull(&upstream).await.unwrap_err();
    assert!(error.is_held() && error.retry_after().is_some(), "{error}");
    assert_eq!(server.log().len(), 1);
    // What cannot be read is as good as nothing.
    for bytes in [
        "",
        "{",
        "[]",
        r#"{"upstreams":{"test":{"budgets":{"anonymous":7}}}}"#,
    ] {
        store.save(bytes.as_bytes()).unwrap();
        let (upstream, _) = start();
        assert_eq!(upstream.pulls().budgets, []);
    }
}

#[tokio::test]
async fn a_limit_on_pulls_is_told_from_one_on_requests() {
    let message = |text: &str| format!(r#"{{"errors":[{{"code":"TOOMANYREQUESTS","message":"{text}"}}]}}"#);
    let pulls =
        "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit";
    let none: (&str, &str) = ("ratelimit-remaining", "0;w=21600");
    // Body and header, and which limit it is.
    let table = [
        (message(pulls), None, Limit::Pulls),
        (pulls.to_owned(), None, Limit::Pulls),
        (String::new(), Some(none), Limit::Pulls),
        ("Too Many Requests (HAP429).\n".to_owned(), None, Limit::Requests),
        (
            "<html><body>429 Too Many Requests</body></html>".to_owned(),
            None,
            Limit::Requests,
        ),
        (message("Rate exceeded"), None, Limit::Requests),
        (String::new(), Some(("ratelimit-remaining", "3")), Limit::Requests),
        (String::new(), None, Limit::Requests),
    ];
    for (body, header, expected) in table {
        let told = body.clone();
        let server = Server::start(move |_| {
            let body = body.clone();
            async move { answer(429, &header.into_iter().collect::<Vec<_>>(), body) }
        })
        .await;
        let upstream = Upstream::tuned(config(&server.url), nobody(), &tuning()).unwrap();
        let errand = Errand::new(Access::Configured, Purpose::Refresh);
        let result = upstream.manifest(&name("a"), &reference("v1"), &errand).await;
        let ErrorKind::RateLimited { limit, .. } = result.unwrap_err().kind().clone() else {
            panic!("{told}");
        };
        assert_eq!(limit, expected, "{told}");
        // One is slowness for all, the other concerns pulls alone.
        assert_eq!(
            upstream.pulls().slowed.is_empty(),
            expected == Limit::Pulls,
            "{told}"
        );
        assert_eq!(
            upstream.pulls().budgets.is_empty(),
            expected == Limit::Requests && header.is_none(),
            "{told}"
        );
        assert_eq!(server.log().len(), 1, "{told}");
    }
}

#[tokio::test]
async fn a_mirror_has_a_budget_of_its_own() {
    let (own, mirror) = (counting(50).await, counting(7).await);
    let text = format!(
        "[upstream.test]\nurl = \"{}\"\nallow_private = true\nmirrors = [\"{}\"]\n",
        own.url, mirror.url
    );
    let config = Config::from_toml_str(&text, "test.toml").unwrap();
    let config = config.upstream("test").unwrap().clone();
    let store = Arc::new(Store::default());
    let upstream = Upstream::tuned(config.clone(), nobody(), &tuning()).unwrap();
    let ledger = Ledger::open(vec![upstream.clone()], store.clone());
    let digest = super::sha256(&MANIFEST);
    let pull = |purpose| {
        let errand = Errand::new(Access::Configured, purpose);
        let (upstream, by) = (upstream.clone(), crate::oci::Reference::Digest(digest));
        async move { upstream.manifest(&name("a"), &by, &errand).await }
    };
    pull(Purpose::Miss).await.unwrap();
    // Half of the registry's own is left, which is enough; when it is not, the mirror serves what its digest proves.
    for _ in 0..9 {
        pull(Purpose::Background).await.unwrap();
    }
    let budgets: BTreeMap<_, _> = upstream
        .pulls()
        .budgets
        .into_iter()
        .map(|budget| (budget.credential, budget.left))
        .collect();
    let host = mirror.url.trim_start_matches("http://");
    assert_eq!(budgets[ANONYMOUS], Some(40));
    assert_eq!(budgets.len(), 1);
    let mirrored = pull(Purpose::Background).await;
    assert!(mirrored.is_ok());
    assert_eq!((own.log().len(), mirror.log().len()), (10, 1));
    ledger.save();
    let again = Upstream::tuned(config, nobody(), &tuning()).unwrap();
    Ledger::open(vec![again.clone()], store);
    let names: Vec<_> = again
        .pulls()
        .budgets
        .into_iter()
        .map(|one| (one.credential, one.left))
        .collect();
    let expected = [
        (format!("{host}/{ANONYMOUS}"), Some(6)),
        (ANONYMOUS.to_owned(), Some(40)),
    ];
    let mut expected = expected.to_vec();
    expected.reverse();
    assert_eq!(names, expected);
}
