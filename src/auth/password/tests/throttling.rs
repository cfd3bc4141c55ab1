//! Who may guess when, by table and without waiting.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::auth::password::throttle::{Name, Network, Throttle};

const ALICE: Name = [1; 32];
const SECOND: Duration = Duration::from_secs(1);

fn from(text: &str) -> Network {
    Network::of(Some(text.parse().unwrap()))
}

fn name(number: u32) -> Name {
    let mut name = [0; 32];
    name[..4].copy_from_slice(&number.to_be_bytes());
    name
}

/// Waits after each of so many wrong ones, each given as soon as it may be, and the time then.
fn waits(throttle: &Throttle, count: usize, mut now: Instant) -> (Vec<u64>, Instant) {
    let mut seen = Vec::new();
    for _ in 0..count {
        throttle.wrong(from("192.0.2.1"), &ALICE, now);
        let wait = throttle.wait(from("192.0.2.1"), &ALICE, now).unwrap_or_default();
        seen.push(wait.as_secs());
        now += wait;
        assert_eq!(throttle.wait(from("192.0.2.1"), &ALICE, now), None);
    }
    (seen, now)
}

#[test]
fn after_a_few_free_ones_the_wait_doubles_up_to_a_minute() {
    let throttle = Throttle::new();
    let start = Instant::now();
    let (seen, now) = waits(&throttle, 14, start);
    // One is forgiven in two minutes, so that it takes two more to come to the top.
    assert_eq!(seen, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 64, 64, 64]);
    // Nobody else is meant, and the same name elsewhere is not.
    assert_eq!(throttle.wait(from("192.0.2.1"), &name(2), now), None);
    assert_eq!(throttle.wait(from("192.0.2.2"), &ALICE, now), None);
    assert_eq!(throttle.wait(Network::of(None), &ALICE, now), None);
    // A quarter of an hour later little is left of it, half an hour later nothing.
    let later = now + Duration::from_mins(15);
    let (seen, _) = waits(&throttle, 3, later);
    assert_eq!(seen, [0, 1, 2]);
    let (seen, _) = waits(&throttle, 6, now + Duration::from_hours(1));
    assert_eq!(seen, [0, 0, 0, 0, 1, 2]);
}

#[test]
fn the_right_one_clears_what_was_wrong() {
    let throttle = Throttle::new();
    let now = Instant::now();
    let here = from("192.0.2.1");
    for _ in 0..8 {
        throttle.wrong(here, &ALICE, now);
    }
    assert_eq!(throttle.wait(here, &ALICE, now), Some(8 * SECOND));
    throttle.right(here, &ALICE, now);
    assert_eq!(throttle.wait(here, &ALICE, now), None);
    let (seen, _) = waits(&throttle, 6, now);
    assert_eq!(seen, [0, 0, 0, 0, 1, 2]);
}

#[test]
fn an_address_that_tries_many_names_waits_with_all_of_them() {
    let throttle = Throttle::new();
    let now = Instant::now();
    let here = from("192.0.2.1");
    for number in 0..29 {
        assert!(!throttle.wrong(here, &name(number), now));
        assert_eq!(throttle.wait(here, &name(number), now), None);
    }
    // The first that costs is told.
    assert!(throttle.wrong(here, &name(100), now));
    assert!(!throttle.wrong(here, &name(101), now));
    assert_eq!(throttle.wait(here, &name(102), now), Some(2 * SECOND));
    // A right one among them does not help.
    throttle.right(here, &name(7), now);
    assert_eq!(throttle.wait(here, &name(7), now), Some(2 * SECOND));
    assert_eq!(throttle.wait(from("192.0.2.2"), &name(7), now), None);
    // A program that gives a wrong one each minute never makes the others behind this address wait.
    let mut later = now + Duration::from_mins(15);
    for _ in 0..1000 {
        later += Duration::from_mins(1);
        throttle.wrong(here, &ALICE, later);
        assert_eq!(throttle.wait(here, &name(7), later), None);
    }
}

#[test]
fn an_ipv6_counts_as_its_64() {
    let throttle = Throttle::new();
    let now = Instant::now();
    for host in 0..8 {
        throttle.wrong(from(&format!("2001:db8:0:1::{host}")), &ALICE, now);
    }
    assert!(throttle.wait(from("2001:db8:0:1:ffff::1"), &ALICE, now).is_some());
    assert_eq!(throttle.wait(from("2001:db8:0:2::1"), &ALICE, now), None);
    // An IPv4 address is the same however it is written.
    assert_eq!(from("::ffff:192.0.2.1"), from("192.0.2.1"));
    assert_ne!(from("::ffff:192.0.2.1"), from("::ffff:192.0.2.2"));
    assert_eq!(from("192.0.2.1").to_string(), "192.0.2.1");
    assert_eq!(from("2001:db8:0:1::7").to_string(), "2001:db8:0:1::/64");
    assert_eq!(Network::of(None).to_string(), "this machine");
}

#[test]
fn a_name_guessed_from_everywhere_waits_a_little_except_where_it_is_known() {
    let throttle = Throttle::new();
    let now = Instant::now();
    throttle.right(from("198.51.100.7"), &ALICE, now);
    for host in 0..49 {
        throttle.wrong(from(&format!("192.0.2.{host}")), &ALICE, now);
        assert_eq!(throttle.wait(from("203.0.113.1"), &ALICE, now), None);
    }
    for (host, seconds) in [1, 2, 4, 8, 8, 8].into_iter().enumerate() {
        throttle.wrong(from(&format!("192.0.2.{}", 100 + host)), &ALICE, now);
        let wait = throttle.wait(from("203.0.113.1"), &ALICE, now);
        assert_eq!(wait, Some(seconds * SECOND), "{host}");
    }
    assert_eq!(throttle.wait(from("203.0.113.1"), &name(2), now), None);
    let known = from("198.51.100.7");
    assert_eq!(throttle.wait(known, &ALICE, now), None);
    // Who guesses there waits all the same.
    for _ in 0..5 {
        throttle.wrong(known, &ALICE, now);
    }
    assert_eq!(throttle.wait(known, &ALICE, now), Some(SECOND));
    // A day later it is known no longer.
    let later = now + Duration::from_hours(25);
    for host in 0..60 {
        throttle.wrong(from(&format!("192.0.2.{host}")), &ALICE, later);
    }
    assert!(throttle.wait(known, &ALICE, later).is_some());
}

#[test]
fn a_day_of_guessing_gives_few_guesses() {
    let throttle = Throttle::new();
    let start = Instant::now();
    let day = Duration::from_hours(24);
    let here = from("192.0.2.1");
    let mut guesses = 0;
    let mut now = start;
    while now < start + day {
        throttle.wrong(here, &ALICE, now);
        guesses += 1;
        now += throttle.wait(here, &ALICE, now).unwrap_or_default();
    }
    assert!((1000..1500).contains(&guesses), "{guesses} of one name");
    // By all names that there are it is not much more.
    let (mut guesses, mut now) = (0, start);
    let here = from("192.0.2.2");
    while now < start + day {
        let name = name(guesses + 10);
        throttle.wrong(here, &name, now);
        guesses += 1;
        now += throttle.wait(here, &name, now).unwrap_or_default();
    }
    assert!((1000..6000).contains(&guesses), "{guesses} of many names");
}

#[test]
fn time_may_stand_still_or_go_back() {
    let throttle = Throttle::new();
    let start = Instant::now();
    let now = start + Duration::from_secs(200);
    let here = from("192.0.2.1");
    for back in 0..200 {
        let then = start + Duration::from_secs(200 - back);
        throttle.wrong(here, &ALICE, then);
        let wait = throttle.wait(here, &ALICE, then).unwrap_or_default();
        assert!(wait <= 64 * SECOND + Duration::from_secs(back));
    }
    let far = now + Duration::from_hours(24 * 365 * 100);
    throttle.wrong(here, &ALICE, far);
    assert_eq!(throttle.wait(here, &ALICE, far), None);
}

#[test]
fn addresses_of_any_kind_are_somebody() {
    for text in ["0.0.0.0", "255.255.255.255", "::", "::1", "fe80::1", "ffff::"] {
        let address: IpAddr = text.parse().unwrap();
        assert_ne!(Network::of(Some(address)), Network::of(None));
    }
}
