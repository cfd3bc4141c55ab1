//! Logins in files: a password, or a bearer token. Read again when somebody wants them and a while has gone by, so that
//! a secret is changed without a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Grant, Obtain, Obtained};
use crate::config::Secret;

/// How long a file is taken to hold what it held.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A user whose password is in a file.
pub(super) struct PasswordFile {
    username: String,
    path: PathBuf,
}

impl PasswordFile {
    pub(super) fn new(username: String, path: PathBuf) -> Self {
        Self { username, path }
    }
}

impl Obtain for PasswordFile {
    fn obtain(&self) -> BoxFuture<'_, Result<Obtained, String>> {
        Box::pin(async move {
            let password = read(&self.path).await?;
            grant(&self.path, Grant::basic(&self.username, password.expose()))
        })
    }

    fn is_cheap(&self) -> bool {
        true
    }
}

/// A file with a token for the registry.
pub(super) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Obtain for TokenFile {
    fn obtain(&self) -> BoxFuture<'_, Result<Obtained, String>> {
        Box::pin(async move {
            let token = read(&self.path).await?;
            grant(&self.path, Grant::bearer(token.expose().trim()))
        })
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn may_be_bearer(&self) -> bool {
        true
    }
}

fn grant(path: &Path, grant: Option<Grant>) -> Result<Obtained, String> {
    let grant = grant.ok_or_else(|| format!("{} holds what no header can", path.display()))?;
    Ok(Obtained::for_now(grant, LOOK_AGAIN))
}

async fn read(path: &Path) -> Result<Secret, String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || Secret::from_file(&path))
        .await
        .unwrap_or_else(|_| Err("reading it was given up".to_owned()))
}
