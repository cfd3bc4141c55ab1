//! The cache against a model of it, which is a map: random pulls, ranges, evictions, purges, restarts, kills, moved tags and
//! failing upstreams. Whatever happened before, bytes are right, what must be here is, and costs the upstream nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use crate::admin::run;
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

/// Seeds in CI, and steps of each; more with `WHARFINGER_MODEL_SEEDS`. One alone with `WHARFINGER_SEED`.
const SEEDS: u64 = 3;
const STEPS: usize = 50;

const TAGS: usize = 4;

/// Images of two layers, each sharing one with the next.
fn images() -> Vec<Image> {
    let layer = |seed: u64| random(seed, 100_000 + 50_000 * (seed as usize % 5));
    (0..6)
        .map(|seed| Image::new().layer(layer(seed)).layer(layer(seed + 1)))
        .collect()
}

struct World {
    scene: Scene,
    random: fastrand::Rng,
    images: Vec<Image>,
    /// What each tag means at the upstream, by number of the image.
    upstream: BTreeMap<usize, usize>,
    /// What each tag was when it was last pulled.
    pulled: BTreeMap<usize, usize>,
    /// Digests of what must be here.
    here: BTreeSet<String>,
    down: bool,
    /// It takes no connections.
    refusing: bool,
    /// The upstream failed since the daemon's start, which it remembers for a while.
    troubled: bool,
    told: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let upstream = Upstream::start().await;
        let images = images();
        for image in &images {
            upstream.put_untagged(REPO, image);
        }
        let daemon = Daemon::over(&upstream)
            .setting("cache.tag_ttl", "\"1ms\"")
            .setting("cache.negative_ttl", "\"1ms\"")
            .start()
            .await;
        let mut world = Self {
            scene: Scene { upstream, daemon },
            random: fastrand::Rng::with_seed(seed),
            images,
            upstream: BTreeMap::new(),
            pulled: BTreeMap::new(),
            here: BTreeSet::new(),
            down: false,
            refusing: false,
            troubled: false,
            told: vec![format!("WHARFINGER_SEED={seed}")],
        };
        for tag in 0..TAGS {
            world.move_tag(tag, tag);
        }
        world
    }

    fn move_tag(&mut self, tag: usize, image: usize) {
        self.scene
            .upstream
            .tag(REPO, &format!("t{tag}"), &self.images[image].digest());
        self.upstream.insert(tag, image);
    }

    fn log(&mut self, step: impl Into<String>) {
        self.told.push(step.into());
    }

    fn story(&self) -> String {
        self.told.join(", ")
    }

    async fn step(&mut self) {
        let (tag, image) = (self.random.usize(..TAGS), self.random.usize(..self.images.len()));
        match self.random.u8(..100) {
            0..28 => self.pull_tag(tag).await,
            28..40 => self.pull_digest(image).await,
            40..62 => self.range(image).await,
            62..67 => self.hang_up(image).await,
            67..74 => self.evict().await,
            74..80 => self.purge(tag).await,
            80..86 => {
                self.log(format!("t{tag} moves to {image}"));
                self.move_tag(tag, image);
            }
            86..90 => self.restart().await,
            90..93 => self.kill().await,
            _ => self.turn().await,
        }
    }

    /// The upstream fails, or is well again.
    async fn turn(&mut self) {
        self.log(if self.down { "up" } else { "down" });
        if self.refusing {
            self.scene.upstream.resume();
            self.refusing = false;
        } else if self.down {
            self.scene.upstream.behave();
        } else if self.random.bool() {
            self.scene.upstream.refuse().await;
            self.refusing = true;
        } else {
            self.scene.upstream.always(any(), reply(500));
        }
        self.down = !self.down;
        self.troubled |= self.down;
    }

    async fn pull_tag(&mut self, tag: usize) {
        self.log(format!("pull t{tag}"));
        let answer = get(self.scene.daemon.manifest_url(NAME, &format!("t{tag}"))).await;
        let (before, now) = (self.pulled.get(&tag).copied(), self.upstream[&tag]);
        let kept = before.filter(|image| self.here.contains(&self.images[*image].digest()));
        if answer.status != 200 {
            assert!(
                self.down && kept.is_none(),
                "{}: {} {}",
                answer.status,
                answer.text(),
                self.story()
            );
            return;
        }
        let may_be = [
            Some(now).filter(|_| !self.down),
            before.filter(|_| self.down || self.troubled),
        ];
        let came = may_be
            .into_iter()
            .flatten()
            .find(|image| self.images[*image].root().bytes == answer.body);
        let Some(image) = came else {
            panic!("another manifest than t{tag} is or was: {}", self.story());
        };
        self.pulled.insert(tag, image);
        self.here.insert(self.images[image].digest());
        self.pull_layers(image).await;
    }

    async fn pull_digest(&mut self, image: usize) {
        self.log(format!("pull {image}"));
        let part = self.images[image].root();
        let answer = get(self.scene.daemon.manifest_url(NAME, &part.digest)).await;
        if answer.status == 200 {
            assert!(answer.body == part.bytes, "{}", self.story());
            self.here.insert(part.digest);
            self.pull_layers(image).await;
        } else {
            assert!(
                self.down && !self.here.contains(&part.digest),
                "{}: {}",
                answer.status,
                self.story()
            );
        }
    }

    /// Pulls what an image names, all at once.
    async fn pull_layers(&mut self, image: usize) {
        let image = &self.images[image];
        let parts: Vec<_> = image.layers().into_iter().chain([image.config()]).collect();
        let pulls = parts.iter().map(|part| {
            let gets = self.scene.upstream.blob_gets(&part.digest);
            let url = self.scene.daemon.blob_url(NAME, &part.digest);
            async move { (gets, get(url).await) }
        });
        let answers = join_all(pulls).await;
        for (part, (gets, answer)) in parts.iter().zip(answers) {
            let known = self.here.contains(&part.digest);
            if answer.status == 200 && answer.is_complete() {
                assert!(answer.body == part.bytes, "wrong bytes: {}", self.story());
            } else {
                assert!(self.down && !known, "{}: {}", answer.status, self.story());
            }
            let asked = self.scene.upstream.blob_gets(&part.digest) - gets;
            assert!(!known || asked == 0, "{} was here: {}", part.digest, self.story());
        }
        self.settle().await;
        for part in parts {
            // A part that came from a fill whose upstream failed at its end may be whole, and yet not be kept.
            if !self.down {
                self.here.insert(part.digest);
            }
        }
    }

    async fn range(&mut self, image: usize) {
        let layers = self.images[image].layers();
        let layer = &layers[self.random.usize(..layers.len())];
        let size = layer.bytes.len();
        let (one, other) = (self.random.usize(..size), self.random.usize(..size));
        let (first, last) = (one.min(other), one.max(other));
        let (range, expected) = match self.random.u8(..3) {
            0 => (format!("bytes={first}-{last}"), first..last + 1),
            1 => (format!("bytes={first}-"), first..size),
            _ => (format!("bytes=-{}", first + 1), size - first - 1..size),
        };
        self.log(format!("{range} of {image}"));
        let (layer, known) = (layer.clone(), self.here.contains(&layer.digest));
        let gets = self.scene.upstream.blob_gets(&layer.digest);
        let answer = get_with(
            self.scene.daemon.blob_url(NAME, &layer.digest),
            &[("range", &range)],
        )
        .await;
        if answer.status == 206 && answer.is_complete() {
            assert!(
                answer.body == layer.bytes.slice(expected),
                "wrong bytes: {}",
                self.story()
            );
        } else {
            assert!(self.down && !known, "{}: {}", answer.status, self.story());
        }
        let asked = self.scene.upstream.blob_gets(&layer.digest) - gets;
        assert!(!known || asked == 0, "it was here: {}", self.story());
        self.settle().await;
    }

    /// A client that leaves after some bytes.
    async fn hang_up(&mut self, image: usize) {
        self.log(format!("hang up on {image}"));
        let digest = self.images[image].layer_digest(0);
        let mut answer = open(self.scene.daemon.blob_url(NAME, &digest)).await;
        if answer.status() == 200 {
            answer.read(1000).await;
        }
        drop(answer);
        self.settle().await;
    }

    async fn evict(&mut self) {
        let bytes = self.random.u64(1..600_000);
        self.log(format!("evict {bytes}"));
        run(&self.scene.daemon, &["evict", &format!("{bytes}B")])
            .await
            .text();
        self.look().await;
    }

    async fn purge(&mut self, tag: usize) {
        let with_content = self.random.bool();
        self.log(format!("purge t{tag} {with_content}"));
        let reference = format!("{NAME}:t{tag}");
        let mut arguments = vec!["purge", &reference];
        if with_content {
            arguments.push("--with-content");
        }
        run(&self.scene.daemon, &arguments).await.text();
        self.pulled.remove(&tag);
        if with_content {
            self.look().await;
        }
    }

    async fn restart(&mut self) {
        self.log("restart");
        self.scene.daemon.restart().await;
        self.troubled = self.down;
    }

    async fn kill(&mut self) {
        let settled = self.random.bool();
        self.log(format!("kill {settled}"));
        if settled {
            // Asking what is here waits for the index.
            self.look().await;
        }
        self.scene.daemon.kill().await;
        self.scene.daemon.restart().await;
        self.troubled = self.down;
        if !settled {
            self.look().await;
            let pulled = std::mem::take(&mut self.pulled);
            for (tag, image) in pulled {
                let told = self.explain(&format!(":t{tag}")).await;
                // A tag that was not durable is what it was before, or nothing.
                if told["tag"]["digest"] == self.images[image].digest() {
                    self.pulled.insert(tag, image);
                } else if let Some(old) = self
                    .images
                    .iter()
                    .position(|old| told["tag"]["digest"] == old.digest())
                {
                    self.pulled.insert(tag, old);
                }
            }
        }
    }

    /// Waits until no fill runs.
    async fn settle(&self) {
        self.scene.metric("wharfinger_fills_running 0").await;
    }

    async fn explain(&self, reference: &str) -> serde_json::Value {
        let url = format!(
            "{}/api/explain?ref={NAME}{}",
            self.scene.daemon.url(),
            reference.replace('@', "%40")
        );
        get(url).await.json()
    }

    /// After something went that the model does not choose: what is left is what the daemon says; and no image that
    /// stays has lost a part.
    async fn look(&mut self) {
        let mut left = BTreeSet::new();
        for image in &self.images {
            let told = self.explain(&format!("@{}", image.digest())).await;
            let stays = told["manifest"]["state"] == "here";
            if stays {
                left.insert(image.digest());
            }
            for part in image.layers().into_iter().chain([image.config()]) {
                let told = self.explain(&format!("@{}", part.digest)).await;
                let is_here = told["blob"]["state"] == "here";
                let known = self.here.contains(&part.digest) && self.here.contains(&image.digest());
                assert!(
                    is_here || !known || !stays,
                    "an image lost a part: {}",
                    self.story()
                );
                if is_here {
                    left.insert(part.digest);
                }
            }
        }
        self.here = left;
        let here = &self.here;
        let images = &self.images;
        self.pulled
            .retain(|_, image| here.contains(&images[*image].digest()));
    }
}

#[tokio::test]
async fn random_interleavings_are_what_the_model_allows() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|value: String| value.parse::<u64>().expect("a number"))
    };
    let first = number("WHARFINGER_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let count = match number("WHARFINGER_SEED") {
        Some(_) => 1,
        None => number("WHARFINGER_MODEL_SEEDS").unwrap_or(SEEDS),
    };
    for seed in first..first + count {
        let mut world = World::new(seed).await;
        for _ in 0..STEPS {
            world.step().await;
        }
    }
}
