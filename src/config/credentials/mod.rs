//! What an upstream's table keeps in files of its own or in the environment: logins, and certificates. Read and checked
//! when the configuration loads, so that a missing secret is a fault and not a failed pull. What is in a file is read
//! again while the daemon runs, by `upstream::credentials`.

mod docker;
mod ecr;
mod kinds;
mod tls;

use std::fmt;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::reader::Reader;
use super::source::Origin;

pub use docker::DockerLogin;
pub use ecr::EcrConfig;
pub use kinds::{Credential, CredentialKind, CredentialOrder};
pub(super) use kinds::{TablesOf, read_all};
pub(super) use tls::{read_certificates, read_identity};

/// A password. Neither `Debug` nor `Display` shows it; [`Secret::expose`] is the one way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret that came from somewhere else than the configuration.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the moment in which it is sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret that a file holds, without the line's end.
    ///
    /// # Errors
    /// Why it has none, for a fault or a log line.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let bytes = read_file(path)?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            Err(format!("{} is empty", path.display()))
        } else {
            Ok(Self::new(secret))
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where something is written, for faults that only its use shows (`check-config --online`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    file: String,
    key: String,
}

impl Written {
    pub(super) fn new(origin: &Origin, key: impl Into<String>) -> Self {
        let file = match origin {
            // Nobody wrote it.
            Origin::Default => "built in".to_owned(),
            Origin::File(_) | Origin::Variable(_) => origin.label(),
        };
        let key = key.into();
        Self { file, key }
    }

    /// Another key of the same table.
    #[must_use]
    pub fn beside(&self, key: &str) -> Self {
        let table = self.key.rsplit_once('.').map_or("", |(table, _)| table);
        Self {
            file: self.file.clone(),
            key: format!("{table}.{key}"),
        }
    }

    /// A fault of what is written there.
    pub fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault::new(&self.file, self.key.clone(), reason)
    }
}

/// What we log in with: a user and a password.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The user; `$oauthtoken` and robot names with `+` are taken as they are.
    pub username: String,
    /// The password or access token.
    pub password: Secret,
    /// The file that it came from, if it did.
    pub password_file: Option<PathBuf>,
    /// Where the password is written.
    pub written: Written,
}

impl Default for Secret {
    fn default() -> Self {
        Self::new("")
    }
}

impl Credentials {
    /// A login that came from somewhere else than the configuration.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: Secret::new(password),
            ..Self::default()
        }
    }

    /// Takes the three keys of a login out of a table. The files of a disabled upstream are not read.
    pub(super) fn read(reader: &mut Reader<'_>, enabled: bool) -> Option<Self> {
        let origin = |reader: &Reader<'_>, key| reader.origin(key).cloned();
        let (inline, file) = (origin(reader, "password"), origin(reader, "password_file"));
        match (&inline, &file) {
            // The environment wins over the file, also when it gives the other of the two.
            (Some(inline), Some(file)) if inline.is_variable() && !file.is_variable() => {
                reader.discard("password_file");
            }
            (Some(inline), Some(file)) if file.is_variable() && !inline.is_variable() => {
                reader.discard("password");
            }
            (Some(_), Some(file)) => reader.fault(file, "password_file", "and password exclude each other"),
            _ => {}
        }
        if let Some(named) = origin(reader, "username") {
            if inline.is_none() && file.is_none() {
                let reason = "needs password_file, or password (best from the environment)";
                reader.fault(&named, "username", reason);
            }
        } else {
            for (key, origin) in [("password", &inline), ("password_file", &file)] {
                if let Some(origin) = origin {
                    reader.fault(origin, key, "does nothing without username");
                }
            }
        }
        let username = reader.take("username", |entry| match entry.filled()? {
            // RFC 7617, section 2: the first colon ends the user-id.
            name if name.contains(':') => Err("must not contain a colon".to_owned()),
            name => Ok(name.to_owned()),
        });
        let (inline_key, file_key) = (reader.key("password"), reader.key("password_file"));
        let inline = reader.take_entry("password", |entry| entry.filled().map(Secret::new));
        let from_file = reader.take_entry("password_file", |entry| {
            let path = entry.origin.resolve(entry.filled()?);
            if enabled {
                Secret::from_file(&path).map(|secret| Some((secret, path)))
            } else {
                Ok(None)
            }
        });
        let username = username?;
        if let Some((password, origin)) = inline {
            return Some(Self {
                username,
                password,
                password_file: None,
                written: Written::new(&origin, inline_key),
            });
        }
        let (found, origin) = from_file?;
        let (password, path) = found?;
        Some(Self {
            username,
            password,
            password_file: Some(path),
            written: Written::new(&origin, file_key),
        })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
        assert_eq!(secret.expose(), "hunter2");
        let login = Credentials::new("ci", "hunter2");
        assert!(!format!("{login:?}").contains("hunter2"));
    }
}
