//! Patterns with `*`, for tags and repositories: simple enough that nobody has to look their meaning up. Used by the
//! rules in `freshness`, by `images`, and for the tags of hosted repositories.

/// A pattern in which each `*` stands for any characters, `/` included, or none; all else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// The pattern of this text, which is taken as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for every text.
    pub(super) fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether it stands for `text`, the whole of it.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut read) = (0, 0);
        // After the last star, and where in the text it stopped: from there on it may take one more character.
        let mut star: Option<(usize, usize)> = None;
        while read < text.len() {
            if pattern.get(at) == Some(&b'*') {
                at += 1;
                star = Some((at, read));
            } else if pattern.get(at) == Some(&text[read]) {
                at += 1;
                read += 1;
            } else if let Some((after, stopped)) = star {
                at = after;
                read = stopped + 1;
                star = Some((after, read));
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        let cases = [
            ("latest", "latest", true),
            ("latest", "latest2", false),
            ("latest", "lates", false),
            ("*", "", true),
            ("*", "anything/at:all", true),
            ("v*", "v1.2.3", true),
            ("v*", "1.v", false),
            ("*-slim", "3.12-slim", true),
            ("*-slim", "3.12-slim-bookworm", false),
            ("*.*.*", "1.2.3-rc.1", true),
            ("*.*.*", "1.2", false),
            ("sha256-*.sig", "sha256-abc.sig", true),
            ("docker-hub/library/*", "docker-hub/library/nginx", true),
            ("docker-hub/library/*", "docker-hub/librarys/nginx", false),
            ("a**b", "ab", true),
            ("a*ab", "aaab", true),
            ("a*ab", "aab", true),
            ("a*ab", "aac", false),
            ("?", "a", false),
            ("", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    /// The definition, as slow as it is plain.
    fn slowly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|taken| slowly(rest, &text[taken..])),
            Some((byte, rest)) => text.first() == Some(byte) && slowly(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn as_defined(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let expected = slowly(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(Glob::new(pattern).matches(&text), expected);
        }
    }
}
