//! What refers to a manifest: by the upstream's API, else by its fallback tag, and 200 with an empty index when there
//! is nothing. Newer clients ask this on every pull.

use serde_json::json;

use crate::expect::{INDEX, assert_error, assert_hit, assert_stale};
use crate::support::prelude::*;

const APP: &str = "docker-hub/library/app";
const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// An upstream with an image, a signature and two lists of parts that refer to it.
struct World {
    upstream: Upstream,
    daemon: Daemon,
    image: Image,
    signature: Image,
    sboms: [Image; 2],
}

impl World {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let upstream = Upstream::start().await;
        let image = Image::simple(1, 100);
        let signature = Image::simple(2, 10).referring_to(&image, SIGNATURE);
        let sboms = [3, 4].map(|seed| Image::simple(seed, 10).referring_to(&image, SBOM));
        upstream.put("library/app", "1", &image);
        for referrer in [&signature, &sboms[0], &sboms[1]] {
            upstream.put_untagged("library/app", referrer);
        }
        let builder = settings
            .iter()
            .fold(Daemon::over(&upstream), |builder, (key, value)| {
                builder.setting(key, value)
            });
        Self {
            daemon: builder.start().await,
            upstream,
            image,
            signature,
            sboms,
        }
    }

    fn url(&self, query: &str) -> String {
        referrers_url(&self.daemon, &self.image.digest(), query)
    }

    fn all(&self) -> Vec<String> {
        sorted([&self.signature, &self.sboms[0], &self.sboms[1]])
    }
}

fn referrers_url(daemon: &Daemon, digest: &str, query: &str) -> String {
    format!("{}/v2/{APP}/referrers/{digest}{query}", daemon.url())
}

fn sorted<'a>(images: impl IntoIterator<Item = &'a Image>) -> Vec<String> {
    let mut digests: Vec<_> = images.into_iter().map(Content::digest).collect();
    digests.sort();
    digests
}

/// The digests of an index in its exact form, sorted.
fn listed(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), INDEX);
    // Only whoever takes pushes may say this.
    assert_eq!(answer.header("oci-subject"), "");
    let index = answer.json();
    assert_eq!(
        (&index["schemaVersion"], &index["mediaType"]),
        (&json!(2), &json!(INDEX))
    );
    let manifests = index["manifests"].as_array().expect("a list");
    let mut digests: Vec<_> = manifests
        .iter()
        .map(|entry| entry["digest"].as_str().expect("a digest").to_owned())
        .collect();
    digests.sort();
    digests
}

#[tokio::test]
async fn the_api_is_asked_once_and_answered_whole() {
    let world = World::start(&[]).await;
    let answer = get(world.url("")).await;
    assert_eq!(listed(&answer), world.all());
    assert_eq!(answer.header("oci-filters-applied"), "");
    for entry in answer.json()["manifests"].as_array().expect("a list") {
        assert!(entry["artifactType"].is_string(), "{entry}");
        assert_eq!(entry["annotations"]["org.example.kind"], entry["artifactType"]);
        assert!(
            entry["size"].is_u64() && entry["mediaType"].is_string(),
            "{entry}"
        );
    }
    let again = get(world.url("")).await;
    assert_hit(&again);
    assert_eq!(again.body, answer.body);
    assert_eq!(
        world.upstream.requests().len(),
        1,
        "{:#?}",
        world.upstream.summary()
    );
    // What refers can be pulled like anything else.
    let digest = world.signature.digest();
    assert_eq!(get(world.daemon.manifest_url(APP, &digest)).await.status, 200);
}

#[tokio::test]
async fn one_list_serves_every_filter() {
    let world = World::start(&[]).await;
    let encoded = SBOM.replace('+', "%2B");
    for query in [
        format!("?artifactType={SBOM}"),
        format!("?artifactType={encoded}"),
        format!("?ns=docker.io&artifactType={encoded}"),
    ] {
        let answer = get(world.url(&query)).await;
        assert_eq!(listed(&answer), sorted(&world.sboms), "{query}");
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
    }
    let none = get(world.url("?artifactType=text/nothing")).await;
    assert_eq!(listed(&none).len(), 0);
    assert_eq!(none.header("oci-filters-applied"), "artifactType");
    assert_eq!(listed(&get(world.url("")).await), world.all());
    assert_eq!(world.upstream.count_of(&referrers()), 1);
    assert_eq!(world.upstream.requests()[0].query(), "", "the filter is ours");
}

#[tokio::test]
async fn without_the_api_the_fallback_tag_is_asked() {
    let world = World::start(&[]).await;
    world.upstream.always(referrers(), reply(404));
    world
        .upstream
        .put_referrers_tag("library/app", &world.image.digest());
    let fallback = world.image.digest().replacen(':', "-", 1);
    let answer = get(world.url("")).await;
    assert_eq!(listed(&answer), world.all());
    let filtered = get(world.url(&format!("?artifactType={SIGNATURE}"))).await;
    assert_eq!(listed(&filtered), sorted([&world.signature]));
    // A HEAD for the tag, and what it points at once.
    assert_eq!(
        (
            world.upstream.manifest_gets(),
            world.upstream.count_of(&manifest(&fallback).head())
        ),
        (1, 1),
        "{:#?}",
        world.upstream.summary()
    );
    // Clients that look for the tag themselves find it too.
    let by_tag = get(world.daemon.manifest_url(APP, &fallback)).await;
    assert_eq!(listed(&by_tag), world.all());
}

#[tokio::test]
async fn whatever_is_no_list_of_referrers_means_that_there_is_no_api() {
    let world = World::start(&[]).await;
    let elsewhere = Upstream::start().await;
    let to = |status| redirect(status, &format!("{}/somewhere", elsewhere.url()));
    let plans = [
        to(303),
        to(302),
        to(307),
        reply(400),
        reply(401),
        reply(403),
        reply(404),
        reply(405),
        reply(406),
        reply(501),
        html(),
        reply(200)
            .header("content-type", "application/json")
            .body("{\"manifests\":[]}"),
        reply(200).header("content-type", INDEX).body("not JSON"),
    ];
    for (number, plan) in plans.into_iter().enumerate() {
        let subject = Image::simple(100 + number as u64, 20);
        let referrer = Image::simple(200 + number as u64, 20).referring_to(&subject, SBOM);
        world.upstream.put_untagged("library/app", &subject);
        world.upstream.put_untagged("library/app", &referrer);
        world.upstream.put_referrers_tag("library/app", &subject.digest());
        world.upstream.once(referrers(), plan);
        let answer = get(referrers_url(&world.daemon, &subject.digest(), "")).await;
        assert_eq!(listed(&answer), [referrer.digest()], "plan {number}");
    }
    assert_eq!(
        elsewhere.connections(),
        0,
        "redirects of referrers are not followed"
    );
}

#[tokio::test]
async fn nothing_is_an_empty_index_and_no_error() {
    let world = World::start(&[]).await;
    let lonely = Image::simple(9, 10);
    world.upstream.put_untagged("library/app", &lonely);
    let by_api = get(referrers_url(&world.daemon, &lonely.digest(), "")).await;
    assert_eq!(listed(&by_api).len(), 0);

    world.upstream.always(referrers(), reply(404));
    let unheard = [
        sha256(b"never heard of"),
        sha512(b"never heard of"),
        world.sboms[0].digest(),
    ];
    for digest in unheard {
        for query in ["", "?artifactType=a/b"] {
            let answer = get(referrers_url(&world.daemon, &digest, query)).await;
            assert_eq!(listed(&answer).len(), 0, "{digest}");
        }
        assert_eq!(head(referrers_url(&world.daemon, &digest, "")).await.status, 200);
    }
    assert_eq!(
        world.upstream.manifest_gets(),
        0,
        "a HEAD says that there is no tag"
    );
    let nowhere = format!(
        "{}/v2/docker-hub/library/none/referrers/{}",
        world.daemon.url(),
        lonely.digest()
    );
    assert_eq!(listed(&get(nowhere).await).len(), 0);
}

#[tokio::test]
async fn the_fallback_tag_of_sha512_is_cut() {
    let world = World::start(&[]).await;
    let subject = Image::simple(5, 10).sha512();
    let referrer = Image::simple(6, 10).referring_to(&subject, SBOM);
    let digest = subject.digest();
    world.upstream.put_untagged("library/app", &referrer);
    world.upstream.always(referrers(), reply(404));
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": referrer.digest(), "size": 7 },
    ] });
    let tag = format!("sha512-{}", &digest["sha512:".len()..][..64]);
    world
        .upstream
        .put("library/app", &tag, &RawManifest::new(INDEX, index.to_string()));
    let answer = get(referrers_url(&world.daemon, &digest, "")).await;
    assert_eq!(listed(&answer), [referrer.digest()]);
}

#[tokio::test]
async fn pages_are_put_together() {
    let world = World::start(&[]).await;
    let page = |referrer: &Image| {
        let entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": referrer.digest(), "size": 7, "artifactType": SBOM,
        });
        let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        reply(200).header("content-type", INDEX).body(body.to_string())
    };
    let path = format!("/v2/library/app/referrers/{}", world.image.digest());
    let link = format!("<{path}?page=2>; rel=\"next\"");
    world
        .upstream
        .once(referrers(), page(&world.sboms[0]).header("link", &link));
    world.upstream.once(referrers(), page(&world.sboms[1]));
    let answer = get(world.url("")).await;
    assert_eq!(listed(&answer), sorted(&world.sboms));
    assert_eq!(answer.header("link"), "");
    let queries: Vec<_> = world
        .upstream
        .requests()
        .iter()
        .map(|asked| asked.query().to_owned())
        .collect();
    assert_eq!(queries, ["", "page=2"]);
}

#[tokio::test]
async fn a_failing_upstream_does_not_stop_the_pull_of_what_is_here() {
    let mut world = World::start(&[("cache.negative_ttl", "\"0s\"")]).await;
    let lonely = Image::simple(9, 10);
    world.upstream.put("library/app", "lonely", &lonely);
    assert_eq!(get(world.daemon.manifest_url(APP, "lonely")).await.status, 200);
    assert_eq!(listed(&get(world.url("")).await), world.all());

    world
        .upstream
        .always(any(), reply(429).header("retry-after", "60"));
    let heard = get(world.url("")).await;
    assert_stale(&heard, Some(429));
    assert_eq!(listed(&heard), world.all());
    // From here on it is not asked.
    let pulled = get(referrers_url(&world.daemon, &lonely.digest(), "")).await;
    assert_stale(&pulled, None);
    assert_eq!(listed(&pulled).len(), 0);
    // Of what was never heard of, nobody can say that nothing refers to it.
    let strange = get(referrers_url(&world.daemon, &sha256(b"strange"), "")).await;
    assert_error(&strange, 429, "TOOMANYREQUESTS");

    world.upstream.refuse().await;
    world.daemon.restart().await;
    let answer = get(world.url("")).await;
    assert_stale(&answer, None);
    assert_eq!(listed(&answer), world.all());
}
