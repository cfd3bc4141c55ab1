//! `/token`: tokens for those who proved who they are, and for nobody in particular (distribution, "Token Authentication
//! Specification" for GET, "Oauth2 Token Authentication" for POST, RFC 8693 for ID tokens).
//!
//! A token carries what was asked for as far as its owner may have it; less is no error. What it opens is decided anew at
//! each request: the token only bounds it.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use url::form_urlencoded;

use crate::api::Asking;
use crate::api::body::Content;
use crate::api::incoming;
use crate::api::permission;
use crate::api::reply::{JSON, Reply};
use crate::api::rescue::{Denied, Failure, Unauthorized};
use crate::api::route::Route;
use crate::auth::token::{Access, TokenError};
use crate::auth::{Offered, Unproved};
use crate::clock::Timestamp;
use crate::oci::RepositoryName;
use crate::registry::{Asked, Door, Intent, Located};

static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Bytes of a form: an ID token and some scopes.
const LONGEST_FORM: usize = 64 * 1024;
/// Things that one token is asked for.
const MOST_SCOPES: usize = 100;

/// An ID token for one of ours (RFC 8693, section 2.1).
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// What is asked for, by whichever method.
#[derive(Default)]
struct Wanted {
    service: Option<String>,
    scopes: Vec<String>,
    /// Whether the client wants a token to have others made.
    refresh: bool,
    grant: Option<String>,
    name: Option<String>,
    secret: Option<String>,
    refresh_token: Option<String>,
    subject_token: Option<String>,
}

impl Wanted {
    /// Of a query or a form: both are `application/x-www-form-urlencoded`.
    fn read(text: &[u8]) -> Self {
        let mut wanted = Self::default();
        for (key, value) in form_urlencoded::parse(text) {
            let first = |place: &mut Option<String>, value: Cow<'_, str>| {
                place.get_or_insert_with(|| value.into_owned());
            };
            match &*key {
                "service" => first(&mut wanted.service, value),
                "scope" => wanted.scopes.extend(value.split_whitespace().map(str::to_owned)),
                "offline_token" => wanted.refresh |= matches!(&*value, "true" | "1"),
                "access_type" => wanted.refresh |= value == "offline",
                "grant_type" => first(&mut wanted.grant, value),
                "username" => first(&mut wanted.name, value),
                "password" => first(&mut wanted.secret, value),
                "subject_token" => first(&mut wanted.subject_token, value),
                "refresh_token" => first(&mut wanted.refresh_token, value),
                _ => {}
            }
        }
        wanted
    }
}

#[derive(serde::Serialize)]
struct Answer<'a> {
    token: &'a str,
    access_token: &'a str,
    expires_in: u64,
    issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    /// Of an answer to a form (RFC 6749, section 5.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    token_type: &'static str,
}

/// Makes a token.
pub(in crate::api) async fn issue(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let form = asking.method == Method::POST;
    // A token bounds whoever shows it: it is not the way to another.
    if asking.caller.shows_token() {
        return Err(Failure::Unauthorized(Unauthorized {
            message: "tokens are made of a login, not of a token".to_owned(),
            challenge: None,
            why: None,
        }));
    }
    let wanted = if form {
        let body = incoming::whole(asking, LONGEST_FORM)
            .await
            .map_err(Failure::Body)?;
        let wanted = Wanted::read(&body);
        prove_by_form(asking, &wanted).await?;
        wanted
    } else {
        Wanted::read(asking.uri.query().unwrap_or_default().as_bytes())
    };
    let service = &asking.shared.options.service;
    if wanted.service.as_ref().is_some_and(|asked| asked != service) {
        return Err(Failure::TokenRequest(
            "invalid_request",
            "tokens are made for this registry alone: `service` names another",
        ));
    }
    if wanted.scopes.len() > MOST_SCOPES {
        return Err(Failure::TokenRequest("invalid_scope", "too many scopes"));
    }
    let mut access = Vec::new();
    for scope in &wanted.scopes {
        let Some(more) = granted(asking, scope).await else {
            continue;
        };
        let known: Option<&mut Access> = access.iter_mut().find(|known: &&mut Access| known.is_of(&more));
        match known {
            Some(known) => known.add(more),
            None => access.push(more),
        }
    }
    let said = form.then(|| {
        let said = access
            .iter()
            .map(|one| format!("{}:{}:{}", one.kind, one.name, one.actions.join(",")));
        said.collect::<Vec<_>>().join(" ")
    });
    let now = Timestamp::now();
    let authenticator = &asking.shared.auth.authenticator;
    // Of a refresh token there is no second one: the first's end is the end.
    let refresh = wanted.refresh && wanted.refresh_token.is_none();
    let issued = authenticator
        .issue(&asking.caller, access, refresh, now)
        .map_err(|error| match error {
            TokenError::Long => Failure::TokenRequest("invalid_scope", "too many scopes"),
            error => {
                tracing::error!(%error, "no token can be made");
                Failure::NoToken
            }
        })?;
    let answer = Answer {
        token: &issued.access,
        access_token: &issued.access,
        expires_in: issued.span.as_secs(),
        issued_at: now.rfc3339(),
        refresh_token: issued.refresh.as_deref(),
        scope: said,
        token_type: "Bearer",
    };
    // Strings and numbers always serialize.
    let body = Bytes::from(serde_json::to_vec(&answer).unwrap_or_default());
    Ok(Reply::new(StatusCode::OK, Content::Full(body))
        .with(header::CONTENT_TYPE, JSON.clone())
        .with(header::CACHE_CONTROL, NO_STORE.clone()))
}

/// Who asks, as the form says.
async fn prove_by_form(asking: &mut Asking<'_>, wanted: &Wanted) -> Result<(), Failure> {
    let missing = |reason| Err(Failure::TokenRequest("invalid_request", reason));
    let shown = Offered::Basic(wanted.name.clone().unwrap_or_default(), String::new());
    let authenticator = &asking.shared.auth.authenticator;
    let proved = match wanted.grant.as_deref() {
        Some("password") => match (&wanted.name, &wanted.secret) {
            (Some(name), Some(secret)) => {
                let offered = Offered::Basic(name.clone(), secret.clone());
                authenticator.prove(&offered, asking.arrival()).await
            }
            _ => return missing("username or password is missing"),
        },
        Some("refresh_token") => match &wanted.refresh_token {
            Some(token) => authenticator.by_refresh(token, asking.arrival()),
            None => return missing("refresh_token is missing"),
        },
        Some(TOKEN_EXCHANGE) => match &wanted.subject_token {
            Some(token) => {
                let offered = Offered::Basic("oidc".to_owned(), token.clone());
                authenticator.prove(&offered, asking.arrival()).await
            }
            None => return missing("subject_token is missing"),
        },
        Some(_) => {
            return Err(Failure::TokenRequest(
                "unsupported_grant_type",
                "password, refresh_token and urn:ietf:params:oauth:grant-type:token-exchange are supported",
            ));
        }
        None => return missing("grant_type is missing"),
    };
    match proved {
        Ok(caller) => {
            asking.caller = caller;
            Box::pin(asking.prove_at_upstream(&Route::Token)).await?;
        }
        Err(error) => {
            asking.note_unproved(&shown, &error);
            return Err(match error {
                Unproved::Throttled(after) => Failure::Throttled(after),
                Unproved::Exposed => Failure::Denied(Denied {
                    message: error.to_string(),
                    why: None,
                }),
                // Without a challenge, which would lead back to here.
                other => Failure::Unauthorized(Unauthorized {
                    message: other.to_string(),
                    challenge: None,
                    why: None,
                }),
            });
        }
    }
    let decided = asking.admit_to_token();
    asking.note_decision(&Route::Token, None, decided.as_ref().err());
    decided
}

/// What of a scope the caller may have: `repository:<name>:<actions>`, or the catalog.
async fn granted(asking: &Asking<'_>, scope: &str) -> Option<Access> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    // `repository(plugin)`: a class that Docker Hub knows.
    let kind = kind.split('(').next().unwrap_or(kind);
    let access = |actions| {
        Some(Access {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions,
        })
    };
    match kind {
        // What it opens is cut to what the caller may see.
        "registry" if name == "catalog" => access(vec!["*".to_owned()]),
        "repository" => {
            // A name that leads nowhere yet may be one that a push makes a repository of.
            let written = locate(asking, name, Intent::Write).await?;
            let read = locate(asking, name, Intent::Read).await;
            let actions: Vec<&str> = actions
                .split(',')
                .flat_map(|action| match action {
                    "*" => vec!["pull", "push", "delete"],
                    one => vec![one],
                })
                .collect();
            let may = |word: &str| {
                let mut any = permission::behind(word).iter();
                let located = read.as_ref().filter(|_| word == "pull").unwrap_or(&written);
                any.any(|action| asking.may(*action, located, name, word))
            };
            let mut granted: Vec<String> = Vec::new();
            for word in actions {
                if !granted.iter().any(|known| known == word) && may(word) {
                    granted.push(word.to_owned());
                }
            }
            if granted.is_empty() { None } else { access(granted) }
        }
        _ => None,
    }
}

/// Which repository a scope means: as a name on the main door does.
async fn locate(asking: &Asking<'_>, name: &str, intent: Intent) -> Option<Located> {
    let name: RepositoryName = name.parse().ok()?;
    let asked = Asked {
        door: Door::Main,
        host: None,
        ns: None,
        name: &name,
    };
    asking.shared.registry.locate(&asked, intent).await.ok()
}
