//! Texts of a policy that stand for others: `*` for any characters or none, `?` for one, `${key}` for what the request
//! says (IAM User Guide, "Variables and tags"). Never a regular expression. Used by `document` and `condition`.

use std::borrow::Cow;

/// Which of its signs a pattern knows. The others stand for themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs {
    /// `*` and `?`.
    pub(super) wildcards: bool,
    /// `${...}`: since version 2012-10-17.
    pub(super) variables: bool,
}

/// Whether letters differ by case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Matters,
    Ignored,
}

/// What a request says under a key; `None` when nothing, or more than one thing.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Unit {
    Char(char),
    One,
    Many,
    Variable { key: String, otherwise: Option<String> },
}

/// A pattern, parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    units: Vec<Unit>,
    has_variables: bool,
}

impl Pattern {
    /// The pattern of this text. What is wrong with it is said in words.
    pub(super) fn parse(text: &str, signs: Signs) -> Result<Self, String> {
        let mut units = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if signs.variables && rest.starts_with("${") {
                let (unit, after) =
                    variable(&rest[2..]).ok_or_else(|| format!("`{text}` has a malformed variable"))?;
                units.push(unit);
                rest = after;
                continue;
            }
            rest = &rest[first.len_utf8()..];
            units.push(match first {
                // Several in a row say no more than one.
                '*' if signs.wildcards && units.last() == Some(&Unit::Many) => continue,
                '*' if signs.wildcards => Unit::Many,
                '?' if signs.wildcards => Unit::One,
                other => Unit::Char(other),
            });
        }
        Ok(Self::of(units))
    }

    fn of(units: Vec<Unit>) -> Self {
        let has_variables = units.iter().any(|unit| matches!(unit, Unit::Variable { .. }));
        Self { units, has_variables }
    }

    /// Its parts between colons, at the most `parts`; colons within variables do not count.
    pub(super) fn split(&self, parts: usize) -> Vec<Self> {
        let mut found = vec![Vec::new()];
        for unit in &self.units {
            if *unit == Unit::Char(':') && found.len() < parts {
                found.push(Vec::new());
            } else if let Some(last) = found.last_mut() {
                last.push(unit.clone());
            }
        }
        found.into_iter().map(Self::of).collect()
    }

    /// Whether it stands for `text`, the whole of it; `None` when a variable of it has no value. Takes at the most as
    /// many steps as the product of the lengths, and no memory but for variables.
    pub(super) fn matches(&self, text: &str, case: Case, lookup: Lookup<'_>) -> Option<bool> {
        let units = self.filled(lookup)?;
        Some(fits(&units, text, case))
    }

    /// The units with the variables' values in their place. A `*` of a value is a star like any other character.
    fn filled(&self, lookup: Lookup<'_>) -> Option<Cow<'_, [Unit]>> {
        if !self.has_variables {
            return Some(Cow::Borrowed(&self.units));
        }
        let mut filled = Vec::with_capacity(self.units.len());
        for unit in &self.units {
            match unit {
                Unit::Variable { key, otherwise } => {
                    let value = lookup(key).or_else(|| otherwise.clone())?;
                    filled.extend(value.chars().map(Unit::Char));
                }
                other => filled.push(other.clone()),
            }
        }
        Some(Cow::Owned(filled))
    }
}

/// The variable whose inside `text` begins with, and what follows it.
fn variable(text: &str) -> Option<(Unit, &str)> {
    // The signs themselves: ${*}, ${?}, ${$}.
    for sign in ['*', '?', '$'] {
        if let Some(after) = text.strip_prefix(sign).and_then(|rest| rest.strip_prefix('}')) {
            return Some((Unit::Char(sign), after));
        }
    }
    let end = text.find(['}', ','])?;
    let key = text[..end].trim();
    let known = |c: char| c.is_alphanumeric() || ":/_.-=+@".contains(c);
    if key.is_empty() || !key.chars().all(known) {
        return None;
    }
    let key = key.to_lowercase();
    if let Some(after) = text[end..].strip_prefix('}') {
        return Some((Unit::Variable { key, otherwise: None }, after));
    }
    // ${key, 'what it is otherwise'}
    let quoted = text[end..].strip_prefix(',')?.trim_start().strip_prefix('\'')?;
    let (otherwise, after) = quoted.split_once('\'')?;
    let after = after.trim_start().strip_prefix('}')?;
    let otherwise = Some(otherwise.to_owned());
    Some((Unit::Variable { key, otherwise }, after))
}

fn same(a: char, b: char, case: Case) -> bool {
    a == b || (case == Case::Ignored && a.to_lowercase().eq(b.to_lowercase()))
}

/// Walks both once, and goes back no further than to the last star: what an earlier one took need never be taken back.
fn fits(units: &[Unit], text: &str, case: Case) -> bool {
    let (mut at, mut rest) = (0, text);
    // What follows the last star, and the text from which on that was tried.
    let mut star: Option<(usize, &str)> = None;
    loop {
        let mut chars = rest.chars();
        match (units.get(at), chars.next()) {
            (Some(Unit::Many), _) => {
                at += 1;
                if at == units.len() {
                    return true;
                }
                star = Some((at, rest));
                continue;
            }
            (None, None) => return true,
            // Less text cannot do either.
            (Some(_), None) => return false,
            (Some(Unit::One), Some(_)) => {
                at += 1;
                rest = chars.as_str();
                continue;
            }
            (Some(Unit::Char(wanted)), Some(found)) if same(*wanted, found, case) => {
                at += 1;
                rest = chars.as_str();
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = star else {
            return false;
        };
        let mut chars = from.chars();
        if chars.next().is_none() {
            return false;
        }
        at = after;
        rest = chars.as_str();
        star = Some((after, rest));
    }
}
