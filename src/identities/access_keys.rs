//! Access keys: their secrets have to be known in the clear to verify a signature (AWS Signature Version 4), so they are
//! kept encrypted, AES-256-GCM under a master key that is a file of its own, with the key's id bound to it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{Error, Made};

/// Bytes of the master key.
const KEY: usize = 32;
/// Characters of the random part of an id, and of a secret, as AWS's.
const ID: usize = 16;
const SECRET: usize = 40;

/// The key that the secrets of access keys are encrypted with: a file with 64 hexadecimal digits. It is read when it is
/// needed first, and made where there is none.
#[derive(Debug)]
pub struct MasterKey {
    path: PathBuf,
    key: OnceLock<RandomizedNonceKey>,
}

impl MasterKey {
    /// The one in this file.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            key: OnceLock::new(),
        }
    }

    fn key(&self, make: bool) -> Result<&RandomizedNonceKey, Error> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let told = |error: String| Error::MasterKey(format!("{}: {error}", self.path.display()));
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                self.make().map_err(|error| told(error.to_string()))?
            }
            read => read.map_err(|error| told(error.to_string()))?,
        };
        let mut bytes = [0; KEY];
        hex::decode_to_slice(text.trim(), &mut bytes)
            .map_err(|_| told("it is not 64 hexadecimal digits".to_owned()))?;
        let key =
            RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| told("it is no key".to_owned()))?;
        Ok(self.key.get_or_init(|| key))
    }

    fn make(&self) -> io::Result<String> {
        let mut bytes = [0; KEY];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no key could be made"))?;
        let text = hex::encode(bytes);
        // Whole or not at all: an empty one would stand in the way for ever.
        let draft = self.path.with_extension("new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // One that is there already stays.
        let linked = fs::hard_link(&draft, &self.path);
        fs::remove_file(&draft)?;
        linked?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(text)
    }

    /// Encrypts the secret of the access key `id`. Blocking.
    pub(super) fn seal(&self, id: &str, secret: &str) -> Result<String, Error> {
        let mut bytes = secret.as_bytes().to_vec();
        let nonce = self
            .key(true)?
            .seal_in_place_append_tag(Aad::from(id.as_bytes()), &mut bytes)
            .map_err(|_| Error::MasterKey("it encrypts nothing".to_owned()))?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend_from_slice(&bytes);
        Ok(STANDARD_NO_PAD.encode(sealed))
    }

    /// The secret of the access key `id`.
    pub(super) fn open(&self, id: &str, sealed: &str) -> Result<String, Error> {
        let broken = || Error::MasterKey("the secret was encrypted with another one".to_owned());
        let mut bytes = STANDARD_NO_PAD.decode(sealed).map_err(|_| broken())?;
        let (nonce, secret) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or_else(broken)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .key(false)?
            .open_in_place(nonce, Aad::from(id.as_bytes()), secret)
            .map_err(|_| broken())?;
        String::from_utf8(opened.to_vec()).map_err(|_| broken())
    }
}

/// An id and a secret, by chance.
pub(super) fn make() -> Result<Made, Error> {
    let letters = |count: usize, of: &[u8]| {
        let mut bytes = vec![0; count];
        // Not fastrand: its secrets could be guessed.
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::MasterKey("there is no chance".to_owned()))?;
        let letters = bytes
            .iter()
            .map(|byte| char::from(of[usize::from(*byte) % of.len()]));
        Ok::<String, Error>(letters.collect())
    };
    // 32 and 64 of them, so that each is as likely as the others.
    Ok(Made {
        id: format!("AKIA{}", letters(ID, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")?),
        secret: letters(
            SECRET,
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        )?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_for_the_same_id() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| MasterKey::at(folder.path().join(name));
        let made = make().unwrap();
        assert!(made.id.len() == 20 && made.secret.len() == 40);
        let sealed = at("master.key").seal(&made.id, &made.secret).unwrap();
        assert_eq!(at("master.key").open(&made.id, &sealed).unwrap(), made.secret);
        assert!(at("master.key").open("AKIAOTHER", &sealed).is_err());
        at("other.key").seal("x", "y").unwrap();
        assert!(at("other.key").open(&made.id, &sealed).is_err());
        // One that is lost is not made anew over what it encrypted.
        assert!(at("lost.key").open(&made.id, &sealed).is_err());
        assert!(!folder.path().join("lost.key").exists());
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(folder.path().join("master.key"))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.path().join("bad.key"), "no key").unwrap();
        assert!(at("bad.key").seal("x", "y").is_err());
        assert_ne!(sealed, at("master.key").seal(&made.id, &made.secret).unwrap());
    }
}
