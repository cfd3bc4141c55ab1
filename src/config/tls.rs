//! `[server.tls]`: the files with our certificate, its key, and the authorities of our clients. They are read when the
//! configuration loads, so that what is wrong with them is a fault and not a failed handshake; `server` reads them again
//! when they change.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::fault::Fault;
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Section};

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They may; one that is not valid is refused all the same.
    #[default]
    Optional,
    /// They must.
    Required,
}

/// Where our certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, with those in between behind it (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
    /// Who signs the certificates of clients (PEM); none are asked for without it.
    pub client_ca_file: Option<PathBuf>,
    /// Whether they have to.
    pub client_auth: ClientAuth,
}

/// What the files hold.
#[derive(Clone, Debug)]
pub struct TlsMaterial {
    /// The certificate and its key, which fit each other.
    pub certified: CertifiedKey,
    /// Who signs the certificates of clients.
    pub clients: Option<RootCertStore>,
}

/// What is wrong with one of the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server.tls.{key}: {reason}")]
pub struct TlsFault {
    /// The key of `[server.tls]` that names it.
    pub key: &'static str,
    /// Why.
    pub reason: String,
}

impl TlsFault {
    fn new(key: &'static str, reason: impl Into<String>) -> Self {
        Self {
            key,
            reason: reason.into(),
        }
    }
}

impl TlsConfig {
    /// A certificate without anything asked of clients.
    pub fn of_pair(cert_file: PathBuf, key_file: PathBuf) -> Self {
        Self {
            cert_file,
            key_file,
            client_ca_file: None,
            client_auth: ClientAuth::default(),
        }
    }

    /// All files, in no order that matters.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file]
            .into_iter()
            .chain(&self.client_ca_file)
            .map(PathBuf::as_path)
    }

    /// Reads the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(&self) -> Result<TlsMaterial, TlsFault> {
        let chain = certificates("cert_file", &self.cert_file)?;
        let pem = read("key_file", &self.key_file)?;
        let shown = self.key_file.display();
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| TlsFault::new("key_file", format!("{shown} holds no private key in PEM")))?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsFault::new("key_file", format!("{shown} is not the key of the certificate"))
                }
                rustls::Error::InvalidCertificate(_) => TlsFault::new(
                    "cert_file",
                    format!(
                        "{} holds a certificate that is not valid",
                        self.cert_file.display()
                    ),
                ),
                _ => TlsFault::new("key_file", format!("{shown} holds a key that cannot be used")),
            },
        )?;
        let clients = self.client_ca_file.as_deref().map(authorities).transpose()?;
        Ok(TlsMaterial { certified, clients })
    }

    /// The section, if it says anything.
    pub(super) fn read(section: Section, faults: &mut Vec<Fault>) -> Option<Self> {
        if section.entries.is_empty() && matches!(section.origin, Origin::Default) {
            return None;
        }
        let section_origin = section.origin.clone();
        let mut reader = Reader::new(section, keys::TLS, faults);
        let path = |entry: &Entry| Ok(entry.origin.resolve(entry.filled()?));
        let cert_file = reader.take_entry("cert_file", path);
        let key_file = reader.take_entry("key_file", path);
        let client_ca_file = reader.take_entry("client_ca_file", path);
        let client_auth = reader.take_entry("client_auth", |entry| match entry.text()?.trim() {
            "optional" => Ok(ClientAuth::Optional),
            "required" => Ok(ClientAuth::Required),
            other => Err(format!("`{other}` is neither \"optional\" nor \"required\"")),
        });
        if let (None, Some((_, origin))) = (&client_ca_file, &client_auth)
            && !reader.failed("client_ca_file")
        {
            reader.fault(origin, "client_auth", "does nothing without client_ca_file");
        }
        let mut origins = Vec::new();
        for (key, given) in [("cert_file", &cert_file), ("key_file", &key_file)] {
            match given {
                Some((_, origin)) => origins.push((key, origin.clone())),
                None if reader.failed(key) => {}
                None => reader.fault(
                    &section_origin,
                    key,
                    "is required for TLS: the path of a PEM file",
                ),
            }
        }
        origins.extend(
            client_ca_file
                .iter()
                .map(|(_, origin)| ("client_ca_file", origin.clone())),
        );
        let config = cert_file
            .zip(key_file)
            .map(|((cert_file, _), (key_file, _))| Self {
                cert_file,
                key_file,
                client_ca_file: client_ca_file.map(|(path, _)| path),
                client_auth: client_auth
                    .map(|(client_auth, _)| client_auth)
                    .unwrap_or_default(),
            });
        if let Some(fault) = config.as_ref().and_then(|config| config.load().err()) {
            let named = origins.iter().find(|(key, _)| *key == fault.key);
            let origin = named.map_or(&section_origin, |(_, origin)| origin);
            reader.fault(origin, fault.key, fault.reason);
        }
        reader.finish();
        config
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(path)
        .map_err(|error| TlsFault::new(key, format!("{} cannot be read: {error}", path.display())))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let pem = read(key, path)?;
    let none = || TlsFault::new(key, format!("{} holds no certificate in PEM", path.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(none)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsFault> {
    const KEY: &str = "client_ca_file";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(KEY, path)? {
        roots.add(certificate).map_err(|_| {
            let shown = path.display();
            TlsFault::new(KEY, format!("{shown} holds a certificate that is not valid"))
        })?;
    }
    Ok(roots)
}
