//! Lets real clients into the zoo: opens every personality in a process that stays, with the images that it is given, and
//! writes down how to reach them. `tests/clients` starts this test binary for it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{
    Acr, Chainguard, DockerHub, Ecr, EcrPublic, GitHub, GitLab, Google, Harbor, Internet, Kubernetes, Mcr,
    MirrorGcr, Nvidia, Personality, Quay,
};
use crate::support::image::{Content, Part};

/// An image of somebody else, in parts.
struct Given {
    manifests: Vec<Part>,
    blobs: Vec<Part>,
}

impl Given {
    /// As `images.json` lists it: the tagged manifest last, bytes in files that are named by their digest.
    fn read(folder: &Path, listed: &Value) -> Self {
        let part = |digest: &Value, media_type: &Value| {
            let digest = digest.as_str().expect("a digest").to_owned();
            let bytes = fs::read(folder.join(&digest)).expect("a file for each digest");
            let media_type = media_type.as_str().unwrap_or_default().to_owned();
            Part {
                digest,
                media_type,
                bytes: bytes.into(),
            }
        };
        let list = |name: &str| listed[name].as_array().cloned().unwrap_or_default();
        let manifests = list("manifests");
        let manifests = manifests
            .iter()
            .map(|one| part(&one["digest"], &one["mediaType"]));
        let blobs = list("blobs");
        let blobs = blobs.iter().map(|digest| part(digest, &Value::Null));
        Self {
            manifests: manifests.collect(),
            blobs: blobs.collect(),
        }
    }
}

impl Content for Given {
    fn root(&self) -> Part {
        self.manifests.last().cloned().expect("a manifest at least")
    }

    fn children(&self) -> Vec<Part> {
        self.manifests.clone()
    }

    fn blobs(&self) -> Vec<Part> {
        self.blobs.clone()
    }
}

/// Opens all of them, image `n` of `images.json` under the tag `1` of the usual repository of number `n`; then writes
/// `zoo.json`: the proxy, the tables for a daemon's configuration, and who is there. Never returns.
pub async fn keep(folder: &Path) {
    let listed = fs::read(folder.join("images.json")).expect("a list of images");
    let listed: Vec<Value> = serde_json::from_slice(&listed).expect("a list of images");
    let images: Vec<Given> = listed.iter().map(|one| Given::read(folder, one)).collect();
    let internet = Internet::start().await;
    let mut open = Vec::new();
    let mut config = String::new();
    macro_rules! open {
        ($($animal:ty),*) => {$(
            let number = open.len() % images.len();
            config.push_str(&table::<$animal>(&internet));
            let animal = <$animal>::open(&internet);
            animal.put(<$animal>::REPO, "1", &images[number]);
            open.push(json!({
                "prefix": <$animal>::PREFIX, "host": <$animal>::HOST, "repository": <$animal>::REPO, "image": number,
            }));
        )*};
    }
    open!(
        DockerHub, GitHub, Quay, EcrPublic, Ecr, Google, MirrorGcr, Kubernetes, Mcr, Acr, GitLab, Nvidia,
        Chainguard, Harbor
    );
    let zoo = json!({ "proxy": internet.proxy(), "config": config, "animals": open });
    fs::write(folder.join("zoo.json.new"), zoo.to_string()).expect("a writable folder");
    fs::rename(folder.join("zoo.json.new"), folder.join("zoo.json")).expect("a writable folder");
    std::future::pending::<()>().await;
}

/// The table of one upstream.
fn table<P: Personality>(internet: &Internet) -> String {
    let mut table = format!(
        "[upstream.{}]\nurl = \"http://{}\"\nproxy = {:?}\n",
        P::PREFIX,
        P::HOST,
        internet.proxy()
    );
    for (name, value) in P::settings() {
        let _ = writeln!(table, "{name} = {value}");
    }
    table
}
