//! One pull: the index, the platform's manifest, its config and layers, each checked against its digest.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use http::{HeaderName, Method, header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::line::{Line, Reply};
use super::{Client, Failure, Resolve, Retry};
use crate::options::Pace;
use crate::script::{Job, Wanted};
use crate::shared::content::digest_name;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// What came of a job's pull.
#[derive(Default)]
pub(crate) struct Pulled {
    /// The index that it got, or was told of.
    pub(crate) index: Option<String>,
    /// The digests of all manifests that it was told of or asked for.
    pub(crate) manifests: BTreeSet<String>,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

/// Pulls what a job wants, as often as whatever started the client tries.
pub(crate) async fn pull(address: SocketAddr, job: &Job, pace: Pace) -> Pulled {
    let mut pulled = Pulled::default();
    for number in 1..=job.client.tries {
        let mut puller = Puller {
            asker: Asker::new(address, job, pace),
            job,
            pulled: &mut pulled,
        };
        let outcome = puller.image().await;
        pulled.failure = outcome.err().map(|error| format!("{error:#}"));
        if pulled.failure.is_none() {
            break;
        }
        if number < job.client.tries {
            tokio::time::sleep(pace.of((job.client.again_after)(number))).await;
        }
    }
    pulled
}

struct Puller<'a> {
    asker: Asker,
    job: &'a Job,
    pulled: &'a mut Pulled,
}

impl Puller<'_> {
    async fn image(&mut self) -> Result<()> {
        let client = self.job.client;
        self.pulled.index = None;
        if client.pings {
            let reply = self.asker.ask(&Method::GET, "/v2/", super::never).await?;
            reply.expect_ok()?;
        }
        let (index, text) = self.resolve().await.context("the tag")?;
        self.pulled.manifests.insert(index.clone());
        self.pulled.index = Some(index);
        let child = child_for(&text, self.job.platform)?;
        self.pulled.manifests.insert(child.clone());
        let manifest = self.manifest(&child).await.context("the platform's manifest")?;
        self.blobs(&blobs_of(&manifest)?).await
    }

    /// The digest and the text of the index.
    async fn resolve(&mut self) -> Result<(String, Value)> {
        let reference = self.job.wanted.reference();
        let by_digest = matches!(self.job.wanted, Wanted::Digest(_));
        let asks_head = match self.job.client.resolve {
            Resolve::Get => false,
            Resolve::HeadElseGet => !by_digest,
            Resolve::Head | Resolve::HeadAndGet => true,
        };
        let mut told = None;
        if asks_head {
            let reply = self.asker.manifest(&Method::HEAD, reference).await;
            let digest = reply.and_then(|reply| {
                reply.expect_ok()?;
                let digest = reply.header(&DIGEST).context("a HEAD without a digest")?;
                Ok(digest.to_owned())
            });
            told = match digest {
                Ok(digest) => Some(digest),
                Err(_) if self.job.client.resolve == Resolve::HeadElseGet => None,
                Err(error) => return Err(error.context("HEAD")),
            };
        }
        let get = match &told {
            Some(digest) if self.job.client.resolve != Resolve::HeadAndGet => digest,
            _ => reference,
        };
        if let Some(digest) = &told {
            self.pulled.manifests.insert(digest.clone());
        }
        let reply = self.asker.manifest(&Method::GET, get).await?;
        reply.expect_ok()?;
        let digest = digest_name(Sha256::new_with_prefix(&reply.body));
        anyhow::ensure!(
            !get.starts_with("sha256:") || get == digest,
            "{digest} came instead of {get}"
        );
        Ok((digest, serde_json::from_slice(&reply.body)?))
    }

    async fn manifest(&mut self, digest: &str) -> Result<Value> {
        let reply = self.asker.manifest(&Method::GET, digest).await?;
        reply.expect_ok()?;
        let came = digest_name(Sha256::new_with_prefix(&reply.body));
        anyhow::ensure!(came == digest, "{came} came instead of {digest}");
        Ok(serde_json::from_slice(&reply.body)?)
    }

    /// Some at once, on a connection each.
    async fn blobs(&self, digests: &[String]) -> Result<()> {
        let waiting = Arc::new(Mutex::new(digests.to_vec()));
        let workers = (0..self.job.client.at_once).map(|_| {
            let (waiting, mut asker) = (Arc::clone(&waiting), self.asker.another());
            tokio::spawn(async move {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(digest) = next else {
                        return anyhow::Ok(());
                    };
                    let reply = asker.blob(&digest).await.context("a blob")?;
                    let came = digest_name(Sha256::new_with_prefix(&reply.body));
                    anyhow::ensure!(came == digest, "{came} came instead of {digest}");
                }
            })
        });
        let mut outcome = Ok(());
        for worker in workers.collect::<Vec<_>>() {
            outcome = outcome.and(worker.await.context("a puller").flatten());
        }
        outcome
    }
}

/// The manifest of the platform in an index.
fn child_for(index: &Value, architecture: &str) -> Result<String> {
    let entries = index["manifests"].as_array().context("no index")?;
    let child = entries
        .iter()
        .find(|entry| entry["platform"]["architecture"] == architecture)
        .context("no manifest for the platform")?;
    Ok(child["digest"].as_str().context("no digest")?.to_owned())
}

/// The config and the layers of an image.
fn blobs_of(manifest: &Value) -> Result<Vec<String>> {
    let layers = manifest["layers"].as_array().context("no layers")?;
    let digest = |entry: &Value| Some(entry["digest"].as_str()?.to_owned());
    layers
        .iter()
        .chain([&manifest["config"]])
        .map(digest)
        .collect::<Option<_>>()
        .context("no digest")
}

/// Asks as a client does: with its headers, its token and its retries.
struct Asker {
    line: Line,
    address: SocketAddr,
    repository: String,
    client: &'static Client,
    pace: Pace,
    token: Option<String>,
}

impl Asker {
    fn new(address: SocketAddr, job: &Job, pace: Pace) -> Self {
        Self {
            line: Line::new(address),
            address,
            repository: job.repository.clone(),
            client: job.client,
            pace,
            token: None,
        }
    }

    /// One with a connection of its own and the same token.
    fn another(&self) -> Self {
        Self {
            line: Line::new(self.address),
            repository: self.repository.clone(),
            token: self.token.clone(),
            ..*self
        }
    }

    async fn manifest(&mut self, method: &Method, reference: &str) -> Result<Reply> {
        let path = self.path("manifests", reference);
        self.ask(method, &path, self.client.manifest).await
    }

    /// A blob, following the redirect to where it is stored.
    async fn blob(&mut self, digest: &str) -> Result<Reply> {
        let path = self.path("blobs", digest);
        let mut reply = self.ask(&Method::GET, &path, self.client.blob).await?;
        if reply.status == 307 {
            let location = reply.header(&header::LOCATION).context("a redirect to nowhere")?;
            let stored = url::Url::parse(location)?.path().to_owned();
            reply = self.line.ask(&Method::GET, &stored, &[]).await?;
        }
        reply.expect_ok()?;
        Ok(reply)
    }

    fn path(&self, kind: &str, reference: &str) -> String {
        let namespace = if self.client.namespace {
            "?ns=docker.io"
        } else {
            ""
        };
        format!("/v2/{}/{kind}/{reference}{namespace}", self.repository)
    }

    async fn ask(&mut self, method: &Method, path: &str, retry: Retry) -> Result<Reply> {
        let mut failures = 0;
        loop {
            let asked = self.with_token(method, path).await;
            let failure = match &asked {
                Ok(reply) if reply.status < 400 => return asked,
                Ok(reply) => Failure::Status(reply.status),
                Err(_) => Failure::Cut,
            };
            failures += 1;
            let Some(pause) = retry(failure, failures) else {
                return asked;
            };
            tokio::time::sleep(self.pace.of(pause)).await;
        }
    }

    /// Asks, and once more with a token if that is wanted.
    async fn with_token(&mut self, method: &Method, path: &str) -> Result<Reply> {
        let reply = self.line.ask(method, path, &self.headers()).await?;
        if reply.status != 401 {
            return Ok(reply);
        }
        let challenge = reply.header(&header::WWW_AUTHENTICATE).unwrap_or_default();
        let Some(realm) = challenge.split('"').nth(1) else {
            return Ok(reply);
        };
        let service = url::Url::parse(realm)?.path().to_owned();
        let query = format!(
            "{service}?service=registry.docker.io&scope=repository:{}:pull",
            self.repository
        );
        let answer = self
            .line
            .ask(&Method::GET, &query, &[])
            .await
            .context("a token")?;
        answer.expect_ok().context("a token")?;
        let document: Value = serde_json::from_slice(&answer.body)?;
        self.token = document["token"].as_str().map(ToOwned::to_owned);
        self.line.ask(method, path, &self.headers()).await
    }

    fn headers(&self) -> Vec<(HeaderName, String)> {
        let mut headers = vec![
            (header::USER_AGENT, self.client.name.to_owned()),
            (header::ACCEPT, ACCEPT.to_owned()),
        ];
        if let Some(token) = &self.token {
            headers.push((header::AUTHORIZATION, format!("Bearer {token}")));
        }
        headers
    }
}

impl Reply {
    fn expect_ok(&self) -> Result<()> {
        let told = String::from_utf8_lossy(&self.body);
        anyhow::ensure!(
            self.status == 200,
            "{} {}",
            self.status,
            told.chars().take(160).collect::<String>()
        );
        Ok(())
    }
}
