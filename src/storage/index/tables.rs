//! Every table of the index: key, value, and the version of its encoding in the name.

use redb::{Database, TableDefinition};

use crate::storage::error::Error;

pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// digest -> [`super::BlobRow`]: the blob's file is whole and durable.
pub(super) const BLOBS: Table = TableDefinition::new("blobs.v1");
/// digest -> [`super::ManifestRow`]: a manifest's bytes, verbatim.
pub(super) const MANIFESTS: Table = TableDefinition::new("manifests.v1");
/// repository NUL tag -> [`super::TagRow`]
pub(super) const TAGS: Table = TableDefinition::new("tags.v1");
/// repository NUL digest -> [`super::LinkRow`]: the repository may serve this content.
pub(super) const LINKS: Table = TableDefinition::new("links.v1");
/// repository NUL digest -> [`super::ReferrersRow`]
pub(super) const REFERRERS: Table = TableDefinition::new("referrers.v1");

/// Creates what a new file lacks, so that readers always find their table.
pub(super) fn create(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_write().map_err(Error::index)?;
    for table in [BLOBS, MANIFESTS, TAGS, LINKS, REFERRERS] {
        transaction.open_table(table).map_err(Error::index)?;
    }
    transaction.commit().map_err(Error::index)
}
