//! The keys that sign tokens: made here, kept in the data folder, and turned: the newest signs, older ones are known until
//! every token that they signed has expired.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Where keys are kept: implemented over the data folder.
pub trait KeySource: Send + Sync {
    /// What was saved last; `None` when nothing was.
    fn load(&self) -> Option<Vec<u8>>;

    /// Keeps it, durably and for our eyes only.
    ///
    /// # Errors
    /// When the disk refuses.
    fn save(&self, bytes: &[u8]) -> io::Result<()>;
}

/// A key, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    /// PKCS #8, in hexadecimal digits.
    key: String,
    made_at: Timestamp,
}

/// A key, ready for use.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) private: EncodingKey,
    pub(super) public: DecodingKey,
    made_at: Timestamp,
}

impl Key {
    fn of(kept: &Kept) -> Option<Self> {
        let bytes = hex::decode(&kept.key).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(&bytes).ok()?;
        Some(Self {
            id: kept.id.clone(),
            private: EncodingKey::from_ed_der(&bytes),
            public: DecodingKey::from_ed_der(pair.public_key().as_ref()),
            made_at: kept.made_at,
        })
    }
}

/// All keys, the newest last. There is always one.
pub struct Keys {
    source: Arc<dyn KeySource>,
    known: RwLock<Vec<Arc<Key>>>,
    first: Arc<Key>,
}

impl Keys {
    /// The keys of `source`; a first one where there is none, or none that can be read. Blocking.
    ///
    /// # Errors
    /// When a new one cannot be made, or kept: tokens signed by it would be void after a restart.
    pub fn open(source: Arc<dyn KeySource>, now: Timestamp) -> io::Result<Self> {
        let kept = load(&*source);
        let mut known: Vec<_> = kept.iter().filter_map(Key::of).map(Arc::new).collect();
        if known.is_empty() {
            let made = make(now)?;
            save(&*source, std::slice::from_ref(&made))?;
            known.extend(Key::of(&made).map(Arc::new));
        }
        let first = known
            .last()
            .cloned()
            .ok_or_else(|| io::Error::other("a key of our own making cannot be read"))?;
        Ok(Self {
            source,
            known: RwLock::new(known),
            first,
        })
    }

    /// The one that signs.
    pub(super) fn newest(&self) -> Arc<Key> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.last().unwrap_or(&self.first).clone()
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Key>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|key| key.id == id).cloned()
    }

    /// Makes another key when the newest is older than `every`, and forgets those that signed nothing for `longest`, the
    /// longest that a token lives. Whether anything changed. Blocking.
    ///
    /// # Errors
    /// When it cannot be made or kept: then everything stays as it was.
    pub fn turn(&self, every: Duration, longest: Duration, now: Timestamp) -> io::Result<bool> {
        let mut kept = load(&*self.source);
        let is_due = now.since(self.newest().made_at) >= every;
        let before = kept.len();
        if is_due {
            kept.push(make(now)?);
        }
        // A key signed until the next one was made.
        let ended: Vec<_> = kept
            .windows(2)
            .map(|pair| (pair[0].id.clone(), pair[1].made_at))
            .collect();
        let gone = |id: &str| {
            ended
                .iter()
                .any(|(known, end)| known == id && now.since(*end) > longest)
        };
        kept.retain(|key| !gone(&key.id));
        if !is_due && kept.len() == before {
            return Ok(false);
        }
        save(&*self.source, &kept)?;
        let keys = kept.iter().filter_map(Key::of).map(Arc::new).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(true)
    }
}

fn make(now: Timestamp) -> io::Result<Kept> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| io::Error::other("no key could be made"))?;
    Ok(Kept {
        id: uuid::Uuid::new_v4().simple().to_string(),
        key: hex::encode(document.as_ref()),
        made_at: now,
    })
}

fn load(source: &dyn KeySource) -> Vec<Kept> {
    let Some(bytes) = source.load() else {
        return Vec::new();
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "the keys of tokens cannot be read: new ones are made, and all tokens are void");
        Vec::new()
    })
}

fn save(source: &dyn KeySource, kept: &[Kept]) -> io::Result<()> {
    source.save(&serde_json::to_vec(kept).unwrap_or_default())
}
