//! Passwords and secrets: their hashes as they are kept (`stored`; `argon` and `bcrypt` by kind), secrets of our own making
//! (`secret`), files of Apache's `htpasswd` (`users` what is in one, `htpasswd` one that is kept up with), and who guesses
//! too often (`throttle`, pure). `verifier` is what `api` asks: it remembers, waits and counts.

mod argon;
mod bcrypt;
mod htpasswd;
mod secret;
mod stored;
mod throttle;
mod users;
mod verifier;

pub use htpasswd::Htpasswd;
pub use secret::Secret;
pub use stored::{HashError, Stored, Unusable};
pub use users::{Fault, Reason, Users};
pub use verifier::{Passwords, Verdict};

pub(super) use throttle::{Network, Throttle};

/// The system gives no random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bits")]
pub struct NoRandomness;

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Whether they are the same, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests;
