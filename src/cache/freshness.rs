//! Freshness: a pure function of state, time and settings (RFC 9111 section 4.2, RFC 5861 section 4). Digests are for
//! ever; this is about tags, and about lists, which change as tags do. Called by `manifests`, `lists` and `revalidate`.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Freshness;
use crate::oci::Tag;
use crate::repository::TagState;

use super::error::{Error, ErrorKind};

/// What may be done with a copy that is here, in the order in which mere waiting leads through them, never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Serve it, ask nobody.
    Fresh,
    /// It is due, but the upstream was asked in vain a moment ago: serve it, and leave the upstream alone.
    Stale,
    /// It is due: ask the upstream, and serve it if that fails or takes too long.
    UsableOnError,
    /// It is due and too old to stand in for the upstream: only the upstream's word counts.
    Revalidate,
    /// A healthy upstream has not known it for so long that it counts as deleted; only the upstream can bring it back.
    Gone,
}

impl Verdict {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::UsableOnError => "usable-on-error",
            Self::Revalidate => "revalidate",
            Self::Gone => "gone",
        }
    }
}

/// What is known of a tag when somebody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// When the upstream last confirmed it.
    pub(super) validated_at: Timestamp,
    /// Since when a healthy upstream says that it does not exist.
    pub(super) gone_since: Option<Timestamp>,
    /// Until when the upstream is not asked again, because it was asked in vain.
    pub(super) left_alone_until: Option<Timestamp>,
}

impl Known {
    pub(super) fn of(state: &TagState, left_alone_until: Option<Timestamp>) -> Self {
        Self {
            validated_at: state.validated_at,
            gone_since: state.gone_since,
            left_alone_until,
        }
    }
}

/// How much sooner than others a tag falls due, so that tags that were pulled together are not asked for together: up
/// to a tenth of its TTL, and always the same for one tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jitter(u16);

impl Jitter {
    /// In ten-thousandths of the TTL.
    const MOST: u16 = 1000;

    /// That of a tag, by a hash (FNV-1a) that no restart and no release changes.
    pub(super) fn of(repository: &str, tag: &Tag) -> Self {
        let bytes = repository.bytes().chain([0]).chain(tag.as_str().bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // The low bits alone would follow the last characters.
        let mixed = (hash ^ (hash >> 32)) % (u64::from(Self::MOST) + 1);
        Self(u16::try_from(mixed).unwrap_or_default())
    }

    /// `ttl`, shortened.
    pub(super) fn shorten(self, ttl: Duration) -> Duration {
        ttl.mul_f64(1.0 - f64::from(self.0.min(Self::MOST)) / 10_000.0)
    }
}

/// What is to be done with a tag at `now`.
pub(super) fn judge(known: &Known, now: Timestamp, settings: &Freshness, jitter: Jitter) -> Verdict {
    if let Some(since) = known.gone_since
        && !is_served_though_gone(since, now, settings)
    {
        return Verdict::Gone;
    }
    // Set in the future, the clock was turned back meanwhile: such a stamp vouches for nothing.
    let vouched = known.gone_since.is_none() && known.validated_at <= now;
    let life = Life {
        age: now.since(known.validated_at),
        fresh_for: if vouched {
            jitter.shorten(settings.tag_ttl)
        } else {
            Duration::ZERO
        },
        usable_for: settings.tag_ttl.saturating_add(settings.stale_if_error),
    };
    life.judge(known.left_alone_until.is_some_and(|until| now < until))
}

/// What is to be done with a list that came so long ago. It says what does not exist, so it is fresh for as long as any
/// other "not found" is believed.
pub(super) fn judge_list(age: Duration, left_alone: bool, settings: &Freshness) -> Verdict {
    let life = Life {
        age,
        fresh_for: settings.negative_ttl,
        usable_for: settings.negative_ttl.saturating_add(settings.stale_if_error),
    };
    life.judge(left_alone)
}

struct Life {
    age: Duration,
    fresh_for: Duration,
    usable_for: Duration,
}

impl Life {
    fn judge(&self, left_alone: bool) -> Verdict {
        if self.age < self.fresh_for {
            Verdict::Fresh
        } else if self.age >= self.usable_for {
            Verdict::Revalidate
        } else if left_alone {
            Verdict::Stale
        } else {
            Verdict::UsableOnError
        }
    }
}

/// Whether a tag that a healthy upstream does not know (since `gone_since`) is still served.
pub(super) fn is_served_though_gone(gone_since: Timestamp, now: Timestamp, settings: &Freshness) -> bool {
    now.since(gone_since) < settings.gone_ttl
}

/// How long an upstream is left alone after it was asked in vain: clients get the stale copy at once meanwhile.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(5);
/// And at the most, when its limit is reached and it told how long that lasts.
pub(super) const MOST_LEFT_ALONE: Duration = Duration::from_mins(1);

/// How long the upstream is left alone after this failure.
pub(super) fn left_alone_for(error: &Error) -> Duration {
    match error.kind {
        ErrorKind::RateLimited {
            retry_after: Some(told),
        } => told.clamp(LEFT_ALONE, MOST_LEFT_ALONE),
        _ => LEFT_ALONE,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Freshness {
        Freshness {
            tag_ttl: Duration::from_secs(100),
            stale_if_error: Duration::from_secs(1000),
            gone_ttl: Duration::from_secs(500),
            negative_ttl: Duration::from_secs(10),
            ..Freshness::default()
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    fn known(validated: u64, gone: Option<u64>, alone: Option<u64>) -> Known {
        Known {
            validated_at: at(validated),
            gone_since: gone.map(at),
            left_alone_until: alone.map(at),
        }
    }

    #[test]
    fn table() {
        use Verdict::{Fresh, Gone, Revalidate, Stale, UsableOnError};
        // Validated, gone since, left alone until, now: at no jitter, at the most jitter.
        let cases = [
            // Its life: 100 s fresh (90 with jitter), 1000 s usable, then not.
            (5000, None, None, 5000, Fresh, Fresh),
            (5000, None, None, 5089, Fresh, Fresh),
            (5000, None, None, 5090, Fresh, UsableOnError),
            (5000, None, None, 5099, Fresh, UsableOnError),
            (5000, None, None, 5100, UsableOnError, UsableOnError),
            (5000, None, None, 6099, UsableOnError, UsableOnError),
            (5000, None, None, 6100, Revalidate, Revalidate),
            (5000, None, None, 999_999, Revalidate, Revalidate),
            // Asked in vain: no question while fresh, none while usable, but too old is too old.
            (5000, None, Some(5050), 5049, Fresh, Fresh),
            (5000, None, Some(5106), 5100, Stale, Stale),
            (5000, None, Some(5106), 5105, Stale, Stale),
            (5000, None, Some(5106), 5106, UsableOnError, UsableOnError),
            (5000, None, Some(6106), 6099, Stale, Stale),
            (5000, None, Some(6106), 6100, Revalidate, Revalidate),
            // Gone upstream: never fresh again, served for 500 s.
            (5000, Some(5001), None, 5002, UsableOnError, UsableOnError),
            (5000, Some(5001), Some(5007), 5002, Stale, Stale),
            (5000, Some(5001), None, 5500, UsableOnError, UsableOnError),
            (5000, Some(5001), None, 5501, Gone, Gone),
            (5000, Some(5001), Some(5505), 5501, Gone, Gone),
            (5000, Some(6000), None, 6100, Revalidate, Revalidate),
            (5000, Some(6000), None, 6500, Gone, Gone),
            // The clock was turned back.
            (5000, None, None, 4999, UsableOnError, UsableOnError),
            (5000, Some(5001), None, 100, UsableOnError, UsableOnError),
        ];
        for (validated, gone, alone, now, plain, sooner) in cases {
            let known = known(validated, gone, alone);
            for (jitter, expected) in [(0, plain), (Jitter::MOST, sooner)] {
                let verdict = judge(&known, at(now), &settings(), Jitter(jitter));
                assert_eq!(verdict, expected, "{known:?} at {now}, jitter {jitter}");
            }
        }
    }

    #[test]
    fn spans_of_zero() {
        let none = Freshness {
            tag_ttl: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            gone_ttl: Duration::ZERO,
            ..settings()
        };
        let verdict = |known: &Known, settings: &Freshness| judge(known, at(5000), settings, Jitter(0));
        let now = known(5000, None, None);
        assert_eq!(verdict(&now, &none), Verdict::Revalidate);
        assert_eq!(verdict(&known(5000, Some(5000), None), &none), Verdict::Gone);
        let ask_always = Freshness {
            tag_ttl: Duration::ZERO,
            ..settings()
        };
        assert_eq!(verdict(&now, &ask_always), Verdict::UsableOnError);
        let never_stale = Freshness {
            stale_if_error: Duration::ZERO,
            ..settings()
        };
        assert_eq!(verdict(&now, &never_stale), Verdict::Fresh);
        assert_eq!(
            verdict(&known(4900, None, Some(5001)), &never_stale),
            Verdict::Revalidate
        );
    }

    #[test]
    fn lists() {
        let cases = [
            (0, false, Verdict::Fresh),
            (9, true, Verdict::Fresh),
            (10, false, Verdict::UsableOnError),
            (10, true, Verdict::Stale),
            (1009, true, Verdict::Stale),
            (1010, true, Verdict::Revalidate),
        ];
        for (age, left_alone, expected) in cases {
            let verdict = judge_list(Duration::from_secs(age), left_alone, &settings());
            assert_eq!(verdict, expected, "{age} s, {left_alone}");
        }
    }

    #[test]
    fn a_thousand_tags_do_not_fall_due_together() {
        let ttl = Duration::from_secs(1000);
        let mut tenths = [0; 10];
        for number in 0..1000 {
            let tag: Tag = format!("v1.{number}").parse().unwrap();
            let jitter = Jitter::of("docker-hub/library/app", &tag);
            assert_eq!(jitter, Jitter::of("docker-hub/library/app", &tag));
            let due = jitter.shorten(ttl).as_secs();
            assert!((900..=1000).contains(&due), "{tag}: {due}");
            tenths[(due.saturating_sub(900) as usize / 10).min(9)] += 1;
        }
        assert!(
            tenths.iter().all(|count| (60..=140).contains(count)),
            "{tenths:?}"
        );
        // Restarts, replicas and releases agree.
        let tag: Tag = "latest".parse().unwrap();
        assert_eq!(Jitter::of("docker-hub/library/nginx", &tag), Jitter(525));
        assert_eq!(Jitter(0).shorten(ttl), ttl);
        assert_eq!(Jitter(Jitter::MOST).shorten(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn an_upstream_that_told_is_left_alone_as_long_but_no_longer_than_a_minute() {
        let error = |kind| Error::new(kind, "");
        let limited = |seconds: Option<u64>| ErrorKind::RateLimited {
            retry_after: seconds.map(Duration::from_secs),
        };
        for (kind, seconds) in [
            (limited(None), 5),
            (limited(Some(0)), 5),
            (limited(Some(20)), 20),
            (limited(Some(3600)), 60),
            (ErrorKind::UpstreamTimeout, 5),
        ] {
            assert_eq!(left_alone_for(&error(kind)).as_secs(), seconds, "{kind:?}");
        }
    }

    prop_compose! {
        fn spans()(ttl in 0_u64..400, stale in 0_u64..400, gone in 0_u64..400) -> Freshness {
            Freshness {
                tag_ttl: Duration::from_secs(ttl),
                stale_if_error: Duration::from_secs(stale),
                gone_ttl: Duration::from_secs(gone),
                ..Freshness::default()
            }
        }
    }

    proptest! {
        #[test]
        fn no_tag_becomes_fresher_by_waiting(
            settings in spans(),
            jitter in 0..=Jitter::MOST,
            validated in 0_u64..1000,
            gone_after in proptest::option::of(0_u64..500),
            alone in proptest::option::of(0_u64..3000),
            first in 0_u64..2000,
            wait in 0_u64..2000,
        ) {
            let known = known(validated, gone_after.map(|after| validated + after), alone);
            // From a time on at which all of its past has happened.
            let first = known.gone_since.map_or(validated, |gone| gone.0 / 1000) + first;
            let judge = |now| judge(&known, at(now), &settings, Jitter(jitter));
            prop_assert!(judge(first) <= judge(first + wait));
        }

        #[test]
        fn a_stamp_of_the_future_is_never_fresh(
            settings in spans(), validated in 1_u64..1000, before in 1_u64..1000,
        ) {
            let now = validated.saturating_sub(before);
            let verdict = judge(&known(validated, None, None), at(now), &settings, Jitter(0));
            prop_assert!(verdict != Verdict::Fresh);
        }

        #[test]
        fn jitter_only_shortens_and_by_a_tenth_at_the_most(ttl in 0_u64..400_000_000_000, jitter: u16) {
            let ttl = Duration::from_millis(ttl);
            let due = Jitter(jitter).shorten(ttl);
            prop_assert!(due <= ttl && due >= ttl.mul_f64(0.899_999));
        }
    }
}
