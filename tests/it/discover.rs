//! What is here: tags, referrers and repositories, in pages that the specification describes.

use serde_json::{Value, json};

use crate::expect::{INDEX, assert_error};
use crate::hosting::{APP, Hosting, descriptor};
use crate::support::prelude::*;

/// The URL of the next page, if the answer has one.
fn next(hosting: &Hosting, answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    if link.is_empty() {
        return None;
    }
    let target = link
        .strip_prefix('<')
        .and_then(|link| link.strip_suffix(">; rel=\"next\""));
    Some(format!("{}{}", hosting.daemon.url(), target.expect("a link")))
}

/// All of a list, page by page.
async fn pages(hosting: &Hosting, url: String, of: impl Fn(&Value) -> Vec<Value>, most: usize) -> Vec<Value> {
    let (mut all, mut url) = (Vec::new(), Some(url));
    while let Some(page) = url {
        let answer = get(&page).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let found = of(&answer.json());
        url = next(hosting, &answer);
        assert!(
            found.len() == most || (url.is_none() && found.len() <= most),
            "{page}: {}",
            found.len()
        );
        all.extend(found);
    }
    all
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().expect("a list").clone()
}

#[tokio::test]
async fn tags_in_the_order_of_their_bytes_page_by_page() {
    let hosting = Hosting::start().await;
    let image = Image::simple(1, 10);
    let digest = hosting.push(APP, "v10", &image).await;
    let tags = [
        "v9", "V1", "a", "Z", "_x", "v1.0", "v1-0", "0", "v1_0", "zz", "v1",
    ];
    let reference = format!("{digest}?tag={}", tags.join("&tag="));
    assert_eq!(hosting.put(APP, &reference, &image.root()).await.status, 201);
    let mut sorted: Vec<&str> = tags.into_iter().chain(["v10"]).collect();
    sorted.sort_unstable();
    let list = hosting.at(APP, "tags/list");
    let answer = get(&list).await;
    assert_eq!(answer.json(), json!({ "name": APP, "tags": sorted }));
    assert_eq!(
        (answer.header("link"), answer.header("content-type")),
        ("", "application/json")
    );
    for size in [1, 5, 6, 11, 12, 13] {
        let url = format!("{list}?n={size}");
        let all = pages(&hosting, url, |page| array(&page["tags"]), size).await;
        assert_eq!(json!(all), json!(sorted), "{size}");
    }
    for (query, expected) in [
        ("n=0", vec![]),
        ("n=0&last=a", vec![]),
        ("last=v1", vec!["v1-0", "v1.0", "v10", "v1_0", "v9", "zz"]),
        ("n=2&last=v1", vec!["v1-0", "v1.0"]),
        // After one that is not there.
        ("n=2&last=v1%2B", vec!["v1-0", "v1.0"]),
        ("last=zz", vec![]),
        ("n=5&last=zzz", vec![]),
        ("n=99999999999", sorted.clone()),
    ] {
        let answer = get(format!("{list}?{query}")).await;
        assert_eq!(answer.json()["tags"], json!(expected), "{query}");
        let more = query == "n=2&last=v1" || query == "n=2&last=v1%2B";
        assert_eq!(answer.header("link").is_empty(), !more, "{query}");
    }
    for query in ["n=x", "n=-1", "n="] {
        assert_eq!(get(format!("{list}?{query}")).await.status, 400, "{query}");
    }
    assert_error(
        &get(hosting.at("acme/nothing", "tags/list")).await,
        404,
        "NAME_UNKNOWN",
    );
    hosting.begin("acme/fresh").await;
    assert_eq!(
        get(hosting.at("acme/fresh", "tags/list")).await.json(),
        json!({ "name": "acme/fresh", "tags": [] })
    );
}

/// The digests in a list of referrers.
async fn listed(hosting: &Hosting, subject: &str, query: &str) -> Vec<Value> {
    let answer = get(hosting.at(APP, &format!("referrers/{subject}{query}"))).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, INDEX),
        "{}",
        answer.text()
    );
    let applied = if query.contains("artifactType") {
        "artifactType"
    } else {
        ""
    };
    assert_eq!(answer.header("oci-filters-applied"), applied);
    let list = answer.json();
    assert_eq!(
        (&list["schemaVersion"], &list["mediaType"]),
        (&json!(2), &json!(INDEX))
    );
    array(&list["manifests"])
}

#[tokio::test]
async fn referrers_are_told_as_the_specification_describes_them() {
    let mut hosting = Hosting::start().await;
    let subject = Image::simple(1, 100);
    let digest = hosting.push(APP, "v1", &subject).await;
    assert_eq!(listed(&hosting, &digest, "").await, [] as [Value; 0]);
    assert_eq!(
        listed(&hosting, &sha256(b"never seen"), "").await,
        [] as [Value; 0]
    );
    assert_error(
        &get(hosting.at(APP, "referrers/sha256:short")).await,
        400,
        "DIGEST_INVALID",
    );
    // Also where nothing was pushed at all: a 404 would say that we know no such lists.
    assert_eq!(
        get(hosting.at("acme/nothing", &format!("referrers/{digest}")))
            .await
            .status,
        200
    );
    let sbom = Image::simple(2, 10).referring_to(&subject, "application/vnd.example.sbom+json");
    let signature = Image::simple(3, 10).referring_to(&subject, "application/vnd.example.signature");
    for artifact in [&sbom, &signature] {
        let tag = format!("t{}", &artifact.digest()[7..17]);
        hosting.push(APP, &tag, artifact).await;
        let answer = hosting.put(APP, &artifact.digest(), &artifact.root()).await;
        assert_eq!(
            (answer.status, answer.header("oci-subject")),
            (201, digest.as_str())
        );
    }
    // Without a type: an image has its config's, an index none.
    let config = hosting.push_blob(APP, "{}").await;
    let mut plain = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(&config, 2), "layers": [], "subject": descriptor(&digest, 1) });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": descriptor(&digest, 1),
        "annotations": { "a": "b" } });
    let plain_part = RawManifest::new("application/vnd.oci.image.manifest.v1+json", plain.to_string()).root();
    let index_part = RawManifest::new(INDEX, index.to_string()).root();
    for part in [&plain_part, &index_part] {
        assert_eq!(
            hosting.put(APP, &part.digest, part).await.header("oci-subject"),
            digest
        );
    }
    let entry = |part: &crate::support::image::Part, kind: Option<&str>, annotations: Value| {
        let mut entry =
            json!({ "mediaType": part.media_type, "digest": part.digest, "size": part.bytes.len() });
        if let Some(kind) = kind {
            entry["artifactType"] = json!(kind);
        }
        if !annotations.is_null() {
            entry["annotations"] = annotations;
        }
        entry
    };
    let by_image =
        |image: &Image, kind: &str| entry(&image.root(), Some(kind), json!({ "org.example.kind": kind }));
    let expected = [
        by_image(&sbom, "application/vnd.example.sbom+json"),
        by_image(&signature, "application/vnd.example.signature"),
        entry(&plain_part, Some("application/octet-stream"), Value::Null),
        entry(&index_part, None, json!({ "a": "b" })),
    ];
    let sorted = |mut list: Vec<Value>| {
        list.sort_by_key(|entry| entry["digest"].to_string());
        list
    };
    for restarted in [false, true] {
        if restarted {
            hosting.daemon.kill().await;
            hosting.daemon.restart().await;
        }
        assert_eq!(
            sorted(listed(&hosting, &digest, "").await),
            sorted(expected.to_vec())
        );
        for (query, index) in [("sbom%2Bjson", 0), ("sbom+json", 0), ("signature", 1)] {
            let query = format!("?artifactType=application/vnd.example.{query}");
            assert_eq!(listed(&hosting, &digest, &query).await, expected[index..=index]);
        }
        assert_eq!(
            listed(&hosting, &digest, "?artifactType=application%2Foctet-stream").await,
            expected[2..3]
        );
        assert_eq!(
            listed(&hosting, &digest, "?artifactType=none").await,
            [] as [Value; 0]
        );
    }
    // In pages, of which each is an index.
    for size in 1..=5 {
        let url = hosting.at(APP, &format!("referrers/{digest}?n={size}"));
        let all = pages(&hosting, url, |page| array(&page["manifests"]), size).await;
        assert_eq!(sorted(all), sorted(expected.to_vec()), "{size}");
    }
    plain["annotations"] = json!({ "another": "one" });
    plain["artifactType"] = json!("application/vnd.example.sbom+json");
    let second = RawManifest::new("application/vnd.oci.image.manifest.v1+json", plain.to_string()).root();
    assert_eq!(hosting.put(APP, &second.digest, &second).await.status, 201);
    let url = hosting.at(
        APP,
        &format!("referrers/{digest}?artifactType=application/vnd.example.sbom%2Bjson&n=1"),
    );
    let all = pages(&hosting, url, |page| array(&page["manifests"]), 1).await;
    assert_eq!(all.len(), 2);
    // Whoever goes is told no more, and the subject may go before.
    assert_eq!(
        hosting
            .delete(APP, &format!("manifests/{}", second.digest))
            .await
            .status,
        202
    );
    assert_eq!(
        hosting.delete(APP, &format!("manifests/{digest}")).await.status,
        202
    );
    assert_eq!(
        hosting
            .delete(APP, &format!("manifests/{}", sbom.digest()))
            .await
            .status,
        202
    );
    assert_eq!(
        sorted(listed(&hosting, &digest, "").await),
        sorted(expected[1..].to_vec())
    );
}

#[tokio::test]
async fn what_older_clients_listed_under_a_tag_is_taken_in() {
    let hosting = Hosting::start().await;
    let subject = Image::simple(1, 100);
    let digest = hosting.push(APP, "v1", &subject).await;
    // Pushed to a registry without such lists and copied here, tag by tag.
    let (old, gone) = (Image::simple(2, 10), Image::simple(3, 10));
    let known = Image::simple(4, 10).referring_to(&subject, "a/known");
    for image in [&old, &gone, &known] {
        hosting.push(APP, "copied", image).await;
    }
    let entry = |image: &Image, kind: &str| {
        let root = image.root();
        json!({ "mediaType": root.media_type, "digest": root.digest, "size": root.bytes.len(), "artifactType": kind })
    };
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        entry(&old, "a/old"), entry(&gone, "a/gone"), entry(&known, "a/known"),
    ] });
    let tag = digest.replace(':', "-");
    let answer = hosting
        .put(APP, &tag, &RawManifest::new(INDEX, list.to_string()).root())
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let digests = |list: Vec<Value>| {
        let mut digests: Vec<_> = list
            .iter()
            .map(|entry| entry["digest"].as_str().unwrap_or_default().to_owned())
            .collect();
        digests.sort_unstable();
        digests
    };
    let all = |images: &[&Image]| {
        let mut digests: Vec<_> = images.iter().map(|image| image.digest()).collect();
        digests.sort_unstable();
        digests
    };
    assert_eq!(
        digests(listed(&hosting, &digest, "").await),
        all(&[&old, &gone, &known])
    );
    assert_eq!(
        listed(&hosting, &digest, "?artifactType=a/old").await,
        [entry(&old, "a/old")]
    );
    // A list outlives what it names.
    assert_eq!(
        hosting
            .delete(APP, &format!("manifests/{}", gone.digest()))
            .await
            .status,
        202
    );
    assert_eq!(digests(listed(&hosting, &digest, "").await), all(&[&old, &known]));
    // A tag of this name that is no list is only a tag.
    hosting.push(APP, &tag, &old).await;
    assert_eq!(digests(listed(&hosting, &digest, "").await), all(&[&known]));
}

#[tokio::test]
async fn repositories_page_by_page() {
    let hosting = Hosting::start().await;
    let catalog = format!("{}/v2/_catalog", hosting.daemon.url());
    assert_eq!(get(&catalog).await.json(), json!({ "repositories": [] }));
    let mut names: Vec<_> = (0..7).map(|number| format!("acme/app{number}")).collect();
    names.extend([
        "acme/app".to_owned(),
        "acme/app/deep".to_owned(),
        "acme/app-x".to_owned(),
    ]);
    for name in &names {
        hosting.begin(name).await;
    }
    names.sort_unstable();
    assert_eq!(get(&catalog).await.json(), json!({ "repositories": names }));
    for size in [1, 3, 9, 10, 11] {
        let url = format!("{catalog}?n={size}");
        let all = pages(&hosting, url, |page| array(&page["repositories"]), size).await;
        assert_eq!(json!(all), json!(names), "{size}");
    }
    let answer = get(format!("{catalog}?last=acme/app5")).await;
    assert_eq!(answer.json(), json!({ "repositories": ["acme/app6"] }));
    assert_eq!(
        get(format!("{catalog}?n=0")).await.json(),
        json!({ "repositories": [] })
    );
}
