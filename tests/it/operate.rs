//! What an operator sees: the lines at the start, `check-config`, health, metrics, the access log.

use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use crate::expect::get_all;
use crate::login::Login as _;
use crate::support::prelude::*;

const APP: &str = "docker-hub/library/app";

/// Runs the program to its end in an empty environment; gives its status, and what it printed where.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (ExitStatus, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    let output = soon("the program's end", command.output())
        .await
        .expect("the program to start");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status, text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_start_says_where_it_listens_where_its_data_is_and_how_docker_gets_there() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream).start().await;
    let line = daemon.wait_for_log("registry-mirrors").await;
    assert!(
        line.contains(&format!("{{\"registry-mirrors\": [\"{}\"]}}", daemon.url())),
        "{line}"
    );
    let started = daemon.logs().join("\n");
    let address = daemon.url().replace("http://", "");
    let folder = daemon.data_dir();
    for wanted in [
        &format!("listening address={address} door=\"main\""),
        folder.to_str().expect("a plain path"),
        &upstream.url(),
    ] {
        assert!(started.contains(wanted), "{wanted} is not in\n{started}");
    }
    assert!(daemon.stop().await.success());
    assert!(daemon.logs().iter().any(|line| line.contains("stopped")));

    // With a mirror door, Docker is pointed at that.
    let daemon = Daemon::over(&upstream).mirror_door().start().await;
    let line = daemon.wait_for_log("registry-mirrors").await;
    assert!(line.contains(&format!("[\"{}\"]", daemon.mirror_url())), "{line}");
}

#[tokio::test]
async fn docker_is_pointed_at_a_door_that_asks_for_no_login() {
    let upstream = Upstream::start().await;
    upstream.put("library/app", "latest", &Image::simple(1, 10_000));
    let mut daemon = Daemon::over(&upstream).start().await;
    daemon.user("alice", "correct horse").await;
    daemon.restart().await;
    let door = format!("{}/mirror", daemon.url());
    daemon
        .wait_for_log(&format!("{{\"registry-mirrors\": [\"{door}\"]}}"))
        .await;
    assert_eq!(get(format!("{}/v2/", daemon.url())).await.status, 401);
    for path in ["", "library/app/manifests/latest"] {
        assert_eq!(get(format!("{door}/v2/{path}")).await.status, 200, "{path}");
    }

    // Who shows nothing is asked for a login without any, too.
    let closed = || {
        Daemon::over(&upstream)
            .setting("auth.anonymous", "[]")
            .setting("auth.open_networks", r#"["127.0.0.0/8"]"#)
    };
    let public = closed().setting("server.public_url", "\"https://cache.example.com/\"");
    let line = public.start().await.wait_for_log("registry-mirrors").await;
    assert!(line.contains("[\"https://cache.example.com/mirror\"]"), "{line}");
    let daemon = closed().mirror_door().start().await;
    let line = daemon.wait_for_log("registry-mirrors").await;
    assert!(line.contains(&format!("[\"{}\"]", daemon.mirror_url())), "{line}");
    // And so is everybody, where an upstream says who may read.
    let asking = Daemon::over(&upstream)
        .setting("upstream.docker-hub.username", "\"ci\"")
        .setting("upstream.docker-hub.password", "\"hunter2\"")
        .setting("upstream.docker-hub.caller_check", "true");
    let line = asking.start().await.wait_for_log("registry-mirrors").await;
    assert!(line.contains("/mirror\"]"), "{line}");
}

#[tokio::test]
async fn check_config_names_file_key_and_reason_of_every_fault_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("faulty.toml");
    let file = path.to_str().expect("a plain path");
    let text = "[server]\nlisten = \"localhost\"\nlistne = 1\n[cache]\ntag_ttl = \"300\"\nmirror = \"dockerhub\"\n\
                [upstream.acme]\nusername = \"ci\"\n[log]\nformat = \"xml\"\n";
    std::fs::write(&path, text).expect("a writable folder");
    let keys = [
        "server.listen",
        "server.listne",
        "cache.tag_ttl",
        "cache.mirror",
        "upstream.acme.url",
        "upstream.acme.username",
        "log.format",
    ];
    let (status, out, told) = run(
        &["check-config", file],
        &[("WHARFINGER__SERVER__MIRROR_LISTEN", "x")],
    )
    .await;
    assert_eq!((status.code(), out.as_str()), (Some(64), ""), "{told}");
    for key in keys {
        let line = told
            .lines()
            .find(|line| line.starts_with(&format!("{file}: {key}: ")));
        let reason = line.unwrap_or_else(|| panic!("nothing about {key} in\n{told}"));
        assert!(reason.len() > file.len() + key.len() + 10, "{reason}");
    }
    assert!(
        told.lines()
            .any(|line| line.starts_with("WHARFINGER__SERVER__MIRROR_LISTEN: ")),
        "{told}"
    );
    // A start tells the same, and does not begin.
    let (status, _, at_start) = run(&["serve", "--config", file], &[]).await;
    assert_eq!(status.code(), Some(64), "{at_start}");
    for key in keys {
        assert!(
            at_start.contains(&format!("{file}: {key}: ")),
            "{key} in\n{at_start}"
        );
    }

    std::fs::write(&path, "[server]\nlisten = \"127.0.0.1:5000\"\n[server]\n").expect("a writable folder");
    let (status, _, told) = run(&["check-config"], &[("WHARFINGER_CONFIG", file)]).await;
    assert_eq!(status.code(), Some(64));
    assert!(told.contains(file) && told.contains("line 3"), "{told}");
    let (status, _, told) = run(&["check-config", "/nowhere/at-all.toml"], &[]).await;
    assert_eq!(status.code(), Some(64));
    assert!(told.contains("/nowhere/at-all.toml"), "{told}");
}

#[tokio::test]
async fn no_configuration_is_a_valid_one_and_secrets_are_not_repeated() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path().to_str().expect("a plain path");
    let (status, out, _) = run(&["check-config"], &[("HOME", home)]).await;
    assert!(status.success());
    for wanted in [
        "valid",
        "127.0.0.1:5000",
        home,
        "docker-hub",
        "quay",
        "github",
        "ecr-public",
        "kubernetes",
    ] {
        assert!(out.contains(wanted), "{wanted} is not in {out}");
    }
    assert_eq!(
        std::fs::read_dir(home).expect("a folder").count(),
        0,
        "it only looks"
    );

    let secret = "hunter2-hunter2";
    let environment = [
        ("HOME", home),
        ("WHARFINGER__UPSTREAM__DOCKER_HUB__USERNAME", "ci"),
        ("WHARFINGER__UPSTREAM__DOCKER_HUB__PASSWORD", secret),
        ("WHARFINGER__CACHE__TAG_TTL", "1h"),
    ];
    let (status, out, told) = run(&["check-config"], &environment).await;
    assert!(status.success(), "{told}");
    assert!(!format!("{out}{told}").contains(secret));
}

#[tokio::test]
async fn wrong_usage_is_64_and_help_is_none() {
    for arguments in [
        &["sevre"][..],
        &[],
        &["serve", "--nonsense"],
        &["check-config", "a", "b"],
    ] {
        let (status, _, told) = run(arguments, &[]).await;
        assert_eq!(status.code(), Some(64), "{arguments:?}: {told}");
        assert!(!told.is_empty());
    }
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        let (status, out, _) = run(arguments, &[]).await;
        assert!(
            status.success() && out.contains("wharfinger"),
            "{arguments:?}: {out}"
        );
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).start().await;
    let address = daemon.url().replace("http://", "");
    let (status, told) = Daemon::over(&upstream)
        .setting("server.listen", &format!("{address:?}"))
        .fail()
        .await;
    assert_eq!(status.code(), Some(1));
    assert!(told.join("\n").contains(&address), "{told:?}");
    // One daemon per data folder.
    let folder = daemon.data_dir();
    let (status, told) = Daemon::over(&upstream)
        .setting("storage.data_dir", &format!("{folder:?}"))
        .fail()
        .await;
    assert_eq!(status.code(), Some(1));
    assert!(
        told.join("\n").contains(folder.to_str().expect("a plain path")),
        "{told:?}"
    );
}

#[tokio::test]
async fn health_and_metrics_are_on_the_main_door_or_on_their_own() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).start().await;
    for path in ["/livez", "/readyz"] {
        let answer = get(format!("{}{path}", daemon.url())).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(
            head(format!("{}{path}", daemon.url())).await.status,
            200,
            "{path}"
        );
    }
    let pushed = request(Method::POST, format!("{}/metrics", daemon.url()), &[]).await;
    assert_eq!(pushed.status, 405);

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
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(get(format!("http://{address}{path}")).await.status, 200, "{path}");
        assert_eq!(get(format!("{}{path}", daemon.url())).await.status, 404, "{path}");
    }
    assert_eq!(get(format!("http://{address}/v2/")).await.status, 404);
    assert_eq!(upstream.connections(), 0, "health asks nobody");
}

/// The sum of the samples of a family whose labels contain all of these texts.
fn metric(text: &str, family: &str, labels: &[&str]) -> f64 {
    let of_family = |line: &&str| {
        line.strip_prefix(family)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    text.lines()
        .filter(of_family)
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Reads the metrics until this one has moved; gives them all.
async fn wait_for_metric(daemon: &Daemon, family: &str, labels: &[&str]) -> String {
    let moved = async {
        loop {
            let text = daemon.metrics().await;
            if metric(&text, family, labels) > 0.0 {
                return text;
            }
        }
    };
    soon(&format!("{family} {labels:?} to move"), moved).await
}

#[tokio::test]
async fn the_metrics_move_with_what_happens() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 50_000);
    upstream.put("library/app", "1", &image);
    upstream.decorate(manifests(), "ratelimit-limit", "100;w=21600");
    upstream.decorate(manifests(), "ratelimit-remaining", "76;w=21600");
    let daemon = Daemon::over(&upstream).start().await;
    let layer = &image.layers()[0];
    let gate = upstream.stall(blob(&layer.digest), 10_000);
    let (manifest_url, blob_url) = (daemon.manifest_url(APP, "1"), daemon.blob_url(APP, &layer.digest));
    get(&manifest_url).await;
    get(&manifest_url).await;
    get(daemon.manifest_url(APP, "none")).await;
    let mut reading = open(&blob_url).await;
    reading.read(1).await;
    gate.reached().await;
    let during = daemon.metrics().await;
    assert_eq!(
        metric(&during, "wharfinger_fills_running", &[]).to_string(),
        "1",
        "{during}"
    );
    gate.release();
    assert_eq!(reading.finish().await.ok(), layer.bytes);
    // The client has it all before it is synced, and a response is counted once its last byte is out of our hands.
    wait_for_metric(&daemon, "wharfinger_fills_total", &["completed"]).await;
    get(&blob_url).await;
    let hit = ["operation=\"blob\"", "outcome=\"hit\"", "status=\"2xx\""];
    let text = wait_for_metric(&daemon, "wharfinger_requests_total", &hit).await;
    let size = layer.bytes.len() as u64;
    let manifest_size = image.root().bytes.len() as u64;
    let hub = "upstream=\"docker-hub\"";
    let table: [(&str, &[&str], u64); 13] = [
        (
            "wharfinger_requests_total",
            &["operation=\"manifest\"", "outcome=\"miss\"", "2xx"],
            1,
        ),
        (
            "wharfinger_requests_total",
            &["operation=\"manifest\"", "outcome=\"hit\"", "2xx"],
            1,
        ),
        ("wharfinger_requests_total", &["operation=\"manifest\"", "4xx"], 1),
        (
            "wharfinger_requests_total",
            &["operation=\"blob\"", "outcome=\"miss\""],
            1,
        ),
        ("wharfinger_requests_total", &hit, 1),
        ("wharfinger_fills_running", &[], 0),
        ("wharfinger_fills_total", &[hub, "result=\"completed\""], 1),
        ("wharfinger_upstream_bytes_total", &[hub], size + manifest_size),
        (
            "wharfinger_response_bytes_total",
            &[hub, "outcome=\"hit\""],
            size + manifest_size,
        ),
        (
            "wharfinger_upstream_requests_total",
            &[hub, "kind=\"blob\"", "status=\"200\""],
            1,
        ),
        ("wharfinger_upstream_requests_total", &[hub, "status=\"404\""], 1),
        ("wharfinger_upstream_ratelimit_limit", &[hub], 100),
        ("wharfinger_upstream_ratelimit_remaining", &[hub], 76),
    ];
    for (family, labels, expected) in table {
        let sum = metric(&text, family, labels);
        assert_eq!(
            sum.to_string(),
            expected.to_string(),
            "{family} {labels:?} in\n{text}"
        );
    }
    assert!(
        metric(
            &text,
            "wharfinger_request_seconds_count",
            &["operation=\"manifest\""]
        ) >= 3.0
    );
    assert!(metric(&text, "wharfinger_build_info", &["version="]) > 0.0);
    assert!(text.contains("# HELP wharfinger_requests_total"));
}

#[tokio::test]
async fn a_herd_is_counted_once_upstream_and_told_as_collapsed() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 50_000);
    upstream.put("library/app", "1", &image);
    let daemon = Daemon::over(&upstream).start().await;
    let layer = &image.layers()[0];
    let gate = upstream.stall(blob(&layer.digest), 10_000);
    let url = daemon.blob_url(APP, &layer.digest);
    let mut first = open(&url).await;
    first.read(1).await;
    gate.reached().await;
    // The download stands still: whoever comes now joins it.
    let herd = tokio::spawn(get_all(vec![url.clone(); 5]));
    let joined = open(&url).await;
    gate.release();
    let joined = joined.finish().await;
    assert!(
        joined.header("cache-status").contains("collapsed"),
        "{:?}",
        joined.headers
    );
    for answer in herd.await.expect("no panic") {
        assert_eq!(answer.ok(), layer.bytes);
    }
    assert_eq!(first.finish().await.ok(), layer.bytes);
    assert_eq!(upstream.blob_gets(&layer.digest), 1);
}

#[tokio::test]
async fn the_access_log_tells_each_request_as_text() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 5000);
    upstream.put("library/app", "1", &image);
    let daemon = Daemon::over(&upstream).start().await;
    let agent = [("user-agent", "docker/29 \"x\"\tUpstreamClient")];
    let answer = get_with(daemon.manifest_url(APP, "1"), &agent).await;
    let line = daemon
        .wait_for_log(&format!("request={}", answer.header("x-request-id")))
        .await;
    let digest = image.digest();
    for wanted in [
        "client=127.0.0.1:",
        "door=main",
        "method=GET",
        &format!("path=\"/v2/{APP}/manifests/1\""),
        "repository=docker-hub/library/app",
        "tag=1",
        &format!("digest={digest}"),
        "status=200",
        "outcome=miss",
        "upstream=docker-hub",
        &format!("bytes={}", image.root().bytes.len()),
        "first_byte=0.",
        "total=0.",
        "body=whole",
        "agent=\"docker/29 \\\"x\\\"",
    ] {
        assert!(line.contains(wanted), "{wanted} is not in {line}");
    }
    // What a client writes cannot break a line in two.
    let odd = get(format!("{}/v2/%0Atime=0/manifests/1?x=%0d%0a", daemon.url())).await;
    let line = daemon
        .wait_for_log(&format!("request={}", odd.header("x-request-id")))
        .await;
    assert!(line.contains("status=400") && line.contains("path="), "{line}");
}

#[tokio::test]
async fn the_access_log_tells_each_request_as_json_or_not_at_all() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 5000);
    upstream.put("library/app", "1", &image);
    let mut daemon = Daemon::over(&upstream)
        .setting("log.format", "\"json\"")
        .start()
        .await;
    let layer = image.layer_digest(0);
    let answer = get(daemon.blob_url(APP, &layer)).await;
    let id = answer.header("x-request-id").to_owned();
    let missing = get(daemon.manifest_url(APP, "none")).await;
    daemon.wait_for_log(&id).await;
    assert!(daemon.stop().await.success());
    let lines: Vec<serde_json::Value> = daemon
        .logs()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let find = |id: &str| lines.iter().find(|line| line["request"] == id).expect("its line");
    let line = find(&id);
    let expected = serde_json::json!({
        "door": "main", "method": "GET", "path": format!("/v2/{APP}/blobs/{layer}"),
        "repository": "docker-hub/library/app", "digest": layer, "status": 200, "outcome": "miss",
        "upstream": "docker-hub", "bytes": 5000, "body": "whole",
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&line[key], value, "{key} of {line}");
    }
    for key in ["first_byte", "total"] {
        assert!(line[key].is_f64() || line[key].is_u64(), "{key} of {line}");
    }
    assert!(
        line["time"].as_str().is_some_and(|time| time.ends_with('Z')),
        "{line}"
    );
    assert_eq!(find(missing.header("x-request-id"))["status"], 404);

    let quiet = Daemon::over(&upstream)
        .setting("log.access", "false")
        .start()
        .await;
    let answer = get(quiet.manifest_url(APP, "1")).await;
    assert_eq!(answer.status, 200);
    let mut quiet = quiet;
    assert!(quiet.stop().await.success());
    let id = answer.header("x-request-id").to_owned();
    assert!(quiet.logs().iter().all(|line| !line.contains(&id)));
}
