//! The day: which job pulls what, when and with which client, what is released meanwhile, and how Docker Hub is.
//! Generated from the seed; every contestant gets the same.

use std::time::Duration;

use fastrand::Rng;

use crate::catalogue::{Catalogue, HELD_AT_FIRST, Repository};
use crate::clients::{CLIENTS, Client};
use crate::options::Pace;

/// How the upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// As it should be.
    Well,
    /// Somebody else behind the same address has used up the limit.
    Limited,
    /// Everything is answered 503.
    Failing,
    /// Connections are cut without an answer.
    Silent,
}

/// What a job wants of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// What this tag points at.
    Tag(String),
    /// The image of this digest.
    Digest(String),
}

impl Wanted {
    /// The last part of the path.
    pub(crate) fn reference(&self) -> &str {
        let (Self::Tag(reference) | Self::Digest(reference)) = self;
        reference
    }
}

/// One CI job: a pull of one image for one platform.
pub(crate) struct Job {
    /// From the phase's beginning.
    pub(crate) at: Duration,
    /// Where.
    pub(crate) repository: String,
    /// What.
    pub(crate) wanted: Wanted,
    /// For which architecture.
    pub(crate) platform: &'static str,
    /// With what.
    pub(crate) client: &'static Client,
}

/// Tags that move.
pub(crate) struct Release {
    /// From the phase's beginning.
    pub(crate) at: Duration,
    /// Where.
    pub(crate) repository: String,
    /// Which of its versions.
    pub(crate) version: usize,
}

/// A part of the day. The next one begins when its time is over and its last job has ended.
pub(crate) struct Phase {
    /// For the tables.
    pub(crate) name: &'static str,
    /// How the upstream is.
    pub(crate) weather: Weather,
    /// How long it takes.
    pub(crate) length: Duration,
    /// In the order of their time.
    pub(crate) jobs: Vec<Job>,
    /// In the order of their time.
    pub(crate) releases: Vec<Release>,
}

/// Name, weather, length in half hours, and whether there are jobs. It is quiet behind the outage because what the daemon
/// waits for before it asks a failing registry again is not compressed, a minute at the most.
const DAY: [(&str, Weather, u32, bool); 8] = [
    ("six hours, everything cold", Weather::Well, 12, true),
    ("five hours", Weather::Well, 10, true),
    (
        "three hours, the limit used up by others",
        Weather::Limited,
        6,
        true,
    ),
    ("two hours", Weather::Well, 4, true),
    ("90 minutes of 503", Weather::Failing, 3, true),
    ("90 minutes of silence", Weather::Silent, 3, true),
    ("three quiet hours", Weather::Well, 6, false),
    ("two hours", Weather::Well, 4, true),
];

/// How an organisation names an image in its pipelines.
#[derive(Clone, Copy)]
enum Habit {
    Latest,
    Major,
    Minor,
    Exact,
    ExactOld,
    Digest,
    DigestOld,
}

/// Out of twenty: floating tags in nine, exact ones in seven, digests in four.
const HABITS: [(Habit, u32); 7] = [
    (Habit::Latest, 5),
    (Habit::Major, 1),
    (Habit::Minor, 3),
    (Habit::Exact, 5),
    (Habit::ExactOld, 2),
    (Habit::Digest, 3),
    (Habit::DigestOld, 1),
];

/// A script under construction.
struct Writer<'a> {
    catalogue: &'a Catalogue,
    rng: Rng,
    /// How each repository is named by those who use it, the most usual way first.
    habits: Vec<Vec<Habit>>,
    /// Which version of each repository is the newest one.
    newest: Vec<usize>,
}

/// The day of this seed.
pub(crate) fn write(catalogue: &Catalogue, seed: u64, jobs: usize, pace: Pace) -> Vec<Phase> {
    let mut rng = Rng::with_seed(seed ^ 0x0da7);
    let habits = catalogue
        .repositories
        .iter()
        .enumerate()
        .map(|(rank, _)| {
            let ways = if rank < 10 { 3 } else { rng.usize(1..3) };
            (0..ways).map(|_| pick(&HABITS, &mut rng)).collect()
        })
        .collect();
    let mut writer = Writer {
        catalogue,
        rng,
        habits,
        newest: vec![HELD_AT_FIRST - 1; catalogue.repositories.len()],
    };
    let half_hours: u32 = DAY.iter().map(|(_, _, halves, _)| halves).sum();
    let busy_in_all: u32 = DAY
        .iter()
        .map(|(_, _, halves, busy)| halves * u32::from(*busy))
        .sum();
    let mut releases = writer.releases(half_hours);
    let (mut phases, mut begun, mut busy_so_far, mut written) = (Vec::new(), 0, 0, 0);
    for (name, weather, halves, busy) in DAY {
        busy_so_far += halves * u32::from(busy);
        let due = jobs * busy_so_far as usize / busy_in_all as usize - written;
        let later = releases.split_off(releases.partition_point(|it| it.0 < f64::from(begun + halves)));
        let now = std::mem::replace(&mut releases, later);
        let half_hour = pace.of(Duration::from_mins(30));
        let release = |(at, repository, version): (f64, usize, usize)| Release {
            at: half_hour.mul_f64(at - f64::from(begun)),
            repository: catalogue.repositories[repository].name.clone(),
            version,
        };
        let length = half_hour * halves;
        let jobs = writer.jobs(due, length, pace);
        // Digests and exact tags reach pipelines by a commit: in the phase after the release.
        for (_, repository, version) in &now {
            writer.newest[*repository] = *version;
        }
        phases.push(Phase {
            name,
            weather,
            length,
            jobs,
            releases: now.into_iter().map(release).collect(),
        });
        begun += halves;
        written += due;
    }
    phases
}

fn pick<T: Copy>(weighted: &[(T, u32)], rng: &mut Rng) -> T {
    let mut left = rng.u32(0..weighted.iter().map(|(_, weight)| weight).sum());
    for (item, weight) in weighted {
        if left < *weight {
            return *item;
        }
        left -= weight;
    }
    weighted[0].0
}

impl Writer<'_> {
    /// When what is released, in half hours from the day's beginning, in order.
    fn releases(&mut self, half_hours: u32) -> Vec<(f64, usize, usize)> {
        let mut releases = Vec::new();
        for (number, repository) in self.catalogue.repositories.iter().enumerate() {
            let coming = HELD_AT_FIRST..repository.versions.len();
            let mut times: Vec<f64> = coming
                .clone()
                .map(|_| self.rng.f64() * f64::from(half_hours))
                .collect();
            times.sort_by(f64::total_cmp);
            releases.extend(
                times
                    .into_iter()
                    .zip(coming)
                    .map(|(at, version)| (at, number, version)),
            );
        }
        releases.sort_by(|one, other| one.0.total_cmp(&other.0));
        releases
    }

    /// Pipelines of one to five jobs each, most of which want the same image at the same time.
    fn jobs(&mut self, count: usize, length: Duration, pace: Pace) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(count);
        while jobs.len() < count {
            let start = length.mul_f64(self.rng.f64() * 0.97);
            let client = pick(
                &CLIENTS.each_ref().map(|client| (client, client.share)),
                &mut self.rng,
            );
            let repository = self.popular();
            let way = self.way(repository);
            for _ in 0..self.rng.usize(1..6).min(count - jobs.len()) {
                let apart = pace.of(Duration::from_mins(2)).mul_f64(self.rng.f64());
                let (repository, way) = if self.rng.u8(0..10) < 7 {
                    (repository, way)
                } else {
                    let another = self.popular();
                    (another, self.way(another))
                };
                jobs.push(self.job(start + apart, repository, way, client));
            }
        }
        jobs.sort_by_key(|job| job.at);
        jobs
    }

    fn job(&mut self, at: Duration, repository: usize, way: Habit, client: &'static Client) -> Job {
        let newest = self.newest[repository];
        let Repository {
            name,
            platforms,
            versions,
            ..
        } = &self.catalogue.repositories[repository];
        let tags = &versions[newest].tags;
        let old = &versions[newest - 1];
        let last = |tags: &[String]| tags.last().cloned().unwrap_or_default();
        let wanted = match way {
            Habit::Latest => Wanted::Tag("latest".to_owned()),
            Habit::Major => Wanted::Tag(tags[1].clone()),
            Habit::Minor => Wanted::Tag(tags[2].clone()),
            Habit::Exact => Wanted::Tag(last(tags)),
            Habit::ExactOld => Wanted::Tag(last(&old.tags)),
            Habit::Digest => Wanted::Digest(versions[newest].index.clone()),
            Habit::DigestOld => Wanted::Digest(old.index.clone()),
        };
        let platform = if self.rng.u8(0..100) < 85 {
            platforms[0]
        } else {
            platforms[self.rng.usize(1..platforms.len())]
        };
        Job {
            at,
            repository: name.clone(),
            wanted,
            platform,
            client,
        }
    }

    /// A repository, the first ones more often than those behind: Zipf's law.
    fn popular(&mut self) -> usize {
        let weight = |rank: usize| 1.0 / (rank as f64 + 1.0).powf(0.9);
        let count = self.catalogue.repositories.len();
        let mut left = self.rng.f64() * (0..count).map(weight).sum::<f64>();
        for rank in 0..count {
            left -= weight(rank);
            if left < 0.0 {
                return rank;
            }
        }
        count - 1
    }

    /// How this pipeline names it.
    fn way(&mut self, repository: usize) -> Habit {
        let ways = &self.habits[repository];
        let usual = self.rng.u8(0..10) < 7;
        ways[if usual { 0 } else { self.rng.usize(0..ways.len()) }]
    }
}
