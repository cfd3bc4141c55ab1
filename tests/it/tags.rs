//! Lists of tags: pages that lead back to us in every way of asking, and what is known when the upstream is away.

use crate::expect::{assert_error, assert_hit, assert_stale, cached};
use crate::support::prelude::*;

const LIST: &str = "/v2/docker-hub/library/app/tags/list";

/// An upstream with the tags t0 to t6, in a repository of each kind of name.
async fn start() -> (Upstream, Upstream, Daemon) {
    let (hub, quay) = (Upstream::start().await, Upstream::start().await);
    for number in 0..7 {
        let tag = format!("t{number}");
        hub.put("library/app", &tag, &Image::simple(number, 10));
        quay.put("team/app", &tag.replace('t', "q"), &Image::simple(number, 10));
    }
    let daemon = Daemon::over(&hub)
        .upstream("quay", &quay)
        .mirror_door()
        .start()
        .await;
    (hub, quay, daemon)
}

fn listed(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let tags = answer.json()["tags"].as_array().cloned().expect("an array");
    tags.iter()
        .map(|tag| tag.as_str().expect("a string").to_owned())
        .collect()
}

/// The target of the link to the next page, which must be on the daemon itself.
fn next(answer: &Answer, base: &str) -> Option<String> {
    let link = answer.header("link");
    if link.is_empty() {
        return None;
    }
    let (target, rest) = link
        .strip_prefix('<')
        .and_then(|link| link.split_once('>'))
        .expect("a target");
    assert_eq!(rest.trim(), "; rel=\"next\"", "{link}");
    let target = target.strip_prefix(base).unwrap_or(target);
    assert!(target.starts_with('/'), "{link} leads away");
    Some(target.to_owned())
}

/// Follows the links from `target` on; gives the tags page by page.
async fn walk(base: &str, target: &str) -> Vec<Vec<String>> {
    let (path, mut target) = (target.split('?').next().unwrap_or_default(), target.to_owned());
    let mut pages = Vec::new();
    loop {
        let answer = get(format!("{base}{target}")).await;
        pages.push(listed(&answer));
        assert!(pages.len() < 10, "no end: {pages:?}");
        match next(&answer, base) {
            Some(link) => target = link,
            None => return pages,
        }
        assert_eq!(target.split('?').next(), Some(path), "another path");
    }
}

#[tokio::test]
async fn n_and_last_are_the_upstreams_to_answer() {
    let (hub, _, daemon) = start().await;
    let all = get(format!("{}{LIST}", daemon.url())).await;
    assert_eq!(listed(&all), ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]);
    assert_eq!(
        (&all.json()["name"], all.header("link")),
        (&"docker-hub/library/app".into(), "")
    );
    let page = get(format!("{}{LIST}?n=2&last=t1", daemon.url())).await;
    assert_eq!(listed(&page), ["t2", "t3"]);
    let last = get(format!("{}{LIST}?last=t4", daemon.url())).await;
    assert_eq!((listed(&last).len(), last.header("link")), (2, ""));
    let beyond = get(format!("{}{LIST}?n=5&last=zzz", daemon.url())).await;
    assert_eq!((listed(&beyond).len(), beyond.header("link")), (0, ""));
    let queries: Vec<_> = hub
        .requests()
        .iter()
        .map(|asked| asked.query().to_owned())
        .collect();
    assert_eq!(queries, ["", "n=2&last=t1", "last=t4", "n=5&last=zzz"]);

    let none = get(format!("{}{LIST}?n=0", daemon.url())).await;
    assert_eq!((listed(&none).len(), none.header("link")), (0, ""));
    for n in ["-1", "many", ""] {
        let answer = get(format!("{}{LIST}?n={n}", daemon.url())).await;
        assert!(matches!(answer.status, 200 | 400), "n={n}: {}", answer.status);
    }
}

#[tokio::test]
async fn links_lead_back_the_way_the_client_came() {
    let (hub, quay, daemon) = start().await;
    let (main, mirror) = (daemon.url(), daemon.mirror_url());
    let of_hub = [
        (&main, LIST.to_owned()),
        (&main, "/v2/docker.io/app/tags/list".to_owned()),
        (&main, "/v2/app/tags/list".to_owned()),
        (&main, "/docker.io/v2/library/app/tags/list".to_owned()),
        (&main, "/mirror/v2/library/app/tags/list".to_owned()),
        (&mirror, "/v2/app/tags/list".to_owned()),
    ];
    let pages = [vec!["t0", "t1", "t2"], vec!["t3", "t4", "t5"], vec!["t6"]];
    for (base, path) in of_hub {
        assert_eq!(walk(base, &format!("{path}?n=3")).await, pages, "{base}{path}");
    }
    let of_quay = [
        (&main, "/v2/quay/team/app/tags/list?n=3"),
        (&main, "/v2/quay.io/team/app/tags/list?n=3&ns=quay.io"),
        (&main, "/quay.io/v2/team/app/tags/list?n=3"),
        // Without ns in the link, the next page would be another registry's.
        (&main, "/v2/team/app/tags/list?ns=quay.io&n=3"),
        (&main, "/mirror/v2/team/app/tags/list?n=3&ns=quay.io"),
        (&mirror, "/v2/team/app/tags/list?n=3&ns=quay.io"),
    ];
    let pages = [vec!["q0", "q1", "q2"], vec!["q3", "q4", "q5"], vec!["q6"]];
    for (base, target) in of_quay {
        assert_eq!(walk(base, target).await, pages, "{base}{target}");
    }
    for upstream in [hub, quay] {
        let asked = upstream.requests();
        assert!(
            asked.iter().all(|asked| !asked.query().contains("ns=")),
            "{:#?}",
            upstream.summary()
        );
    }
}

#[tokio::test]
async fn pages_that_only_the_upstream_understands_are_followed() {
    let (_, quay, daemon) = start().await;
    quay.page_tags(2, true);
    let pages = walk(&daemon.url(), "/v2/quay.io/team/app/tags/list").await;
    assert_eq!(
        pages,
        [vec!["q0", "q1"], vec!["q2", "q3"], vec!["q4", "q5"], vec!["q6"]]
    );
    let pages = walk(&daemon.mirror_url(), "/v2/team/app/tags/list?ns=quay.io").await;
    assert_eq!(pages.concat().len(), 7);
    assert!(
        quay.requests()
            .iter()
            .any(|asked| asked.query().contains("next_page="))
    );
}

#[tokio::test]
async fn odd_links_and_lists_of_an_upstream_do_no_harm() {
    let (hub, _, daemon) = start().await;
    let stranger = Upstream::start().await;
    let page = |tags: &str| {
        let body = format!("{{\"name\":\"library/app\",\"tags\":{tags}}}");
        reply(200).header("content-type", "application/json").body(body)
    };
    let away = format!("<{}/v2/other/tags/list?last=x>; rel=\"next\"", stranger.url());
    let table = [
        // Of a link only the query is believed.
        (page("[\"a\"]").header("link", &away), 1, format!("{LIST}?last=x")),
        (
            page("[\"a\"]").header("link", "</v2/library/app/tags/list?last=b>; rel=prev"),
            1,
            String::new(),
        ),
        (page("[\"a\"]").header("link", "nonsense"), 1, String::new()),
        // Repositories without tags.
        (page("null"), 0, String::new()),
        (page("[]"), 0, String::new()),
    ];
    for (number, (plan, count, link)) in table.into_iter().enumerate() {
        hub.once(tags(), plan);
        // Another query each time, so that the list of a moment ago does not answer.
        let answer = get(format!("{}{LIST}?n={}", daemon.url(), number + 50)).await;
        assert_eq!(listed(&answer).len(), count);
        assert_eq!(
            next(&answer, &daemon.url()).unwrap_or_default(),
            link,
            "{}",
            answer.header("link")
        );
    }
    assert_eq!(stranger.connections(), 0);
}

#[tokio::test]
async fn unknown_repositories_are_404() {
    let (hub, _, daemon) = start().await;
    let url = format!("{}/v2/docker-hub/library/none/tags/list", daemon.url());
    assert_error(&get(&url).await, 404, "NAME_UNKNOWN");
    assert_error(&get(format!("{url}?n=0")).await, 404, "NAME_UNKNOWN");
    hub.require_bearer(Bearer::new());
    let hidden = format!("{}/v2/docker-hub/library/hidden/tags/list", daemon.url());
    assert_error(&get(hidden).await, 404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_list_is_kept_for_a_moment_and_for_bad_times() {
    let (hub, _, daemon) = start().await;
    let url = format!("{}{LIST}", daemon.url());
    let first = get(&url).await;
    let again = get(&url).await;
    assert_hit(&again);
    assert_eq!(first.body, again.body);
    assert_eq!(hub.count_of(&tags()), 1);

    let due = Daemon::over(&hub)
        .setting("cache.negative_ttl", "\"0s\"")
        .start()
        .await;
    let url = format!("{}{LIST}?n=3", due.url());
    let first = get(&url).await;
    hub.put("library/app", "t00", &Image::simple(9, 10));
    let second = get(&url).await;
    assert_eq!(
        (listed(&first)[1].as_str(), listed(&second)[1].as_str()),
        ("t1", "t00")
    );
    hub.always(tags(), reply(503).header("retry-after", "60"));
    let stale = get(&url).await;
    assert_stale(&stale, Some(503));
    assert_eq!(
        (stale.body, stale.headers.get("link")),
        (second.body, second.headers.get("link"))
    );
}

#[tokio::test]
async fn a_token_service_that_refuses_says_nothing_about_a_list() {
    let (hub, _, _) = start().await;
    hub.require_bearer(Bearer::new());
    let daemon = Daemon::over(&hub)
        .setting("cache.negative_ttl", "\"0s\"")
        .start()
        .await;
    let (tags_url, digest) = (format!("{}{LIST}", daemon.url()), Image::simple(0, 10).digest());
    let referrers_url = format!("{}/v2/docker-hub/library/app/referrers/{digest}", daemon.url());
    let listed_first = get(&tags_url).await;
    let referrer = Image::simple(20, 10).referring_to(&Image::simple(0, 10), "a/b");
    hub.put_untagged("library/app", &referrer);
    let referring_first = get(&referrers_url).await;
    assert!(referring_first.text().contains(&referrer.digest()));
    hub.revoke_tokens();
    hub.always(tokens(), reply(401));
    for (url, first) in [(tags_url, listed_first), (referrers_url, referring_first)] {
        let answer = get(url).await;
        assert_stale(&answer, Some(401));
        assert_eq!(answer.body, first.body);
    }
}

#[tokio::test]
async fn while_the_upstream_is_down_the_tags_that_were_pulled_are_known() {
    let (hub, _, mut daemon) = start().await;
    for tag in ["t5", "t1", "t3"] {
        assert_eq!(
            get(daemon.manifest_url("docker-hub/library/app", tag))
                .await
                .status,
            200
        );
    }
    hub.always(tags(), reply(429).header("retry-after", "60"));
    let limited = get(format!("{}{LIST}?n=7", daemon.url())).await;
    assert_stale(&limited, Some(429));
    assert_eq!(listed(&limited), ["t1", "t3", "t5"]);
    // A new start does not know that it may not ask.
    daemon.restart().await;
    hub.refuse().await;
    let down = get(format!("{}{LIST}", daemon.url())).await;
    assert_stale(&down, None);
    assert_eq!(listed(&down), ["t1", "t3", "t5"]);
    let pages = walk(&daemon.mirror_url(), "/v2/app/tags/list?n=2").await;
    assert_eq!(pages, [vec!["t1", "t3"], vec!["t5"]]);
    // A repository of which nothing is known: an honest error.
    let other = get(format!("{}/v2/docker-hub/library/other/tags/list", daemon.url())).await;
    assert_error(&other, 503, "UNAVAILABLE");
    assert!(!cached(&other).contains("hit"), "{}", cached(&other));
}
