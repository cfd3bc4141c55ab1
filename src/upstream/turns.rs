//! Turns at a host: so many requests at once, and who comes next. A client who waits comes before what has a copy, that
//! before work nobody waits for, and such work never holds more than half of the turns: a client does not stand behind
//! it. Called by `transport`.
//!
//! Waiting has no time-out of its own. Each turn ends: small answers have a minute, downloads an idle time-out. A client
//! without a copy is told after `server.answer_timeout` that there is no answer yet; the fill keeps its place.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::errand::{Purpose, SharedPurpose};

/// Small requests to one host at a time. A burst of pulls asks for hundreds of manifests; what is over waits moments.
const SMALL: usize = 64;

/// More lines than this are not remembered while nobody stands in them.
const MOST_LINES: usize = 256;

/// Which turns: each kind has its own, so that none waits for what the same request holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Small answers; HTTP/2 where the host speaks it.
    Api,
    /// Tokens and challenges, which are asked for while a turn of another lane is held.
    Login,
    /// Blobs: HTTP/1.1, because HTTP/2 would put all downloads from a host on one connection.
    Bulk,
}

type Lines = HashMap<(Lane, Box<str>), Arc<Line>>;

/// The turns at all hosts of one upstream.
pub(super) struct Turns {
    bulk: usize,
    lines: Mutex<Lines>,
}

/// One turn. It ends when this is dropped.
pub(super) struct Turn {
    line: Arc<Line>,
    id: u64,
}

/// Those who have a turn at one host, and those who wait for one.
struct Line {
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    held: HashMap<u64, SharedPurpose>,
    /// In order of arrival.
    waiting: Vec<Waiter>,
}

struct Waiter {
    id: u64,
    purpose: SharedPurpose,
    call: oneshot::Sender<Turn>,
}

impl Turns {
    /// `bulk` downloads at a time from each host.
    pub(super) fn new(bulk: usize) -> Self {
        Self {
            bulk: bulk.max(1),
            lines: Mutex::default(),
        }
    }

    /// Waits for a turn. Giving up waiting costs nobody anything.
    pub(super) async fn take(&self, lane: Lane, host: &str, purpose: &SharedPurpose) -> Turn {
        self.line(lane, host).take(purpose).await
    }

    /// Whether a download may have a second turn for the same blob: nobody waits, and half of the turns are free.
    pub(super) fn are_ample(&self, host: &str) -> bool {
        let line = self.line(Lane::Bulk, host);
        let state = line.state();
        state.waiting.is_empty() && state.held.len() <= line.most / 2
    }

    /// Whether somebody waits for a download's turn.
    pub(super) fn is_crowded(&self, host: &str) -> bool {
        !self.line(Lane::Bulk, host).state().waiting.is_empty()
    }

    fn line(&self, lane: Lane, host: &str) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (lane, host.into());
        if let Some(line) = lines.get(&key) {
            return line.clone();
        }
        if lines.len() >= MOST_LINES {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        let most = if lane == Lane::Bulk { self.bulk } else { SMALL };
        let line = Arc::new(Line {
            most,
            state: Mutex::default(),
        });
        lines.insert(key, line.clone());
        line
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(self: Arc<Self>, purpose: &SharedPurpose) -> Turn {
        loop {
            // Before we are looked at, so that no raise after that is missed.
            let mut known = purpose.get();
            let (call, mut called) = oneshot::channel();
            let id = {
                let mut state = self.state();
                state.next += 1;
                let (id, purpose) = (state.next, purpose.clone());
                state.waiting.push(Waiter { id, purpose, call });
                id
            };
            let _place = Place { line: &self, id };
            self.serve();
            loop {
                tokio::select! {
                    biased;
                    turn = &mut called => match turn {
                        Ok(turn) => return turn,
                        Err(_) => break,
                    },
                    () = purpose.raised_above(known) => {
                        known = purpose.get();
                        self.serve();
                    }
                }
            }
        }
    }

    /// Gives out what turns there are.
    fn serve(self: &Arc<Self>) {
        loop {
            let next = self.state().next(self.most);
            let Some((call, id)) = next else { return };
            let line = self.clone();
            // Without the lock: a turn that nobody takes any more ends here, and the next one gets it.
            let _ = call.send(Turn { line, id });
        }
    }
}

impl State {
    /// Takes who comes next out of those who wait, if there is a turn.
    fn next(&mut self, most: usize) -> Option<(oneshot::Sender<Turn>, u64)> {
        if self.waiting.is_empty() || self.held.len() >= most {
            return None;
        }
        let behind = self.held.values().map(SharedPurpose::get);
        let behind = behind.filter(|purpose| *purpose == Purpose::Background).count();
        let background = behind < (most / 2).max(1);
        let may = |waiter: &Waiter| background || waiter.purpose.get() > Purpose::Background;
        let (place, _) = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, waiter)| may(waiter))
            .max_by_key(|(place, waiter)| (waiter.purpose.get(), Reverse(*place)))?;
        let waiter = self.waiting.remove(place);
        self.held.insert(waiter.id, waiter.purpose);
        Some((waiter.call, waiter.id))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line.state().held.remove(&self.id);
        self.line.serve();
    }
}

/// A place among those who wait, as long as somebody does.
struct Place<'a> {
    line: &'a Line,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.state().waiting.retain(|waiter| waiter.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use proptest::prelude::*;

    type Waiting = Pin<Box<dyn Future<Output = Turn>>>;

    fn purpose(of: Purpose) -> SharedPurpose {
        SharedPurpose::new(of)
    }

    fn ask(turns: &Arc<Turns>, purpose: &SharedPurpose) -> Waiting {
        let (turns, purpose) = (turns.clone(), purpose.clone());
        Box::pin(async move { turns.take(Lane::Bulk, "a", &purpose).await })
    }

    fn poll(waiting: &mut Waiting) -> Option<Turn> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    fn now(turns: &Arc<Turns>, of: Purpose) -> Option<Turn> {
        poll(&mut ask(turns, &purpose(of)))
    }

    #[test]
    fn hosts_and_lanes_have_turns_of_their_own() {
        let turns = Arc::new(Turns::new(1));
        let _held = now(&turns, Purpose::Miss).unwrap();
        assert!(now(&turns, Purpose::Miss).is_none());
        let miss = purpose(Purpose::Miss);
        for (lane, host) in [(Lane::Bulk, "b"), (Lane::Api, "a"), (Lane::Login, "a")] {
            let mut other: Waiting = Box::pin({
                let (turns, miss) = (turns.clone(), miss.clone());
                async move { turns.take(lane, host, &miss).await }
            });
            assert!(poll(&mut other).is_some(), "{lane:?} {host}");
        }
    }

    #[test]
    fn who_is_more_urgent_comes_first_and_then_who_came_first() {
        let turns = Arc::new(Turns::new(1));
        let mut held = now(&turns, Purpose::Miss);
        let order = [
            Purpose::Background,
            Purpose::Refresh,
            Purpose::Miss,
            Purpose::Refresh,
            Purpose::Miss,
        ];
        let mut waiting = order.map(|of| ask(&turns, &purpose(of)));
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
        let mut came = Vec::new();
        for _ in order {
            drop(held.take());
            for (place, waiting) in waiting.iter_mut().enumerate() {
                if !came.contains(&place)
                    && let Some(turn) = poll(waiting)
                {
                    came.push(place);
                    held = Some(turn);
                }
            }
        }
        assert_eq!(came, [2, 4, 1, 3, 0]);
    }

    #[test]
    fn background_work_leaves_half_of_the_turns() {
        for (most, share) in [(1, 1), (2, 1), (3, 1), (4, 2), (64, 32)] {
            let turns = Arc::new(Turns::new(most));
            let held: Vec<_> = std::iter::from_fn(|| now(&turns, Purpose::Background)).collect();
            assert_eq!(held.len(), share, "of {most}");
            let rest: Vec<_> = std::iter::from_fn(|| now(&turns, Purpose::Miss)).collect();
            assert_eq!(rest.len(), most - share, "of {most}");
        }
    }

    #[test]
    fn what_a_client_joins_waits_no_longer_behind_the_share() {
        let turns = Arc::new(Turns::new(4));
        let first = purpose(Purpose::Background);
        let _held = [poll(&mut ask(&turns, &first)), now(&turns, Purpose::Background)];
        let joined = purpose(Purpose::Background);
        let mut waiting = ask(&turns, &joined);
        assert!(poll(&mut waiting).is_none());
        joined.raise(Purpose::Miss);
        let turn = poll(&mut waiting);
        assert!(turn.is_some());
        // One that runs and is joined no longer counts as background either.
        first.raise(Purpose::Miss);
        assert!(now(&turns, Purpose::Background).is_some());
    }

    #[test]
    fn giving_up_loses_no_turn() {
        let turns = Arc::new(Turns::new(1));
        let held = now(&turns, Purpose::Miss);
        let mut given_up = ask(&turns, &purpose(Purpose::Miss));
        assert!(poll(&mut given_up).is_none());
        drop(held);
        // It was called, and leaves before it hears.
        drop(given_up);
        assert!(now(&turns, Purpose::Miss).is_some());
    }

    #[test]
    fn a_second_turn_for_one_blob_needs_room() {
        let turns = Arc::new(Turns::new(4));
        assert!(turns.are_ample("a"));
        let _held: Vec<_> = (0..2).map(|_| now(&turns, Purpose::Miss)).collect();
        assert!(turns.are_ample("a"));
        let _third = now(&turns, Purpose::Miss);
        assert!(!turns.are_ample("a") && turns.are_ample("b"));
        let _fourth = now(&turns, Purpose::Miss);
        let mut waiting = ask(&turns, &purpose(Purpose::Background));
        assert!(poll(&mut waiting).is_none() && turns.is_crowded("a") && !turns.is_crowded("b"));
        let single = Arc::new(Turns::new(1));
        let _only = now(&single, Purpose::Miss);
        assert!(!single.are_ample("a"));
    }

    #[test]
    fn lines_in_which_nobody_stands_are_forgotten() {
        let turns = Arc::new(Turns::new(1));
        let miss = purpose(Purpose::Miss);
        let kept = now(&turns, Purpose::Miss);
        for host in 0..2 * MOST_LINES {
            let (turns, miss) = (turns.clone(), miss.clone());
            let mut other: Waiting =
                Box::pin(async move { turns.take(Lane::Bulk, &host.to_string(), &miss).await });
            assert!(poll(&mut other).is_some());
        }
        assert!(turns.lines.lock().unwrap().len() <= MOST_LINES);
        assert!(now(&turns, Purpose::Miss).is_none());
        drop(kept);
        assert!(now(&turns, Purpose::Miss).is_some());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(u8),
        Poll(usize),
        GiveUp(usize),
        End(usize),
        Raise(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..3).prop_map(Step::Arrive),
            4 => any::<usize>().prop_map(Step::Poll),
            1 => any::<usize>().prop_map(Step::GiveUp),
            2 => any::<usize>().prop_map(Step::End),
            1 => any::<usize>().prop_map(Step::Raise),
        ]
    }

    proptest! {
        #[test]
        fn never_more_than_there_are_and_none_lost(
            most in 1_usize..6,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let turns = Arc::new(Turns::new(most));
            // With whether it has heard of its raise.
            let mut waiting: Vec<(Waiting, SharedPurpose, bool)> = Vec::new();
            let mut held: Vec<Turn> = Vec::new();
            for step in steps {
                match step {
                    Step::Arrive(of) => {
                        let purpose = purpose(Purpose::ALL[usize::from(of)]);
                        waiting.push((ask(&turns, &purpose), purpose, true));
                    }
                    Step::Poll(at) if !waiting.is_empty() => {
                        let at = at % waiting.len();
                        waiting[at].2 = true;
                        if let Some(turn) = poll(&mut waiting[at].0) {
                            held.push(turn);
                            drop(waiting.remove(at));
                        }
                    }
                    Step::GiveUp(at) if !waiting.is_empty() => drop(waiting.remove(at % waiting.len())),
                    Step::End(at) if !held.is_empty() => drop(held.remove(at % held.len())),
                    Step::Raise(at) if !waiting.is_empty() => {
                        let at = at % waiting.len();
                        waiting[at].1.raise(Purpose::Miss);
                        waiting[at].2 = false;
                    }
                    _ => {}
                }
                let line = turns.line(Lane::Bulk, "a");
                let state = line.state();
                prop_assert!(held.len() <= most && state.held.len() <= most);
                // A client waits only where every turn is taken.
                let client = state.waiting.iter().any(|waiter| waiter.purpose.get() > Purpose::Background);
                let all_heard = waiting.iter().all(|(_, _, heard)| *heard);
                prop_assert!(!client || state.held.len() == most || !all_heard);
            }
            drop(waiting);
            held.clear();
            prop_assert_eq!(std::iter::from_fn(|| now(&turns, Purpose::Miss)).collect::<Vec<_>>().len(), most);
        }
    }
}
