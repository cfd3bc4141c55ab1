//! The mirrors of an upstream: other registries that hold the same content, written as a URL alone or as a table that says
//! more. Read by `upstream`.

use std::collections::BTreeMap;

use url::Url;

use super::credentials::Credentials;
use super::fault::Fault;
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Raw, Section};
use super::value;

/// A registry that is asked when the upstream's own cannot serve.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Its URL; `/v2/` comes after the path.
    pub url: Url,
    /// How repositories are called there.
    pub rewrite: Rewrite,
    /// Whether it is believed about what a tag points at.
    pub tags: bool,
    /// Our login there, if any.
    pub credentials: Option<Credentials>,
}

/// Heads of repositories' names, and what stands there instead at a mirror. Without any, names are the same there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite(Vec<(String, String)>);

impl Rewrite {
    /// The longest head that fits decides.
    fn new(heads: BTreeMap<String, String>) -> Self {
        let mut heads: Vec<_> = heads.into_iter().collect();
        heads.sort_by_key(|(head, _)| std::cmp::Reverse(head.len()));
        Self(heads)
    }

    /// How the repository is called at the mirror; `None` when it is not there.
    pub fn apply(&self, name: &str) -> Option<String> {
        if self.0.is_empty() {
            return Some(name.to_owned());
        }
        self.0.iter().find_map(|(head, instead)| {
            let rest = name.strip_prefix(head.as_str())?;
            Some(format!("{instead}{rest}"))
        })
    }
}

/// One item of the list, as written.
enum Item {
    Url(String),
    Table(toml::Table),
}

fn items(entry: &Entry) -> Result<Vec<Item>, String> {
    const WRONG: &str = "must be a list of URLs, or of tables like { url = \"https://mirror.example.com\" }";
    match &entry.raw {
        Raw::Text(text) => {
            let urls = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(urls.map(|url| Item::Url(url.to_owned())).collect())
        }
        Raw::Toml(toml::Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                toml::Value::String(url) => Ok(Item::Url(url.clone())),
                toml::Value::Table(table) => Ok(Item::Table(table.clone())),
                _ => Err(WRONG.to_owned()),
            })
            .collect(),
        Raw::Toml(_) => Err(WRONG.to_owned()),
    }
}

/// Takes `mirrors` out of the table of the upstream `prefix`. The files of a disabled one are not read.
pub(super) fn read(reader: &mut Reader<'_>, prefix: &str, enabled: bool) -> Vec<Mirror> {
    let Some((items, origin)) = reader.take_entry("mirrors", items) else {
        return Vec::new();
    };
    let mut mirrors: Vec<Mirror> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        // People count from one.
        let name = format!("upstream.{prefix}.mirrors[{}]", index + 1);
        let mirror = match item {
            Item::Url(url) => value::http_url(&url)
                .map(|url| Mirror {
                    url,
                    rewrite: Rewrite::default(),
                    tags: false,
                    credentials: None,
                })
                .map_err(|reason| reader.faults().push(Fault::new(&origin.label(), &*name, reason)))
                .ok(),
            Item::Table(table) => read_table(
                Section::of(&name, table, &origin),
                &origin,
                enabled,
                reader.faults(),
            ),
        };
        let Some(mirror) = mirror else { continue };
        if mirrors
            .iter()
            .any(|other| other.url == mirror.url && other.rewrite == mirror.rewrite)
        {
            let reason = format!("`{}` is listed twice", mirror.url);
            reader.faults().push(Fault::new(&origin.label(), name, reason));
        } else {
            mirrors.push(mirror);
        }
    }
    mirrors
}

fn read_table(section: Section, origin: &Origin, enabled: bool, faults: &mut Vec<Fault>) -> Option<Mirror> {
    let mut reader = Reader::new(section, keys::MIRROR, faults);
    let url = reader.take("url", |entry| value::http_url(entry.text()?));
    if url.is_none() && !reader.failed("url") {
        reader.fault(origin, "url", "is required, like \"https://mirror.example.com\"");
    }
    let rewrite = reader.take("rewrite", rewrite).unwrap_or_default();
    let tags = reader.take("tags", Entry::boolean).unwrap_or(false);
    let credentials = Credentials::read(&mut reader, enabled);
    reader.finish();
    Some(Mirror {
        url: url?,
        rewrite,
        tags,
        credentials,
    })
}

fn rewrite(entry: &Entry) -> Result<Rewrite, String> {
    const FORM: &str = "must be a table of heads of names, like { \"library/\" = \"docker/library/\" }";
    let Raw::Toml(toml::Value::Table(table)) = &entry.raw else {
        return Err(FORM.to_owned());
    };
    if table.is_empty() {
        return Err("is empty: leave it out for the same names as here".to_owned());
    }
    let mut heads = BTreeMap::new();
    for (head, instead) in table {
        let instead = instead.as_str().ok_or_else(|| FORM.to_owned())?;
        for text in [head, instead] {
            let fits =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-' | '/');
            if let Some(odd) = text.chars().find(|c| !fits(*c)) {
                return Err(format!("`{}` is in no repository's name", odd.escape_default()));
            }
            if text.starts_with('/') || text.contains("//") {
                return Err(format!("`{text}` begins no repository's name"));
            }
        }
        // Or a name would run into the one before it.
        if !head.is_empty() && head.ends_with('/') != instead.ends_with('/') && !instead.is_empty() {
            return Err(format!(
                "`{head}` and `{instead}` must both end with a slash, or neither"
            ));
        }
        heads.insert(head.clone(), instead.to_owned());
    }
    Ok(Rewrite::new(heads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_a_mirror() {
        let rewrite = |heads: &[(&str, &str)]| {
            Rewrite::new(
                heads
                    .iter()
                    .map(|(head, to)| ((*head).to_owned(), (*to).to_owned()))
                    .collect(),
            )
        };
        let official = rewrite(&[("library/", "docker/library/")]);
        let all = rewrite(&[("", "hub/"), ("acme/", ""), ("acme/base", "base")]);
        let table = [
            (&Rewrite::default(), "acme/app", Some("acme/app")),
            (&official, "library/nginx", Some("docker/library/nginx")),
            (&official, "acme/app", None),
            (&all, "library/nginx", Some("hub/library/nginx")),
            (&all, "acme/app", Some("app")),
            (&all, "acme/base", Some("base")),
        ];
        for (rewrite, name, expected) in table {
            assert_eq!(rewrite.apply(name).as_deref(), expected, "{name}");
        }
    }
}
