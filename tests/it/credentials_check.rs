//! `check-config --online`: what it finds out about upstreams and their credentials, and how it says so.

use std::fs;
use std::process::Stdio;

use tokio::process::Command;

use crate::credentials::script;
use crate::support::prelude::*;
use crate::support::service::{PKI, tls_before};
use crate::upstream_auth::PASSWORD;

const NONE_BUILT_IN: &str = "[cache]\nmirror = \"\"\n[upstream.docker-hub]\nenabled = false\n\
    [upstream.quay]\nenabled = false\n[upstream.github]\nenabled = false\n\
    [upstream.ecr-public]\nenabled = false\n[upstream.kubernetes]\nenabled = false\n";

/// Checks a configuration; gives the exit code, and both outputs.
async fn check(folder: &std::path::Path, text: &str) -> (Option<i32>, String, String) {
    check_with(folder, text, &[]).await
}

async fn check_with(
    folder: &std::path::Path,
    text: &str,
    environment: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let path = folder.join("w.toml");
    fs::write(&path, format!("{NONE_BUILT_IN}{text}")).expect("a writable folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    command
        .args(["check-config", "--online"])
        .arg(&path)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    let output = soon("the program's end", command.output())
        .await
        .expect("a program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let told = text(output.stderr).replace(&format!("{}: ", path.display()), "");
    assert!(!told.contains(PASSWORD) && !told.contains("hunter2"), "{told}");
    (output.status.code(), text(output.stdout), told)
}

#[tokio::test]
async fn good_ones_are_well() {
    let (bearer, basic, open) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    bearer.require_bearer(Bearer::new().no_anonymous().user("ci", PASSWORD));
    basic.require_basic(Basic::new("ci", PASSWORD));
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two, three) = (bearer.url(), basic.url(), open.url());
    let text = format!(
        "[upstream.one]\nurl = {one:?}\nusername = \"ci\"\npassword = {PASSWORD:?}\n\
         [upstream.two]\nurl = {two:?}\nusername = \"ci\"\npassword = {PASSWORD:?}\n\
         mirrors = [{{ url = {one:?}, username = \"ci\", password = {PASSWORD:?} }}]\n\
         [upstream.three]\nurl = {three:?}\ncredential = [{{ anonymous = true }}]\n"
    );
    let (code, out, told) = check(folder.path(), &text).await;
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert!(out.contains("one, three, two"), "{out}");
    // The login was tried, and no content was asked for.
    assert_eq!(bearer.token_requests(), 2);
    assert!(basic.requests().iter().all(|asked| asked.path() == "/v2/"));
}

#[tokio::test]
async fn what_nobody_wrote_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let proxy = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let only = NONE_BUILT_IN.replace("[upstream.quay]\nenabled = false\n", "");
    let path = folder.path().join("w.toml");
    fs::write(&path, only).expect("a writable folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    command
        .args(["check-config", "--online", "--config"])
        .arg(&path)
        .env_clear()
        .env("HTTPS_PROXY", proxy)
        .env("HOME", folder.path());
    let output = soon("the program's end", command.output())
        .await
        .expect("a program");
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.starts_with("built in: upstream.quay.url: quay.io cannot be reached"),
        "{told}"
    );
}

#[tokio::test]
async fn nobody_is_asked_while_offline() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("[upstream.one]\nurl = {:?}\n", upstream.url());
    let (code, out, told) = check_with(folder.path(), &text, &[("WHARFINGER__CACHE__OFFLINE", "true")]).await;
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert!(out.contains("offline"), "{out}");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn each_wrong_credential_is_a_fault_of_its_own() {
    let (bearer, basic) = (Upstream::start().await, Upstream::start().await);
    bearer.require_bearer(Bearer::new().user("ci", "another"));
    basic.require_basic(Basic::new("ci", "another"));
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    fs::write(at.join("secret"), PASSWORD).expect("a file");
    let fails = script(at, "fails", "echo 'the vault is sealed' >&2; exit 1");
    let (one, two) = (bearer.url(), basic.url());
    let text = format!(
        "[upstream.hub]\nurl = {one:?}\nhosts = [\"docker.example\"]\nusername = \"ci\"\npassword = \"another\"\n\
         [[upstream.hub.credential]]\nname = \"team\"\nusername = \"ci\"\npassword_file = \"secret\"\n\
         [[upstream.hub.credential]]\nhelper = {fails}\n\
         [upstream.two]\nurl = {two:?}\nhosts = [\"two.example\"]\nusername = \"ci\"\npassword = {PASSWORD:?}\n\
         [[upstream.two.credential]]\ntoken_file = \"secret\"\n"
    );
    let (code, out, told) = check(at, &text).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    let begins = [
        "upstream.hub.credential[1].password_file: docker.example rejects user \"ci\" (status 401",
        "upstream.hub.credential[2].helper: no login for docker.example: ",
        "upstream.two.password: two.example rejects user \"ci\" (status 401",
        "upstream.two.credential[1].token_file: two.example rejects the token in ",
    ];
    assert_eq!(lines.len(), begins.len(), "{told}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{begin}\n{told}");
    }
    assert!(lines[1].contains("the vault is sealed"), "{told}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_apart() {
    let plain = Upstream::start().await;
    plain.always(ping(), reply(404));
    let failing = Upstream::start().await;
    failing.always(ping(), reply(503));
    let trusted = tls_before(Upstream::start().await.port(), false).await;
    let demanding = tls_before(Upstream::start().await.port(), true).await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let closed = nobody.local_addr().expect("an address").port();
    drop(nobody);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ca.pem"), &PKI.ca).expect("a file");
    let (plain, failing) = (plain.url(), failing.url());
    let text = format!(
        "[upstream.a-plain]\nurl = {plain:?}\n[upstream.b-failing]\nurl = {failing:?}\n\
         [upstream.c-closed]\nurl = \"http://127.0.0.1:{closed}\"\n\
         [upstream.d-unknown]\nurl = \"https://127.0.0.1:{trusted}\"\n\
         [upstream.e-trusted]\nurl = \"https://127.0.0.1:{trusted}\"\nhosts = [\"e.example\"]\nca_file = \"ca.pem\"\n\
         mirrors = [\"http://127.0.0.1:{closed}\"]\n\
         [upstream.f-demanding]\nurl = \"https://127.0.0.1:{demanding}\"\nca_file = \"ca.pem\"\n"
    );
    let (code, _, told) = check(folder.path(), &text).await;
    assert_eq!(code, Some(1), "{told}");
    let parts = [
        ("upstream.a-plain.url: ", "status 404"),
        ("upstream.b-failing.url: ", "status 503"),
        ("upstream.c-closed.url: ", "cannot be reached"),
        ("upstream.d-unknown.url: ", "no TLS with"),
        ("upstream.e-trusted.mirrors[1]: ", "cannot be reached"),
        ("upstream.f-demanding.url: ", "client certificate"),
    ];
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), parts.len(), "{told}");
    for (line, (begin, part)) in lines.iter().zip(parts) {
        assert!(
            line.starts_with(begin) && line.contains(part),
            "{begin}{part}\n{told}"
        );
    }
}
