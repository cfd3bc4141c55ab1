//! A login of Docker's `config.json`, by the program that it names or out of the file itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;

use super::files::LOOK_AGAIN;
use super::helper::{self, Helper};
use super::{Grant, Obtain, Obtained};
use crate::config::DockerLogin;

/// The file, and whose login is wanted.
pub(super) struct DockerFile {
    path: PathBuf,
    hosts: Vec<String>,
    /// The file had the login itself when it was last read: no program need run for it.
    holds_it: AtomicBool,
}

impl DockerFile {
    pub(super) fn new(path: PathBuf, hosts: Vec<String>) -> Self {
        Self {
            path,
            hosts,
            holds_it: AtomicBool::new(false),
        }
    }
}

impl Obtain for DockerFile {
    fn obtain(&self) -> BoxFuture<'_, Result<Obtained, String>> {
        Box::pin(async move {
            let (path, hosts) = (self.path.clone(), self.hosts.clone());
            let logins = tokio::task::spawn_blocking(move || find(&path, &hosts))
                .await
                .unwrap_or_else(|_| Err("reading it was given up".to_owned()))?;
            let asks = logins
                .iter()
                .any(|login| matches!(login, DockerLogin::Helper { .. }));
            self.holds_it.store(!asks, Ordering::Relaxed);
            let mut told = None;
            for login in logins {
                let grant = match login {
                    DockerLogin::Password { username, password } => {
                        Grant::basic(&username, password.expose())
                    }
                    DockerLogin::Identity(token) => Some(Grant::Identity(token)),
                    DockerLogin::Bearer(token) => Grant::bearer(token.expose()),
                    DockerLogin::Helper { name, server } => {
                        let program = PathBuf::from(format!("docker-credential-{name}"));
                        match Helper::new(program, server).ask().await {
                            Ok(grant) => return Ok(Obtained::for_now(grant, helper::GOOD_FOR)),
                            // As Docker does: what the store lacks may be in the file.
                            Err(why) => {
                                told = Some(why);
                                continue;
                            }
                        }
                    }
                };
                let path = self.path.display();
                let grant = grant.ok_or_else(|| format!("{path} holds what no header can"))?;
                return Ok(Obtained::for_now(grant, LOOK_AGAIN));
            }
            Err(told.unwrap_or_else(|| "there is no login".to_owned()))
        })
    }

    fn is_cheap(&self) -> bool {
        self.holds_it.load(Ordering::Relaxed)
    }

    fn may_be_bearer(&self) -> bool {
        true
    }
}

fn find(path: &Path, hosts: &[String]) -> Result<Vec<DockerLogin>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    DockerLogin::find(&text, hosts).map_err(|why| format!("{} {why}", path.display()))
}
