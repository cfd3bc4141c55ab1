//! Where values come from: the sections of the TOML file, with the environment's variables laid over them. Here
//! a value is still raw, but it knows its origin, so that a later fault can name it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::fault::Fault;
use super::keys::{SECTIONS, UPSTREAM, nearest};
use super::upstream::BUILTINS;

/// What every variable of ours begins with. A single underscore is no key: `WHARFINGER_PORT` and its like are set
/// by Kubernetes for a service of this name.
pub(super) const VARIABLE_PREFIX: &str = "WHARFINGER__";

/// Who said it.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Nobody: a default.
    Default,
    /// A file; relative paths in it start from its folder.
    File(Arc<Path>),
    /// An environment variable.
    Variable(Arc<str>),
}

impl Origin {
    /// The name for [`Fault::file`].
    pub(super) fn label(&self) -> String {
        match self {
            Self::Default => "environment".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Variable(name) => (**name).to_owned(),
        }
    }

    pub(super) fn is_variable(&self) -> bool {
        matches!(self, Self::Variable(_))
    }

    /// A path as its writer means it.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        match self {
            Self::File(file) => file.parent().unwrap_or(Path::new("")).join(path),
            Self::Default | Self::Variable(_) => PathBuf::from(path),
        }
    }
}

/// A value as it was written: typed in TOML, text in a variable.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Toml(toml::Value),
    Text(String),
}

/// One value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// One table: `server`, or `upstream.quay`.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    /// The first that mentioned the table.
    pub(super) origin: Origin,
    pub(super) entries: BTreeMap<String, Entry>,
}

impl Section {
    fn new(name: impl Into<String>, origin: Origin) -> Self {
        Self {
            name: name.into(),
            origin,
            entries: BTreeMap::new(),
        }
    }

    /// A table within another one, as `origin` has it.
    pub(super) fn of(name: &str, table: toml::Table, origin: &Origin) -> Self {
        let mut section = Self::new(name, origin.clone());
        section.fill(table, origin);
        section
    }

    fn fill(&mut self, table: toml::Table, origin: &Origin) {
        self.touch(origin);
        let entries = table.into_iter().map(|(key, value)| {
            (
                key,
                Entry {
                    raw: Raw::Toml(value),
                    origin: origin.clone(),
                },
            )
        });
        self.entries.extend(entries);
    }

    fn touch(&mut self, origin: &Origin) {
        if matches!(self.origin, Origin::Default) {
            self.origin = origin.clone();
        }
    }
}

/// All sections, raw.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) server: Section,
    /// `[server.tls]`.
    pub(super) tls: Section,
    pub(super) storage: Section,
    pub(super) cache: Section,
    pub(super) hosted: Section,
    pub(super) auth: Section,
    pub(super) log: Section,
    /// By prefix; the built-in ones are always there.
    pub(super) upstreams: BTreeMap<String, Section>,
    /// The tables of `[[warm]]`, in their order.
    pub(super) warm: Vec<toml::Table>,
    /// The file, or the environment when there is none: where a fault in a default is put.
    pub(super) origin: Origin,
}

impl Sources {
    pub(super) fn new(origin: Origin) -> Self {
        let section = |name| Section::new(name, Origin::Default);
        let builtin = |prefix: &str| {
            (
                prefix.to_owned(),
                Section::new(format!("upstream.{prefix}"), Origin::Default),
            )
        };
        Self {
            server: section("server"),
            tls: section("server.tls"),
            storage: section("storage"),
            cache: section("cache"),
            hosted: section("hosted"),
            auth: section("auth"),
            log: section("log"),
            upstreams: BUILTINS.iter().map(|known| builtin(known.prefix)).collect(),
            warm: Vec::new(),
            origin,
        }
    }

    fn section(&mut self, name: &str) -> Option<&mut Section> {
        match name {
            "server" => Some(&mut self.server),
            "server.tls" => Some(&mut self.tls),
            "storage" => Some(&mut self.storage),
            "cache" => Some(&mut self.cache),
            "hosted" => Some(&mut self.hosted),
            "auth" => Some(&mut self.auth),
            "log" => Some(&mut self.log),
            _ => None,
        }
    }

    fn upstream(&mut self, prefix: &str, origin: &Origin) -> &mut Section {
        self.upstreams
            .entry(prefix.to_owned())
            .or_insert_with(|| Section::new(format!("upstream.{prefix}"), origin.clone()))
    }

    /// Takes in the text of a file. `false` when its syntax is broken: then nothing of it was taken.
    pub(super) fn read_file(&mut self, text: &str, faults: &mut Vec<Fault>) -> bool {
        let origin = self.origin.clone();
        let file = origin.label();
        let (_, mut errors) = DeTable::parse_recoverable(text);
        let table = toml::from_str::<toml::Table>(text);
        if errors.is_empty() {
            errors.extend(table.as_ref().err().cloned());
        }
        errors.sort_by_key(|error| error.span().map(|span| span.start));
        for error in errors {
            // The error's own Display would quote the line, and a password with it.
            let reason = error.message().lines().collect::<Vec<_>>().join(", ");
            faults.push(Fault::new(&file, position(text, error.span()), reason));
        }
        let Ok(table) = table else { return false };
        let table = lift(table, "server", "tls");
        for (name, value) in table {
            let fault = match (name.as_str(), value) {
                ("upstream", toml::Value::Table(upstreams)) => {
                    self.read_upstreams(upstreams, &origin, faults);
                    continue;
                }
                ("warm", value) => {
                    let entry = Entry {
                        raw: Raw::Toml(value),
                        origin: origin.clone(),
                    };
                    match entry.tables("[[warm]]") {
                        Ok(tables) => {
                            self.warm = tables;
                            continue;
                        }
                        Err(reason) => reason,
                    }
                }
                ("upstream", _) => "must be a table for each upstream: write [upstream.<prefix>]".to_owned(),
                (_, value) => match (self.section(&name), value) {
                    (Some(section), toml::Value::Table(table)) => {
                        section.fill(table, &origin);
                        continue;
                    }
                    (Some(_), _) => format!("must be a table: write [{name}]"),
                    (None, _) => unknown_section(&name),
                },
            };
            faults.push(Fault::new(&file, name, fault));
        }
        true
    }

    fn read_upstreams(&mut self, upstreams: toml::Table, origin: &Origin, faults: &mut Vec<Fault>) {
        for (prefix, value) in upstreams {
            let toml::Value::Table(mut table) = value else {
                let reason = "must be a table, whose name is the prefix: write [upstream.<prefix>]";
                faults.push(Fault::new(&origin.label(), format!("upstream.{prefix}"), reason));
                continue;
            };
            let before = table.len();
            table.retain(|key, value| {
                let nested = value.is_table() && !UPSTREAM.contains(&key);
                if nested {
                    let reason =
                        format!("a prefix with a dot is written in quotes: [upstream.\"{prefix}.{key}\"]");
                    faults.push(Fault::new(
                        &origin.label(),
                        format!("upstream.{prefix}.{key}"),
                        reason,
                    ));
                }
                !nested
            });
            // `[upstream.docker.io]` alone does not mean an upstream `docker`.
            if table.len() == before || !table.is_empty() {
                self.upstream(&prefix, origin).fill(table, origin);
            }
        }
    }

    /// Lays the variables over what the file said; a variable wins.
    pub(super) fn read_environment(
        &mut self,
        environment: impl Iterator<Item = (String, String)>,
        faults: &mut Vec<Fault>,
    ) {
        let mut variables: Vec<_> = environment
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        variables.sort();
        for (name, value) in variables {
            if let Err((key, reason)) = self.read_variable(&name, value) {
                faults.push(Fault::new(&name, key, reason));
            }
        }
    }

    fn read_variable(&mut self, name: &str, value: String) -> Result<(), (String, String)> {
        let path = name[VARIABLE_PREFIX.len()..].to_ascii_lowercase();
        let dotted = path.replace("__", ".");
        if path
            .split("__")
            .any(|part| matches!(part, "tag_rule" | "bandwidth_window" | "credential" | "template"))
        {
            return Err((
                dotted,
                "tables are written in the file alone: a variable cannot hold them".to_owned(),
            ));
        }
        if path.split("__").next() == Some("warm") {
            return Err((
                dotted,
                "lists are written in the file alone, as [[warm]]: a variable cannot hold tables".to_owned(),
            ));
        }
        let path = path
            .strip_prefix("server__tls__")
            .map_or(path.clone(), |key| format!("server.tls__{key}"));
        let Some((section_name, rest)) = path.split_once("__") else {
            return Err((
                dotted,
                format!("names no key: write {VARIABLE_PREFIX}SECTION__KEY"),
            ));
        };
        let origin = Origin::Variable(name.into());
        let (section, key) = if section_name == "upstream" {
            // Keys have no double underscore, prefixes may.
            let Some((prefix, key)) = rest.rsplit_once("__").filter(|(prefix, _)| !prefix.is_empty()) else {
                return Err((
                    dotted,
                    format!("names no upstream: write {VARIABLE_PREFIX}UPSTREAM__PREFIX__KEY"),
                ));
            };
            let prefix = self.match_prefix(prefix).map_err(|reason| (dotted, reason))?;
            (self.upstream(&prefix, &origin), key)
        } else if let Some(section) = self.section(section_name) {
            (section, rest)
        } else {
            return Err((dotted, unknown_section(section_name)));
        };
        section.touch(&origin);
        let twice = section
            .entries
            .get(key)
            .filter(|entry| entry.origin.is_variable());
        if let Some(other) = twice {
            return Err((
                format!("{}.{key}", section.name),
                format!("is given by {} already", other.origin.label()),
            ));
        }
        section.entries.insert(
            key.to_owned(),
            Entry {
                raw: Raw::Text(value),
                origin,
            },
        );
        Ok(())
    }

    /// The upstream that a variable means by `written`, in which `-` and `.` are written `_`; a new one if none.
    fn match_prefix(&self, written: &str) -> Result<String, String> {
        let plain = |prefix: &str| prefix.replace(['-', '.'], "_");
        let mut meant = self
            .upstreams
            .keys()
            .filter(|prefix| plain(prefix) == plain(written));
        match (meant.next(), meant.next()) {
            (None, _) => Ok(written.replace('_', "-")),
            (Some(prefix), None) => Ok(prefix.clone()),
            (Some(one), Some(other)) => {
                Err(format!("means the upstreams {one} and {other} alike: rename one"))
            }
        }
    }
}

/// Takes a table that stands within another one out of it: `[server.tls]` is a section of its own.
fn lift(mut table: toml::Table, outer: &str, inner: &str) -> toml::Table {
    let within = table.get_mut(outer).and_then(toml::Value::as_table_mut);
    let lifted = within.filter(|within| within.get(inner).is_some_and(toml::Value::is_table));
    if let Some(section) = lifted.and_then(|within| within.remove(inner)) {
        table.insert(format!("{outer}.{inner}"), section);
    }
    table
}

fn unknown_section(name: &str) -> String {
    let sections = SECTIONS
        .iter()
        .map(|(section, _)| section.split('.').next().unwrap_or(section))
        .chain(["warm"]);
    if let Some((section, _)) = SECTIONS.iter().find(|(_, keys)| keys.contains(&name)) {
        return format!("unknown section; as a key it belongs under [{section}]");
    }
    match nearest(name, sections) {
        Some(section) => format!("unknown section; did you mean `{section}`?"),
        None => "unknown section".to_owned(),
    }
}

/// `line L, column C`, both from 1, columns in characters.
fn position(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}")
}
