//! The few parts of an X.509 certificate (RFC 5280) that are told or judged by, read from DER: subject, subject
//! alternative names, and the end of its time. Pure; whether a certificate is valid is rustls' business. What is odd is
//! not guessed at: it is no certificate then.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// As RFC 4514 writes it: the most special first, `CN=ci,O=Acme`.
    pub(super) subject: String,
    pub(super) common_names: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) uris: Vec<String>,
    pub(super) emails: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ends: Timestamp,
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const BOOLEAN: u8 = 0x01;

/// Kinds of subject alternative names (RFC 5280, section 4.2.1.6).
const EMAIL: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

/// 2.5.29.17
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Attributes with a short name (RFC 4514, section 3).
const ATTRIBUTES: [(&[u8], &str); 9] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01],
        "UID",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
        "DC",
    ),
];

/// Elements behind each other.
#[derive(Clone, Copy)]
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The next one: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of several bytes are none of ours.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next one, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, content)| content)
    }

    /// The next one if it has this tag.
    fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let content = ahead.expect(tag)?;
        *self = ahead;
        Some(content)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that are left, each of which `read` must understand.
    fn all(mut self, mut read: impl FnMut(u8, &'a [u8]) -> Option<()>) -> Option<()> {
        while !self.is_empty() {
            let (tag, content) = self.next()?;
            read(tag, content)?;
        }
        Some(())
    }
}

impl Certificate {
    /// Reads a certificate (RFC 5280, section 4.1).
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let mut outer = Elements(der);
        let mut whole = Elements(outer.expect(SEQUENCE)?);
        let mut signed = Elements(whole.expect(SEQUENCE)?);
        if !outer.is_empty() {
            return None;
        }
        let mut found = Self::default();
        signed.optional(VERSION);
        signed.expect(INTEGER)?;
        let (_algorithm, _issuer) = (signed.expect(SEQUENCE)?, signed.expect(SEQUENCE)?);
        let mut validity = Elements(signed.expect(SEQUENCE)?);
        let (_, (tag, ends)) = (validity.next()?, validity.next()?);
        found.ends = time(tag, ends)?;
        found.take_subject(signed.expect(SEQUENCE)?)?;
        signed.expect(SEQUENCE)?;
        while !signed.is_empty() {
            let (tag, content) = signed.next()?;
            if tag == EXTENSIONS {
                found.take_extensions(Elements(content).expect(SEQUENCE)?)?;
            }
        }
        Some(found)
    }

    fn take_subject(&mut self, name: &[u8]) -> Option<()> {
        let mut parts = Vec::new();
        Elements(name).all(|tag, set| {
            let mut pairs = Vec::new();
            Elements((tag == SET).then_some(set)?).all(|tag, pair| {
                let mut pair = Elements((tag == SEQUENCE).then_some(pair)?);
                let (kind, (tag, value)) = (pair.expect(OBJECT)?, pair.next()?);
                let text = text(tag, value)?;
                let known = ATTRIBUTES.iter().find(|(known, _)| *known == kind);
                let name = known.map_or_else(|| dotted(kind), |(_, name)| (*name).to_owned());
                pairs.push(format!("{name}={}", escaped(&text)));
                if kind == COMMON_NAME {
                    self.common_names.push(text);
                }
                Some(())
            })?;
            parts.push(pairs.join("+"));
            Some(())
        })?;
        parts.reverse();
        self.subject = parts.join(",");
        Some(())
    }

    fn take_extensions(&mut self, extensions: &[u8]) -> Option<()> {
        let mut seen = false;
        Elements(extensions).all(|tag, extension| {
            let mut extension = Elements((tag == SEQUENCE).then_some(extension)?);
            if extension.expect(OBJECT)? != ALTERNATIVE_NAMES {
                return Some(());
            }
            // Twice is forbidden: which one would count?
            if std::mem::replace(&mut seen, true) {
                return None;
            }
            extension.optional(BOOLEAN);
            let mut names = Elements(extension.expect(OCTETS)?);
            Elements(names.expect(SEQUENCE)?).all(|tag, name| {
                match tag {
                    EMAIL => self.emails.push(ascii(name)?),
                    DNS_NAME => self.dns_names.push(ascii(name)?),
                    URI => self.uris.push(ascii(name)?),
                    ADDRESS => self.addresses.push(address(name)?),
                    // Kinds that nobody is known by here.
                    _ => {}
                }
                Some(())
            })
        })
    }
}

fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let whole = match tag {
        // RFC 5280, section 4.1.2.5.1: 50 to 99 are of the last century.
        UTC_TIME if text.len() == 12 => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 {
                "20"
            } else {
                "19"
            };
            format!("{century}{text}")
        }
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    if !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| whole.get(from..to)?.parse::<i8>().ok();
    let civil = DateTime::new(
        whole.get(..4)?.parse().ok()?,
        number(4, 6)?,
        number(6, 8)?,
        number(8, 10)?,
        number(10, 12)?,
        number(12, 14)?,
        0,
    );
    // The last of all times means that there is no end (RFC 5280, section 4.1.2.5), and is beyond what is counted here.
    let zoned = civil.ok()?.to_zoned(TimeZone::UTC);
    Some(zoned.map_or(Timestamp::MAX, |zoned| zoned.timestamp()))
}

fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        UTF8 => String::from_utf8(value.to_vec()).ok(),
        PRINTABLE | IA5 if value.is_ascii() => String::from_utf8(value.to_vec()).ok(),
        BMP if value.len().is_multiple_of(2) => {
            let units = value
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// Names are visible ASCII: a NUL or a line's end in one is meant for somebody who reads less carefully.
fn ascii(name: &[u8]) -> Option<String> {
    let visible = name.iter().all(|byte| (b' '..=b'~').contains(byte));
    visible.then(|| String::from_utf8_lossy(name).into_owned())
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// An object identifier as people write it.
fn dotted(object: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut part = 0_u64;
    for byte in object {
        part = part << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if parts.is_empty() {
                let first = (part / 40).min(2);
                parts.push(first);
                part -= first * 40;
            }
            parts.push(part);
            part = 0;
        }
    }
    let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
    parts.join(".")
}

/// A value so that it cannot pass for several (RFC 4514, section 2.4).
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        let special = matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=')
            || (at == 0 && matches!(character, ' ' | '#'))
            || (at == last && character == ' ');
        if character == '\0' {
            escaped.push_str("\\00");
            continue;
        }
        if special {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn made(params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn full() -> CertificateParams {
        let mut params =
            CertificateParams::new(["ci.acme.example".to_owned(), "10.0.0.7".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "NL");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Acme, Inc.+ \u{e9}");
        params.distinguished_name.push(DnType::CommonName, "#ci,O=Admin");
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), "a@b");
        let names = [
            SanType::URI("spiffe://acme.example/ci".try_into().unwrap()),
            SanType::Rfc822Name("ci@acme.example".try_into().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
        ];
        params.subject_alt_names.extend(names);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params
    }

    #[test]
    fn everything_is_read() {
        let found = Certificate::read(&made(&full())).unwrap();
        assert_eq!(
            found.subject,
            "1.2.840.113549.1.9.1=a@b,CN=\\#ci\\,O\\=Admin,O=Acme\\, Inc.\\+ \u{e9},C=NL"
        );
        assert_eq!(found.common_names, ["#ci,O=Admin"]);
        assert_eq!(found.dns_names, ["ci.acme.example"]);
        assert_eq!(found.uris, ["spiffe://acme.example/ci"]);
        assert_eq!(found.emails, ["ci@acme.example"]);
        let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.7", "2001:db8::1"]);
        assert_eq!(found.ends.to_string(), "2030-01-01T00:00:00Z");

        let mut bare = full();
        bare.distinguished_name = DistinguishedName::new();
        bare.subject_alt_names.clear();
        bare.not_after = rcgen::date_time_ymd(2150, 12, 31);
        let found = Certificate::read(&made(&bare)).unwrap();
        assert_eq!((found.subject.as_str(), found.dns_names.len()), ("", 0));
        assert_eq!(found.ends.to_string(), "2150-12-31T00:00:00Z");
    }

    #[test]
    fn a_part_or_more_is_no_certificate() {
        let der = made(&full());
        for end in 0..der.len() {
            assert_eq!(Certificate::read(&der[..end]), None, "{end}");
        }
        assert_eq!(Certificate::read(&[&der[..], b"x"].concat()), None);
    }

    #[test]
    fn names_with_invisible_characters_are_refused() {
        for name in [&b"good.example\0.evil.example"[..], b"a\n", b"\xe9"] {
            assert_eq!(ascii(name), None, "{name:?}");
        }
        assert_eq!(text(PRINTABLE, b"\xe9"), None);
        assert_eq!(text(BMP, &[0, b'a', 0x20, 0xac]).as_deref(), Some("a\u{20ac}"));
        assert_eq!((text(BMP, &[0]), text(BMP, &[0xd8, 0])), (None, None));
        assert_eq!(escaped(" a\0b "), "\\ a\\00b\\ ");
    }

    #[test]
    fn times() {
        let of = |tag, text: &str| time(tag, text.as_bytes()).map(|time| time.to_string());
        assert_eq!(
            of(UTC_TIME, "491231235959Z").as_deref(),
            Some("2049-12-31T23:59:59Z")
        );
        assert_eq!(
            of(UTC_TIME, "500101000000Z").as_deref(),
            Some("1950-01-01T00:00:00Z")
        );
        assert_eq!(time(GENERALIZED_TIME, b"99991231235959Z"), Some(Timestamp::MAX));
        for text in [
            "491331235959Z",
            "4912312359Z",
            "491231235959",
            "49123123595\u{e9}Z",
            "+91231235959Z",
        ] {
            assert_eq!(of(UTC_TIME, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            Certificate::read(&bytes);
            dotted(&bytes);
        }

        #[test]
        fn no_change_panics(at in 0_usize..600, byte in any::<u8>()) {
            thread_local!(static DER: Vec<u8> = made(&full()));
            let mut der = DER.with(Clone::clone);
            let at = at % der.len();
            der[at] = byte;
            Certificate::read(&der);
        }
    }
}
