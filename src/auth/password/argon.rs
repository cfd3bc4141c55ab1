//! Argon2 (RFC 9106) in PHC string format: `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>`. Used by `stored` alone.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use super::stored::{HashError, Unusable};
use super::{random, same};

/// OWASP, Password Storage Cheat Sheet: 19 MiB, two passes, one lane.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A file says what a hash costs, and each login pays it: KiB at once, and KiB times passes, which is time.
const MOST_MEMORY: u32 = 256 * 1024;
const MOST_WORK: u64 = 1024 * 1024;
const MOST_LANES: u32 = 16;

/// Bytes that make sense: RFC 9106 asks for 8 of salt, PHC string format for 10 to 64 of output.
const SALT: std::ops::RangeInclusive<usize> = 8..=64;
const OUTPUT: std::ops::RangeInclusive<usize> = 10..=64;

/// How much memory of usual hashes is kept for the next: else each thread that ever computed one would keep its own.
const SPARE: usize = 4;

fn spare() -> MutexGuard<'static, Vec<Vec<Block>>> {
    static KEPT: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
pub(super) struct Argon {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Box<[u8]>,
    output: Box<[u8]>,
}

impl Argon {
    /// Reads a PHC string.
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let mut fields = text
            .strip_prefix('$')
            .ok_or(Unusable::Argon2)?
            .split('$')
            .peekable();
        let algorithm = match fields.next() {
            Some("argon2id") => Algorithm::Argon2id,
            Some("argon2i") => Algorithm::Argon2i,
            Some("argon2d") => Algorithm::Argon2d,
            _ => return Err(Unusable::Argon2),
        };
        // Without a version it is the first one.
        let version = match fields.next_if(|field| field.starts_with("v=")) {
            None | Some("v=16") => Version::V0x10,
            Some("v=19") => Version::V0x13,
            Some(_) => return Err(Unusable::Argon2),
        };
        let (memory, passes, lanes) = costs(fields.next().ok_or(Unusable::Argon2)?)?;
        let mut bytes = |length: std::ops::RangeInclusive<usize>| {
            let field = fields.next().ok_or(Unusable::Argon2)?;
            let bytes = BASE64.decode(field).map_err(|_| Unusable::Argon2)?;
            length
                .contains(&bytes.len())
                .then(|| bytes.into_boxed_slice())
                .ok_or(Unusable::Argon2)
        };
        let (salt, output) = (bytes(SALT)?, bytes(OUTPUT)?);
        if fields.next().is_some() {
            return Err(Unusable::Argon2);
        }
        if memory > MOST_MEMORY || lanes > MOST_LANES || u64::from(memory) * u64::from(passes) > MOST_WORK {
            return Err(Unusable::Argon2Cost);
        }
        let params = Params::new(memory, passes, lanes, Some(output.len())).map_err(|_| Unusable::Argon2)?;
        Ok(Self {
            algorithm,
            version,
            params,
            salt,
            output,
        })
    }

    pub(super) fn hash(password: &str) -> Result<Self, HashError> {
        let mut made = Self {
            salt: Box::new(random::<16>()?),
            ..Self::decoy()
        };
        made.output = made.compute(password).ok_or(HashError::Memory)?.into();
        Ok(made)
    }

    /// What [`Argon::hash`] costs, without a password that it is the hash of.
    pub(super) fn decoy() -> Self {
        Self {
            algorithm: Algorithm::Argon2id,
            version: Version::V0x13,
            // The same numbers as above; `Params::new` could fail in the eyes of the compiler.
            params: Params::DEFAULT,
            salt: Box::new([0; 16]),
            output: Box::new([0; 32]),
        }
    }

    pub(super) fn verify(&self, password: &str) -> bool {
        self.compute(password)
            .is_some_and(|output| same(&output, &self.output))
    }

    pub(super) fn kind(&self) -> &'static str {
        self.algorithm.as_str()
    }

    fn compute(&self, password: &str) -> Option<Vec<u8>> {
        let mut output = vec![0; self.output.len()];
        let argon = Argon2::new(self.algorithm, self.version, self.params.clone());
        let count = self.params.block_count();
        let mut memory = spare().pop().unwrap_or_default();
        memory.resize(memory.len().max(count), Block::default());
        let blocks = &mut memory[..count];
        let computed =
            argon.hash_password_into_with_memory(password.as_bytes(), &self.salt, &mut output, blocks);
        if memory.len() <= MEMORY as usize {
            let mut spare = spare();
            if spare.len() < SPARE {
                spare.push(memory);
            }
        }
        if let Err(error) = &computed {
            tracing::error!(%error, "a password cannot be compared");
        }
        computed.ok().map(|()| output)
    }
}

/// `m=65536,t=3,p=4`, in any order. What else can stand there (`keyid`, `data`) no library writes any more.
fn costs(text: &str) -> Result<(u32, u32, u32), Unusable> {
    let (mut memory, mut passes, mut lanes) = (None, None, None);
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').ok_or(Unusable::Argon2)?;
        let place = match key {
            "m" => &mut memory,
            "t" => &mut passes,
            "p" => &mut lanes,
            _ => return Err(Unusable::Argon2),
        };
        // `parse` alone would take a sign.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let value = value.parse::<u32>().ok().filter(|_| digits);
        if place.replace(value.ok_or(Unusable::Argon2)?).is_some() {
            return Err(Unusable::Argon2);
        }
    }
    memory
        .zip(passes)
        .zip(lanes)
        .map(|((memory, passes), lanes)| (memory, passes, lanes))
        .ok_or(Unusable::Argon2)
}

impl fmt::Display for Argon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version: u32 = self.version.into();
        let (memory, passes, lanes) = (self.params.m_cost(), self.params.t_cost(), self.params.p_cost());
        let (salt, output) = (BASE64.encode(&self.salt), BASE64.encode(&self.output));
        write!(
            f,
            "${}$v={version}$m={memory},t={passes},p={lanes}${salt}${output}",
            self.kind()
        )
    }
}

// Params::DEFAULT is what OWASP asks for, as long as this compiles.
const _: () = assert!(
    Params::DEFAULT_M_COST == MEMORY && Params::DEFAULT_T_COST == PASSES && Params::DEFAULT_P_COST == LANES
);
