//! Budgets by table and by property, with the time as a parameter.

use std::time::Duration;

use proptest::prelude::*;
use reqwest::header::HeaderMap;

use crate::clock::Timestamp;
use crate::upstream::Purpose;
use crate::upstream::budget::{Budget, Held, PROBE_EVERY, Reason, Rules, Ticket, Told};

const NONE: Rules = Rules { reserve: 0 };
const TENTH: Rules = Rules { reserve: 10 };
const HOUR: u64 = 3600;

fn at(seconds: u64) -> Timestamp {
    Timestamp((1_000_000_000 + seconds) * 1000)
}

fn told(remaining: u64) -> Told {
    Told {
        limit: Some(100),
        remaining: Some(remaining),
        window: Some(Duration::from_secs(6 * HOUR)),
        source: None,
    }
}

/// A budget that was told so at zero.
fn with(remaining: u64) -> Budget {
    let mut budget = Budget::default();
    let ticket = budget.begin(false, at(0));
    budget.hear(ticket, &told(remaining), at(0));
    budget
}

fn may(budget: &mut Budget, purpose: Purpose, now: Timestamp) -> bool {
    budget.admit(purpose, false, NONE, now).is_ok()
}

#[test]
fn what_headers_tell() {
    let told = |lines: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, value.parse().unwrap());
        }
        Told::read(&headers)
    };
    let hub = told(&[
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "76;w=21600"),
        ("docker-ratelimit-source", "2001:41d0:801:2000::"),
    ]);
    let expected = Told {
        limit: Some(100),
        remaining: Some(76),
        window: Some(Duration::from_hours(6)),
        source: Some("2001:41d0:801:2000::".to_owned()),
    };
    assert_eq!(hub, Some(expected));
    // limit, remaining: what of it is understood.
    let table = [
        ("100", "7", Some((Some(100), Some(7), None))),
        ("100; w=60", "7", Some((Some(100), Some(7), Some(60)))),
        ("many", "7;w=60", Some((None, Some(7), Some(60)))),
        ("100, 100;w=60", "-1", Some((Some(100), None, None))),
        ("100;w=0", "0;w=soon", Some((Some(100), Some(0), None))),
        ("many", "few", None),
        ("", "", None),
    ];
    for (limit, remaining, expected) in table {
        let read = told(&[("ratelimit-limit", limit), ("ratelimit-remaining", remaining)]);
        let read = read.map(|it| (it.limit, it.remaining, it.window.map(|span| span.as_secs())));
        assert_eq!(read, expected, "{limit} {remaining}");
    }
    assert_eq!(told(&[("docker-ratelimit-source", "1.2.3.4")]), None);
}

#[test]
fn what_is_not_told_is_never_in_the_way() {
    let mut budget = Budget::default();
    for _ in 0..1000 {
        for purpose in Purpose::ALL {
            assert!(may(&mut budget, purpose, at(0)));
        }
        let ticket = budget.begin(true, at(0));
        budget.end(ticket);
    }
    assert_eq!(budget.left(), None);
    assert_eq!(budget.back_at(), None);
    assert_eq!(budget.lasts(at(0)), None);
}

#[test]
fn who_stops_first() {
    use Purpose::{Background, Miss, Refresh};
    // Left of 100: whether background, refresh, a miss and a reserved miss may go, with a tenth in reserve.
    let table = [
        (100, [true, true, true, true]),
        (41, [true, true, true, true]),
        (40, [false, true, true, true]),
        (21, [false, true, true, true]),
        (20, [false, false, true, true]),
        (11, [false, false, true, true]),
        (10, [false, false, false, true]),
        (1, [false, false, false, true]),
        (0, [false, false, false, false]),
    ];
    for (left, expected) in table {
        let asked = [(Background, false), (Refresh, false), (Miss, false), (Miss, true)];
        let found = asked.map(|(purpose, reserved)| {
            let held = with(left).admit(purpose, reserved, TENTH, at(1));
            if let Err(held) = held {
                let reason = if left == 0 { Reason::Empty } else { Reason::Kept };
                assert_eq!(held.reason, reason, "{left}");
            }
            held.is_ok()
        });
        assert_eq!(found, expected, "{left}");
    }
    // Nothing is kept for nobody; and who wants much in reserve stops the rest the sooner.
    assert!(with(1).admit(Miss, false, NONE, at(1)).is_ok());
    let half = Rules { reserve: 50 };
    assert!(with(50).admit(Refresh, true, half, at(1)).is_err());
    assert!(with(50).admit(Miss, true, half, at(1)).is_ok());
}

#[test]
fn what_was_spent_since_counts_until_it_is_told() {
    let mut budget = with(3);
    let tickets = [(); 3].map(|()| {
        assert!(may(&mut budget, Purpose::Miss, at(1)));
        budget.begin(true, at(1))
    });
    assert_eq!(budget.left(), Some(0));
    let held = budget.admit(Purpose::Miss, false, NONE, at(1)).unwrap_err();
    assert!(held.soon && !held.probe, "the answers will tell: {held:?}");
    // One was answered, one refused without counting, and of one nothing was heard.
    budget.hear(tickets[0], &told(2), at(2));
    assert_eq!(
        budget.left(),
        Some(0),
        "the other two may have been counted before or after"
    );
    budget.end(tickets[1]);
    assert_eq!(budget.left(), Some(1));
    budget.lose(tickets[2]);
    assert_eq!(budget.left(), Some(1), "as it was while it was under way");
    // The next answer knows.
    let ticket = budget.begin(false, at(3));
    budget.hear(ticket, &told(1), at(3));
    assert_eq!(budget.left(), Some(1));
}

#[test]
fn answers_that_overtake_each_other() {
    let mut budget = with(10);
    let first = budget.begin(true, at(1));
    let second = budget.begin(true, at(1));
    budget.hear(second, &told(8), at(2));
    assert_eq!(budget.left(), Some(7));
    budget.hear(first, &told(9), at(3));
    assert_eq!(budget.left(), Some(8));
    // What began before a refusal does not lift it.
    let late = budget.begin(false, at(4));
    budget.refuse(Some(Duration::from_hours(1)), at(5));
    budget.hear(late, &told(3), at(6));
    assert!(!may(&mut budget, Purpose::Miss, at(6)));
    let later = budget.begin(false, at(7));
    budget.hear(later, &told(3), at(8));
    assert!(may(&mut budget, Purpose::Miss, at(8)));
}

#[test]
fn it_is_whole_again_when_the_window_has_passed() {
    let mut budget = with(0);
    assert_eq!(budget.back_at(), Some(at(6 * HOUR)));
    assert!(!may(&mut budget, Purpose::Miss, at(6 * HOUR - 1)));
    assert!(may(&mut budget, Purpose::Background, at(6 * HOUR)));
    assert_eq!(budget.left(), Some(100));
    assert_eq!(budget.back_at(), None);
    // Without a window in the header it is Docker Hub's.
    let mut budget = Budget::default();
    let ticket = budget.begin(false, at(0));
    let bare = Told {
        window: None,
        ..told(0)
    };
    budget.hear(ticket, &bare, at(0));
    assert_eq!(budget.back_at(), Some(at(6 * HOUR)));
}

#[test]
fn after_a_refusal_nothing_is_asked_until_it_is_over_and_then_one_at_a_time() {
    for (retry_after, span) in [(Some(600), 600), (None, 6 * HOUR), (Some(0), 6 * HOUR)] {
        let mut budget = with(50);
        budget.refuse(retry_after.map(Duration::from_secs), at(10));
        assert!(budget.is_exhausted());
        assert_eq!(budget.back_at(), Some(at(10 + span)));
        for purpose in Purpose::ALL {
            assert!(!may(&mut budget, purpose, at(9 + span)));
        }
        assert!(may(&mut budget, Purpose::Miss, at(10 + span)));
        let ticket = budget.begin(true, at(10 + span));
        let held = budget
            .admit(Purpose::Miss, false, NONE, at(10 + span))
            .unwrap_err();
        assert!(held.soon, "{held:?}");
        budget.hear(ticket, &told(99), at(11 + span));
        assert!(may(&mut budget, Purpose::Miss, at(11 + span)));
    }
    // Also at a registry that tells no limits: as soon as it gives again, nothing is known.
    let mut silent = Budget::default();
    silent.refuse(Some(Duration::from_mins(1)), at(0));
    assert!(!may(&mut silent, Purpose::Miss, at(59)));
    assert!(may(&mut silent, Purpose::Miss, at(60)));
    let ticket = silent.begin(true, at(60));
    assert!(!may(&mut silent, Purpose::Miss, at(60)));
    silent.give(ticket);
    assert!(may(&mut silent, Purpose::Background, at(61)));
}

#[test]
fn a_free_question_now_and_then_and_only_for_who_waits() {
    let every = PROBE_EVERY.as_secs();
    let mut budget = with(50);
    budget.refuse(None, at(0));
    let ask = |budget: &mut Budget, purpose, now| -> Held {
        budget.admit(purpose, false, NONE, at(now)).unwrap_err()
    };
    let early = ask(&mut budget, Purpose::Miss, 1);
    assert!(!early.probe);
    assert_eq!(
        early.retry_after,
        Duration::from_secs(every - 1),
        "then it is worth while to ask again"
    );
    assert!(!ask(&mut budget, Purpose::Background, every).probe);
    assert!(!ask(&mut budget, Purpose::Refresh, every).probe);
    assert!(ask(&mut budget, Purpose::Miss, every).probe);
    assert!(!ask(&mut budget, Purpose::Miss, every + 1).probe);
    assert!(!ask(&mut budget, Purpose::Miss, 2 * every - 1).probe);
    assert!(ask(&mut budget, Purpose::Miss, 2 * every).probe);
    // It says that nothing is left: nothing changes.
    let head = budget.begin(false, at(2 * every));
    budget.hear(head, &told(0), at(2 * every));
    assert!(!ask(&mut budget, Purpose::Miss, 2 * every + 1).probe);
    // It says that it is back, long before the window ends: on it goes.
    let head = budget.begin(false, at(3 * every));
    budget.hear(head, &told(100), at(3 * every));
    assert!(may(&mut budget, Purpose::Background, at(3 * every)));
    // A registry that said how long is taken at its word, but may change it.
    let mut budget = with(50);
    budget.refuse(Some(Duration::from_hours(1)), at(0));
    let held = ask(&mut budget, Purpose::Miss, every);
    assert!(held.probe);
    assert_eq!(held.retry_after.as_secs(), HOUR - every);
}

#[test]
fn free_questions_that_are_refused_too_are_asked_now_and_then() {
    let every = PROBE_EVERY.as_secs();
    let mut budget = with(50);
    budget.refuse(None, at(0));
    assert_eq!(budget.admit_free(at(1)), Ok(()), "only what counts was refused");
    budget.refuse_free();
    let held = budget.admit_free(at(1)).unwrap_err();
    assert_eq!(
        (held.retry_after.as_secs(), held.reason),
        (every - 1, Reason::Empty)
    );
    assert_eq!(budget.admit_free(at(every)), Ok(()));
    assert!(budget.admit_free(at(every)).is_err(), "one is enough");
    // It is refused again, for what counts; then it hears that something is left.
    budget.refuse(None, at(every));
    assert!(budget.admit_free(at(every + 1)).is_err());
    let kept = serde_json::to_string(&budget.to_keep()).unwrap();
    let mut budget: Budget = serde_json::from_str(&kept).unwrap();
    assert!(budget.admit_free(at(every + 2)).is_err());
    let head = budget.begin(false, at(2 * every));
    budget.hear(head, &told(7), at(2 * every));
    assert_eq!(budget.admit_free(at(2 * every)), Ok(()));
}

#[test]
fn a_short_window_is_probed_as_often_as_a_long_one() {
    let mut budget = with(50);
    let ticket = budget.begin(false, at(0));
    let minutes = Told {
        window: Some(Duration::from_mins(10)),
        ..told(50)
    };
    budget.hear(ticket, &minutes, at(0));
    budget.refuse(None, at(0));
    let probe = |budget: &mut Budget, now| {
        budget
            .admit(Purpose::Miss, false, NONE, at(now))
            .unwrap_err()
            .probe
    };
    assert!(!probe(&mut budget, 4));
    assert!(probe(&mut budget, 5));
    assert!(!probe(&mut budget, 9));
    assert!(probe(&mut budget, 10));
}

#[test]
fn clocks_that_jump() {
    // Back by a year: the window begins anew, and nothing waits for a year.
    let year = 365 * 24 * HOUR;
    let past = |seconds: u64| Timestamp(at(seconds).0.saturating_sub(year * 1000));
    let mut budget = with(0);
    assert!(!may(&mut budget, Purpose::Miss, past(0)));
    assert!(!may(&mut budget, Purpose::Miss, past(6 * HOUR - 1)));
    assert!(may(&mut budget, Purpose::Miss, past(6 * HOUR)));
    let mut budget = with(0);
    budget.refuse(Some(Duration::from_mins(5)), at(0));
    let held = budget.admit(Purpose::Miss, false, NONE, past(0)).unwrap_err();
    assert!(held.retry_after <= Duration::from_hours(6));
    assert!(may(&mut budget, Purpose::Miss, past(6 * HOUR)));
    // Ahead: asked too early, no more.
    let mut budget = with(0);
    assert!(may(&mut budget, Purpose::Miss, at(year)));
    // Nobody is sent away for longer than a day.
    let mut budget = with(0);
    budget.refuse(Some(Duration::MAX), at(0));
    assert_eq!(budget.back_at(), Some(at(24 * HOUR)));
}

#[test]
fn how_long_it_lasts_at_the_present_rate() {
    let mut budget = with(100);
    assert_eq!(budget.lasts(at(0)), None);
    // Ten an hour, for four hours.
    for number in 0..40_u64 {
        let now = at(number * 360);
        let ticket = budget.begin(true, now);
        budget.hear(ticket, &told(99 - number), now);
    }
    let now = at(40 * 360);
    let lasts = budget.lasts(now).unwrap().as_secs_f64() / 3600.0;
    assert!((5.5..7.5).contains(&lasts), "{lasts} h");
    // What was not counted after all is none.
    for _ in 0..100 {
        let ticket = budget.begin(true, now);
        budget.end(ticket);
    }
    let still = budget.lasts(now).unwrap().as_secs_f64() / 3600.0;
    assert!((still - lasts).abs() < 0.1, "{still} h");
    // A day without pulls is no spending.
    assert_eq!(budget.lasts(at(28 * HOUR)), None);
    // Others behind the same address spend too.
    let mut budget = with(100);
    let head = budget.begin(false, at(60));
    budget.hear(head, &told(60), at(60));
    let lasts = budget.lasts(at(60)).unwrap();
    assert!((5000..5800).contains(&lasts.as_secs()), "{lasts:?}");
}

#[test]
fn what_is_kept_across_restarts() {
    let mut budget = with(50);
    let _lost_by_the_kill = budget.begin(true, at(1));
    let kept = serde_json::to_string(&budget.to_keep()).unwrap();
    let mut back: Budget = serde_json::from_str(&kept).unwrap();
    assert_eq!(back.left(), Some(49));
    assert_eq!(back.limit(), Some(100));
    let head = back.begin(false, at(2));
    back.hear(head, &told(48), at(2));
    assert_eq!(back.left(), Some(48));
    back.refuse(None, at(3));
    let kept = serde_json::to_string(&back.to_keep()).unwrap();
    let mut back: Budget = serde_json::from_str(&kept).unwrap();
    assert!(!may(&mut back, Purpose::Miss, at(4)));
    let head = back.begin(false, at(5));
    back.hear(head, &told(7), at(5));
    assert!(may(&mut back, Purpose::Miss, at(5)));
    // A release that knows less, or more, reads it too.
    let back: Budget = serde_json::from_str("{\"limit\":5,\"new\":1}").unwrap();
    assert_eq!((back.limit(), back.left()), (Some(5), None));
}

/// What may happen to a budget.
#[derive(Clone, Debug)]
enum Event {
    Begin(bool),
    Hear(usize, u64),
    End(usize),
    Lose(usize),
    Refuse(Option<u64>),
    Wait(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        any::<bool>().prop_map(Event::Begin),
        (any::<usize>(), 0_u64..120).prop_map(|(which, left)| Event::Hear(which, left)),
        any::<usize>().prop_map(Event::End),
        any::<usize>().prop_map(Event::Lose),
        proptest::option::of(0_u64..100_000).prop_map(Event::Refuse),
        (-50_000_i64..50_000).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 0..60)
}

proptest! {
    #[test]
    fn whatever_happens(events in events()) {
        let mut budget = Budget::default();
        let mut open: Vec<Ticket> = Vec::new();
        let mut now = 1_000_000_000_i64;
        for event in events {
            let stamp = Timestamp(now.unsigned_abs() * 1000);
            let take = |open: &mut Vec<Ticket>, which: usize| {
                (!open.is_empty()).then(|| open.swap_remove(which % open.len()))
            };
            match event {
                Event::Begin(counted) => {
                    let allowed = budget.admit(Purpose::Miss, false, NONE, stamp).is_ok();
                    if !counted || allowed {
                        open.push(budget.begin(counted, stamp));
                    }
                }
                Event::Hear(which, left) => {
                    if let Some(ticket) = take(&mut open, which) {
                        budget.hear(ticket, &told(left), stamp);
                    }
                }
                Event::End(which) => {
                    if let Some(ticket) = take(&mut open, which) {
                        budget.end(ticket);
                    }
                }
                Event::Lose(which) => {
                    if let Some(ticket) = take(&mut open, which) {
                        budget.lose(ticket);
                    }
                }
                Event::Refuse(span) => budget.refuse(span.map(Duration::from_secs), stamp),
                Event::Wait(span) => now += span,
            }
            let stamp = Timestamp(now.unsigned_abs() * 1000);
            // As it is every few seconds.
            budget.settle(stamp);
            // Never more urgent work held where less urgent goes; and who is held is told when to come back.
            let goes = Purpose::ALL.map(|purpose| budget.clone().admit(purpose, false, TENTH, stamp));
            prop_assert!(goes.windows(2).all(|pair| pair[0].is_err() || pair[1].is_ok()), "{goes:?}");
            for held in goes.into_iter().filter_map(Result::err) {
                prop_assert!(held.retry_after >= Duration::from_secs(1));
                prop_assert!(held.retry_after <= Duration::from_hours(24));
            }
            prop_assert!(budget.lasts(stamp).is_none_or(|span| span > Duration::ZERO));
        }
        // When nothing happens any more for a day, whoever wants something may have it again.
        for ticket in open {
            budget.end(ticket);
        }
        let later = Timestamp((now + 24 * 3600).unsigned_abs() * 1000);
        prop_assert!(budget.clone().admit(Purpose::Miss, false, NONE, later).is_ok(), "{budget:?}");
    }
}
