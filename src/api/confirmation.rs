//! Whoever sends a body is proved and allowed once more when all of it has come: between its head and its end lie minutes, or
//! hours, in which they may have been removed, shut out, or denied. Called by each handler that reads a body and then
//! does what it says, right before it does.

use std::sync::Arc;
use std::time::Duration;

use super::asking::Asking;
use super::rescue::Failure;
use crate::registry::{HostedError, HostedRepository, Located};

/// No blob takes longer on its way: who holds a request open for days does not hold a token's rights with it.
const MOST_SPARED: Duration = Duration::from_hours(12);

/// What counts of a token's own span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// It has to last until now: the body was small, and its client can ask again with another token.
    ToTheEnd,
    /// It had to last when the request began. A large blob takes longer than a token lasts, and nobody can show another one
    /// in the midst of it. That its login is there still, in the same state, and may do this counts as of now.
    FromTheHead,
}

impl Asking<'_> {
    /// Proves and allows a push again: the repository as it is now.
    ///
    /// # Errors
    /// As in the beginning; `NameUnknown` when the repository was deleted meanwhile.
    pub(super) async fn confirm_push(&mut self, lasting: Lasting) -> Result<Arc<HostedRepository>, Failure> {
        match self.confirm(lasting).await? {
            Some(Located::Hosted(found)) => Ok(found),
            _ => Err(Failure::Hosted(HostedError::NameUnknown)),
        }
    }

    /// The same for what an operator sends.
    pub(super) async fn confirm_operator(&mut self) -> Result<(), Failure> {
        self.confirm(Lasting::ToTheEnd).await.map(drop)
    }

    async fn confirm(&mut self, lasting: Lasting) -> Result<Option<Located>, Failure> {
        let route = self.route;
        self.spared = match lasting {
            Lasting::ToTheEnd => Duration::ZERO,
            Lasting::FromTheHead => self.exchange.elapsed().min(MOST_SPARED),
        };
        self.authenticate(route).await?;
        let located = match route.target() {
            Some(target) => Some(self.locate(target, route.intent()).await?),
            None => None,
        };
        self.narrow(route, located.as_ref());
        if let Err(failure) = self.authorize(route, located.as_ref()) {
            self.note_decision(route, located.as_ref(), Some(&failure));
            return Err(failure);
        }
        Ok(located)
    }
}
