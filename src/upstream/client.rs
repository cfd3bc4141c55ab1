//! One question to a registry, all the way: authorization, redirects, and the steps after a refusal. What is asked, and
//! what an answer means, is in `content` and `lists`.

use super::budget::{Held, Reason};
use super::credentials::Login;
use super::endpoint::Endpoint;
use super::errand::{Access, Errand, Guise, Purpose, SharedPurpose};
use super::error::{Error, ErrorKind, Failure, Limit};
use super::governor::Spending;
use super::logins::{Choice, Left, LoginName, Wish};
use super::observer::RequestKind;
use super::reply::Reply;
use super::retry::Window;
use super::slowdown;
use super::transport::{Request, host_of};
use super::turns::Lane;
use crate::oci::RepositoryName;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue, RANGE};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// How often a client's question is asked again after too many requests.
const RETURNS: usize = 2;

/// A question about a repository.
pub(super) struct Call<'a> {
    pub(super) kind: RequestKind,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) repository: &'a RepositoryName,
    pub(super) errand: &'a Errand,
    pub(super) headers: HeaderMap,
    /// Redirects are followed.
    pub(super) follow: bool,
}

impl Call<'_> {
    /// Whether it counts against a limit on pulls: the GET of a manifest does.
    pub(super) fn counts(&self) -> bool {
        self.kind == RequestKind::Manifest && self.method == Method::GET
    }

    /// Whether limits on pulls are told by the answer.
    fn is_about_a_manifest(&self) -> bool {
        matches!(self.kind, RequestKind::Manifest | RequestKind::ManifestHead)
    }

    pub(super) fn request<'a>(&self, url: &'a Url, guise: Guise) -> Request<'a> {
        Request {
            kind: self.kind,
            lane: if self.kind == RequestKind::Blob {
                Lane::Bulk
            } else {
                Lane::Api
            },
            purpose: self.errand.purpose.clone(),
            method: self.method.clone(),
            url,
            headers: self.headers.clone(),
            form: None,
            guise,
        }
    }
}

/// What came of it, with whatever status.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// It is from a host that the registry redirected to.
    pub(super) foreign: bool,
}

/// How much an answer with one login leaves to hope for from another. The greater, the more it says if all fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hope {
    /// It is not there, which is also what a registry tells those who must not know.
    Hidden,
    /// The login may not have this.
    Denied,
    /// The login itself is not accepted.
    Rejected,
    /// Its budget is spent.
    Spent,
}

/// How long a login rests whose budget is spent, when nobody says how long, and at most.
const REST: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(1));

impl Endpoint {
    /// The URL of a request: the endpoint's own path, then `/v2/`, then `rest`.
    pub(super) fn url_of(&self, rest: &str) -> Url {
        let mut url = self.url.clone();
        let path = format!("{}/v2/{rest}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// Asks, with one login after the other where one is not accepted, has spent its budget, or may not have this.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Answer, Error> {
        match &call.errand.access {
            Access::Configured => {}
            Access::Anonymous => return self.ask_as(call, self.logins.stranger()).await,
            // Its budget is the client's, and nothing that we count.
            Access::Caller(caller) => return self.ask_freely(call, &caller.login(), None).await,
        }
        let mut tried: Vec<LoginName> = Vec::new();
        let mut kept: Option<(Hope, Result<Answer, Error>)> = None;
        // Others may not have it, or are not accepted: that lasts longer than a budget that is spent.
        let mut needed = false;
        loop {
            let wish = Wish {
                repository: call.repository,
                counted: call.counts(),
                tried: &tried,
            };
            let Some(Choice { login, makeshift }) = self.logins.choose(&wish, |login| self.left(call, login))
            else {
                let nobody = || Err(self.none_accepted());
                return kept.map_or_else(nobody, |(_, result)| result);
            };
            let mut result = self.ask_as(call, &login).await;
            let hope = match &mut result {
                Ok(answer) if answer.foreign => None,
                Ok(answer) => match answer.reply.status().as_u16() {
                    401 | 403 => Some(Hope::Denied),
                    404 if self.logins.may_be_hidden(call.repository, &login) => Some(Hope::Hidden),
                    // Any other limit is on everybody at our address.
                    429 if call.is_about_a_manifest() && answer.reply.limit().await.0 == Limit::Pulls => {
                        Some(Hope::Spent)
                    }
                    _ => None,
                },
                Err(error) => match error.kind() {
                    ErrorKind::TokenDenied | ErrorKind::Denied => Some(Hope::Denied),
                    ErrorKind::CredentialsRejected => Some(Hope::Rejected),
                    ErrorKind::RateLimited { .. } => Some(Hope::Spent),
                    _ => None,
                },
            };
            let Some(hope) = hope else {
                if matches!(&result, Ok(answer) if answer.reply.status().as_u16() < 400) {
                    self.logins.note_use(call.repository, &login, needed);
                }
                return result;
            };
            match (hope, &result) {
                // What nobody may have says nothing of what our logins may.
                (Hope::Denied, _) if makeshift => {
                    let rejected = kept.and_then(|(_, result)| result.err());
                    return Err(rejected.unwrap_or_else(|| self.none_accepted()));
                }
                // Its budget knows of pulls; this is a token service that gives it nothing for a while.
                (Hope::Spent, Err(error)) if !error.is_held() => {
                    login.rest(error.retry_after().unwrap_or(REST.0).min(REST.1));
                }
                _ => {}
            }
            needed |= hope != Hope::Spent;
            tried.push(login.name().clone());
            if let Ok(answer) = &mut result {
                answer.reply.put_aside().await;
            }
            if kept.as_ref().is_none_or(|(before, _)| hope > *before) {
                kept = Some((hope, result));
            }
        }
    }

    /// The error when all logins are set aside.
    fn none_accepted(&self) -> Error {
        let states = self.logins.all().iter().map(|login| login.state());
        let why: Vec<_> = states
            .filter_map(|state| Some(format!("{}: {}", state.name, state.aside?.1)))
            .collect();
        let message = format!("no credential is accepted: {}", why.join("; "));
        let host = host_of(&self.url);
        self.transport
            .error(&host, ErrorKind::CredentialsRejected, message)
    }

    /// What a login's budget has left for this.
    fn left(&self, call: &Call<'_>, login: &Login) -> Left {
        let (purpose, name) = (call.errand.purpose.get(), login.name());
        if login.rests(Instant::now()) {
            return Left::Nothing;
        }
        if !self.governor.allows(name, purpose, call.repository) {
            let asks = purpose == Purpose::Miss && self.governor.is_probe_due(name);
            return if asks { Left::Perhaps } else { Left::Nothing };
        }
        self.governor.left(name).map_or(Left::Unknown, Left::Some)
    }

    /// Whether a GET of a manifest would be sent for `errand`, with whatever login, as far as is known now.
    pub(super) fn may_pull(&self, repository: &RepositoryName, errand: &Errand) -> bool {
        let purpose = errand.purpose.get();
        let allows = |login: &Arc<Login>| self.governor.allows(login.name(), purpose, repository);
        match errand.access {
            Access::Configured if !self.logins.all().is_empty() => self.logins.all().iter().any(allows),
            _ => allows(self.logins.stranger()),
        }
    }

    /// Asks with one login, if what it costs may be spent.
    ///
    /// # Errors
    /// `RateLimited` without having asked, when the pulls that are left are kept, or used up.
    async fn ask_as(&self, call: &Call<'_>, login: &Arc<Login>) -> Result<Answer, Error> {
        if !call.is_about_a_manifest() {
            return self.ask_freely(call, login, None).await;
        }
        let spending = self.spending(call, login).await?;
        self.spend(call, login, spending).await
    }

    /// The same, once there is leave.
    async fn spend(&self, call: &Call<'_>, login: &Arc<Login>, spending: Spending) -> Result<Answer, Error> {
        let mut answer = match self.ask_freely(call, login, Some(&spending)).await {
            Ok(answer) => answer,
            Err(error) => {
                // It may have been counted, unless it never got there.
                if !matches!(
                    error.kind(),
                    ErrorKind::Unavailable(Failure::Timeout | Failure::Cut)
                ) {
                    spending.answered(call.repository, false);
                }
                return Err(error);
            }
        };
        match answer.reply.status().as_u16() {
            429 => match answer.reply.limit().await {
                (Limit::Pulls, retry_after) => spending.refused(call.repository, retry_after),
                _ => spending.answered(call.repository, false),
            },
            status => spending.answered(call.repository, status == 200),
        }
        Ok(answer)
    }

    /// Leave to spend what a question costs. When there is none, a free question about the very same learns now and then
    /// whether there is again.
    async fn spending(&self, call: &Call<'_>, login: &Arc<Login>) -> Result<Spending, Error> {
        let (governor, credential) = (&self.governor, &**login.name());
        if call.kind != RequestKind::Manifest {
            let question = governor.question(credential);
            return question.map_err(|held| self.held(&held, "even free questions are refused"));
        }
        let purpose = call.errand.purpose.get();
        let mut asked = governor.counted(credential, purpose, call.repository).await;
        if asked.as_ref().is_err_and(|held| held.probe) {
            let question = Call {
                kind: RequestKind::ManifestHead,
                method: Method::HEAD,
                url: call.url.clone(),
                headers: call.headers.clone(),
                ..*call
            };
            let answer = Box::pin(self.spend(&question, login, governor.free(credential))).await?;
            if answer.reply.status().as_u16() != 200 {
                let error = self.failure(&question, answer).await;
                if error.is_not_found() {
                    return Err(error);
                }
            }
            asked = governor.counted(credential, purpose, call.repository).await;
        }
        asked.map_err(|held| {
            governor.note_held(credential, purpose, &held);
            self.held(
                &held,
                match held.reason {
                    Reason::Empty => "no pulls are left",
                    Reason::Kept => "the pulls that are left are kept for what is more urgent",
                },
            )
        })
    }

    /// That we do not ask.
    fn held(&self, held: &Held, why: &str) -> Error {
        let kind = ErrorKind::RateLimited {
            retry_after: Some(held.retry_after),
            limit: Limit::Held,
        };
        let message = format!("not asked for {} s more: {why}", held.retry_after.as_secs());
        self.transport.error(&host_of(&self.url), kind, message)
    }

    /// Asks. Where a client waits, a registry that refuses too many requests is asked again when its turn comes.
    async fn ask_freely(
        &self,
        call: &Call<'_>,
        login: &Arc<Login>,
        spending: Option<&Spending>,
    ) -> Result<Answer, Error> {
        for _ in 0..RETURNS {
            let mut answer = self.ask_once(call, login, spending).await?;
            // What goes on with a blob, or brings more of it at once, has its own ways.
            let waits = call.errand.purpose.get() == Purpose::Miss && !call.headers.contains_key(RANGE);
            if answer.reply.status().as_u16() != 429 || !waits {
                return Ok(answer);
            }
            match answer.reply.limit().await {
                // The transport waits for the turn.
                (Limit::Requests, wait) if wait.unwrap_or_default() <= slowdown::PATIENCE => {}
                _ => return Ok(answer),
            }
        }
        self.ask_once(call, login, spending).await
    }

    /// Asks. Signed URLs expire, so a redirect's target that refuses is asked for anew, once.
    async fn ask_once(
        &self,
        call: &Call<'_>,
        login: &Arc<Login>,
        spending: Option<&Spending>,
    ) -> Result<Answer, Error> {
        let window = Window::new();
        let answer = self.walk(call, login, spending, window).await?;
        let refused = matches!(answer.reply.status().as_u16(), 401 | 403 | 410);
        // HEAD is refused by targets whose URL is signed for GET: asking again does not help.
        if !answer.foreign || !refused || call.method == Method::HEAD {
            return Ok(answer);
        }
        tracing::debug!(
            upstream = self.prefix(),
            host = answer.reply.host(),
            "a redirect's target refuses: asking the registry for another"
        );
        answer.reply.drain().await;
        self.walk(call, login, spending, window).await
    }

    /// The error that an answer is when it is not what was hoped for.
    pub(super) async fn failure(&self, call: &Call<'_>, answer: Answer) -> Error {
        let Answer { reply, foreign } = answer;
        let (host, status) = (reply.host().to_owned(), reply.status().as_u16());
        let (kind, message) = reply.into_excuse().await;
        let head = call.method == Method::HEAD;
        let kind = match (kind, status) {
            (_, 405 | 501) if head => ErrorKind::HeadRefused,
            (ErrorKind::Denied, _) if head && foreign => ErrorKind::HeadRefused,
            // The registry says that it has the blob; that its storage does not hand it out is a fault over there.
            (ErrorKind::Denied, _) | (_, 410)
                if foreign && matches!(call.kind, RequestKind::Blob | RequestKind::BlobProbe) =>
            {
                ErrorKind::Unavailable(Failure::Status(status))
            }
            (kind, _) => kind,
        };
        self.transport.status_error(&host, kind, status, message)
    }

    /// What `/v2/` says: how to authorize, for a registry that refuses without a word (gcr.io), or of a login.
    pub(super) async fn ping(
        &self,
        authorization: Option<&HeaderValue>,
        guise: Guise,
        purpose: &SharedPurpose,
        window: Window,
    ) -> Result<Reply, Error> {
        let url = self.url_of("");
        let request = Request {
            kind: RequestKind::Ping,
            lane: Lane::Login,
            purpose: purpose.clone(),
            method: Method::GET,
            url: &url,
            headers: HeaderMap::new(),
            form: None,
            guise,
        };
        self.transport.send(&request, authorization, window).await
    }
}
