//! Holds an index against itself: what is derived must be exactly what the rows say.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadTransaction, ReadableTable as _};

use super::super::Index;
use super::super::keys::{
    digests_key, is_hosted, order_key, split_content, split_digests, split_tag, tag_key, with_digest,
};
use super::super::records::{
    BlobRow, LinkRow, ManifestRow, Record, TagRow, Totals, UnitKind, UnitRow, allocated,
};
use super::super::tables::{
    BLOBS, HOLDERS, LINKS, MANIFESTS, NEEDS, ORDER, OUTLINES, TAGGED, TAGS, Table, UNITS, USAGE,
};
use crate::oci::Digest;

pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn all(transaction: &ReadTransaction, table: Table) -> Rows {
    let table = transaction.open_table(table).unwrap();
    let rows = table.iter().unwrap().map(|row| {
        let (key, value) = row.unwrap();
        (key.value().to_vec(), value.value().to_vec())
    });
    rows.collect()
}

fn keys(rows: &Rows) -> BTreeSet<Vec<u8>> {
    rows.keys().cloned().collect()
}

/// Every row is readable, and units, order, reverse rows and totals follow from the rows.
pub(crate) fn audit(index: &Index) {
    let totals = index.totals().unwrap();
    index
        .query(|transaction| {
            check(transaction, totals);
            Ok(())
        })
        .unwrap();
}

fn check(transaction: &ReadTransaction, totals: Totals) {
    let all = |table| all(transaction, table);
    let (blobs, manifests, outlines) = (all(BLOBS), all(MANIFESTS), all(OUTLINES));
    let links = all(LINKS);
    let linked = links.keys().map(|key| split_content(key).unwrap());
    let hosted: BTreeSet<_> = linked
        .filter(|(repository, _)| is_hosted(repository))
        .map(|(_, digest)| digest.to_key())
        .collect();
    let mut counted = Totals::default();
    for (key, row) in &blobs {
        let bytes = allocated(BlobRow::decode(row).unwrap().size);
        counted.blobs += 1;
        counted.blob_bytes += bytes;
        if hosted.contains(key) {
            counted.hosted_blobs += 1;
            counted.hosted_bytes += bytes;
        }
    }
    for row in manifests.values() {
        counted.manifests += 1;
        counted.manifest_bytes += ManifestRow::decode(row).unwrap().bytes.len() as u64;
    }
    assert_eq!(totals, counted, "totals");

    assert_eq!(keys(&outlines), keys(&manifests), "outlines");
    let mut needs = BTreeSet::new();
    for (manifest, outline) in &outlines {
        let needed = split_digests(outline);
        assert_eq!(digests_key(&needed), *outline, "an outline is readable");
        needs.extend(needed.iter().map(|needed| with_digest(needed, manifest)));
    }
    assert_eq!(keys(&all(NEEDS)), needs, "needs");

    let units = all(UNITS);
    let mut order = BTreeSet::new();
    for (key, row) in &units {
        let (digest, unit) = (Digest::from_key(key).unwrap(), UnitRow::decode(row).unwrap());
        order.insert(order_key(&unit.key(&digest)));
        let (is_manifest, is_blob) = (manifests.contains_key(key), unit.kind == UnitKind::Blob);
        assert!(is_manifest != is_blob, "{digest} is {:?}", unit.kind);
    }
    assert_eq!(keys(&all(ORDER)), order, "order");
    let needed = |key: &[u8]| needs.iter().any(|need| need.starts_with(key));
    let loose = blobs.keys().filter(|key| !needed(key));
    let victims = manifests.keys().chain(loose).filter(|key| !hosted.contains(*key));
    let expected: BTreeSet<_> = victims.cloned().collect();
    assert_eq!(keys(&units), expected, "units");

    let mut tagged = BTreeSet::new();
    for (key, row) in &all(TAGS) {
        let (repository, tag) = split_tag(key).unwrap();
        assert_eq!(tag_key(&repository, tag.as_str()), *key);
        let digest: Digest = TagRow::decode(row).unwrap().digest.parse().unwrap();
        tagged.insert(with_digest(&digest, key));
    }
    assert_eq!(keys(&all(TAGGED)), tagged, "tagged");

    let (mut holders, mut usage) = (BTreeSet::new(), BTreeMap::<_, u64>::new());
    for (key, row) in &links {
        let (repository, digest) = split_content(key).unwrap();
        let link = LinkRow::decode(row).unwrap();
        if is_hosted(&repository) {
            *usage.entry(repository.clone().into_bytes()).or_default() += link.size;
        }
        holders.insert(with_digest(&digest, repository.as_bytes()));
    }
    assert_eq!(keys(&all(HOLDERS)), holders, "holders");
    let usage: Rows = usage
        .into_iter()
        .filter(|(_, used)| *used > 0)
        .map(|(repository, used)| (repository, used.to_be_bytes().to_vec()))
        .collect();
    assert_eq!(all(USAGE), usage, "usage");
}
