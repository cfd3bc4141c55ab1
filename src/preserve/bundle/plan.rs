//! What goes into a bundle, and in which order: from what was pulled, or from names, to `index.json` and a list of contents.
//! Used by `export`.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Place, Places};
use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest, Reference};

use super::super::Finder;
use super::super::closure::{Choice, Surroundings};
use super::super::drill::{Image, Pulls, check_days};
use super::super::lack::{Lack, Reason};
use super::archive::{END, taken};
use super::export::ExportOptions;
use super::layout::{
    DOCKER_FILE, DockerImage, INDEX_FILE, IndexDocument, LAYOUT, LAYOUT_FILE, REPOSITORY, annotations,
    blob_path, repository,
};

/// Images that a message names at the most.
const MOST_NAMED: usize = 20;

/// What a bundle has in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Tags, and digests that no tag leads to.
    pub images: u64,
    /// Manifests of all kinds, what refers to an image among them.
    pub manifests: u64,
    /// Configs and layers.
    pub blobs: u64,
    /// The size of the archive, in bytes.
    pub bytes: u64,
    /// Images that are not in it because something of them lacks: the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// How many these are.
    #[serde(default)]
    pub left_out_count: u64,
}

/// A content of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Manifest(Digest, u64),
    Blob(Digest, u64),
}

impl Item {
    pub(super) fn digest(&self) -> &Digest {
        match self {
            Self::Manifest(digest, _) | Self::Blob(digest, _) => digest,
        }
    }

    pub(super) fn size(self) -> u64 {
        match self {
            Self::Manifest(_, size) | Self::Blob(_, size) => size,
        }
    }
}

/// A bundle to be written.
pub(super) struct Plan {
    /// The text of `index.json`.
    pub(super) index: Vec<u8>,
    /// And of `manifest.json`; empty when no image is fit for it.
    pub(super) docker: Vec<u8>,
    pub(super) items: Vec<Item>,
    pub(super) exported: Exported,
}

/// Finds out what belongs in.
pub(super) async fn plan(
    cache: &Cache,
    places: &Places,
    finder: &Finder,
    options: &ExportOptions,
) -> Result<Plan, String> {
    let failed = |error: crate::cache::Error| error.message;
    let images = if options.refs.is_empty() {
        check_days(options.days)?;
        let span = options.days.saturating_mul(86_400_000);
        let since = Timestamp(Timestamp::now().0.saturating_sub(span));
        let mut images = Vec::new();
        for upstream in places.upstreams() {
            let pulls = Pulls::of(cache, places, upstream.prefix(), since).await;
            let mut pulls = pulls.map_err(failed)?;
            while let Some(repository) = pulls.next().await.map_err(failed)? {
                images.extend(repository.images(cache).await.map_err(failed)?);
            }
        }
        if images.is_empty() {
            return Err(format!("nothing was pulled within {} days", options.days));
        }
        images
    } else {
        let mut named = Vec::new();
        for text in &options.refs {
            let (place, reference) = finder(text).map_err(|error| format!("{text}: {}", error.message))?;
            named.push((place, reference));
        }
        named_images(cache, named).await.map_err(failed)?
    };
    let is_whole = |image: &Image| !image.closure.lacks.iter().any(spoils);
    let (whole, lacking): (Vec<_>, Vec<_>) = images.into_iter().partition(is_whole);
    if !lacking.is_empty() && (!options.skip_incomplete || whole.is_empty()) {
        return Err(refusal(&lacking, !options.refs.is_empty()));
    }
    let mut plan = Plan::of(&whole).map_err(|error| error.to_string())?;
    plan.exported.left_out_count = lacking.len() as u64;
    plan.exported.left_out = lacking.iter().take(MOST_NAMED).map(Image::written).collect();
    Ok(plan)
}

/// Whether an image of which this lacks cannot go into a bundle.
fn spoils(lack: &Lack) -> bool {
    lack.is_of_content() || lack.reason == Reason::Gone
}

fn refusal(lacking: &[Image], are_named: bool) -> String {
    // A drill looks at what clients pulled alone.
    let by = if are_named { "pull" } else { "drill --fill" };
    let mut lines = vec![format!(
        "{} not whole: fetch what lacks with `wharfinger {by}`, or leave them out with --skip-incomplete",
        match lacking.len() {
            1 => "1 image is".to_owned(),
            many => format!("{many} images are"),
        }
    )];
    for image in lacking.iter().take(MOST_NAMED) {
        let first = image.closure.lacks.iter().find(|lack| spoils(lack));
        let lack = |lack: &Lack| {
            let digest = lack
                .digest
                .as_ref()
                .map_or_else(String::new, |digest| format!("{digest} "));
            format!("{} {digest}is {}", lack.what.as_str(), lack.reason.as_str())
        };
        lines.push(format!(
            "{}: {}",
            image.written(),
            first.map(lack).unwrap_or_default()
        ));
    }
    if lacking.len() > MOST_NAMED {
        lines.push(format!("and {} more", lacking.len() - MOST_NAMED));
    }
    lines.join("\n")
}

/// Images by name, with all of their platforms that are here.
async fn named_images(
    cache: &Cache,
    named: Vec<(Place, Reference)>,
) -> Result<Vec<Image>, crate::cache::Error> {
    let _ = cache.storage().index.commit(Vec::new()).await;
    let around = Surroundings::of(cache);
    let find = move |index: &crate::storage::Index| {
        let (mut images, mut seen) = (Vec::new(), HashSet::new());
        for (place, reference) in named {
            if !seen.insert((place.key.clone(), reference.clone())) {
                continue;
            }
            let closure = around.closure(index, &place, &reference, None, &Choice::Here)?;
            images.push(Image {
                place,
                reference,
                pulled: None,
                digests: Arc::default(),
                closure,
            });
        }
        Ok(images)
    };
    Ok(cache.storage().index.read(find).await?)
}

impl Plan {
    fn of(images: &[Image]) -> Result<Self, serde_json::Error> {
        let (mut roots, mut items, mut docker) = (Vec::new(), Vec::new(), Vec::new());
        let (mut written, mut referring) = (HashSet::new(), HashSet::new());
        for image in images {
            let repository = repository(&image.place);
            let Some(root) = image.closure.root else { continue };
            if let Reference::Tag(tag) = &image.reference {
                // It knows no platforms: an image of one, then.
                let images = image.closure.manifests.iter();
                let mut images = images.filter(|piece| !piece.is_referrer && !piece.parts.is_empty());
                if let (Some(only), None) = (images.next(), images.next()) {
                    docker.extend(DockerImage::new(format!("{repository}:{tag}"), &only.parts));
                }
            }
            for piece in &image.closure.manifests {
                let named = if piece.digest == root {
                    let name = match &image.reference {
                        Reference::Tag(tag) => format!(":{tag}"),
                        Reference::Digest(digest) => format!("@{digest}"),
                    };
                    Some(annotations(&repository, &name, image.closure.confirmed))
                } else if piece.is_referrer && referring.insert((repository.clone(), piece.digest)) {
                    // Nothing names it: it names what it refers to.
                    Some([(REPOSITORY.to_owned(), repository.clone())].into())
                } else {
                    None
                };
                roots.extend(named.map(|annotations| Descriptor {
                    media_type: piece.media_type.clone(),
                    digest: piece.digest.to_string(),
                    size: piece.size,
                    artifact_type: piece.artifact_type.clone().filter(|_| piece.is_referrer),
                    annotations,
                    urls: Vec::new(),
                    platform: None,
                }));
                if written.insert(piece.digest) {
                    items.push(Item::Manifest(piece.digest, piece.size));
                }
            }
            for (digest, size) in &image.closure.blobs {
                if written.insert(*digest) {
                    items.push(Item::Blob(*digest, *size));
                }
            }
        }
        let index = serde_json::to_vec(&IndexDocument::new(roots))?;
        let docker = match docker.as_slice() {
            [] => Vec::new(),
            docker => serde_json::to_vec(docker)?,
        };
        let is_blob = |item: &&Item| matches!(item, Item::Blob(..));
        let blobs = items.iter().filter(is_blob).count() as u64;
        let contents: u64 = items
            .iter()
            .map(|item| taken(&blob_path(item.digest()), item.size()))
            .sum();
        let exported = Exported {
            images: images.len() as u64,
            manifests: items.len() as u64 - blobs,
            blobs,
            bytes: taken(LAYOUT_FILE, LAYOUT.len() as u64)
                + taken(INDEX_FILE, index.len() as u64)
                + Some(&docker)
                    .filter(|docker| !docker.is_empty())
                    .map_or(0, |docker| taken(DOCKER_FILE, docker.len() as u64))
                + contents
                + END,
            ..Exported::default()
        };
        Ok(Self {
            index,
            docker,
            items,
            exported,
        })
    }
}
