//! The issuers of `[[auth.oidc]]`, and the way to what they publish. Called by `access`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::redirect;

use crate::auth::{Fetch, Issuer, Rule};
use crate::config::{Glob, OidcConfig};

/// For the whole of an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MOST: usize = 1024 * 1024;

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
        let fetch = Arc::new(Http(client(table).with_context(|| format!("auth.oidc: {url}"))?));
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
    reason = "no redirects, and nothing secret is sent: what issuers publish is for all"
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

struct Http(reqwest::Client);

impl Fetch for Http {
    fn get(&self, url: &str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> {
        let request = self.0.get(url).header("accept", "application/json");
        let url = url.to_owned();
        Box::pin(async move {
            let told = |error: reqwest::Error| format!("{url}: {}", error.without_url());
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
