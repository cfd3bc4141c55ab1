//! What does not load, by table: every kind of fault, and that all of them are said at once.

use super::*;

/// A fault each: the text, then the key and what the reason must hold. Those of upstreams are in `upstreams`.
#[test]
fn every_kind_of_fault() {
    let cases = [
        // Keys and sections.
        ("[server]\nlisen = \"x\"", "server.lisen", "did you mean `listen`"),
        (
            "[server]\ntag_ttl = \"5m\"",
            "server.tag_ttl",
            "belongs to [cache]",
        ),
        (
            "[server]\nmax_connections_per_address = -1",
            "server.max_connections_per_address",
            "from 0 to",
        ),
        (
            "[server]\nmax_header_size = \"4KiB\"",
            "server.max_header_size",
            "from \"8KiB\" to \"1MiB\"",
        ),
        (
            "[server]\ntrusted_proxies = [\"lb.example\"]",
            "server.trusted_proxies",
            "no network",
        ),
        (
            "[server.tls]\nclient_auth = \"required\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\"",
            "server.tls.client_auth",
            "without client_ca_file",
        ),
        (
            "[server.tls]\nclient_auth = \"always\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\"",
            "server.tls.client_auth",
            "neither",
        ),
        (
            "[server.tls]\ncert_file = \"{cert}\"",
            "server.tls.key_file",
            "is required",
        ),
        (
            "[server.tls]\nkey_file = \"{key}\"",
            "server.tls.cert_file",
            "is required",
        ),
        (
            "[server.tls]\ncert_file = \"/no/such\"\nkey_file = \"{key}\"",
            "server.tls.cert_file",
            "cannot be read",
        ),
        (
            "[server.tls]\ncert_file = \"{key}\"\nkey_file = \"{key}\"",
            "server.tls.cert_file",
            "no certificate",
        ),
        (
            "[server.tls]\ncert_file = \"{cert}\"\nkey_file = \"{cert}\"",
            "server.tls.key_file",
            "no private key",
        ),
        (
            "[server.tls]\ncert_file = \"{cert}\"\nkey_file = \"{other}\"",
            "server.tls.key_file",
            "not the key of the certificate",
        ),
        (
            "[server.tls]\ncert_file = \"{cert}\"\nkey_file = \"{key}\"\nclient_ca_file = \"{key}\"",
            "server.tls.client_ca_file",
            "no certificate",
        ),
        (
            "[server]\ncert_file = \"x\"",
            "server.cert_file",
            "belongs to [server.tls]",
        ),
        (
            "[[hosted.template]]\npattern = \"a/*\"\nlifecycle_file = \"/no/such.json\"",
            "hosted.template[1].lifecycle_file",
            "/no/such.json: ",
        ),
        (
            "[storage]\nhosted_max_size = 100",
            "storage.hosted_max_size",
            "lacks a unit",
        ),
        (
            "[storage]\nmax_size = 100",
            "storage.max_size",
            "lacks a unit: write \"100GiB\"",
        ),
        (
            "[storage]\nmax_size = \"1MiB\"",
            "storage.max_size",
            "at least \"16MiB\"",
        ),
        ("[storage]\nmin_free = \"much\"", "storage.min_free", "is no size"),
        ("[cache]\noffline = \"yes\"", "cache.offline", "true or false"),
        (
            "[cache]\nfinish_fill = \"150%\"",
            "cache.finish_fill",
            "like \"50%\"",
        ),
        (
            "[upstream.quay]\nreserve = [\"Acme/*\"]",
            "upstream.quay.reserve",
            "in no repository's name",
        ),
        (
            "[upstream.quay]\nreserve = \"acme/app\"",
            "upstream.quay.reserve",
            "list of strings",
        ),
        (
            "[upstream.quay]\nreserve = [\"acme/*\"]\nreserve_share = \"95%\"",
            "upstream.quay.reserve_share",
            "from \"1%\" to \"90%\"",
        ),
        (
            "[upstream.quay]\nreserve_share = \"5%\"",
            "upstream.quay.reserve_share",
            "does nothing without reserve",
        ),
        (
            "[cache]\nfollow_blobs = \"amd64\"",
            "cache.follow_blobs",
            "true or false",
        ),
        ("[chace]\nmirror = \"\"", "chace", "did you mean `cache`"),
        (
            "[authentication]\nanonymous = []",
            "authentication",
            "unknown section",
        ),
        (
            "[auth]\nanonymous = [\"read\"]",
            "auth.anonymous",
            "is not one of pull, push",
        ),
        ("[auth]\nreaders = [\"team-*\"]", "auth.readers", "is no name"),
        ("[auth]\nreaders = [\"upstream/*\"]", "auth.readers", "is no name"),
        ("[auth]\nadmins = [\"*\"]", "auth.admins", "would be everyone"),
        ("[auth]\naccount = \"12\"", "auth.account", "twelve digits"),
        ("[auth]\nregion = \"Here\"", "auth.region", "us-east-1"),
        (
            "[auth]\nhtpasswd_file = \"/no/such\"",
            "auth.htpasswd_file",
            "cannot be read",
        ),
        (
            "[auth]\ntoken_ttl = \"1s\"",
            "auth.token_ttl",
            "must be from 60 seconds",
        ),
        ("[auth]\nopen_networks = [\"here\"]", "auth.open_networks", ""),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"b\"\nscopes = [\"pull:*\"]\nclaims = {}",
            "auth.oidc[1].claims",
            "every token of the issuer",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\nscopes = [\"pull:*\"]\nclaims = { sub = \"x\" }",
            "auth.oidc[1].audience",
            "is required",
        ),
        (
            "[[auth.oidc]]\nissuer = \"http://a.example\"\naudience = \"b\"\nscopes = [\"pull:*\"]\nclaims = { sub = \"x\" }\ntoken_file = \"/dev/null\"",
            "auth.oidc[1].token_file",
            "over https alone",
        ),
        ("listen = \"127.0.0.1:1\"", "listen", "belongs under [server]"),
        ("server = 1", "server", "write [server]"),
        ("upstream = 1", "upstream", "write [upstream.<prefix>]"),
        (
            "[upstream]\nurl = \"https://x.example\"",
            "upstream.url",
            "write [upstream.<prefix>]",
        ),
        (
            "[upstream.docker.io]\nenabled = true",
            "upstream.docker.io",
            "in quotes",
        ),
        // Syntax.
        ("[server]\nlisten = 127.0.0.1:5000", "line 2, column 15", ""),
        (
            "[log]\naccess = true\naccess = true",
            "line 3, column 1",
            "duplicate key",
        ),
        // Types.
        ("[server]\nlisten = 5000", "server.listen", "not an integer"),
        (
            "[server]\nmax_connections = \"9\"",
            "server.max_connections",
            "not a string",
        ),
        (
            "[server]\nmax_connections = 0",
            "server.max_connections",
            "from 1 to",
        ),
        ("[log]\naccess = \"yes\"", "log.access", "true or false"),
        (
            "[upstream.quay]\nhosts = \"quay.io\"",
            "upstream.quay.hosts",
            "list of strings",
        ),
        (
            "[upstream.quay]\nhosts = [1]",
            "upstream.quay.hosts",
            "strings alone",
        ),
        // Values.
        ("[server]\nlisten = \":5000\"", "server.listen", "0.0.0.0:5000"),
        (
            "[server]\nlisten = \"localhost:5000\"",
            "server.listen",
            "127.0.0.1",
        ),
        (
            "[server]\npublic_url = \"cache.example.com\"",
            "server.public_url",
            "https://",
        ),
        (
            "[server]\npublic_url = \"https://c.example/?a=b\"",
            "server.public_url",
            "query",
        ),
        (
            "[server]\ndrain_timeout = 30",
            "server.drain_timeout",
            "lacks a unit: write \"30s\"",
        ),
        (
            "[server]\ndrain_timeout = \"30\"",
            "server.drain_timeout",
            "lacks a unit",
        ),
        (
            "[server]\nheader_timeout = \"0s\"",
            "server.header_timeout",
            "longer than zero",
        ),
        ("[cache]\ntag_ttl = \"soon\"", "cache.tag_ttl", "not a span"),
        ("[cache]\ngone_ttl = \"20000d\"", "cache.gone_ttl", "too long"),
        ("[storage]\ndata_dir = \"\"", "storage.data_dir", "is empty"),
        (
            "[storage]\ndata_dir = \"~/x\"",
            "storage.data_dir",
            "not expanded",
        ),
        (
            "[storage]\ndata_dir = \"/dev/null\"",
            "storage.data_dir",
            "not a folder",
        ),
        ("[log]\nformat = \"xml\"", "log.format", "neither"),
        ("[log]\nlevel = \"inof\"", "log.level", "no level"),
        (
            "[server]\nanswer_timeout = \"0s\"",
            "server.answer_timeout",
            "longer than zero",
        ),
        // Doors.
        (
            "[server]\nmirror_listen = \"127.0.0.1:5000\"",
            "server.mirror_listen",
            "server.listen",
        ),
        (
            "[server]\nmirror_listen = \"0.0.0.0:9\"\nadmin_listen = \"127.0.0.1:9\"",
            "server.admin_listen",
            "server.mirror_listen",
        ),
        // The mirror.
        (
            "[cache]\nmirror = \"dockerhub\"",
            "cache.mirror",
            "did you mean `docker-hub`",
        ),
        (
            "[upstream.docker-hub]\nenabled = false",
            "cache.mirror",
            "is disabled",
        ),
    ];
    let folder = tempfile::tempdir().expect("folder");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::KeyPair::generate().expect("a key");
    let place = |name: &str, pem: String| {
        let path = folder.path().join(name);
        fs::write(&path, pem).expect("a file");
        path.display().to_string()
    };
    let cert = place("cert.pem", pair.cert.pem());
    let key = place("key.pem", pair.signing_key.serialize_pem());
    let other = place("other.pem", other.serialize_pem());
    let texts = cases.map(|(text, name, reason)| {
        let text = text.replace("{cert}", &cert).replace("{key}", &key);
        (text.replace("{other}", &other), name, reason)
    });
    each_is_told(texts.iter().map(|(text, name, reason)| (&**text, *name, *reason)));
}

/// Each text has one fault: this key, and a reason that holds this.
pub(super) fn each_is_told<'a>(cases: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) {
    for (text, name, reason) in cases {
        let found = parse(text).expect_err(text);
        // A broken line can break more than one rule of the grammar; everything else is one fault.
        assert!(
            found.faults().len() == 1 || name.starts_with("line"),
            "{text}:\n{found}"
        );
        let fault = &found.faults()[0];
        assert_eq!(fault.file, "/etc/wharfinger/wharfinger.toml", "{text}");
        assert_eq!(fault.key, name, "{text}: {fault}");
        assert!(
            fault.reason.contains(reason) && !fault.reason.is_empty(),
            "{text}: {fault}"
        );
        assert!(!found.to_string().contains("hunter2"), "{fault}");
        assert_eq!(fault.to_string().lines().count(), 1, "{fault}");
    }
}

#[test]
fn all_faults_at_once() {
    let text = "[server]\nlisten = \"x\"\nfoo = 1\n[cache]\nmirror = \"nope\"\ntag_ttl = 5\n\
                [upstream.n]\nhosts = [\"quay.io\"]\n[log]\nformat = 1\n[colour]\n";
    let found = lines(parse(text));
    let keys: Vec<&str> = found.iter().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(
        keys,
        [
            "colour",
            "server.listen",
            "server.foo",
            "cache.tag_ttl",
            "upstream.n.url",
            "upstream.n.hosts",
            "cache.mirror",
            "log.format"
        ],
        "{found:#?}"
    );
}

#[test]
fn all_syntax_errors_at_once_and_no_secret() {
    let found = lines(parse(
        "[upstream.quay]\npassword = hunter2\n[log]\nformat = \"text\nlevel = = 1\n",
    ));
    for line in ["line 2,", "line 4,", "line 5,"] {
        assert!(
            found.iter().any(|fault| fault.contains(line)),
            "{line} {found:#?}"
        );
    }
    assert!(!found.join("\n").contains("hunter2"));
}

/// Each listed key is read: a table is no valid value of any, so each must be a fault of its own, and no unknown key.
#[test]
fn every_known_key_is_read() {
    for (section, key) in known_keys() {
        let section = section.replace("<prefix>", "quay");
        let is_list = [
            "tag_rule",
            "mirrors",
            "bandwidth_window",
            "credential",
            "warm",
            "template",
            "oidc",
        ]
        .iter()
        .any(|list| section.ends_with(list));
        let (head, name) = if is_list {
            (format!("[[{section}]]"), format!("{section}[1].{key}"))
        } else {
            (format!("[{section}]"), format!("{section}.{key}"))
        };
        let found = parse(&format!("{head}\n{key} = {{}}\n")).expect_err(key);
        let own = found
            .faults()
            .iter()
            .any(|fault| fault.key == name && !fault.reason.contains("unknown key"));
        assert!(own, "{name}: {found}");
    }
}
