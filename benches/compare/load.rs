//! Load: a bounded number of equal GETs over some keep-alive connections, each as fast as it is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::client::{self, Connection};

/// Sends `total` GETs for `path` over `connections` connections; each answer must be a 200 of `expected` bytes.
/// Returns the wall time, connecting excluded.
pub(crate) async fn repeat(
    address: SocketAddr,
    path: &str,
    connections: usize,
    total: u64,
    expected: u64,
) -> Result<Duration> {
    let request: Arc<[u8]> = client::get(address, path).into();
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let sent = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut tasks = Vec::with_capacity(connections);
    for mut connection in open {
        let (request, sent) = (Arc::clone(&request), Arc::clone(&sent));
        tasks.push(tokio::spawn(async move {
            while sent.fetch_add(1, Ordering::Relaxed) < total {
                connection.fetch(&request, expected).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await
            .context("a client")?
            .with_context(|| format!("GET {path}"))?;
    }
    Ok(start.elapsed())
}
