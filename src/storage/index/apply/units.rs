//! Units, which eviction takes in order. Called by `apply`.

use crate::oci::Digest;
use crate::storage::error::Error;

use super::super::keys::order_key;
use super::super::records::{Record, UnitRow};
use super::Applier;

/// Classes of value are below this.
const CLASSES: u8 = 16;

impl Applier<'_> {
    pub(super) fn unit(&self, digest: &Digest) -> Result<Option<UnitRow>, Error> {
        self.units.get(&digest.to_key())
    }

    pub(super) fn put_unit(&mut self, digest: &Digest, unit: &UnitRow) -> Result<(), Error> {
        self.remove_unit(digest)?;
        if self.is_hosted(digest)? {
            return Ok(());
        }
        let unit = UnitRow {
            class: unit.class.min(CLASSES - 1),
            ..unit.clone()
        };
        self.units.put(&digest.to_key(), &unit.encode())?;
        self.order.put(&order_key(&unit.key(digest)), &[])
    }

    pub(super) fn remove_unit(&mut self, digest: &Digest) -> Result<(), Error> {
        if let Some(old) = self.unit(digest)? {
            self.order.remove(&order_key(&old.key(digest)))?;
            self.units.remove(&digest.to_key())?;
        }
        Ok(())
    }

    pub(super) fn change_unit(
        &mut self,
        digest: &Digest,
        change: impl FnOnce(&mut UnitRow),
    ) -> Result<(), Error> {
        let Some(mut unit) = self.unit(digest)? else {
            return Ok(());
        };
        let old = unit.clone();
        change(&mut unit);
        if unit == old {
            return Ok(());
        }
        self.put_unit(digest, &unit)
    }
}
