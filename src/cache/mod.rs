//! The pull-through engine: what is here is answered from here, what is not is fetched once for everybody.
//!
//! The download belongs to nobody's request: every client, the first included, is a reader of the growing file.
//! Called by `registry`.

mod access;
mod admission;
mod blobs;
mod bring;
mod current;
mod error;
mod eviction;
mod fill;
mod follow;
mod freshness;
mod heal;
mod heat;
mod hold;
mod inflight;
mod inspect;
mod listings;
mod lists;
mod look;
mod manifests;
mod negative;
mod offline;
mod pins;
mod places;
mod purge;
mod referrers;
mod refresh;
pub mod report;
mod revalidate;
mod status;
mod survival;
mod urgency;
mod visibility;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::collapse::Collapse;
use crate::config::Freshness;
use crate::oci::{Digest, Reference, RepositoryName, Tag};
use crate::repository::{Key, Repositories, StoredManifest};
use crate::storage::Storage;
use crate::telemetry::Metrics;
use crate::upstream::{Access, CallerLogin, Errand, Offline, Purpose, SharedPurpose, Upstream};

pub use access::PULLS_KEPT;
pub use admission::Sought;
pub use bring::{Bring, Bringing, BroughtManifest};
pub use current::Current;
pub use error::{Error, ErrorKind};
pub use eviction::Evicted;
pub use freshness::Verdict;
pub use heat::{Ahead, HotTag};
pub use hold::Hold;
pub use inspect::written;
pub use listings::TagsPage;
pub use offline::offline_at_start;
pub use places::Places;
pub use status::{Answer, CacheStatus, Outcome};
pub use survival::Fate;

use inflight::Inflight;
use negative::Negative;
use revalidate::Revalidated;
use urgency::Urgency;
use visibility::Visibility;

/// A pull-through repository: an upstream and a name there. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    /// Where it is pulled from.
    pub upstream: Arc<Upstream>,
    /// Its name there.
    pub name: RepositoryName,
    /// Upstream prefix and name, which is how the index and the logs call it.
    pub key: Key,
    /// For whom the upstream is asked, when it must be.
    pub purpose: Purpose,
    /// The same of a question that others wait for too.
    shared_purpose: Option<SharedPurpose>,
    /// The client's own login at the upstream, where that says who may read what.
    caller: Option<Arc<CallerLogin>>,
}

impl Place {
    /// The repository `name` of `upstream`, for a client who waits.
    pub fn new(upstream: Arc<Upstream>, name: RepositoryName) -> Self {
        let key = [upstream.prefix(), "/", name.as_str()].concat().into();
        Self {
            upstream,
            name,
            key,
            purpose: Purpose::Miss,
            shared_purpose: None,
            caller: None,
        }
    }

    /// The same, asked for by somebody with a login of his own at the upstream.
    #[must_use]
    pub fn asked_for_by(mut self, caller: CallerLogin) -> Self {
        self.caller = Some(Arc::new(caller));
        self
    }

    /// The same, for work that nobody waits for.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.purpose = Purpose::Background;
        self.shared_purpose = None;
        self
    }

    /// The same, where a copy can be served if the upstream does not answer.
    fn with_copy(&self) -> Self {
        Self {
            purpose: self.purpose.min(Purpose::Refresh),
            shared_purpose: None,
            ..self.clone()
        }
    }

    /// A question to the upstream with our credentials.
    fn errand(&self) -> Errand {
        let purpose = self.shared_purpose.clone();
        Errand {
            access: Access::Configured,
            purpose: purpose.unwrap_or_else(|| SharedPurpose::new(self.purpose)),
        }
    }

    /// One without them.
    fn anonymous_errand(&self) -> Errand {
        self.errand().anonymously()
    }

    fn freshness(&self) -> &Freshness {
        &self.upstream.config().freshness
    }

    fn freshness_of(&self, tag: &Tag) -> &Freshness {
        self.upstream.config().freshness_of(&self.key, tag.as_str())
    }

    /// How long a tag is fresh now, where that is longer than configured.
    fn stretched_ttl(&self, tag: &Tag) -> Option<Duration> {
        let now = self.freshness_now(tag).tag_ttl;
        (now != self.freshness_of(tag).tag_ttl).then_some(now)
    }

    /// The same as it holds now: the fewer pulls are left, the longer a tag is fresh.
    fn freshness_now(&self, tag: &Tag) -> Freshness {
        let settings = self.freshness_of(tag);
        Freshness {
            tag_ttl: self.upstream.stretch().apply(settings.tag_ttl),
            ..*settings
        }
    }
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Storage,
    repositories: Arc<Repositories>,
    metrics: Arc<Metrics>,
    fills: Inflight,
    access: access::Access,
    /// One eviction at a time: each would take the same victims.
    evictions: Semaphore,
    holds: hold::Holds,
    tasks: TaskTracker,
    /// Where fills run: writing and hashing in place may hold these threads for a moment.
    fill_threads: Handle,
    /// Ends all fills, which leave what they have for the next process.
    stop: CancellationToken,
    fetches: Collapse<(Key, Reference), Result<Arc<StoredManifest>, Error>>,
    revalidations: Collapse<(Key, Tag), Result<Revalidated, Error>>,
    /// How urgent these are.
    urgency: Arc<Urgency>,
    /// Tags that were asked for a moment ago though there were no pulls left for them.
    unaffordable: moka::sync::Cache<(Key, Tag), ()>,
    probes: Collapse<(Key, Digest), Result<u64, Error>>,
    tag_lists: listings::TagLists,
    referrers: referrers::ReferrersLists,
    negative: Negative,
    visibility: Visibility,
    admitted: admission::Admitted,
    troubled: revalidate::Troubled,
    /// The one of all upstreams.
    offline: Offline,
    heat: heat::Heat,
}

/// How long stopped fills may take to leave.
const MOST_STOPPING: Duration = Duration::from_secs(2);

impl Cache {
    /// An engine over an opened data folder.
    pub fn new(storage: Storage, metrics: Arc<Metrics>, fill_threads: Handle) -> Self {
        Self::switched(storage, metrics, fill_threads, Offline::default())
    }

    /// The same, with the switch that the upstreams read.
    pub fn switched(storage: Storage, metrics: Arc<Metrics>, fill_threads: Handle, offline: Offline) -> Self {
        let repositories = Arc::new(Repositories::new(storage.index.clone()));
        let shared = Shared {
            storage,
            repositories,
            metrics,
            fills: Inflight::default(),
            access: access::Access::default(),
            evictions: Semaphore::new(1),
            holds: hold::Holds::default(),
            tasks: TaskTracker::new(),
            fill_threads,
            stop: CancellationToken::new(),
            fetches: Collapse::default(),
            revalidations: Collapse::default(),
            urgency: Arc::default(),
            unaffordable: moka::sync::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(Duration::from_mins(3))
                .build(),
            probes: Collapse::default(),
            tag_lists: listings::TagLists::default(),
            referrers: referrers::ReferrersLists::default(),
            negative: Negative::default(),
            visibility: Visibility::default(),
            admitted: admission::Admitted::default(),
            troubled: revalidate::Troubled::default(),
            offline,
            heat: heat::Heat::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Waits until the running fills have ended, `grace` at the most; says whether they all did. The others are
    /// stopped, and go on after the next start.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.shared.tasks.close();
        let ended = tokio::time::timeout(grace, self.shared.tasks.wait())
            .await
            .is_ok();
        if !ended {
            self.shared.stop.cancel();
            // They only have to write down what they have.
            let _ = tokio::time::timeout(MOST_STOPPING, self.shared.tasks.wait()).await;
        }
        ended
    }

    /// Makes everything that was submitted to the index durable. Blocking.
    pub fn close(&self) {
        self.flush_access();
        self.shared.storage.close();
    }

    /// What all repositories hold.
    pub fn repositories(&self) -> &Arc<Repositories> {
        &self.shared.repositories
    }

    /// The data folder.
    pub fn storage(&self) -> &Storage {
        &self.shared.storage
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Fills in progress.
    pub fn fills_running(&self) -> usize {
        self.shared.tasks.len()
    }
}
