//! Who is it, and may they, as clients see it. Here is what the tests of that share; they are in `login/`: `tokens`,
//! `rights` (what is refused, and how), `cached` (who is given what others had fetched), `proxies`, `guessing`, `htpasswd`, and
//! `identities` (what operators do to them).

mod cached;
mod guessing;
mod htpasswd;
mod identities;
mod proxies;
mod rights;
mod tokens;

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::client;
use crate::support::daemon::Builder;
use crate::support::prelude::*;

/// An image of an upstream, by its name here.
const PULLED: &str = "docker-hub/library/app";

/// A request with a body.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let method: Method = method.parse().expect("a method");
    let answer = client::send(method, url, headers, body.into()).await;
    Reply {
        status: answer.status,
        challenge: answer.header("www-authenticate").to_owned(),
        location: answer.header("location").to_owned(),
        body: answer.text(),
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    challenge: String,
    location: String,
    body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The first error's code and message.
    fn error(&self) -> String {
        let error = &self.json()["errors"][0];
        format!(
            "{}: {}",
            error["code"].as_str().unwrap_or("?"),
            error["message"].as_str().unwrap_or("?")
        )
    }
}

/// Name and password.
pub fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let shown = format!("{name}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(shown)
    )
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A daemon that hosts `team/*` and `other/*`.
pub fn hosting() -> Builder {
    Daemon::builder().setting(
        "hosted.template",
        r#"[{ pattern = "team/*" }, { pattern = "other/*" }]"#,
    )
}

pub trait Login {
    async fn cli(&self, arguments: &[&str], input: &str) -> (bool, String);
    async fn ask(&self, method: &str, path: &str, authorization: &str) -> Reply;
    async fn token(&self, query: &str, authorization: &str) -> Reply;
    async fn user(&self, name: &str, password: &str);
    async fn robot(&self, name: &str, scopes: &[&str]) -> String;
    async fn push(&self, repository: &str, authorization: &str) -> u16;
}

impl Login for Daemon {
    /// Runs a subcommand: whether it went well, and what it printed.
    async fn cli(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config_path())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program to start");
        let mut stdin = child.stdin.take().expect("its input");
        // It may have ended without reading.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = soon("the program's end", child.wait_with_output())
            .await
            .expect("its output");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text)
    }

    async fn ask(&self, method: &str, path: &str, authorization: &str) -> Reply {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() {
            &[][..]
        } else {
            &headers[..]
        };
        send(method, &format!("{}{path}", self.url()), headers, "").await
    }

    async fn token(&self, query: &str, authorization: &str) -> Reply {
        self.ask("GET", &format!("/token?{query}"), authorization).await
    }

    async fn user(&self, name: &str, password: &str) {
        let (well, told) = self
            .cli(&["user", "add", name, "--password-stdin"], password)
            .await;
        assert!(well, "{told}");
    }

    /// Makes a robot: its secret.
    async fn robot(&self, name: &str, scopes: &[&str]) -> String {
        let mut arguments = vec!["robot", "add", name, "--json"];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        let (well, told) = self.cli(&arguments, "").await;
        assert!(well, "{told}");
        let made: Value = serde_json::from_str(&told).expect("JSON");
        made["made"]["secret"].as_str().expect("a secret").to_owned()
    }

    /// Begins an upload: the status.
    async fn push(&self, repository: &str, authorization: &str) -> u16 {
        let path = format!("/v2/{repository}/blobs/uploads/");
        self.ask("POST", &path, authorization).await.status
    }
}

/// The token in an answer.
pub fn token_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["token"].as_str().expect("a token").to_owned()
}
