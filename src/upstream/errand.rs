//! As whom, and for whom, an upstream is asked. Who waits when there is not enough for all (turns, bandwidth, pulls)
//! follows from it. Made by `cache`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// As whom an upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// With our credentials, where there are any.
    Configured,
    /// Never with our credentials: what this finds is public.
    Anonymous,
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
pub struct SharedPurpose(Arc<AtomicU8>);

impl SharedPurpose {
    /// As urgent as this, for now.
    pub fn new(purpose: Purpose) -> Self {
        Self(Arc::new(AtomicU8::new(purpose as u8)))
    }

    /// How urgent it is now.
    pub fn get(&self) -> Purpose {
        match self.0.load(Ordering::Relaxed) {
            0 => Purpose::Background,
            1 => Purpose::Refresh,
            _ => Purpose::Miss,
        }
    }

    /// It is at least as urgent as this from now on.
    pub fn raise(&self, purpose: Purpose) {
        self.0.fetch_max(purpose as u8, Ordering::Relaxed);
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
}
