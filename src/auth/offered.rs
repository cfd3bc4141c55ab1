//! What a request shows to prove who asks: its `Authorization` (RFC 7617, RFC 6750). Pure; called by `api`, given to
//! [`Authenticator`](super::Authenticator).

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Nobody's name or password is longer, in bytes; a token of another issuer may stand for a password.
const LONGEST: usize = 32 * 1024;

/// A proof of identity, not looked at yet.
#[derive(Clone, PartialEq, Eq)]
pub enum Offered {
    /// None.
    Nothing,
    /// Name and password.
    Basic(String, String),
    /// A token.
    Bearer(String),
    /// Something else, or broken.
    Unreadable,
}

impl Offered {
    /// Reads the value of `Authorization`, if there is one.
    pub fn read(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::Nothing };
        let read = |value: &[u8]| {
            let text = std::str::from_utf8(value)
                .ok()
                .filter(|text| text.len() <= LONGEST)?;
            let (scheme, rest) = text.trim().split_once(' ')?;
            let rest = rest.trim_start();
            if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
                return Some(Self::Bearer(rest.to_owned()));
            }
            if !scheme.eq_ignore_ascii_case("basic") {
                return None;
            }
            let decoded = String::from_utf8(BASE64.decode(rest).ok()?).ok()?;
            let (name, password) = decoded.split_once(':')?;
            // podman and docker send this when nobody is logged in.
            if name.is_empty() && password.is_empty() {
                return Some(Self::Nothing);
            }
            Some(Self::Basic(name.to_owned(), password.to_owned()))
        };
        read(value).unwrap_or(Self::Unreadable)
    }
}

impl std::fmt::Debug for Offered {
    /// Without what must not be told.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Basic(name, _) => f.debug_tuple("Basic").field(name).finish_non_exhaustive(),
            Self::Bearer(_) => f.debug_tuple("Bearer").finish_non_exhaustive(),
            Self::Unreadable => f.write_str("Unreadable"),
        }
    }
}

/// Name and password as `Basic` writes them, for tests and for `docker login` files.
#[cfg(test)]
pub(crate) fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{name}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        let of = |name: &str, password: &str| Offered::Basic(name.to_owned(), password.to_owned());
        let cases = [
            (basic("alice", "pass:word"), of("alice", "pass:word")),
            (basic("alice", ""), of("alice", "")),
            ("basic  YTpi".to_owned(), of("a", "b")),
            ("Basic YTpiYw".to_owned(), of("a", "bc")),
            ("Basic YTpiYw==".to_owned(), of("a", "bc")),
            (basic("", ""), Offered::Nothing),
            (basic("", "token"), of("", "token")),
            ("Bearer abc.def".to_owned(), Offered::Bearer("abc.def".to_owned())),
            ("bearer abc".to_owned(), Offered::Bearer("abc".to_owned())),
            ("Bearer ".to_owned(), Offered::Unreadable),
            ("Basic".to_owned(), Offered::Unreadable),
            ("Basic !!".to_owned(), Offered::Unreadable),
            ("Basic YWJj".to_owned(), Offered::Unreadable),
            ("Digest x".to_owned(), Offered::Unreadable),
            (format!("Bearer {}", "x".repeat(LONGEST)), Offered::Unreadable),
        ];
        for (value, expected) in cases {
            assert_eq!(Offered::read(Some(value.as_bytes())), expected, "{value:.40}");
        }
        assert_eq!(Offered::read(None), Offered::Nothing);
        assert_eq!(Offered::read(Some(b"Basic \xff")), Offered::Unreadable);
        assert!(!format!("{:?}", of("alice", "secret")).contains("secret"));
    }
}
