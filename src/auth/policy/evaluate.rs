//! The decision (IAM User Guide, "Policy evaluation logic"): an explicit deny wins, then what is allowed, then no. Pure; a
//! table of cases and properties in `tests` hold it. Called for every request that asks for something.

use std::fmt;

use super::context::Context;
use super::document::{Document, Effect, Resources, Statement};
use super::pattern::{Case, Pattern};
use super::principal::Meant;
use crate::auth::action::Action;
use crate::auth::identity::Identity;
use crate::auth::resource::Resource;

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Identity,
    /// For what.
    pub action: Action,
    /// Of what.
    pub resource: &'a Resource,
    /// What else is known.
    pub context: &'a Context,
}

impl Request<'_> {
    /// What a caller is told who may not, in the words of AWS (`AccessDeniedException`). The same whatever denied it: who may
    /// not see a repository does not learn from it that the repository is there, and has a policy.
    pub fn refusal(&self) -> String {
        let who = self.principal.arn().unwrap_or("anonymous");
        let (action, resource) = (self.action, self.resource);
        format!("User: {who} is not authorized to perform: {action} on resource: {resource}")
    }
}

/// The policies that have a say.
#[derive(Clone, Copy, Debug)]
pub struct Attached<'a> {
    /// Those of the caller, and those that the configuration gives to all callers.
    pub identity: &'a [Document],
    /// That of the repository.
    pub repository: Option<&'a Document>,
    /// That of the registry.
    pub registry: Option<&'a Document>,
    /// Whether caller and resource are of one account; then either side may allow, else both must. Callers without a
    /// name are of the account: what everyone may, they may.
    pub same_account: bool,
    /// Whether the caller owns the registry: nobody has to allow, but a deny holds.
    pub owner: bool,
}

/// Where a policy is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To the caller.
    Identity,
    /// To the repository.
    Repository,
    /// To the registry.
    Registry,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Repository => "repository",
            Self::Registry => "registry",
        })
    }
}

/// Why not. For the log alone: callers are told [`Request::refusal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A statement denies it.
    Denied {
        /// Where its policy is attached.
        by: Place,
        /// Its `Sid`.
        sid: Option<String>,
    },
    /// No statement allows it.
    NotAllowed {
        /// Where one would have to: to the caller, or, across accounts, to the repository.
        lacking: Place,
    },
}

impl fmt::Display for Why {
    /// With the statement that denied.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { by, sid: Some(sid) } => {
                write!(f, "statement {sid} of the {by}'s policy denies it")
            }
            Self::Denied { by, sid: None } => {
                write!(f, "a statement of the {by}'s policy denies it")
            }
            Self::NotAllowed { lacking } => write!(f, "no policy of the {lacking} allows it"),
        }
    }
}

/// May they.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No.
    Deny(Why),
}

impl Decision {
    /// Whether it is yes.
    pub fn is_allowed(&self) -> bool {
        *self == Self::Allow
    }
}

/// Decides.
pub fn decide(request: &Request<'_>, attached: &Attached<'_>) -> Decision {
    let mut own = Meant::No;
    let mut granted = Meant::No;
    let own_policies = attached
        .identity
        .iter()
        .map(|document| (Place::Identity, document));
    let others = [
        (Place::Repository, attached.repository),
        (Place::Registry, attached.registry),
    ];
    let others = others
        .into_iter()
        .filter_map(|(place, document)| Some((place, document?)));
    for (place, document) in own_policies.chain(others) {
        for statement in document.statements() {
            let meant = statement.means(request);
            if meant == Meant::No {
                continue;
            }
            match (statement.effect, place) {
                (Effect::Deny, by) => {
                    let sid = statement.sid.clone();
                    return Decision::Deny(Why::Denied { by, sid });
                }
                (Effect::Allow, Place::Identity) => own = Meant::Itself,
                // A login is not the repository's to give.
                (Effect::Allow, _) if request.action.is_login() => {}
                (Effect::Allow, _) => granted = granted.max(meant),
            }
        }
    }
    let is_own = own == Meant::Itself;
    let lacking = if attached.owner {
        return Decision::Allow;
    } else if attached.same_account || request.action.is_login() {
        // What is granted to an account as a whole, its own policies must pass on.
        if is_own || granted == Meant::Itself {
            return Decision::Allow;
        }
        Place::Identity
    } else if !is_own {
        Place::Identity
    } else if granted == Meant::No {
        Place::Repository
    } else {
        return Decision::Allow;
    };
    Decision::Deny(Why::NotAllowed { lacking })
}

impl Statement {
    /// Whether it is about this request, and how it means the caller.
    fn means(&self, request: &Request<'_>) -> Meant {
        // The cheapest first: most statements are about other actions.
        if !self.actions.contains(request.action) {
            return Meant::No;
        }
        let meant = self.principals.mean(request.principal, self.effect);
        if meant == Meant::No
            || !self.is_about(request)
            || !self.conditions.iter().all(|condition| condition.holds(request))
        {
            return Meant::No;
        }
        meant
    }

    fn is_about(&self, request: &Request<'_>) -> bool {
        let lookup = |key: &str| request.value(key);
        let is = |pattern: &Pattern| pattern.matches(request.resource.as_str(), Case::Matters, &lookup);
        match &self.resources {
            Resources::Unsaid => true,
            Resources::These(patterns) => patterns.iter().any(|pattern| is(pattern) == Some(true)),
            // What cannot be compared, for want of a variable's value, is not taken for excepted when it would be denied,
            // nor for other than excepted when it would be allowed.
            Resources::AllBut(patterns) => patterns.iter().all(|pattern| match is(pattern) {
                Some(is) => !is,
                None => self.effect == Effect::Deny,
            }),
        }
    }
}
