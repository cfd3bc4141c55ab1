//! Every table of the index: key, value, and the version of its encoding in the name.

use redb::{TableDefinition, WriteTransaction};

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
/// digest -> [`super::PinRow`]: never evicted.
pub(super) const PINS: Table = TableDefinition::new("pins.v1");
/// repository NUL tag or digest -> [`super::UseRow`]: what clients pulled, also what is no longer here.
pub(super) const USES: Table = TableDefinition::new("uses.v1");

/// name of a hosted repository -> [`super::RepositoryRow`]: it exists.
pub(super) const REPOSITORIES: Table = TableDefinition::new("repositories.v1");
/// name of somebody who can log in -> what is kept of it, as `identities` encodes it.
pub(super) const IDENTITIES: Table = TableDefinition::new("identities.v1");
/// first component of a name -> nothing: a hosted repository has one, or had.
pub(super) const NAMESPACES: Table = TableDefinition::new("namespaces.v1");

// What follows is derived from the tables above, by `apply` and in the same transaction.

/// digest -> [`super::records::UnitRow`]: what eviction chooses from.
pub(super) const UNITS: Table = TableDefinition::new("units.v1");
/// class, last use, digest -> nothing: the units of each class, oldest first.
pub(super) const ORDER: Table = TableDefinition::new("order.v1");
/// manifest digest -> the digests that it needs, one after the other.
pub(super) const OUTLINES: Table = TableDefinition::new("outlines.v1");
/// content digest, manifest digest -> nothing: which manifests need a content.
pub(super) const NEEDS: Table = TableDefinition::new("needs.v1");
/// content digest, repository -> nothing: which repositories link a content.
pub(super) const HOLDERS: Table = TableDefinition::new("holders.v1");
/// manifest digest, repository NUL tag -> nothing: which tags point at a manifest.
pub(super) const TAGGED: Table = TableDefinition::new("tagged.v1");
/// key of a hosted repository -> the bytes that it holds, big-endian.
pub(super) const USAGE: Table = TableDefinition::new("usage.v1");
/// name -> value: totals, format, and what maintenance remembers.
pub(super) const META: Table = TableDefinition::new("meta.v1");

const ALL: [Table; 18] = [
    BLOBS,
    MANIFESTS,
    TAGS,
    LINKS,
    REFERRERS,
    PINS,
    USES,
    REPOSITORIES,
    IDENTITIES,
    NAMESPACES,
    USAGE,
    UNITS,
    ORDER,
    OUTLINES,
    NEEDS,
    HOLDERS,
    TAGGED,
    META,
];

/// Those that an upgrade makes anew.
pub(super) const DERIVED: [Table; 7] = [UNITS, ORDER, OUTLINES, NEEDS, HOLDERS, TAGGED, USAGE];

/// Creates what a new file lacks, so that readers always find their table.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), Error> {
    for table in ALL {
        transaction.open_table(table).map_err(Error::index)?;
    }
    Ok(())
}
