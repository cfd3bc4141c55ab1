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
    /// Nobody waits for just this: it gives way to what somebody does.
    is_spare: bool,
    stopped: CancellationToken,
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
        self.stopped.cancel();
    }

    /// Waits until it is to bring nothing more.
    pub(super) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    fn left(&self) -> u64 {
        self.limit().saturating_sub(self.cursor())
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
#[derive(Clone)]
pub(super) struct Streams {
    running: List,
    /// So many, beside those that readers far ahead need.
    most: usize,
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
    /// None yet, and so many at a time.
    pub(super) fn new(most: usize) -> Self {
        Self {
            running: List::default(),
            most,
        }
    }

    /// Takes part in what is planned: from `start` up to `limit`.
    fn add(&self, list: &mut Vec<Arc<Stream>>, start: u64, limit: u64, is_spare: bool) -> Running {
        let stream = Arc::new(Stream {
            cursor: AtomicU64::new(start),
            limit: AtomicU64::new(limit),
            is_spare,
            stopped: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        list.push(stream.clone());
        Running {
            stream,
            list: self.running.clone(),
        }
    }

    /// The front goes on at `start`, up to what is here or on its way; or the stream that brings `start` already, or has to
    /// end first because there are so many.
    pub(super) fn front(&self, growing: &Growing, start: u64) -> Result<Running, Arc<Stream>> {
        let mut list = lock(&self.running);
        if !growing.is_kept() {
            // What is in the file, or on its way there, is not for those who read from the window.
            return Ok(self.add(&mut list, start, u64::MAX, false));
        }
        if let Some(stream) = list.iter().find(|stream| stream.will_bring(start)) {
            return Err(stream.clone());
        }
        if list.len() >= self.most
            && let Some(spare) = longest_spare(&list)
        {
            spare.stop();
            return Err(spare.clone());
        }
        let limit = next_obstacle(&list, growing, start).unwrap_or(u64::MAX);
        Ok(self.add(&mut list, start, limit, false))
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
        let mut gaps = Vec::new();
        let mut start = growing.end_from(0);
        while start < size {
            let end = growing.next_start(start).unwrap_or(size).min(size);
            gaps.push((start, end));
            start = growing.end_from(end);
        }
        longest(&gaps, &list)
    }

    /// Plans a stretch for a further download that has answered: whoever was to bring it stops before it. `None` when it is
    /// here or near by now, or there are enough.
    pub(super) fn claim(&self, growing: &Growing, (start, end): (u64, u64)) -> Option<Running> {
        let mut list = lock(&self.running);
        if list.len() >= self.most || !growing.is_kept() || growing.end_from(start) > start {
            return None;
        }
        if let Some(stream) = list.iter().find(|stream| stream.will_bring(start)) {
            if start - stream.cursor().min(start) <= NEAR {
                return None;
            }
            stream.limit.store(start, Ordering::Release);
        }
        let end = next_obstacle(&list, growing, start).map_or(end, |obstacle| obstacle.min(end));
        Some(self.add(&mut list, start, end, true))
    }

    /// Ends the one of the further connections that would run the longest.
    pub(super) fn give_way(&self) {
        if let Some(spare) = longest_spare(&lock(&self.running)) {
            spare.stop();
        }
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
        if list.len() >= self.most
            && let Some(spare) = longest_spare(&list)
        {
            spare.stop();
        }
        let obstacle = next_obstacle(&list, growing, start).unwrap_or(size);
        let end = end.max(start.saturating_add(LEAST_PART)).min(obstacle).min(size);
        Some((self.add(&mut list, start, end, false), end))
    }
}

/// The stream that can be done without and would run the longest.
fn longest_spare(list: &[Arc<Stream>]) -> Option<&Arc<Stream>> {
    let spare = list.iter().filter(|stream| stream.is_spare);
    spare.max_by_key(|stream| stream.left())
}

/// The longest stretch of the gaps that none of the streams (cursors and limits, in order) is to bring, or the second half
/// of the longest that one is.
fn longest(gaps: &[(u64, u64)], streams: &[(u64, u64)]) -> Option<(u64, u64)> {
    let mut stretches = Vec::new();
    for (start, end) in gaps {
        let mut free = *start;
        let within = streams
            .iter()
            .map(|(cursor, limit)| ((*cursor).max(*start), (*limit).min(*end)));
        for (cursor, limit) in within.filter(|(cursor, limit)| cursor < limit) {
            let half = cursor + (limit - cursor) / 2;
            stretches.extend([(free, cursor), (half.next_multiple_of(NEAR), limit)]);
            free = free.max(limit);
        }
        stretches.push((free, *end));
    }
    let length = |(start, end): &(u64, u64)| end.saturating_sub(*start);
    let longest = stretches.into_iter().max_by_key(length)?;
    (length(&longest) >= LEAST_STRETCH).then_some(longest)
}

/// The first byte after `start` that is here or that a stream will bring.
fn next_obstacle(list: &[Arc<Stream>], growing: &Growing, start: u64) -> Option<u64> {
    let streams = list
        .iter()
        .map(|stream| stream.cursor())
        .filter(|cursor| *cursor > start);
    streams.chain(growing.next_start(start)).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    type Spans = &'static [(u64, u64)];
    type Case = (Spans, Spans, Option<(u64, u64)>);

    #[test]
    fn the_stretch_that_is_worth_most() {
        let mib = |spans: &[(u64, u64)]| -> Vec<_> {
            let bytes = spans
                .iter()
                .map(|(start, end)| (start * MIB, end.saturating_mul(MIB)));
            bytes.collect()
        };
        // Gaps, streams, and what one more would bring.
        let table: [Case; 8] = [
            (&[(10, 100)], &[(10, u64::MAX)], Some((55, 100))),
            (&[(10, 100)], &[(10, 55), (55, 100)], Some((78, 100))),
            // What nobody brings comes first, when it is the longest.
            (&[(10, 100)], &[(10, 40)], Some((40, 100))),
            (&[(10, 50), (60, 100)], &[(10, 50)], Some((60, 100))),
            (&[(10, 24)], &[(10, 24)], None),
            (&[(10, 26)], &[(10, 26)], Some((18, 26))),
            (&[(10, 17)], &[], None),
            (&[], &[], None),
        ];
        for (gaps, streams, expected) in table {
            let found = longest(&mib(gaps), &mib(streams));
            let expected = expected.map(|(start, end)| (start * MIB, end * MIB));
            assert_eq!(found, expected, "{gaps:?} {streams:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stretch_lies_in_a_gap_and_leaves_streams_their_first_half(
            cuts in prop::collection::btree_set(0_u64..400, 2..12),
            streams in prop::collection::btree_set(0_u64..400, 0..5),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().map(|at| at * MIB + at % 3).collect();
            let gaps: Vec<_> = cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let starts: Vec<u64> = streams.into_iter().map(|at| at * MIB + at % 5).collect();
            let ends = starts.iter().skip(1).copied().chain([u64::MAX]);
            let streams: Vec<_> = starts.iter().copied().zip(ends).collect();
            if let Some((start, end)) = longest(&gaps, &streams) {
                prop_assert!(end - start >= LEAST_STRETCH);
                let gap = gaps.iter().find(|gap| gap.0 <= start && end <= gap.1);
                prop_assert!(gap.is_some());
                let (from, to) = gap.copied().unwrap_or_default();
                for (cursor, limit) in streams {
                    let (cursor, limit) = (cursor.max(from), limit.min(to));
                    prop_assert!(cursor >= limit || end <= cursor || start >= cursor + (limit - cursor) / 2);
                }
            }
        }
    }
}
