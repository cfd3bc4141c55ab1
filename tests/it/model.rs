//! The cache against a model of it that is a few sets: pulls, ranges, evictions, purges, tags that move, restarts, kills
//! and failing upstreams, in any order. What comes is always right; with the upstream up something always comes; with
//! it down, exactly what the model knows to be here; and nobody asks the upstream for what is here.

mod ends;
mod library;
mod look;
mod operator;
mod parts;
mod pulls;
mod state;

use futures_util::future::join_all;

use crate::support::prelude::*;

use self::library::{Library, REPOSITORIES, TAGS};
use self::state::State;

/// Runs in CI, a few side by side; more with `WHARFINGER_MODEL_SEEDS`. One alone with `WHARFINGER_SEED`.
const RUNS: usize = 4;
const SIDE_BY_SIDE: usize = 4;
/// Steps of each; more with `WHARFINGER_MODEL_STEPS`.
const STEPS: usize = 70;

/// What the upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Each blob's connection breaks after so many bytes: slow, but all comes.
    Cutting(u64),
    /// Every request fails with this status.
    Failing(u16),
    /// Connections are closed without an answer.
    HangingUp,
    /// Nobody listens.
    Refusing,
}

impl Mood {
    fn serves(self) -> bool {
        matches!(self, Self::Well | Self::Cutting(_))
    }
}

/// A daemon, its upstream, and what we know of both.
struct World {
    seed: u64,
    random: fastrand::Rng,
    library: Library,
    upstream: Upstream,
    daemon: Daemon,
    mood: Mood,
    /// Whether a tag that was pulled is served without a question.
    keeps_tags: bool,
    state: State,
    /// What a kill cannot take away.
    durable: State,
    trail: Vec<String>,
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "what a failure is repeated with")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("WHARFINGER_SEED={} failed, after these steps:", self.seed);
            for step in &self.trail {
                eprintln!("  {step}");
            }
            eprintln!("{:#?}", self.upstream.summary());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_order_of_events_gives_what_the_model_says() {
    let number = |name: &str| {
        let set = std::env::var(name).ok();
        set.map(|text| text.parse::<u64>().expect("a number"))
    };
    let steps = number("WHARFINGER_MODEL_STEPS").map_or(STEPS, |steps| steps as usize);
    let runs = number("WHARFINGER_MODEL_SEEDS").map_or(RUNS, |runs| runs as usize);
    let seeds: Vec<u64> = match number("WHARFINGER_SEED") {
        Some(seed) => vec![seed],
        None => std::iter::repeat_with(|| fastrand::u64(..)).take(runs).collect(),
    };
    for seeds in seeds.chunks(SIDE_BY_SIDE) {
        let runs = seeds.iter().map(|seed| tokio::spawn(agrees(*seed, steps)));
        for run in join_all(runs).await {
            run.expect("a run that agrees with its model");
        }
    }
}

async fn agrees(seed: u64, steps: usize) {
    let mut world = World::start(seed).await;
    for _ in 0..steps {
        world.step().await;
    }
    world.recover().await;
    world.compare().await;
}

impl World {
    async fn start(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let upstream = Upstream::start().await;
        let mut library = Library::new(&upstream);
        for repository in 0..REPOSITORIES.len() {
            for tag in TAGS {
                let digest = library.any_manifest(&mut random);
                library.point(&upstream, repository, tag, Some(&digest));
            }
        }
        let keeps_tags = random.bool();
        let daemon = Daemon::over(&upstream)
            .setting("cache.tag_ttl", if keeps_tags { "\"1h\"" } else { "\"0s\"" })
            .setting("cache.negative_ttl", "\"0s\"")
            // Nothing here is about time.
            .setting("cache.revalidate_timeout", "\"20s\"")
            .setting("upstream.docker-hub.breaker", "false")
            // And nothing is asked but by us.
            .setting("cache.refresh_ahead", "false")
            .setting("cache.follow_blobs", "false")
            .start()
            .await;
        Self {
            seed,
            random,
            library,
            upstream,
            daemon,
            mood: Mood::Well,
            keeps_tags,
            state: State::default(),
            durable: State::default(),
            trail: Vec::new(),
        }
    }

    fn note(&mut self, step: String) {
        self.trail.push(step);
        self.upstream.forget_requests();
    }

    async fn step(&mut self) {
        let repository = self.random.usize(..REPOSITORIES.len());
        let tag = TAGS[self.random.usize(..TAGS.len())];
        // Without the upstream there is less to see, and what is not here takes long to fail.
        if !self.mood.serves() && self.random.u32(..5) == 0 {
            return self.change_mood().await;
        }
        match self.random.u32(..100) {
            0..18 => self.pull_tag(repository, tag).await,
            18..26 => {
                let digest = self.pick(false);
                self.pull_manifest(repository, &digest).await;
            }
            26..50 => self.pull_blob(repository).await,
            50..58 => self.pull_image(repository).await,
            58..64 => self.leave(repository).await,
            64..72 => self.change_mood().await,
            72..80 => {
                let digest = self.library.any_manifest(&mut self.random);
                let to = Some(digest).filter(|_| self.random.u32(..5) > 0);
                self.note(format!("{repository}:{tag} points at {to:?}"));
                self.library.point(&self.upstream, repository, tag, to.as_deref());
            }
            80..83 => self.refresh(repository, tag).await,
            83..86 => self.purge_tag(repository, tag).await,
            86..88 => self.purge_digest(repository).await,
            88..90 => self.purge_with_content(repository, tag).await,
            90..94 => self.evict().await,
            94..96 => self.restart(repository).await,
            96..99 => self.kill(repository).await,
            _ => {
                self.note("compare".to_owned());
                self.compare().await;
            }
        }
    }

    /// Any blob or manifest; without the upstream rather one that is here.
    fn pick(&mut self, blob: bool) -> String {
        let here = if blob {
            &self.state.blobs
        } else {
            &self.state.manifests
        };
        if !self.mood.serves() && !here.is_empty() && self.random.u32(..4) > 0 {
            let digest = here.iter().nth(self.random.usize(..here.len()));
            return digest.expect("a number below the length").clone();
        }
        if blob {
            self.library.any_blob(&mut self.random)
        } else {
            self.library.any_manifest(&mut self.random)
        }
    }

    async fn change_mood(&mut self) {
        let mood = match self.random.u32(..10) {
            0..4 => Mood::Well,
            4..6 => Mood::Cutting(self.random.u64(200_000..1_000_000)),
            6 => Mood::Failing(500),
            // No 429: it says something about the next minutes too, and what follows of it is in `governor`.
            7 => Mood::Failing(502),
            8 => Mood::HangingUp,
            _ => Mood::Refusing,
        };
        self.note(format!("the upstream is {mood:?}"));
        if self.mood == Mood::Refusing {
            self.upstream.resume();
        }
        self.upstream.behave();
        match mood {
            Mood::Well => {}
            Mood::Cutting(bytes) => self.upstream.always(blobs().get(), serve().cut_after(bytes)),
            Mood::Failing(status) => self.upstream.always(any(), reply(status)),
            Mood::HangingUp => self.upstream.always(any(), serve().hang_up()),
            Mood::Refusing => self.upstream.refuse().await,
        }
        self.mood = mood;
    }

    async fn recover(&mut self) {
        while self.mood != Mood::Well {
            self.change_mood().await;
        }
    }
}
