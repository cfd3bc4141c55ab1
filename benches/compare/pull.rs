//! A pull as dockerd does it: the manifest by tag, then config and layers, three at a time, each checked against its
//! digest. And a push, for the plain registry that has to hold the content itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::client::{self, Body, Connection};
use crate::content::{Blob, Content, Image, MANIFEST_TYPE, blob_path, digest_name, manifest_path};

/// dockerd's `max-concurrent-downloads`.
const AT_A_TIME: usize = 3;

/// Pulls an image and returns the wall time.
pub(crate) async fn image(address: SocketAddr, image: &Image) -> Result<Duration> {
    let start = Instant::now();
    let mut first = Connection::open(address).await?;
    let request = client::get(address, &manifest_path("latest"));
    first
        .fetch(&request, image.manifest.len() as u64)
        .await
        .context("pulling the manifest")?;
    let waiting = Arc::new(Mutex::new(image.blobs.clone()));
    let mut connections = vec![first];
    while connections.len() < AT_A_TIME {
        connections.push(Connection::open(address).await?);
    }
    let workers = connections.into_iter().map(|mut connection| {
        let waiting = Arc::clone(&waiting);
        tokio::spawn(async move {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(next) = next else { return anyhow::Ok(()) };
                blob(&mut connection, &next, address).await?;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.context("a puller")??;
    }
    Ok(start.elapsed())
}

/// Pulls one blob, checks its digest, and returns the time to its first byte.
pub(crate) async fn blob(connection: &mut Connection, blob: &Blob, address: SocketAddr) -> Result<Duration> {
    let start = Instant::now();
    let head = connection
        .send(&client::get(address, &blob_path(&blob.digest)))
        .await?;
    ensure!(
        head.status == 200 && head.length == blob.size,
        "{head:?} for a blob of {} bytes",
        blob.size
    );
    let mut hasher = Sha256::new();
    let mut first_byte = None;
    loop {
        let piece = connection
            .piece()
            .await
            .with_context(|| format!("pulling {}", blob.digest))?;
        if piece.is_empty() {
            break;
        }
        first_byte.get_or_insert_with(|| start.elapsed());
        hasher.update(piece);
    }
    let got = digest_name(hasher);
    ensure!(got == blob.digest, "{got} arrived instead of {}", blob.digest);
    Ok(first_byte.unwrap_or_default())
}

/// Pushes everything to a registry: blobs in one piece each, then the manifest.
pub(crate) async fn push(address: SocketAddr, content: &Content) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    for blob in content.every_blob() {
        push_blob(&mut connection, address, Content::REPOSITORY, blob).await?;
    }
    match content.the_image() {
        Some(image) => push_manifest(&mut connection, Content::REPOSITORY, image).await,
        None => Ok(()),
    }
}

/// Pushes an image to a repository, the same way.
pub(crate) async fn push_image(address: SocketAddr, repository: &str, image: &Image) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    for blob in &image.blobs {
        push_blob(&mut connection, address, repository, blob).await?;
    }
    push_manifest(&mut connection, repository, image).await
}

async fn push_blob(
    connection: &mut Connection,
    address: SocketAddr,
    repository: &str,
    blob: &Blob,
) -> Result<()> {
    let start = format!("/v2/{repository}/blobs/uploads/");
    let head = connection
        .send_with("POST", &start, "application/octet-stream", Body::Bytes(&[]))
        .await?;
    ensure!(head.status == 202, "an upload was answered {}", head.status);
    connection.discard().await?;
    let location = head.location.context("an upload without Location")?;
    let path = location
        .strip_prefix(&format!("http://{address}"))
        .unwrap_or(&location);
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{joint}digest={}", blob.digest);
    let head = connection
        .send_with("PUT", &path, "application/octet-stream", Body::Blob(blob))
        .await?;
    ensure!(head.status == 201, "a blob was answered {}", head.status);
    connection.discard().await
}

async fn push_manifest(connection: &mut Connection, repository: &str, image: &Image) -> Result<()> {
    let path = format!("/v2/{repository}/manifests/latest");
    let head = connection
        .send_with("PUT", &path, MANIFEST_TYPE, Body::Bytes(&image.manifest))
        .await?;
    ensure!(head.status == 201, "the manifest was answered {}", head.status);
    connection.discard().await
}
