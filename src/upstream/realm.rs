//! Token realms: which of them may see our credentials, and the time format of their answers. Pure.
//!
//! A realm is what the registry says it is, so a registry that turned bad could name any. Used by `token`.

use url::{Host, Url};

use super::guard::is_localhost;
use super::transport::host_of;
use crate::clock::Timestamp;

/// Whether credentials for the registry at `own` may go to `realm`: on the same host, on the same registrable domain
/// (public suffix list), or listed. Addresses and `localhost` only when the registry is there too.
pub(super) fn is_trusted(own: &Url, realm: &Url, listed: &[String]) -> bool {
    let (Some(own_host), Some(host)) = (own.host(), realm.host()) else {
        return false;
    };
    let named = |entry: &String| *entry == host_of(realm) || *entry == host.to_string();
    if own_host == host || listed.iter().any(named) {
        return true;
    }
    let (Host::Domain(own_name), Host::Domain(name)) = (own_host, host) else {
        return false;
    };
    if is_localhost(own_name) || is_localhost(name) {
        return false;
    }
    let domain = |name| psl::domain_str(name).map(|domain: &str| domain.trim_end_matches('.'));
    domain(own_name).is_some_and(|own_domain| domain(name) == Some(own_domain))
}

/// Reads a time of RFC 3339: `2024-01-02T03:04:05.678Z`, or with an offset.
pub(super) fn rfc3339(text: &str) -> Option<Timestamp> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let is = |at: usize, set: &[u8]| text.as_bytes().get(at).is_some_and(|b| set.contains(b));
    let shape = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    if !shape.iter().all(|(at, set)| is(*at, set.as_bytes())) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix('.') {
        zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let minutes = number(at, at + 2)? * 60 + number(at + 3, at + 5)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days from the civil calendar: March is the first month, so that the leap day ends the year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute - offset) * 60 + second;
    Some(Timestamp(u64::try_from(seconds).ok()?.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_may_see_our_credentials() {
        let listed = [
            "authn.nvidia.com".to_owned(),
            "auth.test:8443".to_owned(),
            "10.0.0.9".to_owned(),
        ];
        let table = [
            (
                "https://registry-1.docker.io",
                "https://auth.docker.io/token",
                true,
            ),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://ghcr.io", "https://ghcr.io:8443/token", true),
            ("https://quay.io", "https://quay.io.evil.com/token", false),
            ("https://quay.io", "https://evilquay.io/token", false),
            ("https://a.github.io", "https://b.github.io/token", false), // a public suffix
            ("https://r.example.co.uk", "https://auth.other.co.uk/t", false),
            ("https://r.example.co.uk", "https://auth.example.co.uk/t", true),
            ("https://nvcr.io", "https://authn.nvidia.com/token", true), // listed
            ("https://nvcr.io", "https://login.nvidia.com/token", false),
            ("https://r.example", "https://auth.test:8443/", true),
            ("https://r.example", "https://auth.test/", false),
            (
                "https://registry.corp.internal",
                "https://auth.corp.internal/",
                true,
            ),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("http://127.0.0.1:5000", "http://127.0.0.2/token", false),
            ("http://127.0.0.1:5000", "http://localhost/token", false),
            ("http://localhost:5000", "http://localhost:5001/token", true),
            ("http://a.localhost", "http://b.localhost/", false),
            ("https://quay.io", "https://10.0.0.1/token", false),
            ("https://quay.io", "https://10.0.0.9/token", true), // listed
            ("https://[::1]:5000", "https://[::1]/token", true),
        ];
        for (own, realm, expected) in table {
            let (own, realm) = (Url::parse(own).unwrap(), Url::parse(realm).unwrap());
            assert_eq!(is_trusted(&own, &realm, &listed), expected, "{own} {realm}");
        }
    }

    #[test]
    fn times() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-01-02T03:04:05Z", Some(1_704_164_645)),
            ("2024-01-02T03:04:05.123456789Z", Some(1_704_164_645)),
            ("2024-02-29T23:59:60z", Some(1_709_251_200)),
            ("2024-03-01T02:00:00+02:00", Some(1_709_251_200)),
            ("2024-02-29T18:30:00-05:30", Some(1_709_251_200)),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01", None),
            ("2024-01-01T00:00:00", None),
            ("2024-01-01T00:00:00+0200", None),
            ("1969-12-31T23:59:59Z", None),
            ("éééé-01-01T00:00:00Z", None),
        ];
        for (text, seconds) in table {
            assert_eq!(rfc3339(text), seconds.map(|s: u64| Timestamp(s * 1000)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", time in "[0-9T:.Zé+-]{15,32}") {
            let _ = rfc3339(&text);
            let _ = rfc3339(&time);
        }
    }
}
