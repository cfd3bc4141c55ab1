//! What certificates say: ours, for the log and the metrics, and those that clients show, for whoever decides who they
//! are. Only certificates that rustls verified get here.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::der::Certificate;

/// Our own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// For which names and addresses it is.
    pub names: Vec<String>,
    /// SHA-256 of it, as other tools write it: `AB:CD:...`.
    pub fingerprint: String,
    /// When it ends, in seconds since 1970: the first of its chain.
    pub ends: i64,
    /// The same for people.
    pub ends_text: String,
}

/// The certificate that a client showed, and the verifier accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject, as `CN=ci,O=Acme` (RFC 4514).
    pub subject: String,
    /// The common name alone, if there is exactly one.
    pub common_name: Option<String>,
    /// Its subject alternative names (RFC 5280, section 4.2.1.6).
    pub dns_names: Vec<String>,
    /// The same, as URIs: `spiffe://acme.example/ci`.
    pub uris: Vec<String>,
    /// The same, as mail addresses.
    pub emails: Vec<String>,
    /// The same, as IP addresses.
    pub addresses: Vec<IpAddr>,
    /// SHA-256 of it: `AB:CD:...`.
    pub fingerprint: String,
}

impl ClientCertificate {
    /// What policies call whoever shows it, behind `certificate/`: its first URI (a SPIFFE id), else its common name, else
    /// its first DNS name.
    pub fn name(&self) -> Option<&str> {
        let uri = self.uris.first().map(String::as_str);
        // A common name that looks like a URI is none.
        let common = self.common_name.as_deref().filter(|name| !name.contains("://"));
        uri.or(common).or(self.dns_names.first().map(String::as_str))
    }
}

impl OwnCertificate {
    /// Reads the chain that clients are shown. `None` when it is no certificate.
    pub(super) fn read(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let der = chain.first()?;
        let certificate = Certificate::read(der)?;
        let addresses = certificate.addresses.iter().map(ToString::to_string);
        let names = certificate.dns_names.iter().cloned().chain(addresses).collect();
        let rest: Option<Vec<_>> = chain[1..]
            .iter()
            .map(|der| Some(Certificate::read(der)?.ends))
            .collect();
        let ends = rest?.into_iter().fold(certificate.ends, Ord::min);
        Some(Self {
            names,
            fingerprint: fingerprint(der),
            ends: ends.as_second(),
            ends_text: ends.to_string(),
        })
    }
}

impl ClientCertificate {
    /// Reads a certificate. `None` when something in it cannot be read: it may be just what it is judged by.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::read(der)?;
        let mut common_names = certificate.common_names;
        let common_name = common_names.pop().filter(|_| common_names.is_empty());
        Some(Self {
            subject: certificate.subject,
            common_name,
            dns_names: certificate.dns_names,
            uris: certificate.uris,
            emails: certificate.emails,
            addresses: certificate.addresses,
            fingerprint: fingerprint(der),
        })
    }
}

fn fingerprint(der: &[u8]) -> String {
    let bytes = Sha256::digest(der);
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn made(params: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn one_common_name_or_none() {
        let mut params = CertificateParams::new(["ci.acme.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        let shown = ClientCertificate::read(&made(&params)).unwrap();
        assert_eq!((shown.subject.as_str(), shown.common_name), ("O=Acme", None));
        params.distinguished_name.push(DnType::CommonName, "ci");
        let shown = ClientCertificate::read(&made(&params)).unwrap();
        assert_eq!(
            (shown.subject.as_str(), shown.common_name.as_deref()),
            ("CN=ci,O=Acme", Some("ci"))
        );
        assert_eq!(
            (shown.fingerprint.len(), shown.fingerprint.matches(':').count()),
            (95, 31)
        );
    }

    #[test]
    fn a_chain_ends_with_its_first() {
        let mut params = CertificateParams::new(["a.example".to_owned(), "::1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let leaf = made(&params);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let own = OwnCertificate::read(&[leaf.clone(), made(&params)]).unwrap();
        assert_eq!(own.names, ["a.example", "::1"]);
        assert_eq!(
            (own.ends, own.ends_text.as_str()),
            (1_893_456_000, "2030-01-01T00:00:00Z")
        );
        assert_eq!(own.fingerprint, fingerprint(&leaf));
        assert_eq!(OwnCertificate::read(&[]), None);
    }
}
