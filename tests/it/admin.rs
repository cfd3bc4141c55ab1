//! The admin door: the socket, who is let in over TCP, and the subcommands that use it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::expect::{assert_error, assert_hit, cached};
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

/// What a subcommand did.
pub struct Ran {
    status: ExitStatus,
    out: String,
    told: String,
}

impl Ran {
    /// What it printed, when it went well.
    pub fn text(&self) -> &str {
        assert!(
            self.status.success(),
            "{}: {}{}",
            self.status,
            self.out,
            self.told
        );
        &self.out
    }

    /// What it printed, however it went.
    pub fn printed(&self) -> &str {
        &self.out
    }

    /// Its exit status.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it said on standard error.
    pub fn said(&self) -> &str {
        &self.told
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {}{}", self.out, self.told))
    }
}

/// Runs a subcommand with a configuration file, in an empty environment.
async fn run_with(config: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    command
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env_clear()
        .stdin(Stdio::null());
    let output = soon("the program's end", command.output())
        .await
        .expect("the program to start");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran {
        status: output.status,
        out: text(output.stdout),
        told: text(output.stderr),
    }
}

/// Runs a subcommand against the daemon.
pub async fn run(daemon: &Daemon, arguments: &[&str]) -> Ran {
    run_with(&daemon.config_path(), arguments).await
}

/// Runs a subcommand that fails, and gives what it says of that.
pub async fn run_offline(config: &Path, arguments: &[&str]) -> String {
    let ran = run_with(config, arguments).await;
    assert!(!ran.status.success(), "{}", ran.out);
    ran.told
}

/// The same with `--json`.
pub async fn asked(daemon: &Daemon, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    run(daemon, &arguments).await.json()
}

/// Sends bytes to the socket, and reads until it closes.
async fn raw(daemon: &Daemon, request: &str) -> String {
    let talk = async {
        let mut stream = UnixStream::connect(daemon.data_dir().join("admin.sock")).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    soon("the socket's answer", talk).await.expect("an answer")
}

fn mode(path: &Path) -> u32 {
    let metadata =
        std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o777
}

/// An image of two layers, in the upstream as tag `1`.
fn two_layers(scene: &Scene) -> Image {
    let image = Image::simple(1, 50_000).layer(random(2, 30_000));
    scene.upstream.put(REPO, "1", &image);
    image
}

const REF: &str = "docker-hub/library/app:1";

#[tokio::test]
async fn the_socket_is_for_the_daemons_user_alone_and_goes_with_the_daemon() {
    let mut scene = Scene::start().await;
    let socket = scene.daemon.data_dir().join("admin.sock");
    assert_eq!(mode(&socket), 0o600);
    // HTTP/1 for whoever speaks it; no header is asked of those who can open it, and no content is there.
    let answer = raw(
        &scene.daemon,
        "GET /api/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let live = raw(
        &scene.daemon,
        "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(live.ends_with("live\n"), "{live}");
    let content = raw(
        &scene.daemon,
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(content.starts_with("HTTP/1.1 404"), "{content}");
    scene.daemon.wait_for_log("client=local door=local").await;

    scene.daemon.stop().await;
    assert!(!socket.exists());
    let ran = run(&scene.daemon, &["status"]).await;
    assert_eq!(ran.status.code(), Some(69), "{}", ran.told);
    let path = socket.to_str().expect("a plain path");
    assert!(
        ran.told.contains("not running") && ran.told.contains(path),
        "{}",
        ran.told
    );
    assert_eq!(ran.out, "");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_second_daemon_takes_none() {
    let mut scene = Scene::start().await;
    let socket = scene.daemon.data_dir().join("admin.sock");
    let folder = scene.daemon.data_dir();
    // One data folder, one daemon: the second fails, and the first one's socket still answers.
    let (status, _) = Daemon::over(&scene.upstream)
        .setting("storage.data_dir", &format!("{folder:?}"))
        .fail()
        .await;
    assert_eq!(status.code(), Some(1));
    run(&scene.daemon, &["status"]).await.text();

    scene.daemon.kill().await;
    assert!(socket.exists(), "nobody took it away");
    let ran = run(&scene.daemon, &["status"]).await;
    assert_eq!(ran.status.code(), Some(69), "{}", ran.told);
    scene.daemon.restart().await;
    assert_eq!(mode(&socket), 0o600);
    run(&scene.daemon, &["status"]).await.text();
    assert!(!folder.join("admin.new").exists());
}

#[tokio::test]
async fn a_deep_data_folder_has_its_socket_too() {
    let upstream = Upstream::start().await;
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("d".repeat(100)).join("e".repeat(100));
    let daemon = Daemon::over(&upstream)
        .setting("storage.data_dir", &format!("{folder:?}"))
        .start()
        .await;
    assert!(run(&daemon, &["status"]).await.text().contains("up "));
    assert_eq!(mode(&folder.join("admin.sock")), 0o600);
}

#[tokio::test]
async fn over_tcp_only_programs_of_this_machine_are_let_in() {
    let scene = Scene::start().await;
    let image = two_layers(&scene);
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    let url = |path: &str| format!("{}{path}", scene.daemon.url());
    let status = get(url("/api/status")).await;
    assert_eq!((status.status, status.header("cache-control")), (200, "no-store"));
    assert_eq!(status.header("content-type"), "application/json");
    assert_eq!(head(url("/api/status")).await.status, 200);

    let refused: [(&str, &str); 6] = [
        ("host", "evil.example"),
        ("host", "evil.example:5000"),
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
    ];
    for header in refused {
        let answer = get_with(url("/api/status"), &[header]).await;
        assert_error(&answer, 403, "DENIED");
        let json = ("content-type", "application/json");
        let answer = request(Method::POST, url("/api/purge"), &[json, header]).await;
        assert_error(&answer, 403, "DENIED");
    }
    // What a page's form can send, and what it has to ask for first.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let answer = request(Method::POST, url("/api/purge"), &[("content-type", kind)]).await;
        assert_error(&answer, 415, "UNSUPPORTED");
    }
    let asked_first = request(Method::OPTIONS, url("/api/purge"), &[]).await;
    assert_error(&asked_first, 405, "UNSUPPORTED");
    assert_eq!(asked_first.header("allow"), "POST");
    assert_eq!(asked_first.header("access-control-allow-origin"), "");
    // Nothing of this purged anything.
    assert_hit(&get(scene.daemon.manifest_url(NAME, "1")).await);
    assert_hit(&get(scene.daemon.manifest_url(NAME, &image.digest())).await);

    assert_error(&get(url("/api/purge")).await, 405, "UNSUPPORTED");
    assert_error(&get(url("/api/explain")).await, 400, "UNSUPPORTED");
    let json = [("content-type", "application/json")];
    for path in ["/api/sing", "/api/evict-all"] {
        assert_error(&request(Method::POST, url(path), &json).await, 404, "UNSUPPORTED");
    }
    assert_error(
        &request(Method::POST, url("/api/purge"), &json).await,
        400,
        "UNSUPPORTED",
    );
}

#[tokio::test]
async fn other_machines_and_the_wrong_doors_are_not_let_in() {
    let upstream = Upstream::start().await;
    // A machine's own address that is no loopback one stands for another machine.
    let Some(own) = own_address() else { return };
    let daemon = Daemon::over(&upstream)
        .setting("server.listen", "\"0.0.0.0:0\"")
        .mirror_door()
        .start()
        .await;
    let port = daemon
        .url()
        .rsplit(':')
        .next()
        .map(str::to_owned)
        .expect("a port");
    let answer = get_with(
        format!("http://{own}:{port}/api/status"),
        &[("host", "localhost")],
    )
    .await;
    assert_error(&answer, 403, "DENIED");
    assert_eq!(get(format!("http://{own}:{port}/v2/")).await.status, 200);
    assert_eq!(
        get(format!("http://127.0.0.1:{port}/api/status")).await.status,
        200
    );
    assert_eq!(
        get(format!("{}/api/status", daemon.mirror_url())).await.status,
        404
    );

    let daemon = Daemon::over(&upstream)
        .setting("server.admin_listen", "\"127.0.0.1:0\"")
        .start()
        .await;
    let line = daemon.wait_for_log("door=\"admin\"").await;
    let address = line
        .split("address=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("an address");
    assert_eq!(get(format!("http://{address}/api/status")).await.status, 200);
    assert_eq!(get(format!("{}/api/status", daemon.url())).await.status, 404);
}

/// An address of this machine that is no loopback one, if it has any: no packet is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test]
async fn status_counts_what_is_here_and_what_arrives() {
    let scene = Scene::start().await;
    let image = two_layers(&scene);
    scene
        .upstream
        .decorate(manifests(), "ratelimit-limit", "100;w=21600");
    scene
        .upstream
        .decorate(manifests(), "ratelimit-remaining", "76;w=21600");
    let fresh = asked(&scene.daemon, &["status"]).await;
    assert_eq!(fresh["content"], json!({ "blobs": 0, "manifests": 0, "tags": 0 }));
    assert_eq!(fresh["upstreams"][0]["state"], "unasked");
    assert_eq!(fresh["version"], env!("CARGO_PKG_VERSION"));
    let folder = scene.daemon.data_dir();
    assert_eq!(fresh["data_dir"], folder.to_str().expect("a plain path"));

    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    let layer = image.layer_digest(0);
    get(scene.daemon.blob_url(NAME, &layer)).await.ok();
    scene.completed(1).await;
    let slow = image.layer_digest(1);
    let gate = scene.upstream.stall(blob(&slow), 10_000);
    let mut reading = open(scene.daemon.blob_url(NAME, &slow)).await;
    reading.read(1).await;
    gate.reached().await;
    // Bytes that the upstream has sent take their time to arrive.
    let status = soon("the bytes to be told", async {
        loop {
            let status = asked(&scene.daemon, &["status"]).await;
            if status["fills"][0]["present"] == 10_000 && status["answers"]["hit"] == 1 {
                return status;
            }
        }
    })
    .await;
    assert_eq!(
        status["content"],
        json!({ "blobs": 1, "manifests": 1, "tags": 1 })
    );
    let fill = json!({ "digest": slow, "repository": NAME, "present": 10_000, "size": 30_000, "readers": 1 });
    assert_eq!(status["fills"], json!([fill]));
    assert_eq!(status["answers"]["hit"], 1);
    let hub = &status["upstreams"][0];
    assert_eq!(
        (&hub["prefix"], &hub["state"]),
        (&json!("docker-hub"), &json!("well"))
    );
    assert_eq!((&hub["limit"], &hub["remaining"]), (&json!(100), &json!(76)));

    let words = run(&scene.daemon, &["status"]).await;
    for wanted in [
        "content  1 blob, 1 manifest, 1 tag\n",
        "1 hit, 0 revalidated, 0 stale",
        "docker-hub  well   76 of 100",
        &slow[..19],
        "docker-hub/library/app",
        "9.8 KiB of 29.3 KiB  33 %        1\n",
    ] {
        assert!(words.text().contains(wanted), "{wanted} in\n{}", words.out);
    }
    gate.release();
    reading.finish().await.ok();
}

#[tokio::test]
async fn an_upstream_in_trouble_is_told() {
    let scene = Scene::start().await;
    scene
        .upstream
        .always(manifests(), reply(429).header("ratelimit-remaining", "0;w=21600"));
    get(scene.daemon.manifest_url(NAME, "1")).await;
    let told = asked(&scene.daemon, &["explain", REF]).await;
    assert_eq!(
        (&told["upstream"]["state"], &told["upstream"]["failure"]),
        (&json!("limited"), &json!("429"))
    );
    scene.upstream.refuse().await;
    get(scene.daemon.blob_url(NAME, &sha256(b"x"))).await;
    let status = run(&scene.daemon, &["status"]).await;
    assert!(status.text().contains("docker-hub  failing"), "{}", status.out);
}

#[tokio::test]
async fn explain_says_why_before_during_and_after_a_pull() {
    let scene = Scene::start().await;
    let index = Index::of_platforms(2);
    scene.upstream.put(REPO, "1", &index);
    let before = asked(&scene.daemon, &["explain", REF]).await;
    assert_eq!(
        (&before["expected"], &before["asks_upstream"]),
        (&json!("miss"), &json!(true))
    );
    assert_eq!(before["reference"], REF);
    assert!(
        before["manifest"].is_null() && before["tag"].is_null(),
        "{before}"
    );
    assert_eq!(scene.upstream.connections(), 0, "nothing is asked");

    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    let [image, other] = index.images() else {
        panic!("two images")
    };
    get(scene.daemon.manifest_url(NAME, &image.digest())).await.ok();
    let config = image.config();
    get(scene.daemon.blob_url(NAME, &config.digest)).await.ok();
    scene.completed(1).await;
    let layer = image.layer_digest(0);
    let gate = scene.upstream.stall(blob(&layer), 1000);
    let mut reading = open(scene.daemon.blob_url(NAME, &layer)).await;
    reading.read(1).await;
    gate.reached().await;
    let asked_before = scene.upstream.requests().len();
    let told = soon("the partial bytes", async {
        loop {
            let told = asked(&scene.daemon, &["explain", REF]).await;
            if told["manifest"]["manifests"][0]["blobs"][1]["present"] == 1000 {
                return told;
            }
        }
    })
    .await;
    assert_eq!(
        (&told["expected"], &told["asks_upstream"]),
        (&json!("hit"), &json!(false))
    );
    assert_eq!(told["tag"]["digest"], index.digest());
    assert_eq!(told["tag"]["ttl_seconds"], 300);
    let root = &told["manifest"];
    assert_eq!(
        (&root["kind"], &root["state"], &root["digest"]),
        (&json!("index"), &json!("here"), &json!(index.digest()))
    );
    let here = &root["manifests"][0];
    assert_eq!(
        (&here["platform"], &here["state"]),
        (&json!("linux/amd64"), &json!("here"))
    );
    assert_eq!(
        (&here["blobs"][0]["state"], &here["blobs"][0]["size"]),
        (&json!("here"), &json!(config.bytes.len()))
    );
    assert_eq!(
        (&here["blobs"][1]["state"], &here["blobs"][1]["digest"]),
        (&json!("partial"), &json!(layer))
    );
    let absent = &root["manifests"][1];
    assert_eq!(
        (&absent["state"], &absent["digest"]),
        (&json!("absent"), &json!(other.digest()))
    );
    // One blob whole, one in part; the other platform's are not known of.
    let manifests = index.root().bytes.len() + image.root().bytes.len();
    let whole = manifests + config.bytes.len();
    assert_eq!(told["here"]["blobs"], 1);
    assert_eq!(told["here"]["of_blobs"], 2);
    assert_eq!(told["here"]["bytes"], whole + 1000);
    assert_eq!(told["eviction"]["bytes"], whole);

    let words = run(&scene.daemon, &["explain", REF]).await;
    for wanted in [
        "docker-hub/library/app:1: hit\nthe upstream confirmed the tag ",
        " ago: fresh for another 4m ",
        "1 of 2 blobs",
        "  index     ",
        "    image   ",
        "      config  ",
        "  partial  ",
        "  absent  ",
        "linux/amd64",
    ] {
        assert!(words.text().contains(wanted), "{wanted} in\n{}", words.out);
    }
    assert_eq!(
        scene.upstream.requests().len(),
        asked_before,
        "nothing more is asked"
    );
    gate.release();
    reading.finish().await.ok();
    scene.completed(2).await;
    // A blob by its own digest.
    let told = asked(&scene.daemon, &["explain", &format!("{NAME}@{layer}")]).await;
    assert_eq!(
        (&told["expected"], &told["blob"]["state"]),
        (&json!("hit"), &json!("here"))
    );
}

#[tokio::test]
async fn explain_tells_due_gone_and_unknown_tags() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.negative_ttl", "\"1h\"")
        .start()
        .await;
    upstream.put(REPO, "1", &Image::simple(1, 100));
    get(daemon.manifest_url(NAME, "1")).await.ok();
    let due = asked(&daemon, &["explain", REF]).await;
    assert_eq!(
        (&due["expected"], &due["asks_upstream"]),
        (&json!("stale"), &json!(true))
    );
    upstream.always(manifests(), reply(503).header("retry-after", "60"));
    get(daemon.manifest_url(NAME, "1")).await.ok();
    let troubled = asked(&daemon, &["explain", REF]).await;
    // For five seconds; a slow machine may be later.
    if troubled["tag"]["troubled"] == true {
        assert_eq!(
            (&troubled["expected"], &troubled["asks_upstream"]),
            (&json!("stale"), &json!(false))
        );
        assert!(
            troubled["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("503")),
            "{troubled}"
        );
    }
    assert_eq!(troubled["upstream"]["state"], "failing");
    upstream.behave();

    get(daemon.manifest_url(NAME, "2")).await;
    let unknown = asked(&daemon, &["explain", "docker-hub/library/app:2"]).await;
    assert_eq!(
        (&unknown["expected"], &unknown["asks_upstream"]),
        (&json!("negative"), &json!(false))
    );
    assert!(
        unknown["negative_seconds"]
            .as_u64()
            .is_some_and(|left| left > 3000),
        "{unknown}"
    );

    upstream.untag(REPO, "1");
    let refreshed = asked(&daemon, &["refresh", REF]).await;
    assert_eq!(refreshed["outcome"], "gone");
    let gone = asked(&daemon, &["explain", REF]).await;
    assert!(gone["tag"]["gone_since"].is_u64(), "{gone}");
    assert_eq!(gone["expected"], "stale");
}

#[tokio::test]
async fn references_as_people_type_them() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).mirror_door().start().await;
    let (main, mirror) = (daemon.url(), daemon.mirror_url());
    let main = main.replace("http://127.0.0.1", "localhost");
    let mirror = mirror.replace("http://", "");
    for (text, expected) in [
        ("nginx", "docker-hub/library/nginx:latest"),
        ("docker.io/library/nginx:1.27", "docker-hub/library/nginx:1.27"),
        ("docker-hub/acme/app", "docker-hub/acme/app:latest"),
        (
            &format!("{main}/docker-hub/library/nginx:1"),
            "docker-hub/library/nginx:1",
        ),
        (&format!("{mirror}/library/nginx:1"), "docker-hub/library/nginx:1"),
    ] {
        assert_eq!(
            asked(&daemon, &["explain", text]).await["reference"],
            expected,
            "{text}"
        );
    }
    let unknown = run(&daemon, &["explain", "ghcr.io/org/app"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        unknown.told.contains("no upstream is configured for ghcr.io"),
        "{}",
        unknown.told
    );
    let malformed = run(&daemon, &["explain", "nginx:a b"]).await;
    assert_eq!(malformed.status.code(), Some(64));
    assert!(malformed.told.contains("malformed tag"), "{}", malformed.told);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn refresh_asks_now_and_says_what_it_found() {
    let scene = Scene::start().await;
    let first = two_layers(&scene);
    let refresh = async |reference: &str| asked(&scene.daemon, &["refresh", reference]).await;

    let new = refresh(REF).await;
    assert_eq!(
        (&new["outcome"], &new["to"]),
        (&json!("new"), &json!(first.digest()))
    );
    assert_eq!(
        (scene.upstream.manifest_heads(), scene.upstream.manifest_gets()),
        (0, 1)
    );
    scene.upstream.forget_requests();

    // Fresh for minutes, and asked all the same: by HEAD.
    let unchanged = refresh(REF).await;
    assert_eq!(
        (&unchanged["outcome"], &unchanged["to"]),
        (&json!("unchanged"), &json!(first.digest()))
    );
    assert_eq!(
        (scene.upstream.manifest_heads(), scene.upstream.manifest_gets()),
        (1, 0)
    );

    let second = Image::simple(7, 100);
    scene.upstream.put(REPO, "1", &second);
    assert_hit(&get(scene.daemon.manifest_url(NAME, "1")).await);
    let words = run(&scene.daemon, &["refresh", REF]).await;
    let expected = format!(
        "{REF}: moved\n  from {}\n  to   {}\n",
        first.digest(),
        second.digest()
    );
    assert_eq!(words.text(), expected);
    assert_eq!(
        (scene.upstream.manifest_heads(), scene.upstream.manifest_gets()),
        (2, 1)
    );
    let now = get(scene.daemon.manifest_url(NAME, "1")).await;
    assert_hit(&now);
    assert_eq!(now.header("docker-content-digest"), second.digest());

    // A digest is for ever.
    scene.upstream.forget_requests();
    let by_digest = refresh(&format!("{NAME}@{}", second.digest())).await;
    assert_eq!(by_digest["outcome"], "unchanged");
    assert_eq!(scene.upstream.requests().len(), 0);

    scene
        .upstream
        .always(manifests(), reply(503).header("retry-after", "60"));
    let failed = run(&scene.daemon, &["refresh", REF, "--json"]).await;
    assert_eq!(failed.status.code(), Some(1));
    let told = failed.json();
    assert_eq!(
        (&told["outcome"], &told["upstream_status"]),
        (&json!("failed"), &json!(503))
    );
    assert_eq!(told["to"], second.digest());
    let words = run(&scene.daemon, &["refresh", REF]).await;
    assert!(
        words.out.contains("failed") && words.out.contains("answered 503"),
        "{}",
        words.out
    );
    scene.upstream.behave();

    scene.upstream.untag(REPO, "1");
    let gone = run(&scene.daemon, &["refresh", REF, "--json"]).await;
    assert_eq!(
        (gone.status.code(), &gone.json()["outcome"]),
        (Some(1), &json!("gone"))
    );
    let never = asked(&scene.daemon, &["refresh", "docker-hub/library/app:none"]).await;
    assert_eq!((&never["outcome"], &never["to"]), (&json!("gone"), &Value::Null));
}

#[tokio::test]
async fn refresh_does_not_believe_a_remembered_not_found() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.negative_ttl", "\"1h\"")
        .start()
        .await;
    assert_eq!(get(daemon.manifest_url(NAME, "1")).await.status, 404);
    upstream.put(REPO, "1", &Image::simple(1, 100));
    assert_eq!(get(daemon.manifest_url(NAME, "1")).await.status, 404);
    assert_eq!(asked(&daemon, &["refresh", REF]).await["outcome"], "new");
    assert_eq!(get(daemon.manifest_url(NAME, "1")).await.status, 200);
}

#[tokio::test]
async fn a_purged_tag_is_asked_for_anew_and_its_content_stays() {
    let mut scene = Scene::start().await;
    let image = two_layers(&scene);
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    let words = run(&scene.daemon, &["purge", REF]).await;
    assert_eq!(
        words.text(),
        format!("{REF}: removed, it pointed at {}\n", image.digest())
    );
    assert_eq!(asked(&scene.daemon, &["explain", REF]).await["expected"], "miss");
    assert_hit(&get(scene.daemon.manifest_url(NAME, &image.digest())).await);
    // Durable: also after a kill.
    scene.daemon.kill().await;
    scene.daemon.restart().await;
    assert_eq!(asked(&scene.daemon, &["explain", REF]).await["expected"], "miss");
    let again = asked(&scene.daemon, &["purge", REF]).await;
    assert_eq!(
        (&again["removed"], &again["digest"]),
        (&json!(false), &Value::Null)
    );
    let words = run(&scene.daemon, &["purge", REF]).await;
    assert_eq!(words.text(), format!("{REF}: was not here\n"));

    scene.upstream.forget_requests();
    let answer = get(scene.daemon.manifest_url(NAME, "1")).await;
    assert!(cached(&answer).contains("fwd=miss"), "{}", cached(&answer));
    assert_eq!(scene.upstream.manifest_gets(), 1);
    assert_eq!(asked(&scene.daemon, &["explain", REF]).await["expected"], "hit");
}

#[tokio::test]
async fn a_purged_manifest_is_fetched_anew() {
    let mut scene = Scene::start().await;
    let image = two_layers(&scene);
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    let layer = image.layer_digest(0);
    get(scene.daemon.blob_url(NAME, &layer)).await.ok();
    scene.completed(1).await;
    let by_digest = format!("{NAME}@{}", image.digest());
    let words = run(&scene.daemon, &["purge", &by_digest]).await;
    assert_eq!(words.text(), format!("{by_digest}: removed\n"));
    scene.daemon.restart().await;
    let told = asked(&scene.daemon, &["explain", REF]).await;
    assert_eq!(
        (&told["expected"], &told["manifest"]["state"]),
        // The tag that pointed at it went with it.
        (&json!("miss"), &Value::Null)
    );
    assert_eq!(
        asked(&scene.daemon, &["purge", &by_digest]).await["removed"],
        false
    );

    scene.upstream.forget_requests();
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    assert_eq!(scene.upstream.manifest_gets(), 1);
    assert_hit(&get(scene.daemon.blob_url(NAME, &layer)).await);
    // A digest of something else is not removed as a manifest.
    let of_blob = format!("{NAME}@{layer}");
    assert_eq!(asked(&scene.daemon, &["purge", &of_blob]).await["removed"], false);
    assert_hit(&get(scene.daemon.blob_url(NAME, &layer)).await);
}
