//! A registry of the world, in memory and under the test's hand: a real HTTP/1.1 server on a port of its
//! own that is correct unless a rule of the script says otherwise, and that remembers every request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use tokio::net::TcpListener;

mod auth;
mod deliver;
mod gate;
mod habit;
mod listen;
mod log;
mod matching;
mod pace;
mod plan;
mod serve;
mod store;
mod wire;

pub use auth::{Basic, Bearer};
pub(super) use deliver::Body;
pub use gate::Gate;
pub use habit::Style;
pub use log::{Outcome, Recorded};
pub use matching::{
    Asked, Match, any, blob, blobs, manifest, manifests, path_has, ping, referrers, signed, tags, tokens,
};
pub use pace::Pace;
pub use plan::{Plan, html, redirect, reply, serve, via_cdn};
pub(super) use serve::respond;
pub(super) use wire::{Flushes, Wire};

use self::auth::Door;
use self::habit::Habit;
use self::listen::Socket;
use self::store::Store;
use super::image::{Content, RawManifest, sha256};
use super::locked;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A running upstream; clones are handles to the same one. It ends with the test's runtime.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    /// The host name by which it is reached on a scripted internet; None: by its own port.
    name: Option<String>,
    address: SocketAddr,
    store: Mutex<Store>,
    log: Arc<log::Log>,
    rules: Mutex<Vec<Rule>>,
    habits: Mutex<Vec<Habit>>,
    style: Mutex<Style>,
    decorations: Mutex<Vec<(Match, HeaderName, HeaderValue)>>,
    door: Mutex<Door>,
    token_services: Mutex<Vec<Bearer>>,
    /// Whether pages are opaque, and the most tags on one page.
    paging: Mutex<(bool, usize)>,
    socket: Mutex<Socket>,
    connections: Mutex<usize>,
}

struct Rule {
    matcher: Match,
    plan: Plan,
    /// None: for ever.
    left: Option<usize>,
}

/// Starting, stopping, and what it holds.
impl Upstream {
    /// Starts an empty registry on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let upstream = Self::new(None, address);
        upstream.listen(listener);
        upstream
    }

    /// An empty registry of this host name, without a port of its own: a scripted internet leads to it.
    pub fn named(host: &str) -> Self {
        Self::new(Some(host.to_owned()), SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn new(name: Option<String>, address: SocketAddr) -> Self {
        let inner = Arc::new(Inner {
            name,
            address,
            store: Mutex::default(),
            log: log::Log::new(),
            rules: Mutex::default(),
            habits: Mutex::default(),
            style: Mutex::default(),
            decorations: Mutex::default(),
            door: Mutex::default(),
            token_services: Mutex::default(),
            paging: Mutex::new((false, usize::MAX)),
            socket: Mutex::new(Socket::Changing),
            connections: Mutex::new(0),
        });
        Self { inner }
    }

    pub fn port(&self) -> u16 {
        self.inner.address.port()
    }

    /// `http://127.0.0.1:PORT`, or with its host name where it has one.
    pub fn url(&self) -> String {
        match &self.inner.name {
            Some(name) => format!("http://{name}"),
            None => format!("http://{}", self.inner.address),
        }
    }

    /// Holds an image, index or artifact, with all its blobs, under a tag.
    pub fn put(&self, repo: &str, tag: &str, content: &impl Content) {
        self.put_untagged(repo, content);
        self.tag(repo, tag, &content.digest());
    }

    /// Holds it by digest alone.
    pub fn put_untagged(&self, repo: &str, content: &impl Content) {
        let mut store = locked(&self.inner.store);
        let repo = store.repo(repo);
        for part in content.children().into_iter().chain([content.root()]) {
            repo.manifests.insert(part.digest.clone(), part);
        }
        repo.blobs
            .extend(content.blobs().into_iter().map(|part| (part.digest, part.bytes)));
    }

    /// Whether it holds anything of this repository.
    pub fn has_repo(&self, repo: &str) -> bool {
        locked(&self.inner.store).repos.contains_key(repo)
    }

    /// Points a tag at a digest.
    pub fn tag(&self, repo: &str, tag: &str, digest: &str) {
        locked(&self.inner.store)
            .repo(repo)
            .tags
            .insert(tag.to_owned(), digest.to_owned());
    }

    /// Takes a tag away.
    pub fn untag(&self, repo: &str, tag: &str) {
        locked(&self.inner.store).repo(repo).tags.remove(tag);
    }

    /// Holds a single blob, and gives its digest.
    pub fn put_blob(&self, repo: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.put_blob_as(repo, &digest, bytes);
        digest
    }

    /// Holds bytes under any digest, also one that is not theirs.
    pub fn put_blob_as(&self, repo: &str, digest: &str, bytes: impl Into<Bytes>) {
        locked(&self.inner.store)
            .repo(repo)
            .blobs
            .insert(digest.to_owned(), bytes.into());
    }

    /// Forgets a blob of a repository.
    pub fn remove_blob(&self, repo: &str, digest: &str) {
        locked(&self.inner.store).repo(repo).blobs.remove(digest);
    }

    /// Forgets a manifest of a repository; tags that point at it are dangling then.
    pub fn remove_manifest(&self, repo: &str, digest: &str) {
        locked(&self.inner.store).repo(repo).manifests.remove(digest);
    }

    /// Tags the index of all referrers of `subject` as `<algorithm>-<hex>`: the way of registries without the
    /// referrers API (script that one with `always(referrers(), reply(404))`).
    pub fn put_referrers_tag(&self, repo: &str, subject: &str) {
        let index = locked(&self.inner.store).repo(repo).referrers(subject, None);
        let manifest = RawManifest::new(store::INDEX, index.to_string());
        self.put(repo, &subject.replacen(':', "-", 1), &manifest);
    }

    /// Gives at most `limit` tags at once, with a `Link` to the rest; `opaque` as Quay does, by `next_page`.
    pub fn page_tags(&self, limit: usize, opaque: bool) {
        *locked(&self.inner.paging) = (opaque, limit);
    }
}

/// The script. Rules with a number of uses come first, in the order in which they were made; then those for
/// ever, the newest first. One rule applies to a request.
impl Upstream {
    /// Answers the next such request by this plan.
    pub fn once(&self, matcher: Match, plan: Plan) {
        self.times(1, matcher, plan);
    }

    /// Answers the next `count` such requests by this plan.
    pub fn times(&self, count: usize, matcher: Match, plan: Plan) {
        locked(&self.inner.rules).push(Rule {
            matcher,
            plan,
            left: Some(count),
        });
    }

    /// Answers all such requests by this plan.
    pub fn always(&self, matcher: Match, plan: Plan) {
        locked(&self.inner.rules).push(Rule {
            matcher,
            plan,
            left: None,
        });
    }

    /// Stalls the next such answer before byte `offset`, until the gate is released.
    pub fn stall(&self, matcher: Match, offset: u64) -> Gate {
        let gate = Gate::new();
        self.once(matcher, serve().stall_at(offset, &gate));
        gate
    }

    /// Holds back the head of the next such answer until the gate is released.
    pub fn hold(&self, matcher: Match) -> Gate {
        let gate = Gate::new();
        self.once(matcher, serve().hold_head(&gate));
        gate
    }

    /// Adds a header to all such answers, beside whatever rule applies.
    pub fn decorate(&self, matcher: Match, name: &str, value: &str) {
        let (name, value) = plan::header_pair(name, value);
        locked(&self.inner.decorations).push((matcher, name, value));
    }

    /// Forgets all rules and decorations: a correct registry again, of its own habits.
    pub fn behave(&self) {
        locked(&self.inner.rules).clear();
        locked(&self.inner.decorations).clear();
    }

    fn take_plan(&self, asked: &Asked, refused: bool) -> Plan {
        let mut rules = locked(&self.inner.rules);
        let applies = |rule: &Rule| {
            (rule.plan.before_auth || !refused)
                && (asked.method != Method::HEAD || !rule.plan.needs_body())
                && rule.left != Some(0)
                && rule.matcher.matches(asked)
        };
        let counted = rules.iter().position(|rule| rule.left.is_some() && applies(rule));
        let Some(index) = counted.or_else(|| rules.iter().rposition(applies)) else {
            drop(rules);
            return self.habitual(asked, refused);
        };
        let rule = &mut rules[index];
        rule.left = rule.left.map(|left| left - 1);
        rule.plan.clone()
    }

    fn decorations(&self, asked: &Asked) -> Vec<(HeaderName, HeaderValue)> {
        let decorations = locked(&self.inner.decorations);
        let applying = decorations.iter().filter(|(matcher, ..)| matcher.matches(asked));
        applying
            .map(|(_, name, value)| (name.clone(), value.clone()))
            .collect()
    }
}
