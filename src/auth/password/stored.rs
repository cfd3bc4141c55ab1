//! The hash of a secret, as it is kept in the index or in an htpasswd file: read once, with bounds, then only compared.
//! Used by `users`, `secret` and `verifier`, and by whoever keeps identities.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::argon::Argon;
use super::bcrypt::Bcrypt;
use super::{NoRandomness, same};

/// What stands before the digest of a secret that nobody can guess.
const SHA256: &str = "sha256:";
/// No hash is longer.
const LONGEST: usize = 1024;

/// Why a text is no hash that counts here. Says what it looks like, and never what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There is none.
    #[error("no password is set")]
    Empty,
    /// Apache's `$apr1$`, or `$1$`.
    #[error("MD5 is too weak: set the password again with `htpasswd -B`")]
    Md5,
    /// Apache's `{SHA}`.
    #[error("{{SHA}} is too weak: set the password again with `htpasswd -B`")]
    Sha1,
    /// `$5$`, `$6$`, `$7$`, `$y$` and the like, of crypt(3).
    #[error("hashes of crypt(3) are not understood: set the password again with `htpasswd -B`")]
    Crypt,
    /// `$2$` and `$2x$`: versions that compare wrongly.
    #[error("this version of bcrypt compares wrongly: set the password again with `htpasswd -B`")]
    OldBcrypt,
    /// Not 60 characters, or not its alphabet.
    #[error("not a whole hash of bcrypt")]
    Bcrypt,
    /// It would take nothing, or minutes.
    #[error("bcrypt with a cost outside 4 to 16")]
    BcryptCost,
    /// Not `$argon2id$v=19$m=...,t=...,p=...$salt$hash`.
    #[error("not a whole hash of Argon2")]
    Argon2,
    /// It would take a gigabyte, or minutes.
    #[error("Argon2 with more than 256 MiB of memory, 16 lanes, or 1 GiB of memory times passes")]
    Argon2Cost,
    /// Not 64 digits after `sha256:`.
    #[error("expected 64 hexadecimal digits after sha256:")]
    Sha256,
    /// Traditional crypt, plain text, or something else.
    #[error(
        "neither bcrypt nor Argon2 (plain text and DES are not read): set the password with `htpasswd -B`"
    )]
    Unknown,
}

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// An empty password opens nothing.
    #[error("a password must not be empty")]
    Empty,
    /// No salt could be made.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// Argon2 refused, which means that there is no memory.
    #[error("the password cannot be hashed: no memory")]
    Memory,
}

#[derive(Clone)]
enum Hash {
    Argon(Argon),
    Bcrypt(Bcrypt),
    Sha256([u8; 32]),
}

/// The hash of a secret, as it is kept.
#[derive(Clone)]
pub struct Stored {
    text: Box<str>,
    hash: Hash,
}

impl Stored {
    /// Reads one.
    ///
    /// # Errors
    /// What it looks like instead, and what to do.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        Ok(Self {
            hash: parse(text)?,
            text: text.into(),
        })
    }

    /// The hash of a password that a person chose: Argon2id with what OWASP's Password Storage Cheat Sheet asks for.
    /// Blocks for some 30 ms, and takes 19 MiB meanwhile.
    ///
    /// # Errors
    /// When it is empty, or the system has no random bits or no memory.
    pub fn hash(password: &str) -> Result<Self, HashError> {
        if password.is_empty() {
            return Err(HashError::Empty);
        }
        let argon = Argon::hash(password)?;
        Ok(Self {
            text: argon.to_string().into(),
            hash: Hash::Argon(argon),
        })
    }

    /// The digest of a secret of 256 random bits, for which no slow hash is needed.
    pub(super) fn digest(secret: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        Self {
            text: format!("{SHA256}{}", hex::encode(digest)).into(),
            hash: Hash::Sha256(digest),
        }
    }

    /// The costs of [`Stored::hash`], and of nobody's password.
    pub(super) fn decoy() -> Self {
        let argon = Argon::decoy();
        Self {
            text: argon.to_string().into(),
            hash: Hash::Argon(argon),
        }
    }

    /// Whether this is the password; an empty one never is. Takes the same time whatever the password. Blocks while
    /// [`Stored::is_slow`].
    pub fn verify(&self, password: &str) -> bool {
        if password.is_empty() {
            return false;
        }
        match &self.hash {
            Hash::Argon(argon) => argon.verify(password),
            Hash::Bcrypt(bcrypt) => bcrypt.verify(password),
            Hash::Sha256(digest) => same(&Sha256::digest(password), digest),
        }
    }

    /// Whether to compare takes milliseconds and more, on purpose.
    pub fn is_slow(&self) -> bool {
        !matches!(self.hash, Hash::Sha256(_))
    }

    /// The kind, for people: `argon2id`, `bcrypt` ...
    pub fn kind(&self) -> &'static str {
        match &self.hash {
            Hash::Argon(argon) => argon.kind(),
            Hash::Bcrypt(_) => "bcrypt",
            Hash::Sha256(_) => "sha256",
        }
    }

    /// The longest password that it can tell from others, in bytes, where there is a bound: bcrypt reads 72 bytes, and we
    /// refuse longer passwords rather than to ignore the rest of them.
    pub fn longest_password(&self) -> Option<usize> {
        matches!(self.hash, Hash::Bcrypt(_)).then_some(super::bcrypt::LONGEST_PASSWORD)
    }

    /// A number that changes with the password, so that tokens made for the one before die. The same after a restart.
    pub fn generation(&self) -> u64 {
        let digest: [u8; 32] = Sha256::digest(self.text.as_bytes()).into();
        digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    /// The text that was parsed, for keeping it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn parse(text: &str) -> Result<Hash, Unusable> {
    if text.is_empty() {
        return Err(Unusable::Empty);
    }
    if text.len() > LONGEST {
        return Err(Unusable::Unknown);
    }
    if let Some(digits) = text.strip_prefix(SHA256) {
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).map_err(|_| Unusable::Sha256)?;
        return Ok(Hash::Sha256(digest));
    }
    if text.starts_with("{SHA}") || text.starts_with("{SSHA}") {
        return Err(Unusable::Sha1);
    }
    let Some((scheme, _)) = text.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
        return Err(Unusable::Unknown);
    };
    match scheme {
        "argon2id" | "argon2i" | "argon2d" => Argon::parse(text).map(Hash::Argon),
        "2a" | "2b" | "2y" => Bcrypt::parse(text).map(Hash::Bcrypt),
        "2" | "2x" => Err(Unusable::OldBcrypt),
        "apr1" | "1" => Err(Unusable::Md5),
        "5" | "6" | "7" | "y" | "gy" | "sm3y" | "sha1" | "md5" | "3" => Err(Unusable::Crypt),
        _ => Err(Unusable::Unknown),
    }
}

impl FromStr for Stored {
    type Err = Unusable;

    fn from_str(text: &str) -> Result<Self, Unusable> {
        Self::parse(text)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The kind alone: what is logged must not help to guess.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({})", self.kind())
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Stored {}
