//! The downloads of one fill: the front's, and those of parts far ahead of it. No byte is asked for twice: each stream
//! stops where another one began, or where bytes are already.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::storage::{Growing, NEAR, Want};

/// Bytes fetched at the least for a part: less would cost a round trip each.
const LEAST_PART: u64 = 256 * 1024;

/// A shorter stretch is not worth one more download.
const LEAST_STRETCH: u64 = 8 * 1024 * 1024;

/// One download: it will bring `cursor..limit`.
pub(super) struct Stream {
    cursor: AtomicU64,
    limit: AtomicU64,
    ended: CancellationToken,
}

impl Stream {
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self, cursor: u64) {
        self.cursor.store(cursor, Ordering::Release);
    }

    /// Where it begins, before it advances.
    pub(super) fn start(&self) -> u64 {
        self.cursor()
    }

    fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Acquire)
    }

    /// It brings nothing more.
    pub(super) fn stop(&self) {
        self.limit.store(self.cursor(), Ordering::Release);
    }

    fn will_bring(&self, position: u64) -> bool {
        self.cursor() <= position && position < self.limit()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

type List = Arc<Mutex<Vec<Arc<Stream>>>>;

/// All downloads of one fill. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Streams {
    running: List,
}

/// A stream as long as it runs.
pub(super) struct Running {
    pub(super) stream: Arc<Stream>,
    list: List,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.list).retain(|other| !Arc::ptr_eq(other, &self.stream));
        self.stream.ended.cancel();
    }
}

fn lock(list: &List) -> MutexGuard<'_, Vec<Arc<Stream>>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// Takes part in what is planned: from `start` up to `limit`.
    fn add(&self, list: &mut Vec<Arc<Stream>>, start: u64, limit: u64) -> Running {
        let stream = Arc::new(Stream {
            cursor: AtomicU64::new(start),
            limit: AtomicU64::new(limit),
            ended: CancellationToken::new(),
        });
        list.push(stream.clone());
        Running {
            stream,
            list: self.running.clone(),
        }
    }

    /// The front goes on at `start`, up to what is here or on its way; or the stream that brings `start` already.
    pub(super) fn front(&self, growing: &Growing, start: u64) -> Result<Running, Arc<Stream>> {
        let mut list = lock(&self.running);
        if !growing.is_kept() {
            // What is in the file, or on its way there, is not for those who read from the window.
            return Ok(self.add(&mut list, start, u64::MAX));
        }
        if let Some(stream) = list.iter().find(|stream| stream.will_bring(start)) {
            return Err(stream.clone());
        }
        let limit = next_obstacle(&list, growing, start).unwrap_or(u64::MAX);
        Ok(self.add(&mut list, start, limit))
    }

    /// Downloads at the moment.
    pub(super) fn count(&self) -> usize {
        lock(&self.running).len()
    }

    /// What one more download would best bring: the longest stretch that nobody brings, or the second half of the longest
    /// that one is to bring. `None` when no stretch is worth it.
    pub(super) fn widest(&self, growing: &Growing) -> Option<(u64, u64)> {
        let mut list: Vec<(u64, u64)> = {
            let list = lock(&self.running);
            list.iter()
                .map(|stream| (stream.cursor(), stream.limit()))
                .collect()
        };
        list.sort_unstable();
        let size = growing.size()?;
        let mut stretches = Vec::new();
        let mut start = growing.end_from(0);
        while start < size {
            let end = growing.next_start(start).unwrap_or(size).min(size);
            let brought = list
                .iter()
                .map(|(cursor, limit)| ((*cursor).max(start), (*limit).min(end)))
                .filter(|(cursor, limit)| cursor < limit);
            let mut free = start;
            for (cursor, limit) in brought {
                stretches.push((free, cursor));
                let half = cursor + (limit - cursor) / 2;
                stretches.push((half.next_multiple_of(NEAR), limit));
                free = limit.max(free);
            }
            stretches.push((free, end));
            start = growing.end_from(end);
        }
        let length = |(start, end): &(u64, u64)| end.saturating_sub(*start);
        let longest = stretches.into_iter().max_by_key(length)?;
        (length(&longest) >= LEAST_STRETCH).then_some(longest)
    }

    /// Plans a stretch for a download that has answered, where there are at most `most` with it: whoever was to bring it
    /// stops before it. `None` when it is here or near by now.
    pub(super) fn claim(&self, growing: &Growing, (start, end): (u64, u64), most: usize) -> Option<Running> {
        let mut list = lock(&self.running);
        if list.len() >= most || !growing.is_kept() || growing.end_from(start) > start {
            return None;
        }
        if let Some(stream) = list.iter().find(|stream| stream.will_bring(start)) {
            if start - stream.cursor().min(start) <= NEAR {
                return None;
            }
            stream.limit.store(start, Ordering::Release);
        }
        let end = next_obstacle(&list, growing, start).map_or(end, |obstacle| obstacle.min(end));
        Some(self.add(&mut list, start, end))
    }

    /// A stream for what a reader wants, `most` at a time; `None` when it is here, or will be soon.
    pub(super) fn side(&self, growing: &Growing, want: Want, most: usize) -> Option<(Running, u64)> {
        let mut list = lock(&self.running);
        let size = growing.size()?;
        let start = growing.end_from(want.position);
        let end = want.end.min(size);
        if start >= end || list.len() > most {
            return None;
        }
        if let Some(stream) = list.iter().find(|stream| stream.will_bring(start)) {
            if start - stream.cursor().min(start) <= NEAR {
                return None;
            }
            // It ends where the new one begins.
            stream.limit.store(start, Ordering::Release);
        }
        let obstacle = next_obstacle(&list, growing, start).unwrap_or(size);
        let end = end.max(start.saturating_add(LEAST_PART)).min(obstacle).min(size);
        Some((self.add(&mut list, start, end), end))
    }
}

/// The first byte after `start` that is here or that a stream will bring.
fn next_obstacle(list: &[Arc<Stream>], growing: &Growing, start: u64) -> Option<u64> {
    let streams = list
        .iter()
        .map(|stream| stream.cursor())
        .filter(|cursor| *cursor > start);
    streams.chain(growing.next_start(start)).min()
}
