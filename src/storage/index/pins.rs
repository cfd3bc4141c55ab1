//! Pins: what is never evicted, by the names that say so. A pin by tag follows the tag in the transaction that moves it,
//! so that at no moment neither the old nor the new one is safe. Called by `apply`.

use crate::clock::Timestamp;
use crate::oci::{Digest, Tag};
use crate::storage::error::Error;

use super::apply::Applier;
use super::keys::tag_key;
use super::records::{PinName, PinRow, Record as _, TagRow};

/// Rows that are in memory at a time.
const PAGE: usize = 256;

impl Applier<'_> {
    /// Pins what a tag points at. A tag that is not here pins nothing.
    pub(super) fn pin_tag(
        &mut self,
        repository: &str,
        tag: &Tag,
        name: &PinName,
        at: Timestamp,
    ) -> Result<(), Error> {
        let row = self.tags.get::<TagRow>(&tag_key(repository, tag.as_str()))?;
        match row.and_then(|row| row.digest.parse().ok()) {
            Some(digest) => self.pin(&digest, name.clone(), at),
            None => Ok(()),
        }
    }

    /// Pins a manifest by a name. Who pins it again adds platforms, and an operator's pin stays one when a list says the
    /// same.
    pub(super) fn pin(&mut self, digest: &Digest, mut name: PinName, at: Timestamp) -> Result<(), Error> {
        let key = digest.to_key();
        if !self.manifests.has(&key)? {
            return Ok(());
        }
        if let Some((found, had)) = self.find_pin(&name.name)? {
            name.listed &= had.listed;
            let more = had.platforms.iter().filter(|had| !name.platforms.contains(had));
            let more: Vec<_> = more.cloned().collect();
            name.platforms.extend(more);
            name.platforms.sort();
            if found == *digest && name == had {
                return Ok(());
            }
            if found != *digest {
                self.take_name(&found, &name.name)?;
            }
        }
        name.platforms.sort();
        let mut row = self.pins.get::<PinRow>(&key)?.unwrap_or(PinRow {
            pinned_at: at,
            note: None,
            names: Vec::new(),
        });
        row.names.retain(|had| had.name != name.name);
        row.names.push(name);
        self.pins.put(&key, &row.encode())
    }

    /// A tag points at another manifest now: a pin that it has goes with it.
    pub(super) fn move_pin(&mut self, name: &str, digest: &Digest) -> Result<(), Error> {
        let Some((from, had)) = self.find_pin(name)? else {
            return Ok(());
        };
        if from == *digest || !self.manifests.has(&digest.to_key())? {
            return Ok(());
        }
        let since = self.pins.get::<PinRow>(&from.to_key())?;
        let since = since.map_or_else(Timestamp::now, |row| row.pinned_at);
        self.pin(digest, had, since)
    }

    /// A name pins nothing any more.
    pub(super) fn unpin(&mut self, name: &str) -> Result<(), Error> {
        match self.find_pin(name)? {
            Some((digest, _)) => self.take_name(&digest, name),
            None => Ok(()),
        }
    }

    fn take_name(&mut self, digest: &Digest, name: &str) -> Result<(), Error> {
        let key = digest.to_key();
        let Some(mut row) = self.pins.get::<PinRow>(&key)? else {
            return Ok(());
        };
        row.names.retain(|had| had.name != name);
        if row.names.is_empty() {
            self.pins.remove(&key).map(drop)
        } else {
            self.pins.put(&key, &row.encode())
        }
    }

    /// What a name pins. Pins are few, and this is asked when a tag moves or is new.
    fn find_pin(&self, name: &str) -> Result<Option<(Digest, PinName)>, Error> {
        let mut after = Vec::new();
        loop {
            let page = self.pins.page::<PinRow>(&after, PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(None);
            };
            after.clone_from(last);
            for (key, row) in page {
                let names = row.map(|row| row.names).unwrap_or_default();
                if let Some(had) = names.into_iter().find(|had| had.name == name)
                    && let Some(digest) = Digest::from_key(&key)
                {
                    return Ok(Some((digest, had)));
                }
            }
        }
    }
}
