//! One question to a registry, all the way: authorization, redirects, and the steps after a refusal. What is asked, and
//! what an answer means, is in `content` and `lists`.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use url::Url;

use super::authorization::Sent;
use super::endpoint::Endpoint;
use super::errand::Errand;
use super::error::{Error, ErrorKind, Failure};
use super::observer::RequestKind;
use super::reply::Reply;
use super::retry::{self, Window};
use super::transport::{Request, host_of};
use super::turns::Lane;
use crate::oci::RepositoryName;

/// Redirects followed for one question.
const MAX_HOPS: usize = 5;
/// Challenges answered for one request.
const MAX_ANSWERS: usize = 2;

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
    fn request<'a>(&self, url: &'a Url) -> Request<'a> {
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
        }
    }
}

/// What came of it, with whatever status.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// It is from a host that the registry redirected to.
    pub(super) foreign: bool,
}

impl Endpoint {
    /// The URL of a request: the endpoint's own path, then `/v2/`, then `rest`.
    pub(super) fn url_of(&self, rest: &str) -> Url {
        let mut url = self.url.clone();
        let path = format!("{}/v2/{rest}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// Asks. Signed URLs expire, so a redirect's target that refuses is asked for anew, once.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let window = Window::new();
        let answer = self.walk(call, window).await?;
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
        self.walk(call, window).await
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
    async fn walk(&self, call: &Call<'_>, window: Window) -> Result<Answer, Error> {
        let own = self.url.origin();
        let mut url = call.url.clone();
        let mut foreign = false;
        for _ in 0..=MAX_HOPS {
            let reply = if foreign {
                self.abroad(call, &url, window).await?
            } else {
                self.at_home(call, &url, window).await?
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
    async fn at_home(&self, call: &Call<'_>, url: &Url, window: Window) -> Result<Reply, Error> {
        let request = call.request(url);
        let mut answers = 0;
        let mut sent = self
            .authorizer
            .beforehand(call.repository, call.errand.access)
            .await?;
        loop {
            let header = sent.as_ref().map(Sent::header);
            let reply = self.transport.send(&request, header, window).await?;
            self.note_limits(&reply);
            let status = reply.status().as_u16();
            // Expired credentials for Basic are a 403 on ECR.
            let refused = status == 401 || (status == 403 && matches!(sent, Some(Sent::Basic(_))));
            if !refused {
                return Ok(reply);
            }
            let challenges = reply.challenges();
            if let Some(used) = sent.take() {
                self.authorizer.discard(&used);
                if matches!(used, Sent::Basic(_)) && answers > 0 {
                    return self.basic_refused(call, reply, used.header(), window).await;
                }
                if used.is_last_word(&challenges) {
                    let says_absent = status == 401 && used.is_for(call.repository);
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
                let ping = self.ping(call, None, window).await?;
                let challenges = ping.challenges();
                ping.drain().await;
                challenges
            } else {
                challenges
            };
            let answer = self
                .authorizer
                .answer(&challenges, call.repository, call.errand.access, url)
                .await?;
            if answer.is_none() {
                return Ok(reply);
            }
            reply.drain().await;
            sent = answer;
        }
    }

    /// Our credentials themselves were refused: for good, or for this repository?
    async fn basic_refused(
        &self,
        call: &Call<'_>,
        reply: Reply,
        login: &HeaderValue,
        window: Window,
    ) -> Result<Reply, Error> {
        let (host, status) = (reply.host().to_owned(), reply.status().as_u16());
        let (kind, message) = reply.into_excuse().await;
        let mut rejected = status == 401 || message.contains("expired");
        if message.is_empty() && !rejected {
            // An answer to HEAD cannot say why; `/v2/` is open to every good login.
            let ping = self.ping(call, Some(login), window).await?;
            rejected = matches!(ping.status().as_u16(), 401 | 403);
            ping.drain().await;
        }
        let kind = if rejected {
            self.authorizer.reject_login();
            ErrorKind::CredentialsRejected
        } else {
            kind
        };
        Err(self.transport.status_error(&host, kind, status, message))
    }

    /// Asks where a redirect led, with nothing but an anonymous token if the host wants one (registry.k8s.io sends to
    /// pkg.dev, which has a realm of its own).
    async fn abroad(&self, call: &Call<'_>, url: &Url, window: Window) -> Result<Reply, Error> {
        let request = call.request(url);
        let mut reply = self.transport.send(&request, None, window).await?;
        let challenges = reply.challenges();
        // A kept token may have ended: then once more, with a new one.
        for _ in 0..2 {
            if reply.status().as_u16() != 401 {
                break;
            }
            let Some(sent) = self.authorizer.answer_foreign(&challenges, url).await? else {
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
    async fn ping(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
        window: Window,
    ) -> Result<Reply, Error> {
        let url = self.url_of("");
        let request = Request {
            kind: RequestKind::Ping,
            lane: Lane::Login,
            purpose: call.errand.purpose.clone(),
            method: Method::GET,
            url: &url,
            headers: HeaderMap::new(),
        };
        self.transport.send(&request, authorization, window).await
    }

    fn note_limits(&self, reply: &Reply) {
        let limit = retry::limit(reply.headers(), "ratelimit-limit");
        let remaining = retry::limit(reply.headers(), "ratelimit-remaining");
        if limit.is_some() || remaining.is_some() {
            self.transport
                .observer()
                .rate_limit(self.prefix(), limit, remaining);
        }
    }
}
