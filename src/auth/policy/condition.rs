//! The `Condition` of a statement: operators, keys and values (IAM User Guide, "Condition operators" and "Multivalued
//! context keys"). Everything is parsed with the document; what is left at a request is to compare. Used by `document`.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use ipnet::IpNet;

use super::context::Values;
use super::evaluate::Request;
use super::json::Json;
use super::pattern::{Case, Lookup, Pattern, Signs};

/// One operator applied to one key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    /// In lower case.
    key: String,
    wanted: Wanted,
    negated: bool,
    if_exists: bool,
    quantifier: Option<Quantifier>,
}

/// How several values of the request are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    ForAllValues,
    ForAnyValue,
}

/// What the request's value is compared with: any of these.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Texts(Vec<Pattern>, Case),
    /// Each in its six parts.
    Arns(Vec<Vec<Pattern>>),
    Numbers(Order, Vec<f64>),
    Dates(Order, Vec<jiff::Timestamp>),
    Bools(Vec<bool>),
    Networks(Vec<IpNet>),
    Bytes(Vec<Vec<u8>>),
    /// Whether the key is to be absent.
    Null(Vec<bool>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found == Ordering::Equal,
            Self::Less => found == Ordering::Less,
            Self::LessOrEqual => found != Ordering::Greater,
            Self::Greater => found == Ordering::Greater,
            Self::GreaterOrEqual => found != Ordering::Less,
        }
    }

    /// What follows `Numeric` or `Date`, and whether it is negated.
    fn parse(text: &str) -> Option<(Self, bool)> {
        Some(match text {
            "equals" => (Self::Equal, false),
            "notequals" => (Self::Equal, true),
            "lessthan" => (Self::Less, false),
            "lessthanequals" => (Self::LessOrEqual, false),
            "greaterthan" => (Self::Greater, false),
            "greaterthanequals" => (Self::GreaterOrEqual, false),
            _ => return None,
        })
    }
}

impl Condition {
    /// The condition that `operator` makes of a key and its value or values. `variables`: whether the document's version
    /// knows them. What is wrong is said in words.
    pub(super) fn parse(operator: &str, key: &str, value: &Json, variables: bool) -> Result<Self, String> {
        let lower = operator.to_lowercase();
        let (quantifier, rest) = if let Some(rest) = lower.strip_prefix("forallvalues:") {
            (Some(Quantifier::ForAllValues), rest)
        } else if let Some(rest) = lower.strip_prefix("foranyvalue:") {
            (Some(Quantifier::ForAnyValue), rest)
        } else {
            (None, lower.as_str())
        };
        let (rest, if_exists) = rest
            .strip_suffix("ifexists")
            .map_or((rest, false), |rest| (rest, true));
        let (wanted, negated) = wanted(rest, &texts(value)?, variables)?
            .ok_or_else(|| format!("`{operator}` is no condition operator"))?;
        if matches!(wanted, Wanted::Null(_)) && (if_exists || quantifier.is_some()) {
            return Err(format!(
                "`{operator}`: Null asks for the key itself, and takes neither"
            ));
        }
        if key.is_empty() {
            return Err("a condition key is empty".to_owned());
        }
        Ok(Self {
            key: key.to_lowercase(),
            wanted,
            negated,
            if_exists,
            quantifier,
        })
    }

    /// Whether it is fulfilled.
    pub(super) fn holds(&self, request: &Request<'_>) -> bool {
        let values = request.values(&self.key);
        if let Wanted::Null(absent) = &self.wanted {
            return absent.contains(&values.is_none());
        }
        let lookup = |key: &str| request.value(key);
        let one = |value: &str| self.wanted.contains(value, &lookup) != self.negated;
        match (self.quantifier, values) {
            // Of no values, all are as wanted, and none is.
            (Some(Quantifier::ForAllValues), None) => true,
            (Some(Quantifier::ForAnyValue), None) => false,
            (None, None) => self.if_exists || self.negated,
            (Some(Quantifier::ForAllValues), Some(values)) => values.iter().all(|value| one(value)),
            (Some(Quantifier::ForAnyValue), Some(values)) => values.iter().any(|value| one(value)),
            (None, Some(values)) => self.plainly(&values, &lookup),
        }
    }

    /// Without a quantifier: any of the values is among those wanted, or, negated, none is.
    fn plainly(&self, values: &Values<'_>, lookup: Lookup<'_>) -> bool {
        let any = values.iter().any(|value| self.wanted.contains(value, lookup));
        any != self.negated
    }
}

/// The values of a condition as texts: one or a list, strings, numbers and booleans alike.
fn texts(value: &Json) -> Result<Vec<String>, String> {
    let each = match value {
        Json::List(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let text = |value: &Json| match value {
        Json::Text(text) | Json::Number(text) => Ok(text.clone()),
        Json::Bool(value) => Ok(value.to_string()),
        other => Err(format!(
            "a value of a condition is a string, not {}",
            other.kind()
        )),
    };
    each.iter().map(text).collect()
}

fn all<T>(texts: &[String], each: impl Fn(&str) -> Option<T>, what: &str) -> Result<Vec<T>, String> {
    texts
        .iter()
        .map(|text| each(text).ok_or_else(|| format!("`{text}` is no {what}")))
        .collect()
}

/// What the operator (in lower case, without what stands around it) makes of the values, and whether it is negated;
/// `None` when there is no such operator.
fn wanted(operator: &str, values: &[String], variables: bool) -> Result<Option<(Wanted, bool)>, String> {
    let patterns = |wildcards| {
        let signs = Signs { wildcards, variables };
        let each = values.iter().map(|text| Pattern::parse(text, signs));
        each.collect::<Result<Vec<_>, _>>()
    };
    let texts = |wildcards, case| Ok::<_, String>(Wanted::Texts(patterns(wildcards)?, case));
    let arns = || {
        let arns = patterns(true)?;
        Ok::<_, String>(Wanted::Arns(arns.iter().map(|arn| arn.split(6)).collect()))
    };
    let networks = || Ok::<_, String>(Wanted::Networks(all(values, network, "address or network")?));
    let found = match operator {
        "stringequals" => (texts(false, Case::Matters)?, false),
        "stringnotequals" => (texts(false, Case::Matters)?, true),
        "stringequalsignorecase" => (texts(false, Case::Ignored)?, false),
        "stringnotequalsignorecase" => (texts(false, Case::Ignored)?, true),
        "stringlike" => (texts(true, Case::Matters)?, false),
        "stringnotlike" => (texts(true, Case::Matters)?, true),
        // Both compare alike.
        "arnequals" | "arnlike" => (arns()?, false),
        "arnnotequals" | "arnnotlike" => (arns()?, true),
        "ipaddress" => (networks()?, false),
        "notipaddress" => (networks()?, true),
        "bool" => (Wanted::Bools(all(values, boolean, "boolean")?), false),
        "null" => (Wanted::Null(all(values, boolean, "boolean")?), false),
        "binaryequals" => (Wanted::Bytes(all(values, bytes, "base64")?), false),
        other => {
            let (order, is_date) = match (other.strip_prefix("numeric"), other.strip_prefix("date")) {
                (Some(order), _) => (order, false),
                (None, Some(order)) => (order, true),
                (None, None) => return Ok(None),
            };
            let Some((order, negated)) = Order::parse(order) else {
                return Ok(None);
            };
            let wanted = if is_date {
                Wanted::Dates(order, all(values, date, "date")?)
            } else {
                Wanted::Numbers(order, all(values, number, "number")?)
            };
            (wanted, negated)
        }
    };
    Ok(Some(found))
}

impl Wanted {
    /// Whether the request's value is any of these. What cannot be understood, or compared for want of a variable's
    /// value, is none of them.
    fn contains(&self, value: &str, lookup: Lookup<'_>) -> bool {
        match self {
            Self::Texts(patterns, case) => patterns
                .iter()
                .any(|pattern| pattern.matches(value, *case, lookup) == Some(true)),
            Self::Arns(arns) => arns.iter().any(|arn| is_arn(arn, value, lookup)),
            Self::Numbers(order, numbers) => number(value).is_some_and(|value| {
                let compared = |wanted: &f64| value.partial_cmp(wanted);
                numbers
                    .iter()
                    .filter_map(compared)
                    .any(|found| order.holds(found))
            }),
            Self::Dates(order, dates) => {
                date(value).is_some_and(|value| dates.iter().any(|wanted| order.holds(value.cmp(wanted))))
            }
            Self::Bools(bools) => boolean(value).is_some_and(|value| bools.contains(&value)),
            Self::Networks(networks) => value
                .parse::<IpAddr>()
                .is_ok_and(|ip| networks.iter().any(|network| network.contains(&ip))),
            Self::Bytes(all) => bytes(value).is_some_and(|value| all.contains(&value)),
            Self::Null(_) => false,
        }
    }
}

/// Part by part, so that a star does not reach over a colon.
fn is_arn(wanted: &[Pattern], value: &str, lookup: Lookup<'_>) -> bool {
    // Fewer parts than an ARN has: `*`, say.
    let parts: Vec<&str> = value.splitn(wanted.len().max(1), ':').collect();
    parts.len() == wanted.len()
        && wanted
            .iter()
            .zip(parts)
            .all(|(wanted, part)| wanted.matches(part, Case::Matters, lookup) == Some(true))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Option<f64> {
    f64::from_str(text).ok().filter(|number| number.is_finite())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// A time of ISO 8601, a date (its midnight, UTC), or seconds since 1970.
fn date(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return jiff::Timestamp::from_second(seconds).ok();
    }
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    if text.len() != "2026-01-31".len() {
        return None;
    }
    let day: jiff::civil::Date = text.parse().ok()?;
    let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(midnight.timestamp())
}

/// A network, or the one address.
fn network(text: &str) -> Option<IpNet> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(ip) => IpNet::from(ip),
        Err(_) => text.parse().ok()?,
    };
    Some(network)
}
