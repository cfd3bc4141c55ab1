//! Freshness of tags: a pure function of state, time and settings. Digests are for ever.

use crate::clock::Timestamp;
use crate::config::Freshness;
use crate::repository::TagState;

/// What may be done with a tag that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Serve it.
    Fresh,
    /// Ask the upstream; serve it if that fails.
    Revalidate,
    /// Ask the upstream; too old to serve if that fails.
    Expired,
}

/// What is to be done with `state` at `now`.
pub(super) fn judge(state: &TagState, now: Timestamp, settings: &Freshness) -> Verdict {
    let age = now.since(state.validated_at);
    // Set in the future, the clock was turned back meanwhile: such a stamp says nothing.
    if age < settings.tag_ttl && state.validated_at <= now && state.gone_since.is_none() {
        Verdict::Fresh
    } else if age < settings.tag_ttl.saturating_add(settings.stale_if_error) {
        Verdict::Revalidate
    } else {
        Verdict::Expired
    }
}

/// Whether a tag that a healthy upstream does not know (since `gone_since`) is still served.
pub(super) fn is_served_though_gone(gone_since: Timestamp, now: Timestamp, settings: &Freshness) -> bool {
    now.since(gone_since) < settings.gone_ttl
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Digest};
    use std::time::Duration;

    #[test]
    fn table() {
        let settings = Freshness {
            tag_ttl: Duration::from_secs(10),
            stale_if_error: Duration::from_secs(100),
            gone_ttl: Duration::from_secs(50),
            ..Freshness::default()
        };
        let at = |seconds: u64| Timestamp(seconds * 1000);
        let state = |validated: u64, gone: Option<u64>| TagState {
            digest: Digest::from_hash(Algorithm::Sha256, &[0; 32]).unwrap(),
            validated_at: at(validated),
            gone_since: gone.map(at),
        };
        let cases = [
            (state(1000, None), 1000, Verdict::Fresh),
            (state(1000, None), 1009, Verdict::Fresh),
            (state(1000, None), 1010, Verdict::Revalidate),
            (state(1000, None), 1109, Verdict::Revalidate),
            (state(1000, None), 1110, Verdict::Expired),
            (state(1000, Some(1001)), 1002, Verdict::Revalidate),
            (state(1000, None), 900, Verdict::Revalidate),
        ];
        for (state, now, expected) in cases {
            assert_eq!(judge(&state, at(now), &settings), expected, "{state:?} at {now}");
        }
        assert!(is_served_though_gone(at(1000), at(1049), &settings));
        assert!(!is_served_though_gone(at(1000), at(1050), &settings));
    }
}
