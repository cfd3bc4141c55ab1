//! One question to an endpoint, as a chain of requests: redirects followed, challenges answered, and what a login was sent
//! for and refused sorted out. Called by `client`.

use std::sync::Arc;

use url::Url;

use super::authorization::Sent;
use super::client::{Answer, Call};
use super::credentials::{Grant, Login};
use super::endpoint::Endpoint;
use super::errand::Guise;
use super::error::{Error, ErrorKind};
use super::governor::Spending;
use super::reply::Reply;
use super::retry::Window;
use super::transport::host_of;

/// Redirects followed for one question.
const MAX_HOPS: usize = 5;
/// Challenges answered for one request.
const MAX_ANSWERS: usize = 2;

/// What becomes of a request that was sent with a login as it is.
enum Verdict {
    /// The answer is one for the login.
    Accepted(Box<Reply>),
    /// It was refused, but is another one now.
    Renewed,
    /// The registry may want it otherwise: its challenge says.
    AskAnew,
}

impl Endpoint {
    /// Follows redirects. Credentials are left behind where scheme, host or port change, and never taken up again.
    pub(super) async fn walk(
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
}
