//! One question to a registry, all the way: authorization, redirects, and the steps after a refusal. What is asked, and
//! what an answer means, is in `content` and `lists`.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue, RANGE};
use tokio::time::Instant;
use url::Url;

use super::authorization::Sent;
use super::budget::{Held, Reason};
use super::credentials::{Grant, Login};
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

/// Redirects followed for one question.
const MAX_HOPS: usize = 5;
/// Challenges answered for one request.
const MAX_ANSWERS: usize = 2;
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

    fn request<'a>(&self, url: &'a Url, guise: Guise) -> Request<'a> {
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

/// What becomes of a request that was sent with a login as it is.
enum Verdict {
    /// The answer is one for the login.
    Accepted(Box<Reply>),
    /// It was refused, but is another one now.
    Renewed,
    /// The registry may want it otherwise: its challenge says.
    AskAnew,
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

    /// Follows redirects. Credentials are left behind where scheme, host or port change, and never taken up again.
    async fn walk(
        &self,
        call: &Call<'_>,
        login: &Arc<Login>,
        spending: Option<&Spending>,
        window: Window,
    ) -> Result<Answer, Error> {
        let own = self.url.origin();
        let mut url = call.url.clone();
        let mut foreign = false;
        for _ in 0..=MAX_HOPS {
            let reply = if foreign {
                self.abroad(call, &url, window).await?
            } else {
                self.at_home(call, login, spending, &url, window).await?
            };
            let next = if call.follow { reply.redirect(&url) } else { None };
            let Some(next) = next else {
                return Ok(Answer { reply, foreign });
            };
            self.transport.check(&url, &next)?;
            tracing::debug!(
                upstream = self.prefix(),
                kind = call.kind.as_str(),
                from = reply.host(),
                to = host_of(&next),
                "following a redirect"
            );
            foreign |= next.origin() != own;
            reply.drain().await;
            url = next;
        }
        let message = format!("more than {MAX_HOPS} redirects");
        Err(self.transport.error(&host_of(&url), ErrorKind::Protocol, message))
    }

    /// Asks the registry itself. After a refusal: what was sent is discarded, the registry is asked without it, and
    /// that challenge is answered (Harbor and nvcr.io challenge otherwise when they see an expired token).
    async fn at_home(
        &self,
        call: &Call<'_>,
        login: &Arc<Login>,
        spending: Option<&Spending>,
        url: &Url,
        window: Window,
    ) -> Result<Reply, Error> {
        let request = call.request(url, login.guise());
        let mut answers = 0;
        let mut sent = self.authorizer.beforehand(call.repository, login).await?;
        loop {
            let header = sent.as_ref().map(Sent::header);
            let reply = self.transport.send(&request, header, window).await?;
            if let Some(spending) = spending {
                spending.hear(reply.headers());
            }
            let status = reply.status().as_u16();
            let challenges = reply.challenges();
            if let Some(Sent::Own(grant, _)) = &sent {
                let grant = grant.clone();
                match self
                    .own_refused(call, reply, &grant, login, answers == 0, window)
                    .await?
                {
                    Verdict::Accepted(reply) => return Ok(*reply),
                    Verdict::Renewed => sent = self.authorizer.own(login).await?,
                    Verdict::AskAnew => {
                        if let Some(used) = sent.take() {
                            self.authorizer.discard(&used);
                        }
                    }
                }
                continue;
            }
            if status != 401 {
                return Ok(reply);
            }
            if let Some(used) = sent.take() {
                self.authorizer.discard(&used);
                if used.is_last_word(&challenges) {
                    let says_absent = used.is_for(call.repository);
                    return Ok(if says_absent { reply.saying_absent() } else { reply });
                }
                reply.drain().await;
                continue;
            }
            if answers == MAX_ANSWERS {
                return Ok(reply);
            }
            answers += 1;
            let challenges = if challenges.is_empty() {
                let ping = self
                    .ping(None, login.guise(), &call.errand.purpose, window)
                    .await?;
                let challenges = ping.challenges();
                ping.drain().await;
                challenges
            } else {
                challenges
            };
            let answer = self
                .authorizer
                .answer(&challenges, call.repository, login, url)
                .await?;
            if answer.is_none() {
                return Ok(reply);
            }
            reply.drain().await;
            sent = answer;
        }
    }

    /// Whether `/v2/` is open to what a login gave, as it is to every good one.
    async fn is_open_to(
        &self,
        grant: &Grant,
        guise: Guise,
        call: &Call<'_>,
        window: Window,
    ) -> Result<bool, Error> {
        let header = match grant {
            Grant::Basic(header) | Grant::Bearer(header) => Some(header),
            Grant::Identity(_) => None,
        };
        let ping = self.ping(header, guise, &call.errand.purpose, window).await?;
        let open = !matches!(ping.status().as_u16(), 401 | 403);
        ping.drain().await;
        Ok(open)
    }

    /// Whether it is what a login gave that opens `/v2/`. Where it is open to everybody, that tells nothing.
    async fn is_opened_by(
        &self,
        login: &Login,
        grant: &Arc<Grant>,
        call: &Call<'_>,
        window: Window,
    ) -> Result<bool, Error> {
        if login.is_known_to_open(grant) {
            return Ok(true);
        }
        let guise = login.guise();
        let ping = self.ping(None, guise, &call.errand.purpose, window).await?;
        let closed = matches!(ping.status().as_u16(), 401 | 403);
        ping.drain().await;
        let opens = closed && self.is_open_to(grant, guise, call, window).await?;
        if opens {
            login.opens(grant);
        }
        Ok(opens)
    }

    /// What an answer means for a login that was sent as it is. A refusal is one for good, or for this repository alone.
    async fn own_refused(
        &self,
        call: &Call<'_>,
        reply: Reply,
        grant: &Arc<Grant>,
        login: &Arc<Login>,
        unasked: bool,
        window: Window,
    ) -> Result<Verdict, Error> {
        let status = reply.status().as_u16();
        let basic = matches!(**grant, Grant::Basic(_));
        // Expired credentials for Basic are a 403 on ECR.
        if status != 401 && !(status == 403 && basic) {
            if status < 400 || status == 404 {
                login.accepted();
            }
            return Ok(Verdict::Accepted(Box::new(reply)));
        }
        if status == 401 && !basic {
            // A token may be good, but not for this.
            if self.is_open_to(grant, login.guise(), call, window).await? {
                return Ok(Verdict::Accepted(Box::new(reply)));
            }
        }
        if status == 401 && basic && unasked {
            reply.drain().await;
            return Ok(Verdict::AskAnew);
        }
        // The same of a password: `/v2/` is closed to others, and open to it.
        if status == 401 && basic && self.is_opened_by(login, grant, call, window).await? {
            return Ok(Verdict::Accepted(Box::new(reply)));
        }
        let host = reply.host().to_owned();
        let (kind, message) = reply.into_excuse().await;
        if status == 403 && !message.contains("expired") {
            if unasked {
                return Ok(Verdict::AskAnew);
            }
            // An answer to HEAD cannot say why.
            if !message.is_empty() || self.is_open_to(grant, login.guise(), call, window).await? {
                return Err(self.transport.status_error(&host, kind, status, message));
            }
        }
        if login.is_renewed(grant).await {
            return Ok(Verdict::Renewed);
        }
        // Then it could not be asked for anew.
        if self.transport.offline().is_on() {
            return Err(self.transport.is_offline(&host));
        }
        let why = format!("rejected by {host} (status {status}): {message}");
        login.set_aside(Some(grant), why.trim_end_matches(": "));
        let kind = ErrorKind::CredentialsRejected;
        Err(self.transport.status_error(&host, kind, status, message))
    }

    /// Asks where a redirect led, with nothing but an anonymous token if the host wants one (registry.k8s.io sends to
    /// pkg.dev, which has a realm of its own).
    async fn abroad(&self, call: &Call<'_>, url: &Url, window: Window) -> Result<Reply, Error> {
        let request = call.request(url, Guise::Stranger);
        let mut reply = self.transport.send(&request, None, window).await?;
        let challenges = reply.challenges();
        let stranger = self.logins.stranger();
        // A kept token may have ended: then once more, with a new one.
        for _ in 0..2 {
            if reply.status().as_u16() != 401 {
                break;
            }
            let answer = self.authorizer.answer_foreign(&challenges, url, stranger);
            let Some(sent) = answer.await? else {
                break;
            };
            reply.drain().await;
            reply = self.transport.send(&request, Some(sent.header()), window).await?;
            if reply.status().as_u16() == 401 {
                self.authorizer.discard(&sent);
                if sent.is_fresh() {
                    break;
                }
            }
        }
        Ok(reply)
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
