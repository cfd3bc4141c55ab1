//! A client's own login at an upstream: what it may read there is asked with it, in its name alone. Nothing is ever fetched
//! with it. Made by `registry`, asked with by `cache`.

use std::fmt;
use std::sync::Arc;

use super::Upstream;
use super::credentials::{Grant, Login};
use super::errand::{Guise, Purpose, SharedPurpose};
use super::error::{Error, ErrorKind};
use super::logins::LoginName;
use super::reply::Reply;
use super::retry::Window;

/// A login that a client brought. Cheap to clone.
#[derive(Clone)]
pub struct CallerLogin {
    prefix: Arc<str>,
    fingerprint: [u8; 32],
    name: LoginName,
    grant: Arc<Grant>,
}

impl fmt::Debug for CallerLogin {
    /// Without what must not be told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallerLogin").field(&self.name).finish()
    }
}

impl CallerLogin {
    /// What stands for it where it is remembered what it may.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Anew for each question: a token that it got once says nothing of it now.
    pub(super) fn login(&self) -> Arc<Login> {
        let login = Login::caller(self.prefix.clone(), self.name.clone(), self.grant.clone());
        Arc::new(login)
    }
}

impl Upstream {
    /// The login of a client; `fingerprint` stands for it, and differs from that of any other. `None` for what can be no
    /// login.
    pub fn caller_login(&self, name: &str, secret: &str, fingerprint: [u8; 32]) -> Option<CallerLogin> {
        use std::fmt::Write as _;
        let mut its = String::from("caller ");
        for byte in fingerprint {
            // Writing to a string cannot fail.
            let _ = write!(its, "{byte:02x}");
        }
        Some(CallerLogin {
            prefix: self.config.prefix.as_str().into(),
            fingerprint,
            name: its.into(),
            grant: Arc::new(Grant::basic(name, secret)?),
        })
    }

    /// Whether the registry takes a client's login, whatever that may read. One that asks nobody for a login takes none:
    /// it could not tell whose it is.
    ///
    /// # Errors
    /// When the registry or its token service cannot tell.
    pub async fn accepts(&self, caller: &CallerLogin) -> Result<bool, Error> {
        let (endpoint, login) = (&self.own, caller.login());
        let purpose = SharedPurpose::new(Purpose::Miss);
        let ask = |header| endpoint.ping(header, Guise::Caller, &purpose, Window::new());
        let reply = ask(None).await?;
        let challenges = reply.challenges();
        if reply.status().as_u16() != 401 {
            return self.told(reply, false).await;
        }
        reply.drain().await;
        if challenges.iter().any(|challenge| challenge.scheme == "bearer") {
            let asked = endpoint
                .authorizer
                .try_login(&challenges, &login, &endpoint.url)
                .await;
            return match asked {
                Err(error) if is_rejection(&error) => Ok(false),
                asked => asked,
            };
        }
        match &*caller.grant {
            Grant::Basic(header) => self.told(ask(Some(header)).await?, true).await,
            Grant::Bearer(_) | Grant::Identity(_) => Ok(false),
        }
    }

    /// What `/v2/` says of who asked; `good`: what it means that it is open.
    async fn told(&self, reply: Reply, good: bool) -> Result<bool, Error> {
        let status = reply.status().as_u16();
        let open = reply.status().is_success();
        if open || matches!(status, 401 | 403) {
            reply.drain().await;
            return Ok(open && good);
        }
        let host = reply.host().to_owned();
        let (kind, message) = reply.into_excuse().await;
        Err(self.own.transport.status_error(&host, kind, status, message))
    }
}

/// Whether a failure means that the login is not good, rather than that nobody can tell.
fn is_rejection(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::CredentialsRejected | ErrorKind::TokenDenied | ErrorKind::Denied
    )
}
