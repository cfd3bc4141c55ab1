//! A certificate that nobody signed but itself, for a first step and for closed networks: made once, and kept in the data
//! folder, so that clients that trust it go on to do so after a restart.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::{OwnCertificate, at};
use crate::clock::Timestamp;
use crate::config::TlsConfig;

/// Its folder in the data folder, and its files there.
const FOLDER: &str = "tls";
const CERTIFICATE: &str = "self-signed.pem";
const KEY: &str = "self-signed.key";

/// Years that it is good for.
const YEARS: i32 = 10;

/// So long before its end it is made anew.
const RENEWED_BEFORE: Duration = Duration::from_hours(30 * 24);

/// The self-signed certificate in `data_dir`, made if there is none that is good for `host` (how clients reach us, as far
/// as it is known). Blocks.
///
/// # Errors
/// What the system says of the files.
pub fn self_signed(data_dir: &Path, host: Option<&str>) -> io::Result<TlsConfig> {
    let folder = data_dir.join(FOLDER);
    let config = TlsConfig::of_pair(folder.join(CERTIFICATE), folder.join(KEY));
    if let Ok(material) = config.load()
        && let Some(own) = OwnCertificate::read(&material.certified.cert)
    {
        let names_host = host.is_none_or(|host| own.names.iter().any(|name| name == host));
        // Names of the machine may change with each start of a container: not worth a new one, which nobody trusts.
        if names_host && Timestamp::now().after(RENEWED_BEFORE) < at(own.ends) {
            return Ok(config);
        }
        tracing::warn!(
            ends = own.ends_text,
            "the self-signed certificate is made anew: clients have to trust the new one"
        );
    }
    let (certificate, key) = make(host).map_err(io::Error::other)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    // The key first: a start in between finds no pair, and makes both anew.
    write(&config.key_file, &key, 0o600)?;
    write(&config.cert_file, &certificate, 0o644)?;
    File::open(&folder)?.sync_all()?;
    Ok(config)
}

fn make(host: Option<&str>) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names(host))?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Wharfinger, self-signed");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // By the calendar's years, and from a time when every clock agrees that it has begun.
    let year = 1970 + i32::try_from(Timestamp::now().0 / 31_556_952_000).unwrap_or_default();
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + YEARS, 1, 1);
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// By what clients may reach this machine.
fn names(host: Option<&str>) -> Vec<String> {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Some(machine.trim()).filter(|name| is_host(name));
    let fixed = ["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned);
    let given = host.into_iter().chain(machine).map(ToOwned::to_owned);
    let mut names: Vec<String> = Vec::new();
    for name in fixed
        .into_iter()
        .chain(given)
        .chain(own_address().map(|address| address.to_string()))
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn is_host(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.bytes().all(allowed)
}

/// The address by which this machine reaches others: the one it would send from. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // TEST-NET-1 (RFC 5737): routed like any other, and nobody's.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn own(config: &TlsConfig) -> OwnCertificate {
        OwnCertificate::read(&config.load().unwrap().certified.cert).unwrap()
    }

    #[test]
    fn made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = self_signed(folder.path(), None).unwrap();
        let first = own(&config);
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(first.names.iter().any(|found| found == name), "{name}: {first:?}");
        }
        let year = 365 * 24 * 3600;
        let now = i64::try_from(Timestamp::now().0 / 1000).unwrap();
        assert!((8 * year..11 * year).contains(&(first.ends - now)), "{first:?}");
        assert_eq!(fs::metadata(&config.key_file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(own(&self_signed(folder.path(), None).unwrap()), first);
        assert_eq!(
            own(&self_signed(folder.path(), Some("localhost")).unwrap()),
            first
        );

        // Another name, or a file that is gone.
        let named = own(&self_signed(folder.path(), Some("cache.example.com")).unwrap());
        assert!(named.names.contains(&"cache.example.com".to_owned()) && named != first);
        assert_eq!(own(&self_signed(folder.path(), None).unwrap()), named);
        fs::remove_file(&config.key_file).unwrap();
        assert_ne!(own(&self_signed(folder.path(), None).unwrap()), named);
    }
}
