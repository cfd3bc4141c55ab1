//! The certificates of an upstream: those that are trusted beside the system's, and the one that we show.

use std::path::Path;

use super::{Secret, read_file};

/// The contents of a CA file, once a TLS client has accepted every certificate in it.
#[expect(
    clippy::disallowed_methods,
    reason = "this client only judges certificates, it never connects"
)]
pub(in crate::config) fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
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

/// A client's certificate with its key, once a TLS client has taken them. Without a file for the key, it is expected
/// in that of the certificate. Errors say whether the key's file is to blame.
#[expect(
    clippy::disallowed_methods,
    reason = "this client only judges certificates, it never connects"
)]
pub(in crate::config) fn read_identity(
    certificate: &Path,
    key: Option<&Path>,
) -> Result<Secret, (bool, String)> {
    let mut pem = read_file(certificate).map_err(|reason| (false, reason))?;
    if !has(&pem, "CERTIFICATE") {
        return Err((
            false,
            format!("{} holds no certificate in PEM", certificate.display()),
        ));
    }
    if let Some(path) = key {
        let key = read_file(path).map_err(|reason| (true, reason))?;
        if !has(&key, "PRIVATE KEY") {
            return Err((true, format!("{} holds no private key in PEM", path.display())));
        }
        pem.push(b'\n');
        pem.extend(key);
    } else if !has(&pem, "PRIVATE KEY") {
        return Err((
            false,
            format!("needs client_key: {} holds no private key", certificate.display()),
        ));
    }
    let unfit = || {
        let both = key.unwrap_or(certificate).display();
        (
            key.is_some(),
            format!("{both} and the certificate are no pair that can be used"),
        )
    };
    let identity = reqwest::Identity::from_pem(&pem).map_err(|_| unfit())?;
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .identity(identity)
        .build()
        .map_err(|_| unfit())?;
    String::from_utf8(pem).map(Secret::new).map_err(|_| unfit())
}

/// Whether there is a PEM block whose label ends so.
fn has(pem: &[u8], label: &str) -> bool {
    let text = String::from_utf8_lossy(pem);
    let mut lines = text.lines().map(str::trim);
    lines.any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{label}-----")))
}
