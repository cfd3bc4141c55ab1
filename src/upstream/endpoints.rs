//! Who is asked: the registry, or for content by digest any of its endpoints. The digest proves the content, so a mirror is
//! as good as the registry; what a tag means a mirror says only where it is believed (`tags`).
//!
//! The registry comes first, then the mirrors in order; those that failed lately come last, and those whose breaker is
//! open are not asked. One that is late beyond its own habits is raced against the next.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::Upstream;
use super::body::BlobBody;
use super::breaker::{Class, Pass, Readiness};
use super::content::{FetchedManifest, ManifestHead};
use super::endpoint::Endpoint;
use super::errand::{Access, Errand, Purpose};
use super::error::{Error, ErrorKind};
use super::lists::TagsPage;
use super::transport::host_of;
use crate::oci::{Descriptor, Digest, Reference, RepositoryName};

/// Which endpoints may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The registry alone.
    Registry,
    /// And mirrors that are believed about tags.
    Tags,
    /// And all mirrors.
    Content,
}

/// What is asked, as far as the choice of endpoints goes.
struct Question<'a> {
    scope: Scope,
    class: Class,
    repository: &'a RepositoryName,
    errand: &'a Errand,
}

/// An endpoint, and what the repository is called there.
struct Candidate<'a> {
    endpoint: &'a Arc<Endpoint>,
    name: RepositoryName,
}

/// A question that one endpoint was asked has ended.
struct Ended<'a, T> {
    turn: usize,
    endpoint: &'a Arc<Endpoint>,
    pass: Pass<'a>,
    result: Result<T, Error>,
}

/// Whether another endpoint may do better.
fn is_of_the_endpoint(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable(_)
            | ErrorKind::RateLimited { .. }
            | ErrorKind::Protocol
            | ErrorKind::Unexpected
            | ErrorKind::Refused
            | ErrorKind::CredentialsRejected
    )
}

fn hash(name: &RepositoryName) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(name.as_str())
}

impl Upstream {
    /// Starts a download from the first byte of `part` on, up to its end (exclusive) if there is one, at the first endpoint
    /// that serves it. The body says where it really starts: upstreams may ignore ranges.
    ///
    /// # Errors
    /// `RangeNotSatisfiable` when the blob has no byte there; `Protocol` when another range comes. When all endpoints
    /// fail, what the registry itself said.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        part: (u64, Option<u64>),
        errand: &Errand,
    ) -> Result<BlobBody, Error> {
        let question = Question {
            scope: Scope::Content,
            class: Class::Blob,
            repository,
            errand,
        };
        let ask = |endpoint: &Arc<Endpoint>, name: RepositoryName| -> BoxFuture<'_, _> {
            let (endpoint, digest, errand) = (endpoint.clone(), *digest, errand.clone());
            Box::pin(async move { endpoint.blob(&name, &digest, part, &errand).await })
        };
        let mut body = self.ask(&question, ask).await?;
        let others = self.candidates(&question);
        let others = others.iter().any(|other| {
            !Arc::ptr_eq(other.endpoint, body.endpoint())
                && other.readiness(Class::Blob) == Readiness::Ready
                && !other.endpoint.ignores_ranges()
        });
        body.keep_above(self.config.min_rate, others);
        Ok(body)
    }

    /// Fetches a manifest of at most [`crate::oci::MAX_MANIFEST_SIZE`] bytes, with the whole `Accept` list whatever a client
    /// sent. Verified against the digest that was asked for and the one that the upstream told. By digest it may come
    /// from a mirror.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        errand: &Errand,
    ) -> Result<FetchedManifest, Error> {
        let scope = match reference {
            Reference::Digest(_) => Scope::Content,
            Reference::Tag(_) => Scope::Tags,
        };
        let question = Question {
            scope,
            class: Class::Manifest,
            repository,
            errand,
        };
        let ask = |endpoint: &Arc<Endpoint>, name: RepositoryName| -> BoxFuture<'_, _> {
            let (endpoint, reference, errand) = (endpoint.clone(), reference.clone(), errand.clone());
            Box::pin(async move { endpoint.manifest(&name, &reference, &errand).await })
        };
        self.ask(&question, ask).await
    }

    /// Asks about a manifest. The error `HeadRefused` means that GET may still succeed.
    pub async fn manifest_head(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        errand: &Errand,
    ) -> Result<ManifestHead, Error> {
        let question = Question::about(Scope::Tags, repository, errand);
        let ask = |endpoint: &Arc<Endpoint>, name: RepositoryName| -> BoxFuture<'_, _> {
            let (endpoint, reference, errand) = (endpoint.clone(), reference.clone(), errand.clone());
            Box::pin(async move { endpoint.manifest_head(&name, &reference, &errand).await })
        };
        self.ask(&question, ask).await
    }

    /// Proof that the repository serves the blob, and its size if the upstream tells it. Asks for the first byte:
    /// upstreams refuse HEAD for blobs.
    pub async fn blob_probe(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        errand: &Errand,
    ) -> Result<Option<u64>, Error> {
        let question = Question::about(Scope::Registry, repository, errand);
        let ask = |endpoint: &Arc<Endpoint>, name: RepositoryName| -> BoxFuture<'_, _> {
            let (endpoint, digest, errand) = (endpoint.clone(), *digest, errand.clone());
            Box::pin(async move { endpoint.blob_probe(&name, &digest, &errand).await })
        };
        self.ask(&question, ask).await
    }

    /// One page of the tag list. `query` is sent as it is: encoded, without the question mark, perhaps empty.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        query: &str,
        errand: &Errand,
    ) -> Result<TagsPage, Error> {
        let question = Question::about(Scope::Tags, repository, errand);
        let ask = |endpoint: &Arc<Endpoint>, name: RepositoryName| -> BoxFuture<'_, _> {
            let (endpoint, query, errand) = (endpoint.clone(), query.to_owned(), errand.clone());
            Box::pin(async move { endpoint.tags(&name, &query, &errand).await })
        };
        self.ask(&question, ask).await
    }

    /// What refers to `digest`, by the referrers API, over all pages. `None` when there is no such API here, which
    /// registries say in many ways. Entries that are no descriptors are left out.
    ///
    /// # Errors
    /// Only what may pass, such as `RateLimited` and `Unavailable`, and a list without end.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        errand: &Errand,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let question = Question::about(Scope::Tags, repository, errand);
        let ask = |endpoint: &Arc<Endpoint>, name: RepositoryName| -> BoxFuture<'_, _> {
            let (endpoint, digest, errand) = (endpoint.clone(), *digest, errand.clone());
            Box::pin(async move { endpoint.referrers(&name, &digest, &errand).await })
        };
        self.ask(&question, ask).await
    }

    /// What the mirrors sent was wrong: they are asked last for a while.
    pub fn distrust_mirrors(&self) {
        self.mirrors.iter().for_each(|mirror| mirror.breaker.distrust());
    }

    /// All endpoints that may answer, the readiest first.
    fn candidates<'a>(&'a self, question: &Question<'_>) -> VecDeque<Candidate<'a>> {
        // What is asked for without our login is asked to learn what the registry gives to others.
        let mirrors = match question.scope {
            Scope::Registry => &[],
            _ if !matches!(question.errand.access, Access::Configured) => &[],
            Scope::Tags | Scope::Content => self.mirrors.as_slice(),
        };
        let mut candidates: Vec<_> = std::iter::once(&self.own)
            .chain(mirrors)
            .filter(|endpoint| question.scope != Scope::Tags || endpoint.knows_tags)
            .filter_map(|endpoint| {
                let name = endpoint.name_of(question.repository)?;
                Some(Candidate { endpoint, name })
            })
            .collect();
        candidates.sort_by_key(|candidate| candidate.readiness(question.class));
        candidates.into()
    }

    /// Asks one endpoint after the other, the next already when one is late.
    async fn ask<'a, T>(
        &'a self,
        question: &Question<'_>,
        ask: impl Fn(&'a Arc<Endpoint>, RepositoryName) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        // Whatever the breakers say.
        if self.offline().is_on() {
            return Err(self.own.transport.is_offline(&self.own.host()));
        }
        let purpose = question.errand.purpose.get();
        let hedging = self.config.hedge && purpose > Purpose::Background;
        let class = question.class;
        let mut waiting = self.candidates(question);
        let mut running = FuturesUnordered::new();
        let mut began = Vec::new();
        let (mut told, mut hedge) = (None, None);
        let begin = |turn, candidate: Candidate<'a>, pass| {
            let (endpoint, future) = (candidate.endpoint, ask(candidate.endpoint, candidate.name));
            async move {
                let result = future.await;
                Ended {
                    turn,
                    endpoint,
                    pass,
                    result,
                }
            }
        };
        loop {
            if running.is_empty() {
                let Some(next) = waiting.pop_front() else {
                    return Err(self.last_word(told));
                };
                match next.endpoint.breaker.enter(purpose > Purpose::Refresh).await {
                    Ok(pass) => {
                        began.push((next.endpoint, Instant::now()));
                        running.push(begin(began.len(), next, pass));
                    }
                    Err((left, why)) => {
                        let refusal = next.endpoint.refusal(left, why);
                        keep_word(&mut told, next.endpoint, refusal);
                    }
                }
                continue;
            }
            let ready = waiting
                .front()
                .is_some_and(|next| next.readiness(class) == Readiness::Ready);
            let late = match began.last() {
                Some((endpoint, since)) if hedging && hedge.is_none() && ready => {
                    Some(*since + endpoint.late_after(class))
                }
                _ => None,
            };
            let ended = tokio::select! {
                biased;
                ended = running.next() => ended,
                () = until(late) => None,
            };
            let Some(ended) = ended else {
                let Some(next) = waiting.pop_front() else { continue };
                if let Ok(pass) = next.endpoint.breaker.enter(false).await {
                    tracing::debug!(
                        upstream = self.prefix(),
                        host = next.endpoint.host(),
                        "an endpoint is late, asking the next one too"
                    );
                    began.push((next.endpoint, Instant::now()));
                    hedge = Some(began.len());
                    running.push(begin(began.len(), next, pass));
                }
                continue;
            };
            let (endpoint, since) = began[ended.turn - 1];
            match ended.result {
                Ok(answer) => {
                    endpoint.latency(class).note(since.elapsed());
                    if let Some(hedge) = hedge {
                        let won = ended.turn == hedge;
                        self.own.transport.observer().hedge(self.prefix(), won);
                        if won && let Some((late, since)) = began.get(hedge.saturating_sub(2)) {
                            late.latency(class).note(since.elapsed());
                            // If it was still to answer; it is not heard to its end.
                            if !running.is_empty() {
                                late.breaker.overtaken(class);
                            }
                        }
                    }
                    endpoint.heard_well(ended.pass, class);
                    return Ok(answer);
                }
                // Which says nothing about anybody.
                Err(error) if *error.kind() == ErrorKind::Offline => return Err(error),
                Err(error) => {
                    ended
                        .endpoint
                        .heard(ended.pass, &error, class, hash(question.repository));
                    // What the registry itself does not have, nobody has.
                    if !endpoint.is_mirror && !is_of_the_endpoint(&error) {
                        return Err(error);
                    }
                    keep_word(&mut told, endpoint, error);
                }
            }
        }
    }

    /// There is one endpoint at the least, so one of them said something.
    fn last_word(&self, told: Option<Error>) -> Error {
        told.unwrap_or_else(|| {
            let host = host_of(&self.config.url);
            self.own
                .transport
                .error(&host, ErrorKind::Setup, "there is nobody to ask")
        })
    }
}

impl<'a> Question<'a> {
    fn about(scope: Scope, repository: &'a RepositoryName, errand: &'a Errand) -> Self {
        Self {
            scope,
            class: Class::Other,
            repository,
            errand,
        }
    }
}

impl Candidate<'_> {
    fn readiness(&self, class: Class) -> Readiness {
        self.endpoint.breaker.readiness(class)
    }
}

/// What is told if they all fail: the registry's word, else the first one's.
fn keep_word(told: &mut Option<Error>, endpoint: &Endpoint, error: Error) {
    if endpoint.is_mirror {
        tracing::debug!(upstream = endpoint.prefix(), %error, "a mirror does not serve it");
    }
    if !endpoint.is_mirror || told.is_none() {
        *told = Some(error);
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
