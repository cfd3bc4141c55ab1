//! What an upstream's table keeps in files of its own or in the environment: logins, and certificates to trust.
//! Read and checked when the configuration loads, so that a missing secret is a fault and not a failed pull.

use std::fmt;
use std::path::Path;

use super::reader::Reader;

/// A password. Neither `Debug` nor `Display` shows it; [`Secret::expose`] is the one way to it.
#[derive(Clone)]
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

/// What we log in with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user; `$oauthtoken` and robot names with `+` are taken as they are.
    pub username: String,
    /// The password or access token.
    pub password: Secret,
}

impl Credentials {
    /// Takes the three keys of a login out of an upstream's table. The files of a disabled one are not read.
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
        let inline = reader.take("password", |entry| entry.filled().map(Secret::new));
        let from_file = reader.take("password_file", |entry| {
            let path = entry.filled()?;
            if enabled {
                read_secret(&entry.origin.resolve(path)).map(Some)
            } else {
                Ok(None)
            }
        });
        Some(Self {
            username: username?,
            password: inline.or(from_file.flatten())?,
        })
    }
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let bytes = read_file(path)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        Err(format!("{} is empty", path.display()))
    } else {
        Ok(Secret::new(secret))
    }
}

/// The contents of a CA file, once a TLS client has accepted every certificate in it.
#[expect(
    clippy::disallowed_methods,
    reason = "this client only judges certificates, it never connects"
)]
pub(super) fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
    let pem = read_file(path)?;
    let broken = |_| format!("{} holds a certificate that is not valid", path.display());
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(broken)?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate in PEM", path.display()));
    }
    // PEM may wrap anything: the client that will trust them is the judge of the contents.
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(certificates)
        .build()
        .map_err(broken)?;
    Ok(pem)
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
    }
}
