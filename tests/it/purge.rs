//! `purge --with-content`: what a reference reaches goes with it, as far as nothing else here needs it; and what
//! `explain` says of that before.

use serde_json::Value;

use crate::admin::{asked, run};
use crate::scene::{NAME, REPO, Scene, files_of};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// Pulls a tag and the blobs of these images, until all is in its place.
async fn pull(scene: &Scene, tag: &str, images: &[&Image]) {
    get(scene.daemon.manifest_url(NAME, tag)).await.ok();
    for image in images {
        get(scene.daemon.manifest_url(NAME, &image.digest())).await.ok();
        for part in image.layers().into_iter().chain([image.config()]) {
            get(scene.daemon.blob_url(NAME, &part.digest)).await.ok();
        }
    }
    scene.metric("wharfinger_fills_running 0").await;
}

fn is_here(scene: &Scene, image: &Image, layer: usize) -> bool {
    !files_of(&scene.daemon, &image.layer_digest(layer)).is_empty()
}

fn reference(tag: &str) -> String {
    format!("{NAME}:{tag}")
}

#[tokio::test]
async fn only_what_nothing_else_needs_goes() {
    let scene = Scene::start().await;
    let base = random(1, MIB);
    let one = Image::new().layer(base.clone()).layer(random(2, MIB));
    let two = Image::new().layer(base).layer(random(3, MIB));
    scene.upstream.put(REPO, "one", &one);
    scene.upstream.put(REPO, "two", &two);
    pull(&scene, "one", &[&one]).await;
    pull(&scene, "two", &[&two]).await;

    let told = asked(&scene.daemon, &["explain", &reference("one")]).await;
    let layers = told["manifest"]["blobs"].as_array().expect("blobs");
    let shared: Vec<_> = layers.iter().map(|blob| &blob["shared_with"]).collect();
    assert_eq!(shared, [&Value::from(0), &1.into(), &0.into()], "{told}");
    assert_eq!(told["eviction"]["shared_bytes"], MIB);
    assert!(told["manifest"]["last_used"].is_u64());

    let ran = run(&scene.daemon, &["purge", "--with-content", &reference("one")]).await;
    let text = ran.text().to_owned();
    assert!(text.contains("freed 1.0 MiB: 1 manifest, 2 blobs"), "{text}");
    assert_eq!(
        [is_here(&scene, &one, 0), is_here(&scene, &one, 1)],
        [true, false]
    );
    scene.upstream.refuse().await;
    pull(&scene, "two", &[&two]).await;
    let told = asked(&scene.daemon, &["explain", &reference("two")]).await;
    assert_eq!(
        (&told["expected"], &told["eviction"]["shared_bytes"]),
        (&"hit".into(), &0.into())
    );
}

#[tokio::test]
async fn an_index_goes_with_its_children_but_not_with_those_of_another() {
    let scene = Scene::start().await;
    let image = |seed, name: &str| Image::new().layer(random(seed, MIB)).platform("linux", name);
    let (mine, ours) = (image(1, "amd64"), image(2, "arm64"));
    let first = Index::of_platforms(0).image(mine.clone()).image(ours.clone());
    let second = Index::of_platforms(0).image(ours.clone());
    scene.upstream.put(REPO, "first", &first);
    scene.upstream.put(REPO, "second", &second);
    pull(&scene, "first", &[&mine, &ours]).await;
    pull(&scene, "second", &[&ours]).await;
    let told = asked(&scene.daemon, &["purge", "--with-content", &reference("first")]).await;
    assert_eq!(
        (&told["freed"]["manifests"], &told["freed"]["blobs"]),
        (&2.into(), &2.into()),
        "{told}"
    );
    assert_eq!(
        [is_here(&scene, &mine, 0), is_here(&scene, &ours, 0)],
        [false, true]
    );
    scene.upstream.refuse().await;
    pull(&scene, "second", &[&ours]).await;
}

#[tokio::test]
async fn what_another_tag_points_at_stays() {
    let scene = Scene::start().await;
    let image = Image::simple(1, MIB);
    for tag in ["one", "two"] {
        scene.upstream.put(REPO, tag, &image);
        pull(&scene, tag, &[&image]).await;
    }
    let ran = run(&scene.daemon, &["purge", "--with-content", &reference("one")]).await;
    let said = format!("its content stays, since {} points at it too", reference("two"));
    assert!(ran.text().contains(&said), "{}", ran.text());
    assert!(is_here(&scene, &image, 0));
    let told = asked(&scene.daemon, &["purge", "--with-content", &reference("two")]).await;
    assert_eq!(told["freed"]["blobs"], 2);
    assert!(!is_here(&scene, &image, 0));
    // By digest, whatever points at it goes too.
    for tag in ["one", "two"] {
        pull(&scene, tag, &[&image]).await;
    }
    let by_digest = format!("{NAME}@{}", image.digest());
    let told = asked(&scene.daemon, &["purge", "--with-content", &by_digest]).await;
    assert_eq!(
        (&told["removed"], &told["freed"]["manifests"]),
        (&true.into(), &1.into())
    );
    for tag in ["one", "two"] {
        assert_eq!(
            asked(&scene.daemon, &["explain", &reference(tag)]).await["expected"],
            "miss"
        );
    }
}
