//! What the audit log tells of a request: who asked for what, and whether they might. Noted when that is decided, told when
//! the response has ended.

use super::Entrance;
use super::asking::Asking;
use super::exchange::Exchange;
use super::permission;
use super::rescue::Failure;
use super::route::Route;
use crate::auth::Offered;
use crate::auth::Unproved;
use crate::auth::action::Action;
use crate::auth::identity::Identity;
use crate::clock::Timestamp;
use crate::oci::{RepositoryName, Tag};
use crate::registry::{ErrorKind, Located, Repository};
use crate::telemetry::{AuditEntry, AuditLog};

/// Bytes of what a client calls itself; headers that are text are ASCII.
const MOST_AGENT: usize = 256;

/// A decision, until it is told.
pub(super) struct Audited {
    /// Who was proved, or who said that they are somebody.
    who: Result<Identity, String>,
    action: Action,
    repository: Option<Box<str>>,
    /// What an operator is about to do.
    about: Option<String>,
    /// Why they might not.
    refused: Option<String>,
}

impl Asking<'_> {
    /// Notes who showed something that proves nobody.
    pub(super) fn note_unproved(&mut self, offered: &Offered, error: &Unproved) {
        if !self.shared.audit.is_on() {
            return;
        }
        let name = match offered {
            Offered::Basic(name, _) => name.chars().take(256).collect(),
            _ => String::new(),
        };
        self.exchange.audited = Some(Box::new(Audited {
            who: Err(name),
            action: Action::GetAuthorizationToken,
            repository: None,
            about: None,
            refused: Some(error.to_string()),
        }));
    }

    /// Notes a decision: all but what everyone may see of us.
    pub(super) fn note_decision(
        &mut self,
        route: &Route<'_>,
        located: Option<&Located>,
        refused: Option<&Failure>,
    ) {
        let audit = &self.shared.audit;
        if !audit.is_on() {
            return;
        }
        let need = permission::need(route, self.method, self.uri.query().unwrap_or_default());
        let (action, pull) = match (route, need) {
            (_, Some(need)) => (need.any_of[0], need.word == "pull"),
            (Route::Admin(route), None) => (permission::operator(route), false),
            (Route::Catalog, None) => (Action::DescribeRepositories, true),
            // A login, which is looked at there alone.
            (Route::Base(_) | Route::Token, None) if !self.caller.is_anonymous() => {
                (Action::GetAuthorizationToken, false)
            }
            (Route::Token, None) if refused.is_some() => (Action::GetAuthorizationToken, false),
            _ => return,
        };
        // What subcommands look at through the socket is no deed.
        let looked = action == Action::AdminRead && self.entrance == Entrance::Local;
        if refused.is_none() && (looked || (pull && !audit.tells_pulls())) {
            return;
        }
        self.exchange.audited = Some(Box::new(Audited {
            who: Ok(self.caller.identity.clone()),
            action,
            repository: located.map(|located| located.name().into()),
            about: None,
            refused: refused.map(Failure::reason),
        }));
    }
}

impl Asking<'_> {
    /// Notes that they might not after all: what is pulled has rules of its own, by its name and by its upstream.
    pub(super) fn note_refusal(&mut self, route: &Route<'_>, failure: &Failure) {
        let refused = match failure {
            Failure::Denied(_) | Failure::Unauthorized(_) | Failure::PullThrough => true,
            Failure::Registry(error) => error.kind == ErrorKind::Denied,
            _ => false,
        };
        if !refused || !self.shared.audit.is_on() {
            return;
        }
        let reason = Some(failure.message());
        if let Some(audited) = &mut self.exchange.audited {
            if audited.refused.is_none() {
                audited.refused = reason;
            }
            return;
        }
        let need = permission::need(route, self.method, self.uri.query().unwrap_or_default());
        let pulled = self.exchange.repository.as_ref().map(Repository::key);
        let found = pulled
            .or(self.exchange.hosted.as_ref())
            .map(|name| (**name).into());
        self.exchange.audited = Some(Box::new(Audited {
            who: Ok(self.caller.identity.clone()),
            action: need.map_or(Action::GetAuthorizationToken, |need| need.any_of[0]),
            repository: found,
            about: None,
            refused: reason,
        }));
    }

    /// Notes what an operator does, once the request says it.
    pub(super) fn note_about(&mut self, about: impl Into<String>) {
        if let Some(audited) = &mut self.exchange.audited {
            audited.about = Some(about.into());
        }
    }

    /// And to which repository.
    pub(super) fn note_repository(&mut self, name: &RepositoryName) {
        if let Some(audited) = &mut self.exchange.audited {
            audited.repository = Some(name.as_str().into());
        }
    }
}

/// Tells it.
pub(super) fn tell(log: &AuditLog, exchange: &Exchange, audited: &Audited, status: u16) {
    let peer = exchange.peer.address().map(|peer| peer.ip().to_canonical());
    let (who, kind, arn) = match &audited.who {
        Ok(identity) => (identity.name(), identity.kind().as_str(), identity.arn()),
        Err(name) => (name.as_str(), "unproved", None),
    };
    log.write(&AuditEntry {
        time: Timestamp::now().rfc3339(),
        request: exchange.id.as_str(),
        who,
        kind,
        arn,
        from: exchange.origin.forwarded_for.or(peer),
        action: audited.action.name(),
        about: audited.about.as_deref(),
        repository: audited.repository.as_deref(),
        tag: exchange.tag.as_ref().map(Tag::as_str),
        digest: exchange.digest.as_ref().map(ToString::to_string),
        allowed: audited.refused.is_none(),
        reason: audited.refused.as_deref(),
        status,
        agent: exchange
            .agent
            .as_ref()
            .and_then(|agent| agent.to_str().ok())
            .map(|agent| &agent[..agent.len().min(MOST_AGENT)]),
    });
}
