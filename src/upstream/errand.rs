//! As whom, and for whom, an upstream is asked. Who waits when there is not enough for all (turns, bandwidth, pulls)
//! follows from it. Made by `cache`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

use super::caller::CallerLogin;

/// As whom an upstream is asked.
#[derive(Clone, Debug)]
pub enum Access {
    /// With our credentials, where there are any.
    Configured,
    /// Never with our credentials: what this finds is public.
    Anonymous,
    /// With what a client brought, and nothing of ours: what this finds is that client's to read.
    Caller(CallerLogin),
}

/// As whom a request shows itself to whoever it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Guise {
    /// As us.
    Own,
    /// As anybody.
    Stranger,
    /// As a client of ours.
    Caller,
}

/// For whom: who comes first when there is not enough for all. The greater, the more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Nobody waits for it.
    Background,
    /// A copy is here that can be served instead.
    Refresh,
    /// A client waits, and nothing is here.
    Miss,
}

impl Purpose {
    /// Every purpose, the least urgent first.
    pub const ALL: [Self; 3] = [Self::Background, Self::Refresh, Self::Miss];

    /// The log word and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Refresh => "refresh",
            Self::Miss => "miss",
        }
    }
}

/// A purpose that may become more urgent while the work goes on, because a client joins it. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedPurpose(Arc<Level>);

#[derive(Debug)]
struct Level {
    now: AtomicU8,
    raised: Notify,
}

impl SharedPurpose {
    /// As urgent as this, for now.
    pub fn new(purpose: Purpose) -> Self {
        Self(Arc::new(Level {
            now: AtomicU8::new(purpose as u8),
            raised: Notify::new(),
        }))
    }

    /// How urgent it is now.
    pub fn get(&self) -> Purpose {
        match self.0.now.load(Ordering::Acquire) {
            0 => Purpose::Background,
            1 => Purpose::Refresh,
            _ => Purpose::Miss,
        }
    }

    /// It is at least as urgent as this from now on; what waits for its turn hears of it at once.
    pub fn raise(&self, purpose: Purpose) {
        if self.0.now.fetch_max(purpose as u8, Ordering::AcqRel) < purpose as u8 {
            self.0.raised.notify_waiters();
        }
    }

    /// Waits until it is more urgent than this.
    pub(super) async fn raised_above(&self, purpose: Purpose) {
        loop {
            let mut raised = std::pin::pin!(self.0.raised.notified());
            // From here on no raise is missed.
            raised.as_mut().enable();
            if self.get() > purpose {
                return;
            }
            raised.await;
        }
    }
}

/// As whom and for whom something is asked.
#[derive(Clone, Debug)]
pub struct Errand {
    /// As whom.
    pub access: Access,
    /// For whom.
    pub purpose: SharedPurpose,
}

impl Errand {
    /// An errand of its own.
    pub fn new(access: Access, purpose: Purpose) -> Self {
        Self {
            access,
            purpose: SharedPurpose::new(purpose),
        }
    }

    /// The same work, without our credentials.
    #[must_use]
    pub fn anonymously(&self) -> Self {
        Self {
            access: Access::Anonymous,
            ..self.clone()
        }
    }

    /// The same work, in the name of a client.
    #[must_use]
    pub fn in_the_name_of(&self, caller: CallerLogin) -> Self {
        Self {
            access: Access::Caller(caller),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_only_rises() {
        for (first, raised, expected) in [
            (Purpose::Background, Purpose::Miss, Purpose::Miss),
            (Purpose::Miss, Purpose::Background, Purpose::Miss),
            (Purpose::Refresh, Purpose::Refresh, Purpose::Refresh),
        ] {
            let shared = SharedPurpose::new(first);
            assert_eq!(shared.get(), first);
            shared.clone().raise(raised);
            assert_eq!(shared.get(), expected);
        }
    }

    #[tokio::test]
    async fn who_waits_hears_of_a_raise() {
        use futures_util::FutureExt as _;
        let shared = SharedPurpose::new(Purpose::Background);
        let mut waiting = Box::pin(shared.raised_above(Purpose::Background));
        assert!((&mut waiting).now_or_never().is_none());
        shared.raise(Purpose::Background);
        assert!((&mut waiting).now_or_never().is_none());
        shared.raise(Purpose::Refresh);
        assert!(waiting.now_or_never().is_some());
        let refresh = shared.raised_above(Purpose::Refresh);
        assert!(refresh.now_or_never().is_none());
        let below = shared.raised_above(Purpose::Background);
        assert!(below.now_or_never().is_some());
    }
}
