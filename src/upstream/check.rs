//! Tries an upstream as it is configured, for `check-config --online`: whether each endpoint answers as a registry does,
//! and whether each login is accepted. What is wrong is a fault of the configuration, at the key that says it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Upstream;
use super::credentials::{Grant, Login};
use super::endpoint::Endpoint;
use super::errand::{Guise, Purpose, SharedPurpose};
use super::error::{Error, ErrorKind, Failure};
use super::retry::Window;
use super::transport::host_of;
use crate::config::{Credential, CredentialKind, Fault, Written};

/// How long trying one endpoint may take, all its logins included.
const TIME: Duration = Duration::from_secs(30);

impl Upstream {
    /// Everything that is wrong with it.
    pub async fn check(&self) -> Vec<Fault> {
        let config = &self.config;
        let host = config
            .hosts
            .first()
            .cloned()
            .unwrap_or_else(|| host_of(&config.url));
        let own = Subject {
            endpoint: &self.own,
            host,
            url: config.written.clone(),
            credentials: config.credentials.clone(),
        };
        let mirrors =
            self.mirrors
                .iter()
                .zip(&config.mirrors)
                .enumerate()
                .map(|(index, (endpoint, mirror))| Subject {
                    endpoint,
                    host: host_of(&mirror.url),
                    url: config.written.beside(&format!("mirrors[{}]", index + 1)),
                    credentials: mirror
                        .credentials
                        .clone()
                        .map(Credential::password)
                        .into_iter()
                        .collect(),
                });
        let all = std::iter::once(own).chain(mirrors);
        let told = join_all(all.map(Subject::check)).await;
        told.into_iter().flatten().collect()
    }
}

/// One endpoint, and where what concerns it is written.
struct Subject<'a> {
    endpoint: &'a Endpoint,
    /// What people call it.
    host: String,
    url: Written,
    credentials: Vec<Credential>,
}

impl Subject<'_> {
    async fn check(self) -> Vec<Fault> {
        let told = tokio::time::timeout(TIME, self.faults()).await;
        told.unwrap_or_else(|_| {
            let (host, seconds) = (self.endpoint.host(), TIME.as_secs());
            let reason = format!("{host} did not answer within {seconds} s");
            vec![self.url.fault(reason)]
        })
    }

    async fn faults(&self) -> Vec<Fault> {
        if let Err(reason) = reach(self.endpoint).await {
            return vec![self.url.fault(reason)];
        }
        let pairs = self.credentials.iter().zip(self.endpoint.logins.all());
        let tried = pairs.map(|(credential, login)| async move {
            let wrong = self.try_login(credential, login).await.err();
            wrong.map(|reason| credential.written.fault(reason))
        });
        join_all(tried).await.into_iter().flatten().collect()
    }
}

/// Who asks on the command line waits.
fn client_waits() -> SharedPurpose {
    SharedPurpose::new(Purpose::Miss)
}

/// Whether a registry answers there.
async fn reach(endpoint: &Endpoint) -> Result<(), String> {
    let host = host_of(&endpoint.url);
    let reply = endpoint
        .ping(None, Guise::Own, &client_waits(), Window::new())
        .await
        .map_err(|error| unreachable(&host, &error))?;
    let status = reply.status().as_u16();
    reply.drain().await;
    match status {
        // A limit, or a front that sends us elsewhere, is an answer all the same.
        200..=399 | 401 | 429 => Ok(()),
        403 => Err(format!("{host} forbids us /v2/ (status 403)")),
        404 => Err(format!(
            "{host} knows no /v2/ (status 404): it is no registry, or its path is another one"
        )),
        _ => Err(format!("{host} answers /v2/ with status {status}")),
    }
}

fn unreachable(host: &str, error: &Error) -> String {
    let why = error.message();
    match error.kind() {
        ErrorKind::Unavailable(Failure::Tls) => format!("no TLS with {host}: {why}"),
        ErrorKind::Unavailable(Failure::Dns) => {
            format!("{host} cannot be reached, its name has no address: {why}")
        }
        ErrorKind::Unavailable(Failure::Timeout) => format!("{host} cannot be reached: {why}"),
        ErrorKind::Unavailable(_) if why.contains("fatal alert") => {
            format!("{host} breaks off TLS, which may be for want of a client certificate: {why}")
        }
        _ => format!("{host} cannot be reached: {why}"),
    }
}

impl Subject<'_> {
    async fn try_login(&self, credential: &Credential, login: &Arc<Login>) -> Result<(), String> {
        let (endpoint, host) = (self.endpoint, &self.host);
        let grant = login
            .given()
            .await
            .map_err(|why| format!("no login for {host}: {why}"))?;
        let Some(grant) = grant else { return Ok(()) };
        let untried = |error: Error| format!("the login cannot be tried: {error}");
        let reply = endpoint
            .ping(None, Guise::Own, &client_waits(), Window::new())
            .await
            .map_err(untried)?;
        let challenges = reply.challenges();
        reply.drain().await;
        let what = match &credential.kind {
            CredentialKind::Password { username, .. } => format!("user {username:?}"),
            CredentialKind::DockerConfig { path, .. } => format!("the login in {}", path.display()),
            CredentialKind::Helper { program, .. } => format!("the login that {} gives", program.display()),
            CredentialKind::TokenFile { path } => format!("the token in {}", path.display()),
            CredentialKind::Ecr(_) => "the login that GetAuthorizationToken gives".to_owned(),
            CredentialKind::Anonymous => "anonymous callers".to_owned(),
        };
        let rejected = |by: &str, status: Option<u16>, message: &str| {
            let by = if by == *host {
                String::new()
            } else {
                format!(", says {by}")
            };
            let status = status.map_or(String::new(), |status| format!(" (status {status}{by})"));
            let message = if message.is_empty() {
                String::new()
            } else {
                format!(": {message}")
            };
            format!("{host} rejects {what}{status}{message}")
        };
        let asks_for_tokens = challenges.iter().any(|challenge| challenge.scheme == "bearer");
        let header = match &*grant {
            Grant::Bearer(header) => header,
            Grant::Basic(header) if !asks_for_tokens => header,
            Grant::Basic(_) | Grant::Identity(_) => {
                return match endpoint
                    .authorizer
                    .try_login(&challenges, login, &endpoint.url)
                    .await
                {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(format!(
                        "{host} takes no refresh token: it asks for none of its own"
                    )),
                    Err(error) if *error.kind() == ErrorKind::CredentialsRejected => {
                        Err(rejected(error.host(), error.status(), error.message()))
                    }
                    Err(error) => Err(untried(error)),
                };
            }
        };
        let reply = endpoint
            .ping(Some(header), Guise::Own, &client_waits(), Window::new())
            .await
            .map_err(untried)?;
        let (by, status) = (reply.host().to_owned(), reply.status().as_u16());
        let (_, message) = reply.into_excuse().await;
        match status {
            401 | 403 => Err(rejected(&by, Some(status), &message)),
            _ => Ok(()),
        }
    }
}
