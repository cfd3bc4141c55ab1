//! Byte ranges of RFC 9110 section 14: what a client asks for, what of it exists, and what an upstream answered.

use std::fmt;

/// One range as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `a-`
    From(u64),
    /// `a-b`, both inclusive, `a <= b`.
    FromTo(u64, u64),
    /// `-n`: the last n bytes.
    Last(u64),
}

/// The `Range` header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeHeader {
    /// None, or one in a unit other than bytes or malformed as a whole, which RFC 9110 14.2 says to ignore.
    Ignored,
    /// Exactly one.
    Single(ByteRange),
    /// Several.
    Several(Vec<ByteRange>),
    /// A range whose last position is before its first (`500-0`): nothing can satisfy it.
    Unsatisfiable,
}

/// More ranges than this in one header are an attack or a mistake (RFC 9110 14.2 allows ignoring them).
const MAX_RANGES: usize = 1024;

impl RangeHeader {
    /// Reads a `Range` header's value.
    pub fn parse(value: &str) -> Self {
        let Some((unit, set)) = value.split_once('=') else {
            return Self::Ignored;
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Ignored;
        }
        let mut ranges = Vec::with_capacity(1);
        let mut backwards = false;
        for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
            let Some((first, last)) = spec.split_once('-') else {
                return Self::Ignored;
            };
            let range = match (number(first), number(last)) {
                (Some(first), Some(last)) if last < first => {
                    backwards = true;
                    continue;
                }
                (Some(first), Some(last)) => ByteRange::FromTo(first, last),
                (Some(first), None) if last.is_empty() => ByteRange::From(first),
                (None, Some(length)) if first.is_empty() => ByteRange::Last(length),
                _ => return Self::Ignored,
            };
            if ranges.len() == MAX_RANGES {
                return Self::Ignored;
            }
            ranges.push(range);
        }
        match ranges.as_slice() {
            [] if backwards => Self::Unsatisfiable,
            [] => Self::Ignored,
            [one] => Self::Single(*one),
            _ => Self::Several(ranges),
        }
    }
}

/// Digits only; a number beyond u64 counts as "very far" rather than as malformed.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Bytes that exist: `start..end`, end exclusive, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Span {
    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never true; here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// The value of `Content-Range` for this part of `size` bytes.
    pub fn content_range(&self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.end - 1)
    }
}

impl ByteRange {
    /// What of this range exists in `size` bytes; `None` when nothing does (416). A last position past the end is
    /// clamped, since several clients send the size there.
    pub fn resolve(self, size: u64) -> Option<Span> {
        let (start, end) = match self {
            Self::From(first) => (first, size),
            Self::FromTo(first, last) => (first, last.saturating_add(1).min(size)),
            Self::Last(length) => (size.saturating_sub(length), size),
        };
        (start < end).then_some(Span { start, end })
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(first) => write!(f, "bytes={first}-"),
            Self::FromTo(first, last) => write!(f, "bytes={first}-{last}"),
            Self::Last(length) => write!(f, "bytes=-{length}"),
        }
    }
}

/// An upstream's `Content-Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes sent; `None` in a 416 (`bytes */size`).
    pub span: Option<Span>,
    /// The size of the whole, when it is told.
    pub size: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes a-b/size`, `bytes a-b/*` or `bytes */size`.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, rest) = value.trim().split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (positions, size) = rest.trim().split_once('/')?;
        let size = match size.trim() {
            "*" => None,
            digits => Some(number(digits)?),
        };
        let span = match positions.trim() {
            "*" => None,
            positions => {
                let (first, last) = positions.split_once('-')?;
                let (start, last) = (number(first)?, number(last)?);
                let end = last.checked_add(1)?;
                if end <= start || size.is_some_and(|size| end > size) {
                    return None;
                }
                Some(Span { start, end })
            }
        };
        Some(Self { span, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers() {
        use ByteRange::{From, FromTo, Last};
        let cases = [
            ("bytes=0-", RangeHeader::Single(From(0))),
            ("bytes=5-9", RangeHeader::Single(FromTo(5, 9))),
            ("Bytes= 5-9 ", RangeHeader::Single(FromTo(5, 9))),
            ("bytes=-500", RangeHeader::Single(Last(500))),
            (
                "bytes=0-1,4-5",
                RangeHeader::Several(vec![FromTo(0, 1), FromTo(4, 5)]),
            ),
            ("bytes=500-0", RangeHeader::Unsatisfiable),
            ("bytes=", RangeHeader::Ignored),
            ("bytes=-", RangeHeader::Ignored),
            ("bytes=a-b", RangeHeader::Ignored),
            ("bytes=1", RangeHeader::Ignored),
            ("items=0-1", RangeHeader::Ignored),
            ("bytes=99999999999999999999-", RangeHeader::Single(From(u64::MAX))),
        ];
        for (value, expected) in cases {
            assert_eq!(RangeHeader::parse(value), expected, "{value}");
        }
    }

    #[test]
    fn spans() {
        let span = |start, end| Some(Span { start, end });
        assert_eq!(ByteRange::FromTo(0, 100).resolve(10), span(0, 10));
        assert_eq!(ByteRange::From(9).resolve(10), span(9, 10));
        assert_eq!(ByteRange::From(10).resolve(10), None);
        assert_eq!(ByteRange::Last(500).resolve(10), span(0, 10));
        assert_eq!(ByteRange::Last(0).resolve(10), None);
        assert_eq!(ByteRange::Last(1).resolve(0), None);
        assert_eq!(ByteRange::FromTo(3, u64::MAX).resolve(10), span(3, 10));
    }

    #[test]
    fn content_ranges() {
        let whole = ContentRange {
            span: Some(Span { start: 2, end: 5 }),
            size: Some(9),
        };
        assert_eq!(ContentRange::parse("bytes 2-4/9"), Some(whole));
        assert_eq!(ContentRange::parse("bytes 2-4/*").unwrap().size, None);
        assert_eq!(
            ContentRange::parse("bytes */9"),
            Some(ContentRange {
                span: None,
                size: Some(9)
            })
        );
        for bad in [
            "",
            "bytes",
            "bytes 4-2/9",
            "bytes 2-9/9",
            "bytes 0-18446744073709551615/*",
            "lines 1-2/3",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn resolved_spans_lie_within(first in any::<u64>(), last in any::<u64>(), size in any::<u64>()) {
            for range in [ByteRange::From(first), ByteRange::Last(last), ByteRange::FromTo(first.min(last), first.max(last))] {
                if let Some(span) = range.resolve(size) {
                    prop_assert!(span.start < span.end && span.end <= size);
                    let told = ContentRange::parse(&span.content_range(size)).unwrap();
                    prop_assert_eq!(told, ContentRange { span: Some(span), size: Some(size) });
                }
            }
        }

        #[test]
        fn parsing_never_panics(text in "(bytes)?[=0-9, */-]{0,60}") {
            let _ = RangeHeader::parse(&text);
            let _ = ContentRange::parse(&text);
        }
    }
}
