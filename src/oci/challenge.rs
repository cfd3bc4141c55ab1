//! `WWW-Authenticate`: challenges as upstreams send them (RFC 9110 section 11.6.1, Docker token spec).
//!
//! Several headers, several challenges in one header, commas inside quoted strings, any case: all occur in the wild.

/// One challenge: a scheme and its parameters, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value, unquoted; `name` in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Reads every challenge of every header line, in order. What cannot be read is passed over.
pub fn parse_challenges<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in lines {
        let mut scanner = Scanner { rest: line };
        // A list element is a new challenge (`Bearer realm=...`), or one more parameter of the one before it.
        loop {
            scanner.skip(&[' ', '\t', ',']);
            let Some(word) = scanner.token() else { break };
            let spaced = scanner.skip(&[' ', '\t']);
            if scanner.rest.starts_with('=') && !challenges.is_empty() && !(spaced && scanner.is_token68()) {
                scanner.rest = &scanner.rest[1..];
                scanner.skip(&[' ', '\t']);
                let value = scanner.value();
                if let Some(Challenge { parameters, .. }) = challenges.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
            } else {
                challenges.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: Vec::new(),
                });
                scanner.skip_token68();
            }
        }
    }
    challenges
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// Skips any of `set`; says whether something was skipped.
    fn skip(&mut self, set: &[char]) -> bool {
        let trimmed = self.rest.trim_start_matches(set);
        let skipped = trimmed.len() < self.rest.len();
        self.rest = trimmed;
        skipped
    }

    /// A token of RFC 9110 5.6.2. A stray character that belongs to none is skipped.
    fn token(&mut self) -> Option<&'a str> {
        loop {
            let length = self.rest.find(|c: char| !is_token(c)).unwrap_or(self.rest.len());
            if length > 0 {
                let (token, rest) = self.rest.split_at(length);
                self.rest = rest;
                return Some(token);
            }
            let stray = self.rest.chars().next()?;
            self.rest = &self.rest[stray.len_utf8()..];
        }
    }

    /// A token or quoted string.
    fn value(&mut self) -> String {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.unquoted().to_owned();
        };
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in quoted.char_indices() {
            if escaped {
                value.push(c);
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                self.rest = &quoted[at + 1..];
                return value;
            } else {
                value.push(c);
            }
        }
        self.rest = "";
        value
    }

    /// An unquoted value: more generous than a token, since realms occur without quotes.
    fn unquoted(&mut self) -> &'a str {
        let length = self.rest.find([',', ' ', '\t']).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(length);
        self.rest = rest;
        value
    }

    /// Whether what stands here is only padding of a token68, not `=value`.
    fn is_token68(&self) -> bool {
        self.rest.trim_start_matches('=').trim_start().is_empty()
    }

    /// Credentials in token68 form (`Negotiate abc==`) are no parameters.
    fn skip_token68(&mut self) {
        let length = self.rest.find([',', ' ', '\t']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        let base = word.trim_end_matches('=');
        let is_68 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/');
        let ends = rest.trim_start().is_empty() || rest.trim_start().starts_with(',');
        if !base.is_empty() && base.chars().all(is_68) && ends && !rest.trim_start().starts_with('=') {
            // `Basic, Bearer realm=..`: the word behind a comma never gets here, so this is a token68.
            self.rest = rest;
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn docker_hubs_own() {
        let line = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="insufficient_scope""#;
        let parsed = parse_challenges([line]);
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].scheme, "bearer");
        assert_eq!(parsed[0].parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(parsed[0].parameter("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(parsed[0].parameter("error"), Some("insufficient_scope"));
    }

    #[test]
    fn several_in_one_line_and_in_several_lines() {
        let one = r#"Negotiate abc==, BASIC realm="a, b" , bearer Realm = "r" ,service=s"#;
        let parsed = parse_challenges([one, r#"Basic realm="second""#]);
        let schemes: Vec<_> = parsed.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer", "basic"]);
        assert_eq!(parsed[1].parameter("realm"), Some("a, b"));
        assert_eq!(parsed[2].parameter("realm"), Some("r"));
        assert_eq!(parsed[2].parameter("service"), Some("s"));
        assert_eq!(parsed[3].parameter("realm"), Some("second"));
    }

    #[test]
    fn unquoted_realm_escapes_and_bare_schemes() {
        let parsed = parse_challenges([r#"Bearer realm=https://x/token?a=b,service="a\"b""#, "Basic"]);
        assert_eq!(parsed[0].parameter("realm"), Some("https://x/token?a=b"));
        assert_eq!(parsed[0].parameter("service"), Some("a\"b"));
        assert_eq!(parsed[1].scheme, "basic");
        let both = parse_challenges(["Basic, Bearer realm=\"r\""]);
        assert_eq!(both.len(), 2);
        assert_eq!(both[1].parameter("realm"), Some("r"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            let _ = parse_challenges([text.as_str()]);
        }

        #[test]
        fn quoted_values_come_back(value in "[a-zA-Z0-9:/,= ._-]{0,40}") {
            let line = format!("Bearer realm=\"{value}\", service=\"x\"");
            let parsed = parse_challenges([line.as_str()]);
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!(parsed[0].parameter("realm"), Some(value.as_str()));
            prop_assert_eq!(parsed[0].parameter("service"), Some("x"));
        }
    }
}
