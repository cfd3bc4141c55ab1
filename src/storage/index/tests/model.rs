//! Random changes against a plain model of what each does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    PutBlob(u8, u64),
    RemoveBlob(u8),
    PutManifest(u8, UnitKind, Vec<u8>, u64),
    RemoveManifest(u8),
    PutTag(u8, u8, u8),
    RemoveTag(u8, u8),
    PutLink(u8, u8),
    RemoveLink(u8, u8),
    RemoveHosted(u8),
    Touch(u8, u64),
    Classify(u8, u8),
}

/// The last one is hosted.
fn repository(number: u8) -> String {
    match number {
        HOSTED_ONE => format!("{HOSTED}app"),
        other => other.to_string(),
    }
}

const HOSTED_ONE: u8 = 2;

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    // Few of each, so that they meet. Manifests and blobs share some digests on purpose.
    let (content, manifest, place, time) = (0..8_u8, 5..10_u8, 0..3_u8, 0..50_u64);
    let kind = prop_oneof![Just(UnitKind::Image), Just(UnitKind::Index)];
    let needs = prop::collection::btree_set(0..10_u8, 0..4).prop_map(|needs| needs.into_iter().collect());
    let step = prop_oneof![
        4 => (content.clone(), 0..9000_u64).prop_map(|(b, size)| Step::PutBlob(b, size)),
        2 => content.clone().prop_map(Step::RemoveBlob),
        4 => (manifest.clone(), kind, needs, time.clone())
            .prop_map(|(m, kind, needs, at)| Step::PutManifest(m, kind, needs, at)),
        3 => manifest.clone().prop_map(Step::RemoveManifest),
        2 => (place.clone(), place.clone(), manifest).prop_map(|(r, t, m)| Step::PutTag(r, t, m)),
        1 => (place.clone(), place.clone()).prop_map(|(r, t)| Step::RemoveTag(r, t)),
        3 => (place.clone(), 0..10_u8).prop_map(|(r, c)| Step::PutLink(r, c)),
        1 => (place, 0..10_u8).prop_map(|(r, c)| Step::RemoveLink(r, c)),
        2 => (5..10_u8).prop_map(Step::RemoveHosted),
        2 => (0..10_u8, time).prop_map(|(c, at)| Step::Touch(c, at)),
        1 => (0..10_u8, 0..20_u8).prop_map(|(c, class)| Step::Classify(c, class)),
    ];
    // The flag: commit before this step.
    prop::collection::vec((prop::bool::weighted(0.3), step), 1..60)
}

/// The rows alone; what is derived from them the audit checks.
#[derive(Debug, Default)]
struct Model {
    blobs: BTreeMap<u8, u64>,
    manifests: BTreeMap<u8, Vec<u8>>,
    tags: BTreeMap<(u8, u8), u8>,
    links: BTreeSet<(u8, u8)>,
    /// The latest use that a unit must have seen, at least.
    used: BTreeMap<u8, u64>,
}

impl Model {
    fn needed(&self, content: u8) -> bool {
        self.manifests.values().any(|needs| needs.contains(&content))
    }

    fn forget_links(&mut self, content: u8) {
        let here = self.blobs.contains_key(&content) || self.manifests.contains_key(&content);
        if !here && !self.needed(content) {
            self.links
                .retain(|(repository, linked)| *linked != content || *repository == HOSTED_ONE);
        }
    }

    fn remove_manifest(&mut self, manifest: u8) {
        let needs = self.manifests.remove(&manifest).unwrap_or_default();
        self.tags.retain(|_, pointed| *pointed != manifest);
        for content in needs {
            self.forget_links(content);
        }
        self.forget_links(manifest);
        self.used.remove(&manifest);
    }

    fn step(&mut self, step: &Step) -> Change {
        match step {
            Step::PutBlob(b, size) => {
                self.blobs.insert(*b, *size);
                Change::put_blob(&digest(*b), &blob(*size, 7))
            }
            Step::RemoveBlob(b) => {
                self.blobs.remove(b);
                self.forget_links(*b);
                Change::remove_blob(&digest(*b))
            }
            Step::PutManifest(m, kind, needs, at) => {
                let old = self.manifests.insert(*m, needs.clone()).unwrap_or_default();
                for content in old {
                    self.forget_links(content);
                }
                let used = self.used.entry(*m).or_default();
                *used = (*used).max(*at);
                Change::put_manifest(
                    &digest(*m),
                    &manifest("{}"),
                    &outline(*kind, needs),
                    Timestamp(*at),
                )
            }
            Step::RemoveManifest(m) => {
                if self.links.contains(&(HOSTED_ONE, *m)) {
                    // What was pushed stays: only the cache's share of it goes.
                    self.tags
                        .retain(|(r, _), pointed| pointed != m || *r == HOSTED_ONE);
                    self.links.retain(|(r, linked)| linked != m || *r == HOSTED_ONE);
                } else {
                    self.remove_manifest(*m);
                }
                Change::remove_manifest(&digest(*m))
            }
            Step::RemoveHosted(m) => {
                self.tags
                    .retain(|(r, _), pointed| *r != HOSTED_ONE || pointed != m);
                self.links.remove(&(HOSTED_ONE, *m));
                if !self.links.iter().any(|(_, linked)| linked == m) {
                    self.remove_manifest(*m);
                }
                Change::remove_hosted(&repository(HOSTED_ONE), &digest(*m))
            }
            Step::PutTag(r, t, m) => {
                self.tags.insert((*r, *t), *m);
                Change::put_tag(&repository(*r), &tag(&t.to_string()), &tag_row(*m))
            }
            Step::RemoveTag(r, t) => {
                self.tags.remove(&(*r, *t));
                Change::remove_tag(&repository(*r), &tag(&t.to_string()))
            }
            Step::PutLink(r, c) => {
                self.links.insert((*r, *c));
                Change::put_link(&repository(*r), &digest(*c), &link(1))
            }
            Step::RemoveLink(r, c) => {
                self.links.remove(&(*r, *c));
                Change::remove_link(&repository(*r), &digest(*c))
            }
            Step::Touch(c, at) => {
                if self.manifests.contains_key(c) {
                    let used = self.used.entry(*c).or_default();
                    *used = (*used).max(*at);
                }
                Change::touch(&digest(*c), Timestamp(*at))
            }
            Step::Classify(c, class) => Change::classify(&digest(*c), *class),
        }
    }

    fn check(&self, index: &Index) {
        audit(index);
        let found = index.blobs_after(None, 99).unwrap();
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(|(digest, row)| (digest.hash()[0], row.size))
            .collect();
        assert_eq!(found, self.blobs);
        let found = index.manifests_after(None, 99).unwrap();
        for (found, _) in &found {
            let needs: Vec<_> = self.manifests[&found.hash()[0]]
                .iter()
                .map(|&byte| digest(byte))
                .collect();
            assert_eq!(index.needs(found).unwrap(), needs);
            let is_hosted = self.links.contains(&(HOSTED_ONE, found.hash()[0]));
            assert_eq!(index.is_hosted(found).unwrap(), is_hosted);
            let unit = index.unit(found).unwrap();
            assert_eq!(unit.is_none(), is_hosted, "{unit:?}");
            let Some(unit) = unit else { continue };
            assert!(unit.key.last_used.0 >= self.used[&found.hash()[0]], "{unit:?}");
        }
        assert_eq!(found.len(), self.manifests.len());
        for repository in 0..3_u8 {
            let name = self::repository(repository);
            for name_of_tag in 0..3_u8 {
                let found = index.tag(&name, &tag(&name_of_tag.to_string())).unwrap();
                let expected = self.tags.get(&(repository, name_of_tag));
                assert_eq!(found, expected.map(|&byte| tag_row(byte)));
            }
            for content in 0..10_u8 {
                let found = index.link(&name, &digest(content)).unwrap();
                assert_eq!(
                    found.is_some(),
                    self.links.contains(&(repository, content)),
                    "{name} {content}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_index_is_the_model(steps in steps()) {
        let scene = Scene::new();
        let mut model = Model::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut changes = Vec::new();
        for (commit, step) in &steps {
            if *commit {
                runtime.block_on(scene.index.commit(std::mem::take(&mut changes))).unwrap();
                model.check(&scene.index);
            }
            changes.push(model.step(step));
        }
        runtime.block_on(scene.index.commit(changes)).unwrap();
        model.check(&scene.index);
        let scene = scene.reopen(false);
        model.check(&scene.index);
    }
}
