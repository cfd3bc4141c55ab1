//! Credential helpers by Docker's own protocol: `docker-credential-<name> get`, the server on stdin, JSON on stdout
//! (docker/docker-credential-helpers, `client/client.go`). The secret is on stdout, so stdout is never logged.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Grant, Obtain, Obtained};
use crate::config::Secret;
use crate::upstream::error::tidy;

/// How long an answer is used before the program runs again. What it gives is mostly good for an hour and more, and
/// after a refusal it is asked at once.
pub(super) const GOOD_FOR: Duration = Duration::from_mins(5);

/// How long the program may take.
const TIME: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// So much of what it says on stderr is kept.
const MAX_WORDS: usize = 4 * 1024;
/// The user that says that the secret is a refresh token.
const TOKEN_USER: &str = "<token>";

/// What it prints. Field names as in Go, which reads them in any case.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", alias = "username")]
    username: String,
    #[serde(rename = "Secret", alias = "secret")]
    secret: String,
}

/// A program that knows logins.
pub(super) struct Helper {
    program: PathBuf,
    server: String,
}

impl Helper {
    pub(super) fn new(program: PathBuf, server: String) -> Self {
        Self { program, server }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Why there is no login, with what it said on stderr.
    pub(super) async fn ask(&self) -> Result<Grant, String> {
        let program = self.program.display();
        match tokio::time::timeout(TIME, self.run()).await {
            Ok(answer) => answer.map_err(|why| format!("{program} {why}")),
            Err(_) => Err(format!("{program} did not answer within {} s", TIME.as_secs())),
        }
    }

    async fn run(&self) -> Result<Grant, String> {
        let mut child = Command::new(&self.program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot be run: {error}"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err("cannot be talked to".to_owned());
        };
        let tell = async move {
            // One that does not read it will say so itself.
            let _ = stdin.write_all(self.server.as_bytes()).await;
            drop(stdin);
        };
        let ((), answer, words) = tokio::join!(tell, read(stdout, MAX_ANSWER), read(stderr, MAX_WORDS));
        let status = child.wait().await.map_err(|error| format!("was lost: {error}"))?;
        let (answer, words) = (
            String::from_utf8_lossy(&answer),
            tidy(&String::from_utf8_lossy(&words)),
        );
        if !status.success() {
            return Err(failure(&answer, &words, &status.to_string(), &self.server));
        }
        let answer: Answer = serde_json::from_str(&answer).map_err(|_| {
            format!(
                "printed something else than {{\"Username\", \"Secret\"}}{}",
                said(&words)
            )
        })?;
        if !words.is_empty() {
            let words = words.replace(&answer.secret, "[redacted]");
            tracing::info!(program = %self.program.display(), words, "a credential helper said something");
        }
        if answer.secret.is_empty() {
            return Err("gave an empty secret".to_owned());
        }
        if answer.username == TOKEN_USER {
            return Ok(Grant::Identity(Secret::new(answer.secret)));
        }
        Grant::basic(&answer.username, &answer.secret)
            .ok_or_else(|| "gave what no header can hold".to_owned())
    }
}

impl Obtain for Helper {
    fn obtain(&self) -> BoxFuture<'_, Result<Obtained, String>> {
        Box::pin(async move {
            let grant = self.ask().await?;
            Ok(Obtained::for_now(grant, GOOD_FOR))
        })
    }
}

/// Why it failed. Of stdout, where a helper that fails explains itself, only the protocol's own words are told.
fn failure(stdout: &str, stderr: &str, status: &str, server: &str) -> String {
    let known = [
        "credentials not found in native keychain",
        "no credentials server URL",
        "no credentials username",
    ];
    match known.iter().find(|words| stdout.contains(**words)) {
        Some(words) => format!("says of {server}: {words}"),
        None => format!("failed for {server} ({status}){}", said(stderr)),
    }
}

fn said(words: &str) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(": {words}")
    }
}

/// Reads to the end, and keeps the beginning.
async fn read(mut from: impl AsyncRead + Unpin, keep: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count) = from.read(&mut piece).await
        && count > 0
    {
        let room = keep.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&piece[..room]);
    }
    kept
}
