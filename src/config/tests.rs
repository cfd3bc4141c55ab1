//! What loads: defaults, the built-in upstreams, files beside the configuration, the environment over it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

mod credentials;
mod faults;
mod rules;
mod upstreams;
mod variables;
mod warm;

/// A self-signed certificate (P-256), for `ca_file`.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBejCCASGgAwIBAgIUF9pKCmjhABwxmbS0KWD5ovOVPwIwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHY2EudGVzdDAgFw0yNjExMjEwMjE5NTdaGA8yMTI2MTAyODAy
MTk1N1owEjEQMA4GA1UEAwwHY2EudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABDIdGf4S459/E5tTbPILVhhUC2dMXnGn/RZBFUt2lBPEiEQt+mVbTPSjIDiM
rqk31EMuM9fUJwna53LX80VcK7CjUzBRMB0GA1UdDgQWBBS5wAEtQWGOWl+YpaOV
YQ7h7AGDgDAfBgNVHSMEGDAWgBS5wAEtQWGOWl+YpaOVYQ7h7AGDgDAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCICF9PuARHgST5YwD7GD49c6E6Tzh
ZWaVM8mh3wHQamkgAiBDfghfT5ovNdhspaQvA6MlxSs88GEe2G66U3j9JpuT3w==
-----END CERTIFICATE-----
";

fn parse(text: &str) -> Result<Config, ConfigFaults> {
    Config::from_toml_str(text, "/etc/wharfinger/wharfinger.toml")
}

fn lines(result: Result<Config, ConfigFaults>) -> Vec<String> {
    result
        .expect_err("this must not load")
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn with_variables(text: Option<&str>, variables: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("w.toml");
    if let Some(text) = text {
        fs::write(&file, text).expect("file");
    }
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(text.map(|_| file.as_path()), variables)
}

/// User and password of those credentials that are such.
fn passwords(upstream: &UpstreamConfig) -> Vec<(&str, &str)> {
    let kinds = upstream.credentials.iter().map(|credential| &credential.kind);
    kinds
        .filter_map(|kind| match kind {
            CredentialKind::Password {
                username, password, ..
            } => Some((username.as_str(), password.expose())),
            _ => None,
        })
        .collect()
}

fn prefixes(config: &Config) -> Vec<&str> {
    config
        .upstreams
        .iter()
        .map(|upstream| upstream.prefix.as_str())
        .collect()
}

#[test]
fn nothing_is_a_configuration() {
    let config = with_variables(None, &[]).expect("defaults");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(config.server.drain_timeout, Duration::from_secs(25));
    assert_eq!(config.server.max_connections, 10_000);
    assert!(config.server.public_url.is_none() && config.server.mirror_listen.is_none());
    assert_eq!(config.cache.mirror.as_deref(), Some("docker-hub"));
    assert_eq!(
        prefixes(&config),
        ["docker-hub", "ecr-public", "github", "kubernetes", "quay"]
    );
    assert_eq!(
        (config.log.format, config.log.level.as_str(), config.log.access),
        (LogFormat::Text, "info", true)
    );
    assert!(
        config.storage.data_dir.ends_with("wharfinger")
            || config.storage.data_dir.ends_with("wharfinger-data")
    );
    let hub = config.upstream("docker-hub").expect("built in");
    assert_eq!(hub.url.as_str(), "https://registry-1.docker.io/");
    assert_eq!(
        hub.hosts,
        ["docker.io", "index.docker.io", "registry-1.docker.io"]
    );
    assert_eq!(hub.freshness, Freshness::default());
    assert_eq!(hub.freshness.stale_if_error, Duration::from_hours(30 * 24));
    assert_eq!(hub.max_connections, 64);
}

#[test]
fn a_table_is_merged_over_a_built_in_upstream() {
    let config = parse(
        "[cache]\ntag_ttl = \"1m\"\nnegative_ttl = \"0s\"\n\
         [upstream.docker-hub]\ntag_ttl = \"1h\"\nurl = \"http://127.0.0.1:9/px\"\nallow_private = true\n\
         [upstream.quay]\nenabled = false\n\
         [upstream.nvcr]\nurl = \"https://nvcr.io\"\nrealms = [\"authn.nvidia.com\"]\n\
         [upstream.local]\nurl = \"http://Registry.Local:5001\"\nhosts = []\n\
         [upstream.other]\nurl = \"http://registry.other:5001\"\n",
    )
    .expect("valid");
    assert_eq!(
        prefixes(&config),
        [
            "docker-hub",
            "ecr-public",
            "github",
            "kubernetes",
            "local",
            "nvcr",
            "other"
        ]
    );
    let hub = config.upstream("docker-hub").expect("hub");
    assert_eq!(
        hub.hosts,
        ["docker.io", "index.docker.io", "registry-1.docker.io"]
    );
    assert_eq!(
        (hub.url.as_str(), hub.allow_private, hub.insecure),
        ("http://127.0.0.1:9/px", true, false)
    );
    assert_eq!(hub.freshness.tag_ttl, Duration::from_hours(1));
    assert_eq!(hub.freshness.negative_ttl, Duration::ZERO);
    let nvcr = config.upstream("nvcr").expect("nvcr");
    assert_eq!(
        (nvcr.hosts.as_slice(), nvcr.realms.as_slice()),
        (&["nvcr.io".to_owned()][..], &["authn.nvidia.com".to_owned()][..])
    );
    assert_eq!(nvcr.freshness.tag_ttl, Duration::from_mins(1));
    assert!(
        config
            .upstream("local")
            .is_some_and(|local| local.hosts.is_empty())
    );
    assert!(
        config
            .upstream("other")
            .is_some_and(|other| other.hosts == ["registry.other:5001"])
    );
}

#[test]
fn a_built_in_upstream_makes_room() {
    let config = parse(
        "[cache]\nmirror = \"hub\"\n[upstream.docker-hub]\nenabled = false\n\
         [upstream.hub]\nurl = \"https://mirror.example\"\nhosts = [\"docker.io\"]\n",
    )
    .expect("valid");
    assert_eq!(config.cache.mirror.as_deref(), Some("hub"));
    assert_eq!(
        config.upstream("hub").map(|hub| hub.hosts.clone()),
        Some(vec!["docker.io".to_owned()])
    );
    let none = parse("[cache]\nmirror = \"\"\n[upstream.docker-hub]\nenabled = false\n").expect("valid");
    assert_eq!(none.cache.mirror, None);
}

#[test]
fn a_disabled_upstream_needs_nothing_but_good_spelling() {
    let table = "[upstream.old]\nenabled = false\nusername = \"u\"\npassword_file = \"/no/such\"\nca_file = \"/no/such\"\n";
    parse(table).expect("its files are not read");
    assert!(lines(parse(&format!("{table}hots = []\n")))[0].contains("did you mean `hosts`"));
}

#[test]
fn files_are_read_from_the_configurations_folder() {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("secret"), "hunter2\r\n").expect("secret");
    fs::write(folder.path().join("ca.pem"), CERTIFICATE).expect("certificate");
    let file = folder.path().join("w.toml");
    fs::write(
        &file,
        "[storage]\ndata_dir = \"data\"\n[upstream.quay]\nusername = \"org+robot\"\npassword_file = \"secret\"\n\
         ca_file = \"ca.pem\"\nproxy = \"http://me:hunter2@proxy:3128\"\nno_proxy = [\".corp\", \"10.0.0.0/8\"]\n",
    )
    .expect("file");
    let config = Config::load(Some(&file), std::iter::empty()).expect("valid");
    assert_eq!(config.storage.data_dir, folder.path().join("data"));
    let quay = config.upstream("quay").expect("quay");
    assert_eq!(passwords(quay), [("org+robot", "hunter2")]);
    assert_eq!(quay.ca_pem.as_deref(), Some(CERTIFICATE.as_bytes()));
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");

    fs::write(
        folder.path().join("ca.pem"),
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
    )
    .expect("certificate");
    let found = lines(Config::load(Some(&file), std::iter::empty()));
    assert!(
        found.len() == 1 && found[0].contains("certificate that is not valid"),
        "{found:?}"
    );
}

#[test]
fn tls_is_a_pair_of_files() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("cert.pem"), pair.cert.pem()).expect("certificate");
    fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).expect("key");
    let file = folder.path().join("w.toml");
    let text = "[server]\nlisten = \"0.0.0.0:443\"\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n\
                [server.tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n";
    fs::write(&file, text).expect("file");
    let config = Config::load(Some(&file), std::iter::empty()).expect("valid");
    let tls = config.server.tls.expect("TLS");
    assert_eq!(tls.cert_file, folder.path().join("cert.pem"));
    assert_eq!(
        (tls.client_ca_file, tls.client_auth),
        (None, ClientAuth::Optional)
    );
    assert_eq!(config.server.listen.port(), 443);
    assert_eq!(config.server.trusted_proxies.len(), 2);

    let authority = folder.path().join("cert.pem").display().to_string();
    let variables = [
        ("WHARFINGER__SERVER__TLS__CLIENT_CA_FILE", authority.as_str()),
        ("WHARFINGER__SERVER__TLS__CLIENT_AUTH", "required"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(Some(&file), variables.into_iter()).expect("valid");
    assert_eq!(config.server.tls.expect("TLS").client_auth, ClientAuth::Required);
    assert_eq!(lines(parse("[server.tls]\n")).len(), 2, "neither file");
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\nmax_connections = 5\n\
                [upstream.my-reg]\nurl = \"https://r.example\"\nusername = \"u\"\npassword_file = \"/no/such\"\n";
    let config = with_variables(
        Some(text),
        &[
            ("WHARFINGER__SERVER__LISTEN", "127.0.0.1:2"),
            ("WHARFINGER__LOG__ACCESS", "false"),
            ("WHARFINGER__CACHE__TAG_TTL", "1h30m"),
            ("WHARFINGER__UPSTREAM__DOCKER_HUB__URL", "http://127.0.0.1:3"),
            ("WHARFINGER__UPSTREAM__DOCKER_HUB__MAX_CONNECTIONS", "4"),
            ("WHARFINGER__UPSTREAM__MY_REG__PASSWORD", "hunter2"),
            ("WHARFINGER__UPSTREAM__MY_REG__HOSTS", "a.example, b.example"),
            ("WHARFINGER__UPSTREAM__NEW_ONE__URL", "https://new.example"),
            // Kubernetes' own, for a service of this name.
            ("WHARFINGER_PORT", "tcp://10.0.0.1:5000"),
            ("WHARFINGER_SERVICE_HOST", "10.0.0.1"),
        ],
    )
    .expect("valid");
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.max_connections, 5);
    assert!(!config.log.access);
    let hub = config.upstream("docker-hub").expect("hub");
    assert_eq!(
        (hub.url.as_str(), hub.max_connections),
        ("http://127.0.0.1:3/", 4)
    );
    assert_eq!(hub.freshness.tag_ttl, Duration::from_mins(90));
    let own = config.upstream("my-reg").expect("own");
    assert_eq!(own.hosts, ["a.example", "b.example"]);
    assert_eq!(passwords(own), [("u", "hunter2")]);
    assert!(config.upstream("new-one").is_some());
}

#[test]
fn the_file_itself() {
    let missing = Path::new("/no/such/wharfinger.toml");
    let found = lines(Config::load(Some(missing), std::iter::empty()));
    assert!(
        found[0].starts_with("/no/such/wharfinger.toml: cannot be read"),
        "{found:?}"
    );
    let variable = [("WHARFINGER_CONFIG".to_owned(), "/no/such/either.toml".to_owned())];
    let found = lines(Config::load(None, variable.clone().into_iter()));
    assert!(found[0].starts_with("/no/such/either.toml: "), "{found:?}");
    // The command line comes first.
    let found = lines(Config::load(Some(missing), variable.into_iter()));
    assert!(found[0].starts_with("/no/such/wharfinger.toml: "), "{found:?}");

    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("w.toml");
    fs::write(&file, b"[log]\nlevel = \"\xff\"\n").expect("file");
    assert!(lines(Config::load(Some(&file), std::iter::empty()))[0].contains("not UTF-8 (at byte 15)"));
}
