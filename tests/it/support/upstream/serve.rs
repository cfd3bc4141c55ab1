//! Answers one request as a registry would, after the rules of the script have been asked. Called by the
//! connections of `upstream.rs`.

use std::io;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;

use super::auth::Refusal;
use super::deliver::{Answer, Body, deliver};
use super::log::Outcome;
use super::matching::{Asked, Target};
use super::plan::{Cdn, Plan};
use super::store::INDEX;
use super::wire::Flushes;
use super::{DOCKER_CONTENT_DIGEST, Upstream};
use crate::support::locked;

/// One request, from its record to its response; an error closes the connection.
pub(in crate::support) async fn respond(
    upstream: Upstream,
    request: Request<Incoming>,
    flushes: Flushes,
) -> Result<Response<Body>, io::Error> {
    let (head, _body) = request.into_parts();
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
    };
    let entry = upstream.inner.log.add(asked.clone());
    let refused = upstream.refusal(&asked);
    let plan = upstream.take_plan(&asked, refused.is_some());
    if let Some(gate) = &plan.hold
        && !gate.pass().await
    {
        entry.end(Outcome::Cut);
        return Err(io::Error::other("cut by the script"));
    }
    if plan.hang_up {
        entry.end(Outcome::Cut);
        return Err(io::Error::other("hung up by the script"));
    }
    let mut answer = match (&plan, refused) {
        (
            Plan {
                before_auth: false, ..
            },
            Some(refusal),
        ) => refused_answer(&refusal),
        (
            Plan {
                reply: Some(canned), ..
            },
            _,
        ) => match &canned.body {
            Some(body) => Answer::new(canned.status, body.clone()),
            None => error(canned.status),
        },
        (Plan { cdn: Some(cdn), .. }, _) => upstream.sign(&asked, cdn),
        _ => upstream.content(&asked),
    };
    for (name, value) in upstream.decorations(&asked) {
        answer.headers.insert(name, value);
    }
    let brings_a_body = plan.reply.as_ref().is_some_and(|canned| canned.body.is_some());
    if (answer.status.is_client_error() || answer.status.is_server_error()) && !brings_a_body {
        locked(&upstream.inner.style).apply(&mut answer);
    }
    Ok(deliver(&asked, answer, &plan, entry, flushes))
}

fn refused_answer(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status).expect("a valid status");
    let code = if refusal.status == 401 {
        "UNAUTHORIZED"
    } else {
        "DENIED"
    };
    let mut answer = coded(status, code, refusal.message);
    for challenge in &refusal.challenges {
        let line = HeaderValue::from_str(challenge).expect("a valid challenge");
        answer.headers.append(header::WWW_AUTHENTICATE, line);
    }
    answer
}

/// An error answer as the specification wants it.
fn coded(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = json!({ "errors": [{ "code": code, "message": message, "detail": null }] });
    Answer::new(status, body.to_string()).header(header::CONTENT_TYPE, "application/json")
}

fn missing(code: &str) -> Answer {
    coded(StatusCode::NOT_FOUND, code, "not known to this registry")
}

/// The body of a scripted status that brings none of its own.
fn error(status: StatusCode) -> Answer {
    let code = match status.as_u16() {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "NAME_UNKNOWN",
        429 => "TOOMANYREQUESTS",
        405 => "UNSUPPORTED",
        400.. => "UNKNOWN",
        _ => return Answer::new(status, ""),
    };
    coded(status, code, status.canonical_reason().unwrap_or("scripted"))
}

fn found(bytes: impl Into<bytes::Bytes>, media_type: &str, digest: &str) -> Answer {
    Answer::new(StatusCode::OK, bytes)
        .header(header::CONTENT_TYPE, media_type)
        .header(DOCKER_CONTENT_DIGEST, digest)
}

impl Upstream {
    fn refusal(&self, asked: &Asked) -> Option<Refusal> {
        let target = asked.target();
        if matches!(target, Target::Token | Target::Signed { .. } | Target::Other) {
            return None;
        }
        let exists = target
            .repo()
            .is_some_and(|repo| locked(&self.inner.store).repos.contains_key(repo));
        locked(&self.inner.door).check(asked, exists).err()
    }

    /// The correct answer.
    fn content(&self, asked: &Asked) -> Answer {
        let target = asked.target();
        if !matches!(asked.method, Method::GET | Method::HEAD) {
            return coded(
                StatusCode::METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                "this registry is for pulling",
            );
        }
        match target {
            Target::Ping => {
                Answer::new(StatusCode::OK, "{}").header(header::CONTENT_TYPE, "application/json")
            }
            Target::Token => self.token(asked),
            Target::Signed { .. } => self.signed(asked),
            Target::Manifest { repo, reference } => self.manifest(repo, reference),
            Target::Blob { repo, digest } => self.blob(repo, digest),
            Target::Tags { repo } => self.tag_list(repo, asked),
            Target::Referrers { repo, digest } => self.referrers(repo, digest, asked),
            Target::Other => Answer::new(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn token(&self, asked: &Asked) -> Answer {
        let service = asked.parameter("service");
        let services = locked(&self.inner.token_services);
        let Some(bearer) = services
            .iter()
            .rev()
            .find(|bearer| bearer.serves(service.as_deref()))
        else {
            return Answer::new(StatusCode::NOT_FOUND, "no token service here\n");
        };
        match bearer.token(asked) {
            Ok(body) => Answer::new(StatusCode::OK, body).header(header::CONTENT_TYPE, "application/json"),
            Err(refusal) => refused_answer(&refusal),
        }
    }

    fn signed(&self, asked: &Asked) -> Answer {
        if asked.headers.contains_key(header::AUTHORIZATION) {
            let body = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>";
            return Answer::new(StatusCode::BAD_REQUEST, body)
                .header(header::CONTENT_TYPE, "application/xml");
        }
        let bytes = if asked.method == Method::HEAD {
            None
        } else {
            locked(&self.inner.store).redeem(&asked.path)
        };
        let Some(bytes) = bytes else {
            let body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
            return Answer::new(StatusCode::FORBIDDEN, body).header(header::CONTENT_TYPE, "application/xml");
        };
        let mut answer =
            Answer::new(StatusCode::OK, bytes).header(header::CONTENT_TYPE, "application/octet-stream");
        answer.ranges = true;
        answer
    }

    fn sign(&self, asked: &Asked, cdn: &Cdn) -> Answer {
        let content = self.content(asked);
        if content.status != StatusCode::OK {
            return content;
        }
        let digest = match asked.target() {
            Target::Blob { digest, .. } => digest,
            Target::Manifest { reference, .. } => reference,
            _ => "content",
        };
        let path = locked(&cdn.server.inner.store).sign(digest, content.bytes, cdn.uses);
        let location = format!("{}{path}?signature=secret", cdn.server.url());
        Answer::new(cdn.status, "").header(header::LOCATION, &location)
    }

    fn manifest(&self, repo: &str, reference: &str) -> Answer {
        let store = locked(&self.inner.store);
        let Some(repo) = store.repos.get(repo) else {
            return missing("NAME_UNKNOWN");
        };
        match repo.manifest(reference) {
            Some(part) => found(part.bytes.clone(), &part.media_type, &part.digest),
            None => missing("MANIFEST_UNKNOWN"),
        }
    }

    fn blob(&self, repo: &str, digest: &str) -> Answer {
        let store = locked(&self.inner.store);
        let Some(repo) = store.repos.get(repo) else {
            return missing("NAME_UNKNOWN");
        };
        let Some(bytes) = repo.blobs.get(digest) else {
            return missing("BLOB_UNKNOWN");
        };
        let mut answer =
            found(bytes.clone(), "application/octet-stream", digest).header(header::ACCEPT_RANGES, "bytes");
        answer.ranges = true;
        answer
    }

    fn tag_list(&self, name: &str, asked: &Asked) -> Answer {
        let store = locked(&self.inner.store);
        let Some(repo) = store.repos.get(name) else {
            return missing("NAME_UNKNOWN");
        };
        let (opaque, limit) = *locked(&self.inner.paging);
        let last = match asked.parameter("next_page") {
            Some(page) => String::from_utf8(hex::decode(page).unwrap_or_default()).unwrap_or_default(),
            None => asked.parameter("last").unwrap_or_default(),
        };
        let n = asked
            .parameter("n")
            .and_then(|n| n.parse::<usize>().ok())
            .unwrap_or(usize::MAX)
            .min(limit);
        let mut tags: Vec<&String> = repo.tags.keys().filter(|tag| **tag > last).collect();
        let more = tags.len() > n && n > 0;
        tags.truncate(n);
        let body = json!({ "name": name, "tags": tags }).to_string();
        let answer = Answer::new(StatusCode::OK, body).header(header::CONTENT_TYPE, "application/json");
        let Some(last) = tags.last().filter(|_| more) else {
            return answer;
        };
        let next = if opaque {
            format!("next_page={}&n={n}", hex::encode(last.as_bytes()))
        } else {
            format!("last={last}&n={n}")
        };
        answer.header(
            header::LINK,
            &format!("</v2/{name}/tags/list?{next}>; rel=\"next\""),
        )
    }

    fn referrers(&self, repo: &str, digest: &str, asked: &Asked) -> Answer {
        let store = locked(&self.inner.store);
        let Some(repo) = store.repos.get(repo) else {
            return missing("NAME_UNKNOWN");
        };
        let filter = asked.parameter("artifactType");
        let index = repo.referrers(digest, filter.as_deref());
        let answer = Answer::new(StatusCode::OK, index.to_string()).header(header::CONTENT_TYPE, INDEX);
        match filter {
            Some(_) => answer.header(super::OCI_FILTERS_APPLIED, "artifactType"),
            None => answer,
        }
    }
}
