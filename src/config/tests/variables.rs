//! What does not load from the environment: the fault names the variable.

use super::*;

#[test]
fn a_fault_of_the_environment_names_the_variable() {
    let cases = [
        (
            ("WHARFINGER__SERVER__LISEN", "x"),
            "server.lisen",
            "did you mean `WHARFINGER__SERVER__LISTEN`",
        ),
        (("WHARFINGER__SERVER", "x"), "server", "names no key"),
        (
            ("WHARFINGER__SERVER__TLS__CERT_FILE", "/no/such"),
            "server.tls.key_file",
            "is required",
        ),
        (
            ("WHARFINGER__SERVER__TLS__CERT_FIL", "x"),
            "server.tls.cert_fil",
            "WHARFINGER__SERVER__TLS__CERT_FILE",
        ),
        (("WHARFINGER__", "x"), "", "names no key"),
        (
            ("WHARFINGER__AUTHS__ANONYMOUS", "pull"),
            "auths",
            "unknown section",
        ),
        (
            ("WHARFINGER__SERVER__LISTEN", ""),
            "server.listen",
            "not an IP address",
        ),
        (
            ("WHARFINGER__SERVER__MAX_CONNECTIONS", "many"),
            "server.max_connections",
            "whole number",
        ),
        (("WHARFINGER__LOG__ACCESS", "yes"), "log.access", "true or false"),
        (
            ("WHARFINGER__CACHE__TAG_RULE", "[]"),
            "cache.tag_rule",
            "in the file alone",
        ),
        (
            ("WHARFINGER__CACHE__TAG_RULE__0__TAG_TTL", "1m"),
            "cache.tag_rule.0.tag_ttl",
            "in the file alone",
        ),
        (
            ("WHARFINGER__UPSTREAM__QUAY__TAG_RULE__0__TAG_TTL", "1m"),
            "upstream.quay.tag_rule.0.tag_ttl",
            "in the file alone",
        ),
        (
            ("WHARFINGER__UPSTREAM__QUAY__CREDENTIAL__0__USERNAME", "u"),
            "upstream.quay.credential.0.username",
            "in the file alone",
        ),
        (("WHARFINGER__CACHE__TAG_TTL", "300"), "cache.tag_ttl", "\"300s\""),
        (
            ("WHARFINGER__UPSTREAM__URL", "https://x.example"),
            "upstream.url",
            "names no upstream",
        ),
        (
            ("WHARFINGER__UPSTREAM__DOCKER_HUP__USERNAME", "u"),
            "upstream.docker-hup.url",
            "upstream.docker-hub?",
        ),
        (
            ("WHARFINGER__UPSTREAM__QUAY__HOSTS", "docker.io"),
            "upstream.quay.hosts",
            "docker-hub",
        ),
        (
            ("WHARFINGER__CACHE__MIRROR", "nope"),
            "cache.mirror",
            "no upstream",
        ),
        (
            ("WHARFINGER__UPSTREAM__DOCKER_HUB__ENABLED", "false"),
            "cache.mirror",
            "is disabled",
        ),
    ];
    for ((name, value), key, reason) in cases {
        let found = with_variables(None, &[(name, value)]).expect_err(name);
        let fault = found
            .faults()
            .iter()
            .find(|fault| fault.key.starts_with(key) && fault.reason.contains(reason));
        let fault = fault.unwrap_or_else(|| panic!("{name}: {found}"));
        // What is amiss with a default belongs to the environment as a whole.
        assert!(
            fault.file == name || (fault.file == "environment" && reason == "is disabled"),
            "{fault}"
        );
    }
}

#[test]
fn variables_that_mean_the_same_are_faults() {
    let found = lines(with_variables(
        None,
        &[
            ("WHARFINGER__SERVER__LISTEN", "127.0.0.1:1"),
            ("WHARFINGER__server__listen", "127.0.0.1:2"),
        ],
    ));
    assert!(
        found[0].contains("is given by WHARFINGER__SERVER__LISTEN already"),
        "{found:?}"
    );
    let found = lines(with_variables(
        Some("[upstream.a-b]\nurl = \"https://a.example\"\n[upstream.a_b]\nurl = \"https://b.example\"\n"),
        &[("WHARFINGER__UPSTREAM__A_B__INSECURE", "true")],
    ));
    assert!(
        found[0].contains("means the upstreams a-b and a_b alike"),
        "{found:?}"
    );
}
