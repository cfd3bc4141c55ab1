//! What a client may want of a blob, and what it must get then.

use bytes::Bytes;

use crate::support::prelude::*;

/// All of a blob, or some.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Whole,
    /// HEAD.
    Head,
    /// `a-b`, where b may lie past the end.
    Bounded(u64, u64),
    /// `a-`
    Open(u64),
    /// `-n`, where n may be more than there is.
    Last(u64),
    /// Two of them at once.
    Two([(u64, u64); 2]),
    /// From the end on: there is nothing.
    Beyond(u64),
}

impl Part {
    pub fn any(random: &mut fastrand::Rng, size: u64) -> Self {
        let kind = random.u32(..12);
        if size < 100 && kind > 4 {
            return Self::Whole;
        }
        let mut short = || {
            let start = random.u64(..size - 50);
            (start, start + random.u64(1..50))
        };
        match kind {
            5 | 6 => {
                let (start, _) = short();
                Self::Bounded(start, start + random.u64(..size))
            }
            7 => Self::Open(random.u64(..size)),
            8 => Self::Last(random.u64(1..size + 100)),
            9 => Self::Two([short(), short()]),
            10 => Self::Beyond(size + random.u64(..100)),
            11 => Self::Head,
            _ => Self::Whole,
        }
    }

    /// Whether the blob itself is read for it.
    pub fn needs_bytes(&self) -> bool {
        !matches!(self, Self::Head | Self::Beyond(_))
    }

    pub async fn get(&self, url: &str) -> Answer {
        let range = match self {
            Self::Whole => return get(url).await,
            Self::Head => return head(url).await,
            Self::Bounded(first, last) => format!("bytes={first}-{last}"),
            Self::Open(first) | Self::Beyond(first) => format!("bytes={first}-"),
            Self::Last(length) => format!("bytes=-{length}"),
            Self::Two([(a, b), (c, d)]) => format!("bytes={a}-{b},{c}-{d}"),
        };
        get_with(url, &[("range", &range)]).await
    }

    /// Holds an answer against the blob.
    pub fn check(&self, answer: &Answer, bytes: &Bytes) {
        let size = bytes.len();
        let told = format!("{self:?} of {size}: {} {:?}", answer.status, answer.headers);
        let one = |start: usize, end: usize| {
            assert_eq!(answer.status, 206, "{told}");
            let span = format!("bytes {start}-{}/{size}", end - 1);
            assert_eq!(answer.header("content-range"), span, "{told}");
            assert!(
                answer.is_complete() && answer.body == bytes[start..end],
                "wrong bytes: {told}"
            );
        };
        match *self {
            Self::Whole => {
                assert_eq!(answer.status, 200, "{told} {}", answer.text());
                assert!(
                    answer.is_complete() && answer.body == bytes,
                    "wrong bytes: {told}"
                );
            }
            Self::Head => {
                assert_eq!(answer.status, 200, "{told}");
                assert_eq!(answer.header("content-length"), size.to_string(), "{told}");
            }
            Self::Bounded(first, last) => one(first as usize, size.min(last as usize + 1)),
            Self::Open(first) => one(first as usize, size),
            Self::Last(length) => one(size.saturating_sub(length as usize), size),
            Self::Two(spans) => {
                assert_eq!(answer.status, 206, "{told}");
                for (first, last) in spans {
                    let slice = &bytes[first as usize..=last as usize];
                    let there = answer.body.windows(slice.len()).any(|window| window == slice);
                    assert!(
                        answer.is_complete() && there,
                        "{first}-{last} is not in it: {told}"
                    );
                }
            }
            Self::Beyond(_) => {
                assert_eq!(answer.status, 416, "{told}");
                assert_eq!(
                    answer.header("content-range"),
                    format!("bytes */{size}"),
                    "{told}"
                );
            }
        }
    }
}
