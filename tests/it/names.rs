//! The ways in which clients name a repository: prefix, host, `ns`, host before `/v2`, root mirror, mirror door. Which
//! upstream was asked, and how often, is counted there.

use crate::expect::assert_error;
use crate::support::prelude::*;

/// Three registries behind one daemon with both doors: Docker Hub, Quay and one of our own.
struct World {
    hub: Upstream,
    quay: Upstream,
    acme: Upstream,
    daemon: Daemon,
}

impl World {
    async fn start() -> Self {
        let (hub, quay, acme) = (
            Upstream::start().await,
            Upstream::start().await,
            Upstream::start().await,
        );
        let builder = Daemon::over(&hub).upstream("quay", &quay).upstream("acme", &acme);
        let daemon = builder
            .setting("upstream.acme.hosts", r#"["acme.test", "acme.test:5000"]"#)
            .mirror_door();
        Self {
            daemon: daemon.start().await,
            hub,
            quay,
            acme,
        }
    }

    /// What all upstreams were asked for.
    fn requests(&self) -> usize {
        [&self.hub, &self.quay, &self.acme]
            .map(|upstream| upstream.requests().len())
            .iter()
            .sum()
    }

    /// A URL of the daemon; `mirror:` in front means the mirror's own port.
    fn url(&self, target: &str) -> String {
        match target.strip_prefix("mirror:") {
            Some(path) => format!("{}{path}", self.daemon.mirror_url()),
            None => format!("{}{target}", self.daemon.url()),
        }
    }
}

#[tokio::test]
async fn every_way_of_asking_reaches_the_same_repository_of_docker_hub() {
    let world = World::start().await;
    let image = Image::simple(1, 3000);
    world.hub.put("library/nginx", "1", &image);
    let digest = image.layer_digest(0);
    // Before the operation, and after it.
    let ways = [
        ("/v2/docker-hub/library/nginx", ""),
        ("/v2/docker-hub/nginx", ""),
        ("/v2/docker.io/library/nginx", ""),
        ("/v2/docker.io/nginx", ""),
        ("/v2/index.docker.io/library/nginx", ""),
        ("/v2/registry-1.docker.io/library/nginx", ""),
        ("/v2/library/nginx", "?ns=docker.io"),
        ("/v2/nginx", "?ns=docker.io"),
        ("/v2/library/nginx", "?ns=index.docker.io"),
        ("/v2/library/nginx", "?ns=registry-1.docker.io"),
        ("/v2/library/nginx", "?ns=Docker.IO"),
        ("/v2/library/nginx", ""),
        ("/v2/nginx", ""),
        ("/docker.io/v2/library/nginx", ""),
        ("/docker-hub/v2/library/nginx", ""),
        ("/docker.io/v2/library/nginx", "?ns=docker.io"),
        // BuildKit and k3s: the prefix and ns say the same thing twice.
        ("/v2/docker.io/library/nginx", "?ns=docker.io"),
        ("/v2/docker-hub/library/nginx", "?ns=docker.io"),
        ("/v2/docker-hub/nginx", "?ns=registry-1.docker.io"),
        ("mirror:/v2/library/nginx", ""),
        ("mirror:/v2/nginx", ""),
        ("mirror:/v2/library/nginx", "?ns=docker.io"),
        ("/mirror/v2/library/nginx", ""),
        ("/mirror/v2/nginx", ""),
        ("/mirror/v2/library/nginx", "?ns=docker.io"),
    ];
    for (before, after) in ways {
        let manifest = get(world.url(&format!("{before}/manifests/1{after}"))).await;
        assert_eq!(manifest.status, 200, "{before} {after}: {}", manifest.text());
        assert_eq!(manifest.body, image.root().bytes, "{before} {after}");
        let ns = after.strip_prefix("?ns=").unwrap_or_default();
        assert_eq!(manifest.header("oci-namespace"), ns, "{before} {after}");
        let blob = get(world.url(&format!("{before}/blobs/{digest}{after}"))).await;
        assert_eq!(blob.header("oci-namespace"), ns, "{before} {after}");
        assert_eq!(blob.ok(), image.layers()[0].bytes);
        let listed = get(world.url(&format!("{before}/tags/list{after}"))).await;
        assert_eq!(listed.header("oci-namespace"), ns, "{before} {after}");
        assert_eq!(listed.json()["tags"][0], "1", "{before} {after}");
    }
    assert_eq!((world.hub.manifest_gets(), world.hub.blob_gets(&digest)), (1, 1));
    let elsewhere = world.hub.requests();
    let elsewhere: Vec<_> = elsewhere
        .iter()
        .filter(|asked| !asked.path().starts_with("/v2/library/nginx/"))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    // A registry is not to be sent ns.
    assert!(world.hub.requests().iter().all(|asked| asked.query().is_empty()));
    assert_eq!((world.quay.connections(), world.acme.connections()), (0, 0));
}

#[tokio::test]
async fn ns_chooses_among_the_known_upstreams_and_is_never_a_machine_to_connect_to() {
    let world = World::start().await;
    let (image, other) = (Image::simple(1, 10), Image::simple(2, 10));
    world.acme.put("team/app", "1", &image);
    world.quay.put("team/app", "1", &other);
    for ns in ["acme.test", "acme.test:5000", "acme.test%3A5000"] {
        let answer = get(world.url(&format!("/v2/team/app/manifests/1?ns={ns}"))).await;
        assert_eq!(answer.header("oci-namespace"), ns.replace("%3A", ":"));
        assert_eq!(answer.ok(), image.root().bytes, "{ns}");
    }
    let by_quay = get(world.url("mirror:/v2/team/app/manifests/1?ns=quay.io")).await;
    assert_eq!(by_quay.ok(), other.root().bytes);
    assert_eq!((world.acme.manifest_gets(), world.quay.manifest_gets()), (1, 1));

    let stranger = Upstream::start().await;
    stranger.put("team/app", "1", &image);
    let before = world.requests();
    let own = format!("127.0.0.1:{}", world.hub.port());
    let strange = format!("127.0.0.1:{}", stranger.port());
    // ghcr.io is switched off here.
    let unknown = [
        "evil.test",
        "169.254.169.254",
        "localhost",
        "ghcr.io",
        "acme.test:6000",
        "docker.io.evil.test",
        "docker.io%2f..",
        "http%3A%2F%2Fdocker.io",
        &own,
        &strange,
    ];
    for ns in unknown {
        for path in [
            "/v2/team/app/manifests/1",
            "/v2/docker.io/team/app/manifests/1",
            "mirror:/v2/team/app/manifests/1",
            "/mirror/v2/team/app/manifests/1",
        ] {
            let answer = get(world.url(&format!("{path}?ns={ns}"))).await;
            assert_error(&answer, 404, "NAME_UNKNOWN");
        }
        let blob = format!("/v2/team/app/blobs/{}?ns={ns}", image.layer_digest(0));
        assert_error(&get(world.url(&blob)).await, 404, "NAME_UNKNOWN");
        assert_error(
            &get(world.url(&format!("/v2/team/app/tags/list?ns={ns}"))).await,
            404,
            "NAME_UNKNOWN",
        );
    }
    assert_eq!(
        (world.requests(), stranger.connections()),
        (before, 0),
        "somebody was asked"
    );
}

#[tokio::test]
async fn when_path_and_ns_disagree_the_path_is_just_a_name() {
    let world = World::start().await;
    let image = Image::simple(1, 10);
    world.quay.put("coreos/etcd", "1", &image);
    // Docker Hub could have a repository of that name; Quay is not meant.
    let answer = get(world.url("/v2/quay.io/coreos/etcd/manifests/1?ns=docker.io")).await;
    assert_error(&answer, 404, "MANIFEST_UNKNOWN");
    assert_eq!(
        world
            .hub
            .count_of(&manifests().in_repo("quay.io/coreos/etcd").get()),
        1
    );
    let before = get(world.url("/quay.io/v2/coreos/etcd/manifests/1?ns=docker.io")).await;
    assert_error(&before, 404, "NAME_UNKNOWN");
    assert_eq!(world.quay.connections(), 0);
}

#[tokio::test]
async fn on_the_mirror_door_no_name_stands_in_for_an_image_of_docker_hub() {
    let world = World::start().await;
    let mut daemon = Daemon::over(&world.hub)
        .upstream("kubernetes", &world.acme)
        .mirror_door()
        .start()
        .await;
    let (hubs, kubernetes) = (Image::simple(1, 10), Image::simple(2, 10));
    world.hub.put("kubernetes/pause", "3", &hubs);
    world.acme.put("pause", "3", &kubernetes);
    let doors = [daemon.mirror_url(), format!("{}/mirror", daemon.url())];
    for door in doors {
        let answer = get(format!("{door}/v2/kubernetes/pause/manifests/3")).await;
        assert_eq!(answer.ok(), hubs.root().bytes, "{door}");
        // A host is a name like any other here, and Docker Hub does not have it.
        let by_host = get(format!("{door}/v2/registry.k8s.io/pause/manifests/3")).await;
        assert_error(&by_host, 404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(world.acme.connections(), 0);
    let main = get(format!("{}/v2/kubernetes/pause/manifests/3", daemon.url())).await;
    assert_eq!(main.ok(), kubernetes.root().bytes);
    assert_eq!(
        (
            world.hub.count_of(&manifest("3").get()),
            world.acme.manifest_gets()
        ),
        (2, 1),
        "each host's name was asked for at Docker Hub once"
    );
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn library_is_put_before_one_component_names_of_docker_hub_alone() {
    let world = World::start().await;
    world.hub.put("library/app", "1", &Image::simple(1, 10));
    world.quay.put("app", "1", &Image::simple(2, 10));
    world.acme.put("app", "1", &Image::simple(3, 10));
    for path in [
        "/v2/quay/app",
        "/v2/quay.io/app",
        "/quay.io/v2/app",
        "/v2/acme/app",
        "/v2/acme.test/app",
    ] {
        assert_eq!(
            get(world.url(&format!("{path}/manifests/1"))).await.status,
            200,
            "{path}"
        );
    }
    for ns in ["quay.io", "acme.test"] {
        assert_eq!(
            get(world.url(&format!("/v2/app/manifests/1?ns={ns}")))
                .await
                .status,
            200,
            "{ns}"
        );
    }
    for upstream in [&world.quay, &world.acme] {
        assert_eq!(upstream.count_of(&manifests().in_repo("app").get()), 1);
        assert_eq!(upstream.requests().len(), 1, "{:#?}", upstream.summary());
    }
    // Two components stay two.
    assert_error(
        &get(world.url("/v2/docker.io/acme/app/manifests/1")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
    assert_eq!(world.hub.count_of(&manifests().in_repo("acme/app").get()), 1);
}

#[tokio::test]
async fn another_upstream_can_be_the_root_mirror_and_there_can_be_none() {
    let (hub, acme) = (Upstream::start().await, Upstream::start().await);
    let image = Image::simple(1, 10);
    acme.put("app", "1", &image);
    let builder = Daemon::over(&hub).upstream("acme", &acme);
    let daemon = builder
        .setting("cache.mirror", "\"acme\"")
        .mirror_door()
        .start()
        .await;
    for url in [
        daemon.url(),
        format!("{}/mirror", daemon.url()),
        daemon.mirror_url(),
    ] {
        assert_eq!(
            get(format!("{url}/v2/app/manifests/1")).await.ok(),
            image.root().bytes
        );
    }
    assert_eq!((acme.requests().len(), hub.connections()), (1, 0));

    let daemon = Daemon::builder()
        .upstream("acme", &acme)
        .mirror_door()
        .start()
        .await;
    for url in [
        daemon.url(),
        format!("{}/mirror", daemon.url()),
        daemon.mirror_url(),
    ] {
        let answer = get(format!("{url}/v2/library/app/manifests/1")).await;
        assert_error(&answer, 404, "NAME_UNKNOWN");
    }
    assert_eq!(acme.requests().len(), 1);
    let named = get(daemon.manifest_url("acme/app", "1")).await;
    assert_eq!(named.ok(), image.root().bytes);
}

#[tokio::test]
async fn repositories_may_be_called_like_operations() {
    let world = World::start().await;
    let repos = [
        "manifests/blobs",
        "blobs/manifests",
        "team/manifests",
        "team/blobs",
        "team/tags/list",
        "team/referrers",
        "team/v2",
        "team/manifests/tags",
        "v2/app",
        "mirror/app",
        "token/app",
    ];
    for (seed, repo) in repos.iter().enumerate() {
        let image = Image::simple(seed as u64, 20);
        world.hub.put(repo, "1", &image);
        let (digest, layer) = (image.digest(), image.layer_digest(0));
        let url = |rest: &str| world.url(&format!("/v2/docker-hub/{repo}/{rest}"));
        for reference in ["1", &digest] {
            let answer = get(url(&format!("manifests/{reference}"))).await;
            assert_eq!(answer.ok(), image.root().bytes, "{repo} {reference}");
        }
        assert_eq!(
            get(url(&format!("blobs/{layer}"))).await.ok(),
            image.layers()[0].bytes,
            "{repo}"
        );
        assert_eq!(get(url("tags/list")).await.json()["tags"][0], "1", "{repo}");
        assert_eq!(
            get(url(&format!("referrers/{digest}"))).await.status,
            200,
            "{repo}"
        );
        assert_eq!(world.hub.count_of(&manifests().in_repo(repo).get()), 1, "{repo}");
        // Without prefix too: the root mirror has them.
        let bare = get(world.url(&format!("/v2/{repo}/manifests/1"))).await;
        assert_eq!(bare.ok(), image.root().bytes, "{repo}");
    }
    world.hub.put("library/manifests", "1", &Image::simple(99, 20));
    assert_eq!(
        get(world.url("/v2/docker-hub/manifests/manifests/1"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn unknown_hosts_in_the_path_are_not_repositories_of_docker_hub() {
    let world = World::start().await;
    for path in [
        "/v2/unknown.example/library/nginx/manifests/1",
        "/v2/127.0.0.1/library/nginx/manifests/1",
        "/v2/ghcr.io/acme/app/manifests/1",
        "/unknown.example/v2/library/nginx/manifests/1",
        "/ghcr.io/v2/acme/app/manifests/1",
        "/v2/docker-hub/manifests/1",
        "/v2/docker.io/manifests/1",
        "/v2/docker.io/tags/list",
    ] {
        let answer = get(world.url(path)).await;
        assert_error(&answer, 404, "NAME_UNKNOWN");
    }
    assert_eq!(world.requests(), 0);
}

#[tokio::test]
async fn a_repository_whose_namespace_is_the_upstreams_prefix_is_that_repository() {
    let world = World::start().await;
    let own = Image::simple(1, 100);
    let other = Image::simple(2, 100);
    world.quay.put("quay/busybox", "1", &own);
    world.quay.put("busybox", "1", &other);
    // The host is said by other means, so `quay` is part of the name.
    for target in [
        "/quay.io/v2/quay/busybox/manifests/1",
        "/v2/quay/busybox/manifests/1?ns=quay.io",
        "/v2/quay.io/quay/busybox/manifests/1?ns=quay.io",
        "/v2/quay/quay/busybox/manifests/1",
    ] {
        assert_eq!(get(world.url(target)).await.ok(), own.root().bytes, "{target}");
    }
    assert_eq!(
        get(world.url("/v2/quay/busybox/manifests/1")).await.ok(),
        other.root().bytes
    );
}
