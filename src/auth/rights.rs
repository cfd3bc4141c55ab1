//! May they: one decision for all doors, of the presets, the policies of caller, repository and registry, and the bounds of
//! the credential. Called by `api` for every request that asks for something.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::action::{Action, ActionSet, Scope};
use super::caller::Caller;
use super::identity::{Account, Kind};
use super::policy::{Attached, Context, Decision, Document, Faults, Place, Request, Usage, Why, decide};
use super::preset::Presets;
use super::resource::Resource;
use crate::clock::Timestamp;

/// How many policies of repositories are remembered as understood.
const REMEMBERED: u64 = 10_000;

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub action: Action,
    /// Of which repository; none for what is about the registry, or about all of them.
    pub repository: Option<&'a str>,
    /// The policy of that repository, as it was written.
    pub policy: Option<&'a str>,
    /// How it was asked.
    pub circumstances: &'a Circumstances<'a>,
}

/// How a request came, as policies may ask.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The client's address.
    pub from: Option<IpAddr>,
    /// Whether it came over TLS.
    pub https: bool,
    /// What the client calls itself.
    pub agent: Option<&'a str>,
    /// When.
    pub now: Timestamp,
}

/// What everyone may, and what the registry's owner decided.
pub struct Rights {
    account: Account,
    region: Box<str>,
    presets: Presets,
    /// The presets, as what is attached to everyone.
    common: Document,
    registry: Option<Document>,
    /// What everyone may as long as no policy denies it.
    everyone: ActionSet,
    policies: moka::sync::Cache<String, Option<Document>>,
}

impl Rights {
    /// Those of `presets`, and of the registry's policy, if it has one.
    ///
    /// # Errors
    /// What is wrong with the names in the presets.
    pub fn new(
        account: Account,
        region: &str,
        presets: Presets,
        registry: Option<Document>,
    ) -> Result<Self, Faults> {
        let common = presets.document(&account)?;
        let everyone = presets
            .anonymous
            .iter()
            .flat_map(|word| word.actions())
            .copied()
            .collect();
        Ok(Self {
            account,
            region: region.into(),
            presets,
            common,
            registry,
            everyone,
            policies: moka::sync::Cache::new(REMEMBERED),
        })
    }

    /// Whether a caller without a login may do anything at all from this address.
    pub fn admit_anonymous(&self, from: Option<IpAddr>) -> bool {
        self.presets.admit_anonymous(from)
    }

    /// Whether this address is one of those that are not asked for a login.
    pub fn is_open(&self, from: Option<IpAddr>) -> bool {
        self.presets.is_open(from)
    }

    /// Decides.
    pub fn decide(&self, wish: &Wish<'_>) -> Decision {
        let decision = self.decide_alone(wish);
        // Who brought a login of an upstream could have come without it.
        if !decision.is_allowed() && wish.caller.upstream_login().is_some() {
            let caller = &Caller::anonymous();
            let as_nobody = self.decide_alone(&Wish { caller, ..*wish });
            if as_nobody.is_allowed() {
                return as_nobody;
            }
        }
        decision
    }

    fn decide_alone(&self, wish: &Wish<'_>) -> Decision {
        // Nothing could deny it: what most requests to a cache come to.
        if self.everyone.contains(wish.action)
            && self.registry.is_none()
            && wish.policy.is_none()
            && wish.caller.is_plain()
        {
            return Decision::Allow;
        }
        let resource = self.resource(wish);
        let context = context(wish.circumstances);
        let policy = match wish.policy.map(|text| self.policy(text)) {
            None => None,
            Some(Some(document)) => Some(document),
            // It was understood when it was put there; whatever it said, it is not taken for nothing.
            Some(None) => return strictly(),
        };
        let request = Request {
            principal: &wish.caller.identity,
            action: wish.action,
            resource: &resource,
            context: &context,
        };
        let attached = |identity| Attached {
            identity,
            repository: policy.as_ref(),
            registry: self.registry.as_ref(),
            same_account: true,
            owner: wish.caller.identity.kind() == Kind::Operator,
        };
        let own: Vec<Document> = [&self.common]
            .into_iter()
            .chain(&*wish.caller.documents)
            .cloned()
            .collect();
        let decision = decide(&request, &attached(&own));
        let within = |bound: &Document| {
            let alone = Attached {
                identity: std::slice::from_ref(bound),
                repository: None,
                registry: None,
                same_account: true,
                owner: false,
            };
            decide(&request, &alone).is_allowed()
        };
        if decision.is_allowed() && !wish.caller.bounds.iter().all(within) {
            return Decision::Deny(Why::NotAllowed {
                lacking: Place::Identity,
            });
        }
        decision
    }

    /// What a caller is told who may not, whatever the reason.
    pub fn refusal(&self, wish: &Wish<'_>) -> String {
        let (resource, context) = (self.resource(wish), context(wish.circumstances));
        let request = Request {
            principal: &wish.caller.identity,
            action: wish.action,
            resource: &resource,
            context: &context,
        };
        request.refusal()
    }

    fn resource(&self, wish: &Wish<'_>) -> Resource {
        match (wish.repository, wish.action.scope()) {
            (Some(name), _) => Resource::named(&self.region, &self.account, name),
            (None, Scope::Repository) => Resource::repositories(&self.region, &self.account),
            (None, Scope::Registry) => Resource::registry(),
        }
    }

    fn policy(&self, text: &str) -> Option<Document> {
        if let Some(known) = self.policies.get(text) {
            return known;
        }
        let parsed = Document::parse_for(text, Usage::Repository).ok();
        self.policies.insert(text.to_owned(), parsed.clone());
        parsed
    }
}

fn strictly() -> Decision {
    Decision::Deny(Why::Denied {
        by: Place::Repository,
        sid: None,
    })
}

fn context(circumstances: &Circumstances<'_>) -> Context {
    Context {
        source_ip: circumstances.from,
        secure_transport: circumstances.https,
        user_agent: circumstances.agent.map(str::to_owned),
        further: BTreeMap::new(),
        ..Context::at(circumstances.now)
    }
}
