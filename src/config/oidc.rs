//! `[[auth.oidc]]`: issuers whose ID tokens prove workloads, and what is granted to them. Read by `auth`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::fault::Fault;
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Raw, Section};
use super::value;

/// One table: tokens of an issuer with these claims may do this.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// The issuer's URL, as its tokens write it.
    pub issuer: String,
    /// For whom tokens have to be made.
    pub audience: String,
    /// Where the issuer's keys are, if its own metadata is not to be asked for that.
    pub jwks_url: Option<String>,
    /// Authorities of the issuer's certificate beside the usual ones (PEM).
    pub ca_file: Option<PathBuf>,
    /// A file with a bearer token that is shown where the keys are, over HTTPS alone; read each time.
    pub token_file: Option<PathBuf>,
    /// Claims, and the patterns that their values have to match, all of them.
    pub claims: BTreeMap<String, String>,
    /// What may be done then: `pull,push:team/*`.
    pub scopes: Vec<String>,
}

/// Reads the tables.
pub(super) fn read(tables: Option<(Vec<toml::Table>, Origin)>, faults: &mut Vec<Fault>) -> Vec<OidcConfig> {
    let (tables, origin) = tables.unwrap_or((Vec::new(), Origin::Default));
    let read = tables.into_iter().enumerate().filter_map(|(index, table)| {
        // People count from one.
        let section = Section::of(&format!("auth.oidc[{}]", index + 1), table, &origin);
        OidcConfig::read(section, &origin, faults)
    });
    read.collect()
}

impl OidcConfig {
    fn read(section: Section, origin: &Origin, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut reader = Reader::new(section, keys::OIDC, faults);
        let url = |entry: &Entry| {
            let text = entry.filled()?;
            // As it is written: tokens are compared with it.
            value::http_url(text).map(|_| text.trim().to_owned())
        };
        let issuer = reader.take("issuer", url);
        let audience = reader.take("audience", |entry| {
            entry.filled().map(|text| text.trim().to_owned())
        });
        let claims = reader.take("claims", claims);
        let scopes = reader.take("scopes", |entry| {
            match entry.list(|item| Ok(item.to_owned()))? {
                scopes if scopes.is_empty() => Err("is empty: nothing would be granted".to_owned()),
                scopes => Ok(scopes),
            }
        });
        let jwks_url = reader.take("jwks_url", url);
        let ca_file = reader.take("ca_file", Entry::readable_file);
        let token_file = reader.take("token_file", Entry::readable_file);
        let shown_at = jwks_url.as_ref().or(issuer.as_ref());
        if token_file.is_some() && shown_at.is_some_and(|url| !url.starts_with("https://")) {
            let reason = "is shown over https alone: neither jwks_url nor issuer begins so";
            reader.fault(origin, "token_file", reason.to_owned());
        }
        let required = [
            (
                "issuer",
                issuer.is_some(),
                "like \"https://token.actions.githubusercontent.com\"",
            ),
            (
                "audience",
                audience.is_some(),
                "for whom tokens are made, like \"https://cache.example.com\"",
            ),
            ("claims", claims.is_some(), "like { repository = \"acme/app\" }"),
            ("scopes", scopes.is_some(), "like [\"pull,push:acme/*\"]"),
        ];
        for (key, there, example) in required {
            if !there && !reader.failed(key) {
                reader.fault(origin, key, format!("is required: {example}"));
            }
        }
        reader.finish();
        Some(Self {
            issuer: issuer?,
            audience: audience?,
            jwks_url,
            ca_file,
            token_file,
            claims: claims?,
            scopes: scopes?,
        })
    }
}

fn claims(entry: &Entry) -> Result<BTreeMap<String, String>, String> {
    const FORM: &str =
        "must be a table of patterns, like { repository = \"acme/app\", ref = \"refs/heads/*\" }";
    let Raw::Toml(toml::Value::Table(table)) = &entry.raw else {
        return Err(FORM.to_owned());
    };
    if table.is_empty() {
        return Err("is empty: every token of the issuer, whoever has it made, would be let in".to_owned());
    }
    let read = |(name, value): (&String, &toml::Value)| match value.as_str() {
        Some(pattern) if !pattern.is_empty() => Ok((name.clone(), pattern.to_owned())),
        _ => Err(FORM.to_owned()),
    };
    table.iter().map(read).collect()
}
