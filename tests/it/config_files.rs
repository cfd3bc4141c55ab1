//! What lies in `config/` is true: both files load, the full one says every key and its real default, and each
//! client's file makes that client ask for what the daemon answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wharfinger::config::{Config, CredentialKind, known_keys};

/// The daemon's default address, which every client file names.
const DAEMON: &str = "127.0.0.1:5000";
/// The hosts that people pull from, of the built-in upstreams.
const HOSTS: [&str; 5] = [
    "docker.io",
    "quay.io",
    "ghcr.io",
    "public.ecr.aws",
    "registry.k8s.io",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read_toml(name: &str) -> toml::Table {
    read(name)
        .parse()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn load(name: &str) -> Config {
    Config::load(Some(&path(name)), std::iter::empty()).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The text with its example lines (`#key = ...`) made real.
fn with_examples(text: &str) -> String {
    text.lines()
        .map(|line| if is_example(line) { &line[1..] } else { line })
        .fold(String::new(), |text, line| text + line + "\n")
}

fn is_example(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|rest| {
        rest.starts_with('[') || rest.starts_with(|first: char| first.is_ascii_lowercase())
    })
}

#[test]
fn minimal_loads() {
    let config = load("minimal.toml");
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:5000");
    assert_eq!(config.storage.data_dir, Path::new("/var/lib/wharfinger"));
}

#[test]
fn full_says_every_default() {
    let (full, default) = (
        load("full.toml"),
        Config::load(None, std::iter::empty()).expect("defaults"),
    );
    assert_eq!(format!("{full:#?}"), format!("{default:#?}"));
    let (full, default) = (
        full.upstream("docker-hub").expect("hub"),
        default.upstream("docker-hub").expect("hub"),
    );
    assert_eq!(
        (
            full.insecure,
            full.allow_private,
            full.share_private,
            full.caller_check,
            full.max_connections,
            full.parallel
        ),
        (
            default.insecure,
            default.allow_private,
            default.share_private,
            default.caller_check,
            default.max_connections,
            default.parallel
        )
    );
    assert_eq!(
        (full.connect_timeout, full.header_timeout, full.idle_timeout),
        (
            default.connect_timeout,
            default.header_timeout,
            default.idle_timeout
        )
    );
    assert_eq!(full.realms, default.realms);
}

#[test]
fn full_says_every_key() {
    let table: toml::Table = with_examples(&read("full.toml"))
        .parse()
        .expect("with its examples it is TOML");
    let mut said = BTreeSet::new();
    let mut say = |section: &str, table: &toml::Table| {
        for (key, value) in table {
            if let Some(inner) = value.as_table() {
                said.extend(inner.keys().map(|inner| format!("{section}.{key}.{inner}")));
                continue;
            }
            said.insert(format!("{section}.{key}"));
            let rules = value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(toml::Value::as_table);
            said.extend(
                rules
                    .flat_map(toml::Table::keys)
                    .map(|rule| format!("{section}.{key}.{rule}")),
            );
        }
    };
    for (section, value) in &table {
        if section == "upstream" {
            say(
                "upstream.<prefix>",
                value["docker-hub"].as_table().expect("table"),
            );
        } else if let Some(tables) = value.as_array() {
            let tables = tables.iter().map(|table| table.as_table().expect("table"));
            tables.for_each(|table| say(section, table));
        } else {
            say(section, value.as_table().expect("table"));
        }
    }
    let known: BTreeSet<String> = known_keys()
        .map(|(section, key)| format!("{section}.{key}"))
        .collect();
    assert_eq!(said, known);
}

#[test]
fn the_examples_of_full_are_valid() {
    let folder = tempfile::tempdir().expect("folder");
    let place = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let secret = place("hub", "hunter2\n");
    let (htpasswd, policy) = (place("htpasswd", ""), place("policy.json", "{}"));
    let docker = place("config.json", r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#);
    let helper = place("docker-credential-pass", "#!/bin/sh\n");
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&helper, runs).expect("permissions");
    let text: String = with_examples(&read("full.toml"))
        .lines()
        // One of the two ways to give a password; and there is no certificate on this machine to name.
        .filter(|line| {
            let absent = [
                "password =",
                "ca_file =",
                "client_cert =",
                "client_key =",
                "[server.tls]",
                "cert_file =",
                "key_file =",
                "client_ca_file =",
                "client_auth =",
                "lifecycle_file =",
            ];
            !absent.iter().any(|key| line.starts_with(key))
        })
        .fold(String::new(), |text, line| text + line + "\n")
        .replace("/run/secrets/hub", &secret)
        .replace("/run/secrets/token", &secret)
        .replace("/var/run/secrets/kubernetes.io/serviceaccount/token", &secret)
        .replace("/etc/wharfinger/htpasswd", &htpasswd)
        .replace("/etc/wharfinger/policy.json", &policy)
        .replace("~/.docker/config.json", &docker)
        .replace("helper = \"pass\"", &format!("helper = {helper:?}"));
    let config = Config::from_toml_str(&text, "full.toml").unwrap_or_else(|faults| panic!("{faults}"));
    let hub = config.upstream("docker-hub").expect("hub");
    let names: Vec<_> = hub
        .credentials
        .iter()
        .map(|credential| credential.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "ci",
            "team-a",
            "docker-config",
            "helper",
            "token-file",
            "ecr",
            "anonymous"
        ]
    );
    assert!(matches!(
        &hub.credentials[0].kind,
        CredentialKind::Password { password, .. } if password.expose() == "hunter2"
    ));
}

#[test]
fn docker() {
    let json: serde_json::Value = serde_json::from_str(&read("clients/docker-daemon.json")).expect("JSON");
    assert_eq!(
        json["registry-mirrors"],
        serde_json::json!([format!("http://{DAEMON}")])
    );
    assert_eq!(
        json.as_object().map(serde_json::Map::len),
        Some(1),
        "dockerd refuses keys that it does not know"
    );
    assert!(read("clients/README.md").contains("insecure-registries"));
}

#[test]
fn containerd() {
    for (file, server) in [
        (
            "clients/containerd/docker.io/hosts.toml",
            Some("https://registry-1.docker.io"),
        ),
        ("clients/containerd/_default/hosts.toml", None),
    ] {
        let table = read_toml(file);
        assert_eq!(
            table.get("server").and_then(toml::Value::as_str),
            server,
            "{file}"
        );
        let hosts = table["host"].as_table().expect("hosts");
        assert_eq!(
            hosts.keys().collect::<Vec<_>>(),
            [&format!("http://{DAEMON}")],
            "{file}"
        );
        let host = &hosts[&format!("http://{DAEMON}")];
        let capabilities = ["pull", "resolve"].map(toml::Value::from).to_vec();
        assert_eq!(host["capabilities"], toml::Value::Array(capabilities), "{file}");
        // With it containerd would leave out /v2, and ask for a path that is none.
        assert!(host.get("override_path").is_none(), "{file}");
    }
}

#[test]
fn podman() {
    let table = read_toml("clients/registries.conf");
    let registries = table["registry"].as_array().expect("registries");
    let prefixes: Vec<_> = registries
        .iter()
        .filter_map(|registry| registry["prefix"].as_str())
        .collect();
    assert_eq!(prefixes, HOSTS);
    for registry in registries {
        let host = registry["location"].as_str().expect("location");
        assert_eq!(registry["prefix"].as_str(), Some(host));
        let mirrors = registry["mirror"].as_array().expect("mirrors");
        assert_eq!(mirrors.len(), 1);
        // No `ns` from this family: the host in the path alone says which registry is meant.
        assert_eq!(
            mirrors[0]["location"].as_str(),
            Some(format!("{DAEMON}/{host}").as_str())
        );
        assert_eq!(mirrors[0]["insecure"].as_bool(), Some(true));
        // It would reach past the mirror, to the registry itself.
        assert!(registry.get("insecure").is_none());
    }
}

#[test]
fn buildkit() {
    let table = read_toml("clients/buildkitd.toml");
    let registries = table["registry"].as_table().expect("registries");
    assert_eq!(registries.len(), HOSTS.len() + 1);
    for host in HOSTS {
        let mirrors = registries[host]["mirrors"].as_array().expect("mirrors");
        let mirrors: Vec<_> = mirrors.iter().filter_map(toml::Value::as_str).collect();
        // A scheme has no place here: BuildKit takes it for the host.
        assert_eq!(mirrors, [format!("{DAEMON}/{host}")]);
    }
    assert_eq!(registries[DAEMON]["http"].as_bool(), Some(true));
}

#[test]
fn k3s() {
    let text = read("clients/k3s-registries.yaml");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("mirrors:"));
    for host in HOSTS {
        assert_eq!(lines.next(), Some(format!("  {host}:").as_str()));
        assert_eq!(lines.next(), Some("    endpoint:"));
        assert_eq!(
            lines.next(),
            Some(format!("      - \"http://{DAEMON}\"").as_str())
        );
    }
    assert_eq!(lines.next(), None);
}

/// Every host that a client file sends here is one that the daemon knows without being configured.
#[test]
fn the_hosts_are_known() {
    let config = Config::load(None, std::iter::empty()).expect("defaults");
    assert_eq!(config.server.listen.to_string(), DAEMON);
    for host in HOSTS {
        let owners = config
            .upstreams
            .iter()
            .filter(|upstream| upstream.hosts.iter().any(|known| known == host));
        assert_eq!(owners.count(), 1, "{host}");
    }
}
