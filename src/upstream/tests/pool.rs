//! Several logins: which is used, which are set aside and for how long, and that a bad one fails no pull.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::server::{Asked, Response, Server, answer, challenge, token};
use super::{MANIFEST, config, configured, login, name, observed, reference, upstream_with};
use crate::config::{Credential, CredentialKind, CredentialOrder, UpstreamConfig, Written};
use crate::upstream::{Error, ErrorKind, Observer, RequestKind, StatusLabel, Upstream};

/// A registry whose token service knows some users; each has so many pulls, and nobody has too.
struct Hub {
    good: Mutex<Vec<(&'static str, u32)>>,
    anonymous: bool,
}

impl Hub {
    async fn start(users: &[(&'static str, u32)], anonymous: bool) -> (Server, Arc<Self>) {
        let hub = Arc::new(Self {
            good: Mutex::new(users.to_vec()),
            anonymous,
        });
        let its = hub.clone();
        let server = Server::start(move |asked| {
            let its = its.clone();
            async move { its.answer(&asked) }
        })
        .await;
        (server, hub)
    }

    fn answer(&self, asked: &Asked) -> Response {
        use base64::Engine as _;
        let mut good = self.good.lock().unwrap();
        if asked.path == "/token" {
            let user = asked.authorization().map(|header| {
                let pair = header.strip_prefix("Basic ").unwrap();
                let pair = base64::engine::general_purpose::STANDARD.decode(pair).unwrap();
                String::from_utf8(pair)
                    .unwrap()
                    .split(':')
                    .next()
                    .unwrap()
                    .to_owned()
            });
            return match user {
                None if self.anonymous => token("nobody"),
                Some(user) if good.iter().any(|(known, _)| *known == user) => token(&user),
                _ => answer(401, &[], r#"{"details":"incorrect username or password"}"#),
            };
        }
        let Some(user) = asked
            .authorization()
            .and_then(|header| header.strip_prefix("Bearer "))
        else {
            return challenge(asked, "repository:a:pull");
        };
        if asked.path.contains("/private/") && user == "nobody" {
            return challenge(asked, "repository:private:pull");
        }
        if asked.method == "HEAD" {
            return answer(200, &[], "");
        }
        match good.iter_mut().find(|(known, _)| *known == user) {
            Some((_, 0)) => answer(
                429,
                &[("retry-after", "600")],
                "toomanyrequests: You have reached your pull rate limit.",
            ),
            Some((_, left)) => {
                *left -= 1;
                let left = left.to_string();
                answer(200, &[("ratelimit-remaining", &left), ("x-user", user)], MANIFEST)
            }
            None => answer(200, &[], MANIFEST),
        }
    }
}

fn over(server: &Server, credentials: Vec<Credential>) -> UpstreamConfig {
    let mut config = config(&server.url);
    config.credentials = credentials;
    config
}

async fn pull(upstream: &Upstream, repository: &str) -> Result<(), Error> {
    let pulled = upstream
        .manifest(&name(repository), &reference("v1"), &configured())
        .await;
    pulled.map(|_| ())
}

/// The users of the pulls that were answered, from a log of requests.
fn users(server: &Server) -> Vec<String> {
    let log = server.log();
    let pulls = log.iter().filter(|asked| asked.path != "/token");
    pulls
        .filter_map(|asked| Some(asked.authorization()?.strip_prefix("Bearer ")?.to_owned()))
        .collect()
}

fn asked_for_tokens(server: &Server, with_login: bool) -> usize {
    let log = server.log();
    let tokens = log.iter().filter(|asked| asked.path == "/token");
    tokens
        .filter(|asked| asked.authorization().is_some() == with_login)
        .count()
}

#[derive(Default)]
struct Told(Mutex<Vec<(String, bool)>>);

impl Observer for Told {
    fn request(&self, _: &str, _: RequestKind, _: StatusLabel) {}
    fn bytes_in(&self, _: &str, _: RequestKind, _: u64) {}
    fn credential(&self, _: &str, name: &str, set_aside: bool) {
        self.0.lock().unwrap().push((name.to_owned(), set_aside));
    }
}

#[tokio::test]
async fn logins_are_spent_in_order() {
    let (server, _) = Hub::start(&[("one", 2), ("two", 3), ("three", 1)], false).await;
    let logins = vec![login("one", "p"), login("two", "p"), login("three", "p")];
    let upstream = upstream_with(over(&server, logins));
    for _ in 0..6 {
        pull(&upstream, "a").await.unwrap();
    }
    // One that told that nothing is left is not asked again.
    assert_eq!(users(&server), ["one", "one", "two", "two", "two", "three"]);
    let error = pull(&upstream, "a").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RateLimited { .. }), "{error}");
}

#[tokio::test]
async fn logins_are_spent_evenly_by_what_is_left() {
    let (server, _) = Hub::start(&[("rich", 300), ("poor", 100)], false).await;
    let mut config = over(&server, vec![login("rich", "p"), login("poor", "p")]);
    config.credential_order = CredentialOrder::Even;
    let upstream = upstream_with(config);
    for _ in 0..40 {
        pull(&upstream, "a").await.unwrap();
    }
    let users = users(&server);
    let poor = users.iter().filter(|user| *user == "poor").count();
    assert!((9..=12).contains(&poor), "{poor} of {}", users.len());
}

#[tokio::test]
async fn a_rejected_login_is_set_aside_and_the_next_one_pulls() {
    let (server, hub) = Hub::start(&[("two", 100)], false).await;
    let told = Arc::new(Told::default());
    let upstream = observed(
        over(&server, vec![login("one", "p"), login("two", "p")]),
        told.clone(),
    );
    for repository in ["a", "b", "a", "c"] {
        pull(&upstream, repository).await.unwrap();
    }
    // Once for the repository, and once without scope, which tells the login from the repository.
    let log = server.log();
    let of_one = log
        .iter()
        .filter(|asked| asked.authorization() == Some("Basic b25lOnA="));
    assert_eq!(of_one.count(), 2, "{:#?}", server.lines());
    let states = upstream.login_states();
    assert_eq!(states[0].name, "one");
    let (left, why) = states[0].aside.clone().expect("it is aside");
    assert!(
        left > Duration::from_secs(50) && why.contains("incorrect username"),
        "{why}"
    );
    assert!(states[1].aside.is_none());
    let told_so = |name: &str, aside| (name.to_owned(), aside);
    assert_eq!(
        *told.0.lock().unwrap(),
        [told_so("one", false), told_so("two", false), told_so("one", true)]
    );
    hub.good.lock().unwrap().clear();
    // Tokens that were given are good until the registry says otherwise.
    pull(&upstream, "a").await.unwrap();
}

#[tokio::test]
async fn a_wrong_login_is_tried_by_one_request_however_many_come_at_once() {
    let (server, _) = Hub::start(&[("two", 100)], false).await;
    let upstream = upstream_with(over(&server, vec![login("one", "p"), login("two", "p")]));
    let names: Vec<_> = (0..20).map(|number| format!("r{number}")).collect();
    let pulls = names.iter().map(|repository| pull(&upstream, repository));
    for pulled in futures_util::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let log = server.log();
    let of_one = log
        .iter()
        .filter(|asked| asked.authorization() == Some("Basic b25lOnA="));
    assert_eq!(of_one.count(), 2, "{:#?}", server.lines());
}

#[tokio::test]
async fn without_a_good_login_the_public_is_pulled_anonymously() {
    let (server, _) = Hub::start(&[], true).await;
    let upstream = upstream_with(over(&server, vec![login("one", "p"), login("two", "p")]));
    pull(&upstream, "public").await.unwrap();
    pull(&upstream, "public").await.unwrap();
    assert_eq!(users(&server), ["nobody", "nobody"]);
    assert_eq!(asked_for_tokens(&server, true), 4);
    // What nobody may have is not said to be absent: our logins might have it.
    for _ in 0..2 {
        let error = pull(&upstream, "private").await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::CredentialsRejected);
        assert!(error.allows_stale() && !error.is_not_found());
        assert!(error.message().contains("incorrect username"), "{error}");
    }
    assert_eq!(asked_for_tokens(&server, true), 4);
}

#[tokio::test]
async fn a_login_without_the_right_is_followed_by_one_that_has_it() {
    let server = Server::start(|asked| async move {
        match (asked.path.as_str(), asked.authorization()) {
            ("/token", Some("Basic b25lOnA=")) => token("one"),
            ("/token", _) => token("two"),
            (path, Some("Bearer one")) if path.contains("/secret/") => {
                challenge(&asked, "repository:secret:pull")
            }
            (path, Some(_)) if path.contains("/none/") => challenge(&asked, "repository:none:pull"),
            (_, Some(_)) => answer(200, &[], MANIFEST),
            _ => challenge(&asked, "repository:secret:pull"),
        }
    })
    .await;
    let upstream = upstream_with(over(&server, vec![login("one", "p"), login("two", "p")]));
    for _ in 0..3 {
        pull(&upstream, "secret").await.unwrap();
    }
    // It is remembered who may.
    assert_eq!(users(&server), ["one", "two", "two", "two"]);
    assert!(upstream.login_states().iter().all(|login| login.aside.is_none()));
    let error = pull(&upstream, "none").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Absent);
}

#[tokio::test]
async fn nobody_may_be_one_of_the_logins() {
    let (server, _) = Hub::start(&[("one", 1)], true).await;
    let nobody = Credential {
        name: "anonymous".to_owned(),
        kind: CredentialKind::Anonymous,
        written: Written::default(),
    };
    let upstream = upstream_with(over(&server, vec![nobody, login("one", "p")]));
    pull(&upstream, "a").await.unwrap();
    // What nobody may have, the login has.
    pull(&upstream, "private").await.unwrap();
    assert_eq!(users(&server), ["nobody", "nobody", "one"]);
    assert!(!over(&server, Vec::new()).has_login());
}

#[tokio::test]
async fn basic_logins_are_followed_too() {
    let server = Server::start(|asked| async move {
        match asked.authorization() {
            Some("Basic dHdvOnA=") => answer(200, &[], MANIFEST),
            _ => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        }
    })
    .await;
    let upstream = upstream_with(over(&server, vec![login("one", "p"), login("two", "p")]));
    pull(&upstream, "a").await.unwrap();
    pull(&upstream, "b").await.unwrap();
    let with_one = |asked: &&Asked| asked.authorization() == Some("Basic b25lOnA=");
    // Here, and at `/v2/`: it might have been refused this repository alone.
    assert_eq!(
        server.log().iter().filter(with_one).count(),
        2,
        "{:#?}",
        server.lines()
    );
}
