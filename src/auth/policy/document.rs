//! Policy documents (IAM User Guide, "Grammar of the IAM JSON policy language"), versions 2008-10-17 and 2012-10-17. All
//! that is wrong with one is told at once, and where. Used by `evaluate`, and by who takes policies from people.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::condition::Condition;
use super::json::Json;
use super::pattern::{Case, Pattern, Signs};
use super::principal::Principals;
use crate::auth::action::{Action, ActionSet};

/// The longest policy that is taken, in bytes (ECR: `policyText`).
pub const MAX_TEXT: usize = 10_240;

/// A policy, as it is understood. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Document(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    statements: Vec<Statement>,
    unknown_actions: Vec<String>,
}

/// What a document is attached to, which decides what its statements must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// An identity: statements say what they are about, and not whom.
    Identity,
    /// A repository: statements say whom they are about; without `Resource` they are about the repository.
    Repository,
    /// The registry: like that of a repository, about all of them.
    Registry,
}

/// Whether a statement allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It allows, unless another denies.
    Allow,
    /// It denies, whatever others allow.
    Deny,
}

/// One statement.
#[derive(Clone, Debug)]
pub struct Statement {
    pub(super) sid: Option<String>,
    pub(super) effect: Effect,
    pub(super) principals: Principals,
    pub(super) actions: ActionSet,
    pub(super) resources: Resources,
    pub(super) conditions: Vec<Condition>,
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Resources {
    /// It does not say: what its document is attached to.
    Unsaid,
    These(Vec<Pattern>),
    AllBut(Vec<Pattern>),
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: `Statement[0].Effect`; empty for the document as a whole.
    pub at: String,
    /// What.
    pub reason: String,
}

/// All that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            if !fault.at.is_empty() {
                write!(f, "{}: ", fault.at)?;
            }
            f.write_str(&fault.reason)?;
        }
        Ok(())
    }
}

impl Document {
    /// Understands a policy of at most [`MAX_TEXT`] bytes.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        Self::parse_within(text, MAX_TEXT)
    }

    /// Understands a policy of at most `max` bytes: for those that come from the operator.
    pub fn parse_within(text: &str, max: usize) -> Result<Self, Faults> {
        let whole = |reason: String| {
            let at = String::new();
            Faults(vec![Fault { at, reason }])
        };
        if text.len() > max {
            return Err(whole(format!("longer than {max} bytes")));
        }
        let json: Json = serde_json::from_str(text).map_err(|error| whole(error.to_string()))?;
        let mut reader = Reader::default();
        let statements = reader.document(&json);
        if !reader.faults.is_empty() {
            return Err(Faults(reader.faults));
        }
        Ok(Self(Arc::new(Parsed {
            statements,
            unknown_actions: reader.unknown_actions,
        })))
    }

    /// Understands a policy that is to be attached to something.
    pub fn parse_for(text: &str, usage: Usage) -> Result<Self, Faults> {
        let document = Self::parse(text)?;
        let mut faults = Vec::new();
        for (number, statement) in document.statements().iter().enumerate() {
            let said = statement.principals.are_said();
            let reason = match usage {
                Usage::Identity if said => "a policy of an identity names no principal",
                Usage::Identity if statement.resources == Resources::Unsaid => "Resource is missing",
                Usage::Repository | Usage::Registry if !said => "Principal is missing",
                _ => continue,
            };
            faults.push(Fault {
                at: format!("Statement[{number}]"),
                reason: reason.to_owned(),
            });
        }
        if faults.is_empty() {
            Ok(document)
        } else {
            Err(Faults(faults))
        }
    }

    /// The statements, in their order.
    pub fn statements(&self) -> &[Statement] {
        &self.0.statements
    }

    /// What stands under `Action` or `NotAction` and means no action that there is, though it speaks of a service of
    /// ours: a misspelling, or something that only AWS has. Worth a warning; a policy that denies it denies nothing.
    pub fn unknown_actions(&self) -> &[String] {
        &self.0.unknown_actions
    }
}

#[derive(Default)]
struct Reader {
    faults: Vec<Fault>,
    /// Whether this version knows variables.
    variables: bool,
    unknown_actions: Vec<String>,
}

impl Reader {
    fn fault(&mut self, at: &str, reason: impl Into<String>) {
        self.faults.push(Fault {
            at: at.to_owned(),
            reason: reason.into(),
        });
    }

    /// The members of an object, all of which must be among `known`.
    fn object<'a>(&mut self, at: &str, json: &'a Json, known: &[&str]) -> &'a BTreeMap<String, Json> {
        static NONE: BTreeMap<String, Json> = BTreeMap::new();
        let Json::Object(members) = json else {
            self.fault(at, format!("expected an object, not {}", json.kind()));
            return &NONE;
        };
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            self.fault(at, format!("`{name}` is no element of a policy here"));
        }
        members
    }

    fn document(&mut self, json: &Json) -> Vec<Statement> {
        let members = self.object("", json, &["Version", "Id", "Statement"]);
        match members.get("Version") {
            None => {}
            Some(Json::Text(version)) if version == "2008-10-17" => {}
            Some(Json::Text(version)) if version == "2012-10-17" => self.variables = true,
            Some(_) => self.fault("Version", "expected \"2012-10-17\" or \"2008-10-17\""),
        }
        if members.get("Id").is_some_and(|id| !matches!(id, Json::Text(_))) {
            self.fault("Id", "expected a string");
        }
        match members.get("Statement") {
            None => self.fault("", "Statement is missing"),
            Some(Json::List(list)) => {
                let each = list.iter().enumerate();
                return each
                    .map(|(number, json)| self.statement(&format!("Statement[{number}]"), json))
                    .collect();
            }
            Some(one) => return vec![self.statement("Statement[0]", one)],
        }
        Vec::new()
    }

    fn statement(&mut self, at: &str, json: &Json) -> Statement {
        const ELEMENTS: &[&str] = &[
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        let members = self.object(at, json, ELEMENTS);
        let sid = match members.get("Sid") {
            None => None,
            Some(Json::Text(sid)) => Some(sid.clone()),
            Some(_) => {
                self.fault(&format!("{at}.Sid"), "expected a string");
                None
            }
        };
        let effect = match members.get("Effect") {
            Some(Json::Text(effect)) if effect == "Allow" => Effect::Allow,
            Some(Json::Text(effect)) if effect == "Deny" => Effect::Deny,
            Some(_) => {
                self.fault(&format!("{at}.Effect"), "expected \"Allow\" or \"Deny\"");
                Effect::Deny
            }
            None => {
                self.fault(at, "Effect is missing");
                Effect::Deny
            }
        };
        let principals = self.principals(at, members);
        let actions = match self.either(at, members, "Action") {
            None => {
                self.fault(at, "Action is missing");
                ActionSet::default()
            }
            Some((name, value, all_but)) => {
                let actions = self.actions(&format!("{at}.{name}"), value);
                if all_but { actions.complement() } else { actions }
            }
        };
        let resources = match self.either(at, members, "Resource") {
            None => Resources::Unsaid,
            Some((name, value, all_but)) => {
                let patterns = self.resources(&format!("{at}.{name}"), value);
                if all_but {
                    Resources::AllBut(patterns)
                } else {
                    Resources::These(patterns)
                }
            }
        };
        let conditions = members
            .get("Condition")
            .map(|json| self.conditions(&format!("{at}.Condition"), json))
            .unwrap_or_default();
        Statement {
            sid,
            effect,
            principals,
            actions,
            resources,
            conditions,
        }
    }

    /// The element `name` or its contrary, but not both: its name, its value, and whether it is the contrary.
    fn either<'a>(
        &mut self,
        at: &str,
        members: &'a BTreeMap<String, Json>,
        name: &str,
    ) -> Option<(String, &'a Json, bool)> {
        let contrary = format!("Not{name}");
        match (members.get(name), members.get(&contrary)) {
            (Some(_), Some(_)) => {
                self.fault(at, format!("{name} and {contrary} exclude each other"));
                None
            }
            (Some(value), None) => Some((name.to_owned(), value, false)),
            (None, Some(value)) => Some((contrary, value, true)),
            (None, None) => None,
        }
    }

    fn principals(&mut self, at: &str, members: &BTreeMap<String, Json>) -> Principals {
        let Some((name, value, all_but)) = self.either(at, members, "Principal") else {
            return Principals::unsaid();
        };
        let at = format!("{at}.{name}");
        Principals::parse(value, all_but, &mut |reason| self.fault(&at, reason))
    }

    /// A string or a list of some, at least one.
    fn strings<'a>(&mut self, at: &str, json: &'a Json) -> Vec<&'a str> {
        let each = match json {
            Json::List(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        if each.is_empty() {
            self.fault(at, "names nothing");
        }
        let mut texts = Vec::with_capacity(each.len());
        for json in each {
            match json {
                Json::Text(text) => texts.push(text.as_str()),
                other => self.fault(at, format!("expected a string, not {}", other.kind())),
            }
        }
        texts
    }

    fn actions(&mut self, at: &str, json: &Json) -> ActionSet {
        let mut actions = ActionSet::default();
        for text in self.strings(at, json) {
            let well_formed = text == "*"
                || text
                    .split_once(':')
                    .is_some_and(|(service, operation)| !service.is_empty() && !operation.is_empty());
            if !well_formed {
                self.fault(at, format!("`{text}` is no action: expected * or service:name"));
            }
            let signs = Signs {
                wildcards: true,
                variables: false,
            };
            let Ok(pattern) = Pattern::parse(text, signs) else {
                continue;
            };
            let met: ActionSet = Action::ALL
                .iter()
                .filter(|action| pattern.matches(action.name(), Case::Ignored, &|_| None) == Some(true))
                .copied()
                .collect();
            // Actions of other services are harmless: one policy may be about several.
            let ours = |service: &str| ["ecr", "ecr-public", "wharfinger"].contains(&service);
            let service = text
                .split_once(':')
                .map(|(service, _)| service.to_ascii_lowercase());
            if met.is_empty() && service.is_some_and(|service| ours(&service)) {
                self.unknown_actions.push(text.to_owned());
            }
            actions = actions.union(met);
        }
        actions
    }

    fn resources(&mut self, at: &str, json: &Json) -> Vec<Pattern> {
        let signs = Signs {
            wildcards: true,
            variables: self.variables,
        };
        let mut patterns = Vec::new();
        for text in self.strings(at, json) {
            if text != "*" && !text.starts_with("arn:") {
                self.fault(at, format!("`{text}` is no resource: expected * or an ARN"));
            }
            match Pattern::parse(text, signs) {
                Ok(pattern) => patterns.push(pattern),
                Err(reason) => self.fault(at, reason),
            }
        }
        patterns
    }

    fn conditions(&mut self, at: &str, json: &Json) -> Vec<Condition> {
        let Json::Object(operators) = json else {
            self.fault(at, format!("expected an object, not {}", json.kind()));
            return Vec::new();
        };
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            let at = format!("{at}.{operator}");
            let Json::Object(keys) = keys else {
                self.fault(&at, format!("expected an object, not {}", keys.kind()));
                continue;
            };
            for (key, value) in keys {
                match Condition::parse(operator, key, value, self.variables) {
                    Ok(condition) => conditions.push(condition),
                    Err(reason) => self.fault(&format!("{at}.{key}"), reason),
                }
            }
        }
        conditions
    }
}
