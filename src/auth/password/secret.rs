//! Secrets of our own making, for robots and access tokens: shown once, kept as a digest. Used by whoever makes identities.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::stored::Stored;
use super::{NoRandomness, random};

/// A secret of 256 random bits. Displayed it is the text to hand out; Debug does not show it.
pub struct Secret(String);

impl Secret {
    /// What each begins with, so that scanners of code find those that were published by mistake.
    pub const PREFIX: &str = "whf_";

    /// A new one, and what to keep of it.
    ///
    /// # Errors
    /// When the system has no random bits.
    pub fn make() -> Result<(Self, Stored), NoRandomness> {
        let secret = Self(format!("{}{}", Self::PREFIX, BASE64.encode(random::<32>()?)));
        let stored = Stored::digest(&secret.0);
        Ok((secret, stored))
    }

    /// The text to hand out: letters, digits, `-` and `_`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
