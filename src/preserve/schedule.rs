//! When a list runs: a pure function of what the configuration says and of its last run. Called by `warm`.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::clock::Timestamp;
use crate::config::When;

/// The most by which a run is put off, so that many caches with the same list do not ask at once.
const MOST_JITTER: Duration = Duration::from_mins(2);

/// When the next run is due, after one that began at `last` (or never: then the list is known since then). What lies in the past
/// was missed. `None`: never again.
pub(super) fn due(
    when: &When,
    last: Option<Timestamp>,
    known_since: Timestamp,
    zone: &TimeZone,
) -> Option<Timestamp> {
    match when {
        When::Every(span) => Some(last.map_or(known_since, |last| last.after(*span))),
        When::Schedule(schedule) => {
            let from = last.unwrap_or(known_since);
            let from = jiff::Timestamp::from_millisecond(i64::try_from(from.0).ok()?).ok()?;
            let next = schedule
                .0
                .find_next_occurrence(&from.to_zoned(zone.clone()), false)
                .ok()?;
            u64::try_from(next.timestamp().as_millisecond())
                .ok()
                .map(Timestamp)
        }
    }
}

/// By how much the run that is due then may be put off: a twentieth of the time to the one after it.
pub(super) fn jitter(when: &When, due_at: Timestamp, zone: &TimeZone) -> Duration {
    let after = due(when, Some(due_at), due_at, zone);
    let period = after.map_or(Duration::ZERO, |after| after.since(due_at));
    (period / 20).min(MOST_JITTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let zoned: jiff::Zoned = text.parse().unwrap();
        Timestamp(zoned.timestamp().as_millisecond().unsigned_abs())
    }

    fn cron(text: &str) -> When {
        When::Schedule(text.parse().unwrap())
    }

    #[test]
    fn by_the_clock_on_the_wall() {
        // Berlin's rules, without a database of zones.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let nightly = cron("30 3 * * *");
        let cases = [
            (
                "2026-11-20T03:30:00+01:00[+01:00]",
                "2026-11-21T03:30:00+01:00[+01:00]",
            ),
            (
                "2026-11-20T03:29:59+01:00[+01:00]",
                "2026-11-20T03:30:00+01:00[+01:00]",
            ),
            // The nights in which the clock is turned.
            (
                "2026-03-28T12:00:00+01:00[+01:00]",
                "2026-03-29T03:30:00+02:00[+02:00]",
            ),
            (
                "2026-10-24T12:00:00+02:00[+02:00]",
                "2026-10-25T03:30:00+01:00[+01:00]",
            ),
        ];
        for (last, next) in cases {
            assert_eq!(
                due(&nightly, Some(at(last)), Timestamp(0), &zone),
                Some(at(next)),
                "{last}"
            );
        }
        // A list that is new waits for its time; one whose time went by while nobody ran is due in the past.
        let since = at("2026-11-20T12:00:00+01:00[+01:00]");
        assert_eq!(
            due(&nightly, None, since, &zone),
            Some(at("2026-11-21T03:30:00+01:00[+01:00]"))
        );
        assert_eq!(jitter(&nightly, since, &zone), MOST_JITTER);
        assert_eq!(
            due(&cron("0 0 30 2 *"), None, since, &zone),
            None,
            "no February has thirty days"
        );
    }

    #[test]
    fn after_a_span() {
        let (every, zone) = (When::Every(Duration::from_mins(1)), TimeZone::UTC);
        assert_eq!(due(&every, None, Timestamp(500), &zone), Some(Timestamp(500)));
        let after = due(&every, Some(Timestamp(1000)), Timestamp(500), &zone);
        assert_eq!(after, Some(Timestamp(61_000)));
        assert_eq!(jitter(&every, Timestamp(1000), &zone), Duration::from_secs(3));
    }
}
