//! Who asks, as proved, with all that says what they may. Made by [`Authenticator`](super::Authenticator) once a request,
//! asked about by [`Rights`](super::Rights).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::identity::Identity;
use super::policy::Document;
use super::token::Access;
use super::upstream_login::UpstreamLogin;
use crate::clock::Timestamp;

/// Who asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// Policies attached to it.
    pub(super) documents: Arc<[Document]>,
    /// What it may at the most, as policies that each have to allow.
    pub(super) bounds: Arc<[Document]>,
    /// The scopes behind `bounds`, as tokens carry them: within all of these lists.
    pub(super) scopes: Arc<[Vec<String>]>,
    /// What its token was granted; `None` when it shows none.
    pub(super) granted: Option<Arc<[Access]>>,
    /// Its login at an upstream, if that is what it brought.
    pub(super) upstream: Option<Arc<UpstreamLogin>>,
    /// The state of its login, for tokens.
    pub(super) generation: u64,
    /// When what it was proved by ends: nothing that is made of it outlives that.
    pub(super) ends: Option<Timestamp>,
}

impl Caller {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::of(Identity::anonymous())
    }

    /// One to whom nothing is attached.
    pub fn of(identity: Identity) -> Self {
        Self {
            identity,
            documents: Arc::default(),
            bounds: Arc::default(),
            scopes: Arc::default(),
            granted: None,
            upstream: None,
            generation: 0,
            ends: None,
        }
    }

    /// Whether nobody said who asks.
    pub fn is_anonymous(&self) -> bool {
        self.identity.is_anonymous()
    }

    /// The login at an upstream that it brought instead of one of ours. What it may read there is not known yet.
    pub fn upstream_login(&self) -> Option<&Arc<UpstreamLogin>> {
        self.upstream.as_ref()
    }

    /// Whether it shows a token of ours.
    pub fn shows_token(&self) -> bool {
        self.granted.is_some()
    }

    /// Whether nothing but what everyone may says what it may.
    pub(super) fn is_plain(&self) -> bool {
        self.documents.is_empty() && self.bounds.is_empty()
    }

    /// Whether its token, if it shows one, was granted `action` on a thing called by any of these names. Everybody's
    /// rights need no token.
    pub fn was_granted(&self, kind: &str, names: &[&str], action: &str) -> bool {
        let Some(granted) = self.granted.as_deref().filter(|_| !self.is_anonymous()) else {
            return true;
        };
        granted.iter().any(|access| {
            access.kind == kind
                && names.contains(&access.name.as_str())
                && access
                    .actions
                    .iter()
                    .any(|granted| granted == action || granted == "*")
        })
    }

    /// One word for whom a limit is counted: itself, or of nobody in particular the address. `None` for nobody without one.
    pub fn counted(&self, from: Option<IpAddr>) -> Option<String> {
        match (self.is_anonymous(), from) {
            (false, _) => Some(self.key()),
            // A host has as many addresses of a /64 as it likes.
            (true, Some(IpAddr::V6(v6))) => {
                Some(format!("{}/64", Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))))
            }
            (true, Some(v4)) => Some(v4.to_string()),
            (true, None) => None,
        }
    }

    /// One word for whom an upload belongs to: kind and name; empty for nobody.
    pub fn key(&self) -> String {
        if self.is_anonymous() {
            return String::new();
        }
        // Two issuers may call different workloads alike.
        let (kind, name) = (self.identity.kind().as_str(), self.identity.name());
        match self.identity.issuer() {
            Some(issuer) => format!("{kind}:{issuer}:{name}"),
            None => format!("{kind}:{name}"),
        }
    }
}
