//! What the fuzzer (`fuzz/`) sees of this room; compiled for it alone.

use std::sync::{Arc, LazyLock};

use crate::config::Config;
use crate::upstream::Upstream;

use super::reference::find;
use super::{Door, Names, OwnAddresses};

static NAMES: LazyLock<(Names, OwnAddresses)> = LazyLock::new(|| {
    let text = "[upstream.corp]\nurl = \"http://127.0.0.1:1\"\nhosts = [\"registry.corp:8443\"]\n";
    let config = Config::from_toml_str(text, "fuzzing.toml").expect("a configuration");
    let upstreams = config.upstreams.iter().cloned();
    let upstreams: Vec<_> = upstreams
        .map(|upstream| Upstream::new(upstream, Arc::new(())).expect("an upstream"))
        .collect();
    let own = OwnAddresses {
        ports: vec![(5000, Door::Main), (5001, Door::Mirror)],
        host: Some("cache.example.com".to_owned()),
    };
    (Names::new(&upstreams, Some("docker-hub")), own)
});

/// Reads what a person typed, and checks that what was understood means the same when it is told and typed again.
pub fn reference(text: &str) {
    let (names, own) = &*NAMES;
    let Ok((repository, reference)) = find(names, own, text) else {
        return;
    };
    let key = repository.key();
    assert_eq!(**key, format!("{}/{}", repository.upstream(), repository.name()));
    let told = match &reference {
        crate::oci::Reference::Tag(tag) => format!("{key}:{tag}"),
        crate::oci::Reference::Digest(digest) => format!("{key}@{digest}"),
    };
    let (same, again) = find(names, own, &told).expect("what we say ourselves");
    assert_eq!((same.key(), &again), (key, &reference));
}
