//! When to ask again, and how long an upstream wants to be left alone: pure rules. Used by `transport` and `reply`.

use std::time::{Duration, Instant, UNIX_EPOCH};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};

use crate::clock::Timestamp;

/// Requests for one thing, the first included.
pub(super) const ATTEMPTS: u32 = 3;
/// Retries neither start nor run on after this time. The first attempt always has its whole header time-out.
const WINDOW: Duration = Duration::from_secs(20);
/// An upstream that wants a longer pause than this is not asked again within the same request.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Until when one request may go on retrying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    end: Instant,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            end: Instant::now() + WINDOW,
        }
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

/// The pause before retry `number` (from 1 up): four times longer each time, times 0.5 to 1.5 so that many daemons
/// do not come back together.
pub(super) fn pause(base: Duration, number: u32) -> Duration {
    let factor = 4_u32.saturating_pow(number.saturating_sub(1));
    base.saturating_mul(factor).mul_f64(0.5 + fastrand::f64())
}

/// Whether an answer with this status is worth asking again at once.
pub(super) fn is_passing(status: StatusCode, headers: &HeaderMap) -> bool {
    matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504 | 522)
        && retry_after(headers, Timestamp::now()).is_none_or(|pause| pause <= LONGEST_PAUSE)
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds or a date. Docker Hub's `X-Retry-After` is a point in Unix time,
/// so a number that large is taken for one.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    const X_RETRY_AFTER: HeaderName = HeaderName::from_static("x-retry-after");
    let value = headers.get(RETRY_AFTER).or_else(|| headers.get(X_RETRY_AFTER))?;
    let value = value.to_str().ok()?.trim();
    let until = |seconds| Duration::from_secs(seconds).saturating_sub(Duration::from_millis(now.0));
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(if seconds > 1_000_000_000 {
            until(seconds)
        } else {
            Duration::from_secs(seconds)
        });
    }
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(until(date.duration_since(UNIX_EPOCH).ok()?.as_secs()))
}

/// GHCR says it in the message: `retry-after: 35.852µs, allowed: 44000/minute`, a duration as Go prints it.
pub(super) fn retry_after_in_text(text: &str) -> Option<Duration> {
    const MARK: &str = "retry-after:";
    let at = text.to_ascii_lowercase().find(MARK)?;
    let value = text[at + MARK.len()..].trim_start();
    let end = value.find([',', ' ', '"']).unwrap_or(value.len());
    go_duration(&value[..end])
}

/// Go's `time.Duration` as text: `1m2.5s`, `250ms`, `35.852µs`. A bare number counts as seconds.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" | "" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(Duration::try_from_secs_f64(amount * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn forms_of_retry_after() {
        let now = Timestamp(1_700_000_000_000);
        let table = [
            ("retry-after", "7", Some(7.0)),
            ("retry-after", " 0 ", Some(0.0)),
            ("retry-after", "1.5", Some(1.5)),
            ("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT", Some(30.0)),
            ("retry-after", "Mon, 14 Nov 2022 22:13:50 GMT", Some(0.0)),
            ("x-retry-after", "1700000060", Some(60.0)),
            ("retry-after", "soon", None),
            ("retry-after", "-3", None),
        ];
        for (name, value, expected) in table {
            let expected = expected.map(Duration::from_secs_f64);
            assert_eq!(retry_after(&headers(name, value), now), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn retry_after_in_a_message() {
        let ghcr = "TOOMANYREQUESTS: retry-after: 35.852µs, allowed: 44000/minute";
        assert_eq!(retry_after_in_text(ghcr), Some(Duration::from_nanos(35_852)));
        let table = [
            ("Retry-After: 1m2.5s, x", Some(62.5)),
            ("retry-after: 250ms", Some(0.25)),
            ("retry-after:3", Some(3.0)),
            ("retry-after: ", None),
            ("retry-after: 3 parsecs", Some(3.0)),
            ("retry-after: 3parsecs", None),
            ("slow down", None),
        ];
        for (text, expected) in table {
            assert_eq!(
                retry_after_in_text(text),
                expected.map(Duration::from_secs_f64),
                "{text}"
            );
        }
    }

    #[test]
    fn passing_failures() {
        let none = HeaderMap::new();
        for code in [408, 500, 502, 503, 504, 522] {
            assert!(is_passing(StatusCode::from_u16(code).unwrap(), &none), "{code}");
        }
        for code in [200, 307, 400, 401, 403, 404, 416, 429, 451, 501] {
            assert!(!is_passing(StatusCode::from_u16(code).unwrap(), &none), "{code}");
        }
        let busy = headers("retry-after", "30");
        assert!(!is_passing(StatusCode::SERVICE_UNAVAILABLE, &busy));
    }

    #[test]
    fn pauses_grow_and_spread() {
        let base = Duration::from_millis(100);
        for _ in 0..50 {
            let (first, second) = (pause(base, 1).as_millis(), pause(base, 2).as_millis());
            assert!((50..150).contains(&first) && (200..600).contains(&second));
        }
        assert_eq!(pause(Duration::ZERO, 40), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = retry_after_in_text(&text);
            let _ = retry_after_in_text(&format!("retry-after:{text}"));
            let _ = go_duration(&text);
        }
    }
}
