//! bcrypt, as `htpasswd -B` and most others write it: `$2y$<cost>$<salt><hash>`, 60 characters. Used by `stored` alone.
//!
//! bcrypt reads 72 bytes of a password and none after a NUL. Others ignore what comes then; here such a password is wrong:
//! of a long secret with a well-known beginning (a JWT, say) too little would be left to guess.

use base64::Engine as _;
use base64::alphabet::BCRYPT;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::same;
use super::stored::Unusable;

/// What bcrypt reads of a password, in bytes.
pub(super) const LONGEST_PASSWORD: usize = 72;

/// 16 takes some four seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// Bits that mean nothing are set in salts that old programs made by hand.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

#[derive(Clone)]
pub(super) struct Bcrypt {
    cost: u32,
    salt: [u8; 16],
    output: [u8; 23],
}

impl Bcrypt {
    /// Reads `$2a$`, `$2b$` and `$2y$`, which mean the same wherever 8-bit characters were hashed rightly.
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let mut fields = text.split('$').skip(2);
        let (Some(cost), Some(rest), None) = (fields.next(), fields.next(), fields.next()) else {
            return Err(Unusable::Bcrypt);
        };
        if cost.len() != 2 || rest.len() != 53 || !cost.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Unusable::Bcrypt);
        }
        let (salt, output) = rest.split_at_checked(22).ok_or(Unusable::Bcrypt)?;
        let cost = cost.parse().map_err(|_| Unusable::Bcrypt)?;
        let salt = bytes(salt)?;
        let output = bytes(output)?;
        if !COSTS.contains(&cost) {
            return Err(Unusable::BcryptCost);
        }
        Ok(Self { cost, salt, output })
    }

    pub(super) fn verify(&self, password: &str) -> bool {
        let password = password.as_bytes();
        let unfit = password.len() > LONGEST_PASSWORD || password.contains(&0);
        // Computed in any case, so that the time does not tell that there is such a hash.
        let mut key = [0; LONGEST_PASSWORD];
        let length = if unfit { 0 } else { password.len() };
        key[..length].copy_from_slice(&password[..length]);
        // The NUL at its end counts, where there is room for it.
        let read = &key[..(length + 1).min(LONGEST_PASSWORD)];
        let output = bcrypt::bcrypt(self.cost, self.salt, read);
        same(&output[..23], &self.output) && !unfit
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], Unusable> {
    let mut bytes = [0; N];
    let length = BASE64
        .decode_slice(text, &mut bytes)
        .map_err(|_| Unusable::Bcrypt)?;
    (length == N).then_some(bytes).ok_or(Unusable::Bcrypt)
}
