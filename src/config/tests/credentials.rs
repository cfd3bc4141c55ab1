//! Logins and certificates: what loads, what does not, and what is said of it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A folder with a file of each kind, and a configuration in it.
fn in_folder(text: &str) -> (tempfile::TempDir, Result<Config, ConfigFaults>) {
    let folder = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("file");
    write("secret", "hunter2\n");
    write("empty", "\n");
    // dTpodW50ZXIy is u:hunter2
    write(
        "config.json",
        r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpodW50ZXIy"}},"credHelpers":{"ghcr.io":"not-there"}}"#,
    );
    write("broken.json", "{\"auths\":\n \"hunter2\"}");
    write("helper", "#!/bin/sh\n");
    let signed = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("a certificate");
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    write("client.pem", &certificate);
    write("client.key", &key);
    let other = rcgen::KeyPair::generate().expect("a key");
    write("other.key", &other.serialize_pem());
    write("both.pem", &format!("{key}{certificate}"));
    let helper = folder.path().join("helper");
    fs::set_permissions(helper, fs::Permissions::from_mode(0o755)).expect("permissions");
    let config = Config::from_toml_str(text, folder.path().join("w.toml"));
    (folder, config)
}

#[test]
fn credentials_in_order_each_of_its_kind() {
    let (folder, config) = in_folder(
        "[upstream.docker-hub]\nusername = \"own\"\npassword = \"hunter2\"\ncredential_order = \"even\"\n\
         [[upstream.docker-hub.credential]]\nname = \"team-a\"\nusername = \"ci\"\npassword_file = \"secret\"\n\
         [[upstream.docker-hub.credential]]\ndocker_config = \"config.json\"\n\
         [[upstream.docker-hub.credential]]\ndocker_config = \".\"\nname = \"again\"\n\
         [[upstream.docker-hub.credential]]\nhelper = \"./helper\"\n\
         [[upstream.docker-hub.credential]]\ntoken_file = \"secret\"\n\
         [[upstream.docker-hub.credential]]\nanonymous = true\n\
         [upstream.ecr]\nurl = \"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com\"\n\
         credential = [{ ecr = true, profile = \"pulls\" }]\n\
         [upstream.vpc]\nurl = \"https://ecr.corp.example\"\n\
         credential = [{ ecr = true, region = \"eu-west-3\", endpoint = \"https://vpce.example\" }]\n",
    );
    let config = config.expect("valid");
    let hub = config.upstream("docker-hub").expect("hub");
    let names: Vec<_> = hub
        .credentials
        .iter()
        .map(|credential| (credential.name.as_str(), credential.kind.word()))
        .collect();
    assert_eq!(
        names,
        [
            ("own", "password"),
            ("team-a", "password"),
            ("docker-config", "docker-config"),
            ("again", "docker-config"),
            ("helper", "helper"),
            ("token-file", "token-file"),
            ("anonymous", "anonymous"),
        ]
    );
    assert_eq!(passwords(hub), [("own", "hunter2"), ("ci", "hunter2")]);
    assert_eq!(hub.credential_order, CredentialOrder::Even);
    assert!(hub.has_login() && !config.upstream("quay").expect("quay").has_login());
    let at = |name: &str| folder.path().join(name);
    let kind = |index: usize| &hub.credentials[index].kind;
    assert!(matches!(kind(1), CredentialKind::Password { file: Some(file), .. } if *file == at("secret")));
    assert!(
        matches!(kind(3), CredentialKind::DockerConfig { path, hosts } if *path == at("./config.json") && hosts[0] == "docker.io")
    );
    assert!(
        matches!(kind(4), CredentialKind::Helper { program, server } if *program == at("./helper") && server == "https://index.docker.io/v1/")
    );
    let fault = hub.credentials[1].written.fault("is wrong");
    assert_eq!(fault.key, "upstream.docker-hub.credential[1].password_file");
    assert_eq!(
        hub.credentials[0].written.fault("").key,
        "upstream.docker-hub.password"
    );
    assert_eq!(
        hub.credentials[5].written.fault("").key,
        "upstream.docker-hub.credential[5].token_file"
    );
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");

    let ecr = |prefix: &str| match &config.upstream(prefix).expect("it").credentials[0].kind {
        CredentialKind::Ecr(ecr) => ecr.clone(),
        other => panic!("{other:?}"),
    };
    let (own, vpc) = (ecr("ecr"), ecr("vpc"));
    assert_eq!(
        (own.region.as_str(), own.endpoint.as_str(), own.profile.as_deref()),
        (
            "eu-west-1",
            "https://api.ecr.eu-west-1.amazonaws.com/",
            Some("pulls")
        )
    );
    assert_eq!(
        (vpc.region.as_str(), vpc.endpoint.as_str()),
        ("eu-west-3", "https://vpce.example/")
    );
}

#[test]
fn what_is_wrong_with_a_credential() {
    let table = [
        ("name = \"x\"", "username", "or one of docker_config,"),
        (
            "helper = \"./helper\"\ntoken_file = \"secret\"",
            "token_file",
            "exclude each other",
        ),
        ("username = \"u\"", "username", "needs password_file"),
        (
            "username = \"u\"\npassword_file = \"none\"",
            "password_file",
            "cannot be read",
        ),
        (
            "username = \"u\"\npassword = \"p\"\nname = \"anonymous\"",
            "name",
            "whoever has no login",
        ),
        (
            "username = \"u\"\npassword = \"p\"\nregion = \"x\"",
            "region",
            "without ecr",
        ),
        ("docker_config = \"none.json\"", "docker_config", "cannot be read"),
        ("docker_config = \"broken.json\"", "docker_config", "line 2"),
        (
            "docker_config = \"config.json\"",
            "docker_config",
            "no login for quay.io",
        ),
        ("helper = \"../x\"", "helper", "no program that we may run"),
        ("helper = \"./secret\"", "helper", "no program that we may run"),
        ("helper = \"a b\"", "helper", "no helper's name"),
        (
            "helper = \"certainly-not-there\"",
            "helper",
            "docker-credential-certainly-not-there is not in PATH",
        ),
        ("token_file = \"empty\"", "token_file", "is empty"),
        ("ecr = true", "region", "is required"),
        ("ecr = true\nregion = \"EU\"", "region", "no region"),
        ("ecr = false", "ecr", "nothing but true"),
        ("anonymous = false", "anonymous", "nothing but true"),
        (
            "anonymous = true\nusernam = \"u\"",
            "usernam",
            "did you mean `username`",
        ),
    ];
    for (lines, key, reason) in table {
        let (_, found) = in_folder(&format!("[[upstream.quay.credential]]\n{lines}\n"));
        let found = found.expect_err(lines);
        let key = format!("upstream.quay.credential[1].{key}");
        let named = found
            .faults()
            .iter()
            .any(|fault| fault.key == key && fault.reason.contains(reason));
        assert!(named, "{lines}: {found}");
        assert!(!found.to_string().contains("hunter2"), "{found}");
    }
    let (_, found) = in_folder("[[upstream.github.credential]]\ndocker_config = \"config.json\"\n");
    assert!(
        found
            .expect_err("no program")
            .to_string()
            .contains("docker-credential-not-there")
    );
    let (_, found) = in_folder(
        "[upstream.quay]\nusername = \"ci\"\npassword = \"p\"\ncredential_order = \"last\"\n\
         [[upstream.quay.credential]]\nusername = \"ci\"\npassword = \"q\"\n",
    );
    let found = found.expect_err("twice").to_string();
    for part in [
        "upstream.quay.credential[1].name: `ci` is the name of another credential here (upstream.quay.password)",
        "upstream.quay.credential_order: `last` is neither",
    ] {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn credentials_of_a_disabled_upstream_are_not_looked_for() {
    let text = "[upstream.old]\nenabled = false\nclient_cert = \"none\"\n\
                credential = [{ docker_config = \"none\" }, { helper = \"none\" }, { token_file = \"none\" }]\n";
    in_folder(text).1.expect("valid");
}

#[test]
fn client_certificates() {
    let load = |lines: &str| in_folder(&format!("[upstream.quay]\n{lines}\n")).1;
    for lines in [
        "client_cert = \"client.pem\"\nclient_key = \"client.key\"",
        "client_cert = \"both.pem\"",
    ] {
        let config = load(lines).unwrap_or_else(|faults| panic!("{lines}: {faults}"));
        let quay = config.upstream("quay").expect("quay");
        assert!(quay.identity_pem.is_some() && quay.has_login(), "{lines}");
        assert!(!format!("{config:?}").contains("PRIVATE"), "{lines}");
    }
    let table = [
        ("client_key = \"client.key\"", "client_key", "without client_cert"),
        ("client_cert = \"client.pem\"", "client_cert", "needs client_key"),
        ("client_cert = \"none\"", "client_cert", "cannot be read"),
        ("client_cert = \"secret\"", "client_cert", "no certificate"),
        (
            "client_cert = \"client.pem\"\nclient_key = \"none\"",
            "client_key",
            "cannot be read",
        ),
        (
            "client_cert = \"client.pem\"\nclient_key = \"client.pem\"",
            "client_key",
            "no private key",
        ),
        (
            "client_cert = \"client.pem\"\nclient_key = \"other.key\"",
            "client_key",
            "no pair",
        ),
    ];
    for (lines, key, reason) in table {
        let found = load(lines).expect_err(lines);
        let fault = &found.faults()[0];
        assert!(
            fault.key.ends_with(key) && fault.reason.contains(reason),
            "{lines}: {found}"
        );
    }
}
