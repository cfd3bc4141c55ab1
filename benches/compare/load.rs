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
    let gets = [(path.to_owned(), expected)];
    each(address, &gets, connections, total).await
}

/// The same over several paths in turn, each with the length of its answer.
pub(crate) async fn each(
    address: SocketAddr,
    gets: &[(String, u64)],
    connections: usize,
    total: u64,
) -> Result<Duration> {
    let requests: Arc<[(Vec<u8>, u64)]> = gets
        .iter()
        .map(|(path, expected)| (client::get(address, path), *expected))
        .collect();
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let sent = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut tasks = Vec::with_capacity(connections);
    for mut connection in open {
        let (requests, sent) = (Arc::clone(&requests), Arc::clone(&sent));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(());
                }
                let (request, expected) = &requests[number as usize % requests.len()];
                connection.fetch(request, *expected).await?;
            }
        }));
    }
    for task in tasks {
        task.await.context("a client")?.with_context(|| match gets {
            [(path, _)] => format!("GET {path}"),
            several => format!("one of {} GETs", several.len()),
        })?;
    }
    Ok(start.elapsed())
}

/// Sends `total` GETs over several paths in turn, one after the other, and returns the median of their times: on a busy
/// machine the mean says more of the others.
pub(crate) async fn median(address: SocketAddr, gets: &[(String, u64)], total: u64) -> Result<Duration> {
    let requests = gets
        .iter()
        .map(|(path, expected)| (client::get(address, path), *expected));
    let requests: Vec<_> = requests.collect();
    let mut connection = Connection::open(address).await?;
    let mut times = Vec::new();
    for (request, expected) in requests.iter().cycle().take(usize::try_from(total)?) {
        let start = Instant::now();
        connection.fetch(request, *expected).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no request")
}
