//! The issuers of `[[auth.oidc]]`, and the way to what they publish. Called by `access`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::HeaderValue;
use reqwest::{Url, redirect};

use crate::auth::{Fetch, Issuer, Rule};
use crate::config::{Glob, OidcConfig};

/// For the whole of an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MOST: usize = 1024 * 1024;
/// Kubernetes gives its keys to nobody who does not take this type of them (RFC 7517, section 8.5.2).
const ACCEPT: &str = "application/jwk-set+json, application/json";

/// Issuers and audiences, each with all that is granted to its tokens.
pub(super) fn open(tables: &[OidcConfig]) -> anyhow::Result<Vec<Issuer>> {
    let mut rules: BTreeMap<(&str, &str), (Vec<Rule>, &OidcConfig)> = BTreeMap::new();
    for table in tables {
        let claims = table.claims.iter();
        let rule = Rule {
            claims: claims
                .map(|(name, value)| (name.clone(), Glob::new(value.clone())))
                .collect(),
            scopes: table
                .scopes
                .iter()
                .map(|scope| scope.parse())
                .collect::<Result<_, _>>()
                .with_context(|| format!("auth.oidc: scopes for {}", table.issuer))?,
        };
        let key = (table.issuer.as_str(), table.audience.as_str());
        rules
            .entry(key)
            .or_insert_with(|| (Vec::new(), table))
            .0
            .push(rule);
    }
    let issuer = |((url, audience), (rules, table)): ((&str, &str), (Vec<Rule>, &OidcConfig))| {
        let fetch = Arc::new(Http {
            client: client(table).with_context(|| format!("auth.oidc: {url}"))?,
            login: login(table),
        });
        Ok(Issuer::new(
            url,
            audience,
            table.jwks_url.as_deref(),
            rules,
            fetch,
        ))
    };
    rules.into_iter().map(issuer).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "no redirects, and what is secret goes only where the configuration says"
)]
fn client(table: &OidcConfig) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT);
    if let Some(path) = &table.ca_file {
        let pem = std::fs::read(path).with_context(|| format!("ca_file {}", path.display()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("ca_file {} holds no certificates in PEM", path.display()))?;
        builder = builder.tls_certs_merge(authorities);
    }
    Ok(builder.build()?)
}

/// What to show at the issuer, if anything.
fn login(table: &OidcConfig) -> Option<Login> {
    let at = table.jwks_url.as_deref().unwrap_or(&table.issuer);
    Some(Login {
        file: table.token_file.clone()?,
        at: Url::parse(at.trim()).ok()?,
    })
}

/// A token that those are asked for who want the issuer's keys.
struct Login {
    file: PathBuf,
    /// It is shown to this host alone: metadata that lead elsewhere do not take it along.
    at: Url,
}

impl Login {
    fn is_for(&self, url: &Url) -> bool {
        url.scheme() == "https" && url.origin() == self.at.origin()
    }
}

/// The header, by the file as it is now: such tokens are replaced every hour or so.
async fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let told = |reason: &dyn ToString| format!("token_file {}: {}", file.display(), reason.to_string());
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| told(&error))?;
    let header = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
    let mut header = header.map_err(|_| told(&"it holds no token"))?;
    header.set_sensitive(true);
    Ok(header)
}

struct Http {
    client: reqwest::Client,
    login: Option<Login>,
}

impl Fetch for Http {
    fn get(&self, url: &str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> {
        let request = self.client.get(url).header("accept", ACCEPT);
        let parsed = Url::parse(url).ok();
        let login = self.login.as_ref();
        let shown = login.filter(|login| parsed.is_some_and(|url| login.is_for(&url)));
        let file = shown.map(|login| login.file.clone());
        let url = url.to_owned();
        Box::pin(async move {
            let told = |error: reqwest::Error| format!("{url}: {}", error.without_url());
            let request = match file {
                Some(file) => request.header("authorization", bearer(&file).await?),
                None => request,
            };
            let mut answer = request.send().await.map_err(told)?;
            if !answer.status().is_success() {
                return Err(format!("{url}: it answered {}", answer.status()));
            }
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(told)? {
                if body.len() + piece.len() > MOST {
                    return Err(format!("{url}: the answer is longer than {MOST} bytes"));
                }
                body.extend_from_slice(&piece);
            }
            Ok(body)
        })
    }
}
