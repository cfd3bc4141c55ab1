//! Long work that an operator asks for: it tells its progress while it runs, one of a kind runs at a time, and it stops
//! when who asked has gone or the daemon ends.
//!
//! A room that has such work implements [`Job`]; `app` puts it into [`Jobs`]; `api` serves it as `POST /api/<name>` and
//! sends its [`Event`]s, which `cli` shows.

mod parts;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use parts::{Part, PartState};

use parts::Parts;

/// How often progress is told, at the most.
const TELL: Duration = Duration::from_millis(100);
/// Notes that may wait for a slow listener; more are dropped, so a job logs what must not be lost.
const MOST_NOTES: usize = 1024;

/// Long work of one kind.
pub trait Job: Send + Sync + 'static {
    /// Its name: the subcommand and the last part of `/api/<name>`. Letters `a-z` and hyphens.
    const NAME: &'static str;
    /// Whether one runs at a time.
    const ALONE: bool = true;
    /// What is asked for: the JSON body of the request (an empty body is `{}`).
    type Options: DeserializeOwned + Send;
    /// What came of it: `result` of the last event.
    type Summary: Serialize + Send;

    /// Does it. Dropped only when the daemon is cut; else it is expected to look at [`Progress::is_stopped`] between
    /// two steps, and to end with what it has done.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn run(
        &self,
        options: Self::Options,
        progress: Progress,
    ) -> impl Future<Output = Result<Self::Summary, String>> + Send;
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things, whichever the job is about.
    #[default]
    Items,
}

/// A line of the stream of a job: `{"event": "progress", "done": 3, "total": 10, "unit": "items"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// How far it is.
    Progress {
        /// So much is done.
        done: u64,
        /// Of so much; absent when nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// How far a part of it is: `{"event": "part", "name": "sha256:...", "of": "docker-hub/library/alpine:3.20", "done": 3,
    /// "total": 10, "state": "running"}`. In bytes.
    Part {
        /// Its name.
        name: String,
        /// What it is a part of.
        of: String,
        /// So much is done.
        done: u64,
        /// Of so much; absent when nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// How it stands. After another than `running` nothing more is told of it.
        state: PartState,
    },
    /// Something that an operator should read.
    Note {
        /// A sentence.
        text: String,
    },
    /// It is done. The last event.
    Done {
        /// The job's own summary.
        result: serde_json::Value,
    },
    /// It could not be done. The last event.
    Failed {
        /// Why.
        message: String,
    },
}

/// Where a job tells how far it is. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    position: Arc<Position>,
    /// `None` when nobody listens.
    parts: Option<Arc<Parts>>,
    notes: mpsc::Sender<String>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Position {
    done: AtomicU64,
    /// `u64::MAX` when it is not known.
    total: AtomicU64,
    bytes: AtomicBool,
    told: AtomicBool,
}

impl Progress {
    /// Nobody listens: the daemon does it by itself, until `stop`.
    pub fn unheard(stop: CancellationToken) -> Self {
        Self {
            position: Arc::default(),
            parts: None,
            notes: mpsc::channel(1).0,
            stop,
        }
    }

    /// So much is done, of so much if that is known. May be called as often as one likes.
    pub fn at(&self, done: u64, total: Option<u64>, unit: Unit) {
        let position = &self.position;
        position.done.store(done, Ordering::Relaxed);
        position.total.store(total.unwrap_or(u64::MAX), Ordering::Relaxed);
        position.bytes.store(unit == Unit::Bytes, Ordering::Relaxed);
        position.told.store(true, Ordering::Release);
    }

    /// Begins a part, of so many bytes if that is known, of something that has a name.
    pub fn part(&self, name: impl Into<String>, of: impl Into<String>, total: Option<u64>) -> Part {
        Part::begin(self.parts.clone(), name.into(), of.into(), total)
    }

    /// Tells the operator something.
    pub fn note(&self, text: impl Into<String>) {
        let _ = self.notes.try_send(text.into());
    }

    /// Whether the job should end: who asked has gone, or the daemon stops.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the job should end.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

type Outcome = Result<serde_json::Value, String>;
type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Start = Box<dyn Fn(&[u8], Progress) -> Result<Work, StartError> + Send + Sync>;

/// Why a job does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// There is no such job.
    #[error("there is no such job")]
    Unknown,
    /// One of its kind is running.
    #[error("it is running already")]
    Running,
    /// The body does not say what it should.
    #[error("{0}")]
    Options(String),
}

struct Kind {
    start: Start,
    /// `None` when several may run at once.
    running: Option<Arc<AtomicBool>>,
}

/// All jobs that the daemon has.
#[derive(Default)]
pub struct Jobs {
    kinds: BTreeMap<&'static str, Kind>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Says that no job of this kind runs any more, after a panic too.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Jobs {
    /// No jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more.
    #[must_use]
    pub fn with<J: Job>(mut self, job: J) -> Self {
        let job = Arc::new(job);
        let start: Start = Box::new(move |options, progress| {
            let options = if options.trim_ascii().is_empty() {
                b"{}"
            } else {
                options
            };
            let options =
                serde_json::from_slice(options).map_err(|error| StartError::Options(error.to_string()))?;
            let job = job.clone();
            Ok(Box::pin(async move {
                let summary = job.run(options, progress).await?;
                serde_json::to_value(summary).map_err(|error| error.to_string())
            }))
        });
        let running = J::ALONE.then(Arc::default);
        self.kinds.insert(J::NAME, Kind { start, running });
        self
    }

    /// Starts the job `name` with the JSON text `options`. It runs until it is done, and is told to stop when the
    /// events are dropped.
    pub fn start(&self, name: &str, options: &[u8]) -> Result<Events, StartError> {
        let kind = self.kinds.get(name).ok_or(StartError::Unknown)?;
        let (sender, notes) = mpsc::channel(MOST_NOTES);
        let stop = self.stop.child_token();
        let (position, parts) = (Arc::<Position>::default(), Arc::<Parts>::default());
        let progress = Progress {
            position: position.clone(),
            parts: Some(parts.clone()),
            notes: sender,
            stop: stop.clone(),
        };
        let work = (kind.start)(options, progress)?;
        let is_running = |running: &Arc<AtomicBool>| running.swap(true, Ordering::AcqRel);
        if kind.running.as_ref().is_some_and(is_running) {
            return Err(StartError::Running);
        }
        let turn = kind.running.clone().map(Turn);
        let (told, outcome) = oneshot::channel();
        self.tasks.spawn(async move {
            let done = work.await;
            drop(turn);
            let _ = told.send(done);
        });
        let mut tick = tokio::time::interval(TELL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Events {
            position,
            parts,
            moved: VecDeque::new(),
            notes,
            outcome: Some(outcome),
            ended: None,
            tick,
            _stop: stop.drop_guard(),
        })
    }

    /// Tells all running jobs to stop; one that starts later is told at once.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Waits until all jobs have ended. Call [`Jobs::stop`] first.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }
}

/// What a job tells, in order. Dropped early, it tells the job to stop.
pub struct Events {
    position: Arc<Position>,
    parts: Arc<Parts>,
    /// Of the parts, still to be told.
    moved: VecDeque<Event>,
    notes: mpsc::Receiver<String>,
    outcome: Option<oneshot::Receiver<Outcome>>,
    /// The outcome, while what came before it is still to be told.
    ended: Option<Outcome>,
    tick: Interval,
    _stop: tokio_util::sync::DropGuard,
}

impl Events {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.moved.pop_front() {
                return Some(event);
            }
            if self.ended.is_some() {
                self.moved.extend(self.parts.moved());
                if !self.moved.is_empty() {
                    continue;
                }
                if let Ok(text) = self.notes.try_recv() {
                    return Some(Event::Note { text });
                }
                if let Some(event) = self.position() {
                    return Some(event);
                }
                return Some(match self.ended.take()? {
                    Ok(result) => Event::Done { result },
                    Err(message) => Event::Failed { message },
                });
            }
            let outcome = self.outcome.as_mut()?;
            tokio::select! {
                biased;
                Some(text) = self.notes.recv() => {
                    // What it speaks of comes first.
                    self.moved.extend(self.parts.moved());
                    self.moved.push_back(Event::Note { text });
                }
                ended = outcome => {
                    self.outcome = None;
                    self.ended = Some(ended.unwrap_or_else(|_| Err("it was given up".to_owned())));
                }
                _ = self.tick.tick() => {
                    self.moved.extend(self.parts.moved());
                    self.moved.extend(self.position());
                }
            }
        }
    }

    /// The position, if it was told since the last look.
    fn position(&self) -> Option<Event> {
        let position = &self.position;
        position.told.swap(false, Ordering::Acquire).then(|| {
            let total = position.total.load(Ordering::Relaxed);
            Event::Progress {
                done: position.done.load(Ordering::Relaxed),
                total: (total != u64::MAX).then_some(total),
                unit: if position.bytes.load(Ordering::Relaxed) {
                    Unit::Bytes
                } else {
                    Unit::Items
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    /// Counts to a number, one for each permit.
    struct Count(Arc<Semaphore>);

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct To {
        #[serde(default)]
        to: u64,
    }

    impl Job for Count {
        const NAME: &'static str = "count";
        type Options = To;
        type Summary = u64;

        async fn run(&self, options: To, progress: Progress) -> Result<u64, String> {
            for at in 0..options.to {
                tokio::select! {
                    permit = self.0.acquire() => permit.map_err(|_| "closed".to_owned())?.forget(),
                    () = progress.stopped() => return Err(format!("stopped at {at}")),
                }
                progress.at(at + 1, Some(options.to), Unit::Items);
            }
            progress.note("counted");
            Ok(options.to)
        }
    }

    fn jobs() -> (Jobs, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(0));
        (Jobs::new().with(Count(permits.clone())), permits)
    }

    #[tokio::test]
    async fn progress_notes_and_the_end_in_order() {
        let (jobs, permits) = jobs();
        let mut events = jobs.start("count", br#"{"to": 3}"#).unwrap();
        permits.add_permits(1);
        let progress = |done| Event::Progress {
            done,
            total: Some(3),
            unit: Unit::Items,
        };
        assert_eq!(events.next().await, Some(progress(1)));
        assert_eq!(jobs.start("count", b"").err(), Some(StartError::Running));
        permits.add_permits(2);
        let mut rest = Vec::new();
        while let Some(event) = events.next().await {
            rest.push(event);
        }
        let note = Event::Note {
            text: "counted".to_owned(),
        };
        let done = Event::Done { result: 3.into() };
        assert_eq!(rest.last(), Some(&done));
        assert!(rest.contains(&note) && rest.contains(&progress(3)), "{rest:?}");
        // The next one may run now, and no body is no options.
        let mut events = jobs.start("count", b" ").unwrap();
        assert_eq!(
            events.next().await,
            Some(Event::Note {
                text: "counted".to_owned()
            })
        );
    }

    #[tokio::test]
    async fn it_stops_when_nobody_listens_or_the_daemon_ends() {
        let (jobs, _permits) = jobs();
        drop(jobs.start("count", br#"{"to": 1}"#).unwrap());
        // Only the first one's stop lets the second in.
        let mut events = loop {
            match jobs.start("count", br#"{"to": 1}"#) {
                Ok(events) => break events,
                Err(error) => assert_eq!(error, StartError::Running),
            }
            tokio::task::yield_now().await;
        };
        jobs.stop();
        let stopped = Event::Failed {
            message: "stopped at 0".to_owned(),
        };
        assert_eq!(events.next().await, Some(stopped));
        assert_eq!(events.next().await, None);
        jobs.ended().await;
    }

    #[tokio::test]
    async fn what_does_not_start() {
        let (jobs, _permits) = jobs();
        assert_eq!(jobs.start("sing", b"").err(), Some(StartError::Unknown));
        let faulty = jobs.start("count", br#"{"too": 1}"#).err();
        assert!(matches!(faulty, Some(StartError::Options(text)) if text.contains("too")));
    }

    #[test]
    fn events_as_lines() {
        let progress = Event::Progress {
            done: 1,
            total: None,
            unit: Unit::Bytes,
        };
        let text = r#"{"event":"progress","done":1,"unit":"bytes"}"#;
        assert_eq!(serde_json::to_string(&progress).unwrap(), text);
        assert_eq!(serde_json::from_str::<Event>(text).unwrap(), progress);
    }
}
