//! Reads one section key by key: each value is parsed by its key's type, each fault is noted and reading goes on,
//! and what nobody asked for is an unknown key. By hand, because a derived decoder stops at the first fault.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::fault::Fault;
use super::keys::{SECTIONS, nearest};
use super::source::{Entry, Origin, Raw, Section, VARIABLE_PREFIX};
use super::value::HumanDuration;

/// A section while it is read. Call [`Reader::finish`] when every key was taken.
pub(super) struct Reader<'a> {
    section: Section,
    keys: &'static [&'static str],
    failed: Vec<String>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(section: Section, keys: &'static [&'static str], faults: &'a mut Vec<Fault>) -> Self {
        Self {
            section,
            keys,
            failed: Vec::new(),
            faults,
        }
    }

    /// The key's value, or `None` when it is absent or was a fault (then noted).
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&Entry) -> Result<T, String>,
    ) -> Option<T> {
        self.take_entry(key, parse).map(|(value, _)| value)
    }

    /// [`Reader::take`], with the origin of the value.
    pub(super) fn take_entry<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&Entry) -> Result<T, String>,
    ) -> Option<(T, Origin)> {
        debug_assert!(
            self.keys.contains(&key),
            "{key} is read, but not listed among the known keys"
        );
        let entry = self.section.entries.remove(key)?;
        match parse(&entry) {
            Ok(value) => Some((value, entry.origin)),
            Err(reason) => {
                self.fault(&entry.origin, key, reason);
                self.failed.push(key.to_owned());
                None
            }
        }
    }

    /// Whether the key was there, but not valid.
    pub(super) fn failed(&self, key: &str) -> bool {
        self.failed.iter().any(|failed| failed == key)
    }

    /// Where the key's value comes from, while it is not taken.
    pub(super) fn origin(&self, key: &str) -> Option<&Origin> {
        self.section.entries.get(key).map(|entry| &entry.origin)
    }

    /// Drops a value that another one overrules.
    pub(super) fn discard(&mut self, key: &str) {
        self.section.entries.remove(key);
    }

    /// Where faults are noted that are no key's of this section.
    pub(super) fn faults(&mut self) -> &mut Vec<Fault> {
        self.faults
    }

    /// The key's whole name.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.section.name)
    }

    pub(super) fn fault(&mut self, origin: &Origin, key: &str, reason: impl Into<String>) {
        self.faults
            .push(Fault::new(&origin.label(), self.key(key), reason));
    }

    /// Notes every key that is left over, and gives the origin of the section.
    pub(super) fn finish(self) -> Origin {
        for (key, entry) in &self.section.entries {
            let reason = unknown_key(&self.section.name, self.keys, key, entry);
            self.faults.push(Fault::new(
                &entry.origin.label(),
                format!("{}.{key}", self.section.name),
                reason,
            ));
        }
        self.section.origin
    }
}

fn unknown_key(section: &str, keys: &[&str], key: &str, entry: &Entry) -> String {
    let named = |key: &str| match &entry.origin {
        Origin::Variable(_) => {
            let path = format!("{section}.{key}").replace('.', "__").replace('-', "_");
            format!("{VARIABLE_PREFIX}{}", path.to_ascii_uppercase())
        }
        Origin::Default | Origin::File(_) => key.to_owned(),
    };
    if let Some(near) = nearest(key, keys.iter().copied()) {
        return format!("unknown key; did you mean `{}`?", named(near));
    }
    match SECTIONS.iter().find(|(_, keys)| keys.contains(&key)) {
        Some((other, _)) => format!("unknown key; it belongs to [{other}]"),
        None => "unknown key".to_owned(),
    }
}

impl Entry {
    /// A string, not empty unless the parser behind it allows that.
    pub(super) fn text(&self) -> Result<&str, String> {
        match &self.raw {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => Ok(text),
            Raw::Toml(other) => Err(format!("must be a string in quotes, not {}", kind(other))),
        }
    }

    /// A string that is not empty.
    pub(super) fn filled(&self) -> Result<&str, String> {
        self.text().and_then(|text| {
            if text.trim().is_empty() {
                Err("is empty".to_owned())
            } else {
                Ok(text)
            }
        })
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        match &self.raw {
            Raw::Toml(toml::Value::Boolean(value)) => Ok(*value),
            Raw::Text(text) => text
                .trim()
                .parse()
                .map_err(|_| "must be true or false".to_owned()),
            Raw::Toml(other) => Err(format!("must be true or false, not {}", kind(other))),
        }
    }

    /// A count from 1 to a million.
    pub(super) fn count(&self) -> Result<usize, String> {
        self.count_from(1)
    }

    /// A count from `least` to a million.
    pub(super) fn count_from(&self, least: usize) -> Result<usize, String> {
        let number = match &self.raw {
            Raw::Toml(toml::Value::Integer(number)) => Some(*number),
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Toml(other) => return Err(format!("must be a whole number, not {}", kind(other))),
        };
        number
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (least..=1_000_000).contains(number))
            .ok_or_else(|| format!("must be a whole number from {least} to 1000000"))
    }

    /// A span of time; zero means "not at all".
    pub(super) fn span(&self) -> Result<Duration, String> {
        let text = match &self.raw {
            Raw::Toml(toml::Value::Integer(number)) => {
                return Err(format!(
                    "lacks a unit: write \"{number}s\" for seconds or \"{number}m\" for minutes"
                ));
            }
            _ => self.text()?,
        };
        text.parse::<HumanDuration>().map(|span| span.0)
    }

    /// A number of bytes, with a unit.
    pub(super) fn bytes(&self) -> Result<u64, String> {
        if let Raw::Toml(toml::Value::Integer(number)) = &self.raw {
            return Err(format!("lacks a unit: write \"{number}GiB\" or \"{number}MiB\""));
        }
        let text = self.text()?;
        if text.trim().bytes().all(|byte| byte.is_ascii_digit()) && text.trim() != "0" {
            return Err(format!(
                "lacks a unit: write \"{}GiB\" or \"{0}MiB\"",
                text.trim()
            ));
        }
        text.parse::<ByteSize>()
            .map(|size| size.as_u64())
            .map_err(|_| format!("`{text}` is no size: write \"100GiB\" or \"500MB\""))
    }

    /// A span of time for which zero would mean that nothing can ever succeed.
    pub(super) fn time_out(&self) -> Result<Duration, String> {
        self.span().and_then(|span| {
            if span.is_zero() {
                Err("must be longer than zero".to_owned())
            } else {
                Ok(span)
            }
        })
    }

    /// The path of a file that can be read.
    pub(super) fn readable_file(&self) -> Result<PathBuf, String> {
        let path = self.origin.resolve(self.filled()?);
        match std::fs::File::open(&path) {
            Ok(_) => Ok(path),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    }

    /// A list of strings, each through `parse`; a variable separates them by commas.
    pub(super) fn list<T: PartialEq>(
        &self,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let items: Vec<&str> = match &self.raw {
            Raw::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .collect(),
            Raw::Toml(toml::Value::Array(items)) => items
                .iter()
                .map(|item| {
                    item.as_str()
                        .ok_or_else(|| format!("must hold strings alone, not {}", kind(item)))
                })
                .collect::<Result<_, _>>()?,
            Raw::Toml(other) => return Err(format!("must be a list of strings, not {}", kind(other))),
        };
        let mut list = Vec::with_capacity(items.len());
        let mut reasons = Vec::new();
        for item in items {
            match parse(item) {
                Ok(read) if list.contains(&read) => reasons.push(format!("`{item}` is listed twice")),
                Ok(read) => list.push(read),
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            Ok(list)
        } else {
            Err(reasons.join("; "))
        }
    }

    /// A list of tables, whose faults say how that is written: `form`.
    pub(super) fn tables(&self, form: &str) -> Result<Vec<toml::Table>, String> {
        let wrong =
            |found: &toml::Value| format!("must be a list of tables, not {}: write {form}", kind(found));
        match &self.raw {
            Raw::Toml(toml::Value::Array(items)) => items
                .iter()
                .map(|item| item.as_table().cloned().ok_or_else(|| wrong(item)))
                .collect(),
            Raw::Toml(other) => Err(wrong(other)),
            Raw::Text(_) => Err(format!("can only be written in the file, as {form}")),
        }
    }
}

/// A TOML type with its article, as a sentence needs it.
fn kind(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "an integer",
        toml::Value::Float(_) => "a float",
        toml::Value::Boolean(_) => "a boolean",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}
