//! What is in a file of Apache's `htpasswd`: a name and a hash a line. Pure. Used by `htpasswd`, `check-config` and fuzzing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::auth::identity::{Account, Identity, Kind};

use super::stored::{Stored, Unusable};

/// Hashes that unknown names are compared with, at most.
const MOST_SAMPLES: usize = 1000;
/// Faults of one file that are told; the rest is the same mistake once more.
const MOST_FAULTS: usize = 100;

/// Why a line says nothing, or not all that it seems to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It has no colon.
    #[error("expected a name, a colon and a hash")]
    NoColon,
    /// Nobody can be called that.
    #[error(
        "a user's name is 1 to 256 characters, none of them a slash or a control character, without spaces around it"
    )]
    Name,
    /// Not in UTF-8.
    #[error("expected UTF-8")]
    Encoding,
    /// Whoever it is cannot log in.
    #[error("{name}: {unusable}")]
    Hash {
        /// The user.
        name: Box<str>,
        /// What is wrong with what stands after the colon.
        unusable: Unusable,
    },
    /// The line above does not count.
    #[error("{name} is on line {first} already: this line counts")]
    Twice {
        /// The user.
        name: Box<str>,
        /// The line that does not count, from 1.
        first: usize,
    },
    /// There are more faults than these.
    #[error("there are more faults from here on")]
    More,
}

/// A line that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which one, from 1.
    pub line: usize,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// The users of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    known: HashMap<Box<str>, Arc<Stored>>,
    samples: Vec<Arc<Stored>>,
    faults: Vec<Fault>,
}

impl Users {
    /// Reads a file. Blank lines and those that begin with `#` say nothing, and what follows a second colon is a comment, as
    /// Apache has it. Of two lines about one user the last counts, even if nobody can log in by it.
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut users = Self::default();
        let mut lines: HashMap<Box<str>, usize> = HashMap::new();
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            users.take(at + 1, line, &mut lines);
        }
        users.samples = samples(users.known.values());
        users
    }

    fn take(&mut self, at: usize, line: &[u8], lines: &mut HashMap<Box<str>, usize>) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return;
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return self.fault(at, Reason::Encoding);
        };
        let Some((name, rest)) = line.split_once(':') else {
            return self.fault(at, Reason::NoColon);
        };
        let fits = name.trim() == name && Identity::named(Kind::User, name, Account::default()).is_ok();
        if !fits {
            return self.fault(at, Reason::Name);
        }
        if let Some(first) = lines.insert(name.into(), at) {
            let name = name.into();
            self.fault(at, Reason::Twice { name, first });
        }
        match Stored::parse(hash(rest)) {
            Ok(stored) => {
                self.known.insert(name.into(), Arc::new(stored));
            }
            Err(unusable) => {
                self.known.remove(name);
                let name = name.into();
                self.fault(at, Reason::Hash { name, unusable });
            }
        }
    }

    fn fault(&mut self, line: usize, reason: Reason) {
        match self.faults.len() {
            ..MOST_FAULTS => self.faults.push(Fault { line, reason }),
            MOST_FAULTS => self.faults.push(Fault {
                line,
                reason: Reason::More,
            }),
            _ => {}
        }
    }

    /// The hash of a user's password.
    pub fn find(&self, name: &str) -> Option<Arc<Stored>> {
        self.known.get(name).cloned()
    }

    /// How many can log in.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nobody can.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Everyone who can log in, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Stored>)> {
        self.known.iter().map(|(name, stored)| (&**name, stored))
    }

    /// Slow hashes of some of them, as many of each kind as there are: what a wrong password costs.
    pub(super) fn samples(&self) -> &[Arc<Stored>] {
        &self.samples
    }

    /// Lines that are not as they should be, from the first on.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

fn samples<'a>(known: impl Iterator<Item = &'a Arc<Stored>>) -> Vec<Arc<Stored>> {
    let mut slow: Vec<_> = known.filter(|stored| stored.is_slow()).collect();
    // In an order of their own, so that a name meets the same one again as long as the file stays the same.
    slow.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    let step = slow.len().div_ceil(MOST_SAMPLES).max(1);
    slow.into_iter().step_by(step).cloned().collect()
}

/// What stands before a comment. Ours alone has a colon in it.
fn hash(rest: &str) -> &str {
    let rest = rest.trim();
    let own = usize::from(rest.starts_with("sha256:"));
    let end = rest.match_indices(':').nth(own).map(|(at, _)| at);
    end.and_then(|end| rest.get(..end)).unwrap_or(rest).trim_end()
}
