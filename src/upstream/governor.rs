//! Spends an endpoint's pulls: each request that the registry counts (GET of a manifest) needs leave, by whose budget it
//! is and for whom it is made. What nobody waits for stops first, then what has a copy, and the last pulls are kept for the
//! repositories in `reserve`. While nothing is left, a free question now and then learns whether something is.
//!
//! The budgets are in `budget`; `client` asks for leave, and `ledger` keeps them across restarts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::{Budget, Held, Reason, Rules, Ticket, Told};
use super::errand::Purpose;
use super::observer::Observer;
use crate::clock::Timestamp;
use crate::config::Glob;
use crate::oci::RepositoryName;

/// Repositories that are remembered as not counted.
const UNCOUNTED: u64 = 10_000;
/// How long a client waits for what is under way to tell whether something is left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Spans are stretched as soon as less than this share is left, by up to so much.
const STRETCH_BELOW: f64 = 0.5;
const MOST_STRETCH: f64 = 8.0;

/// What one credential may still pull, for an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetReport {
    /// The credential's name, `anonymous` for none.
    pub credential: String,
    /// Whose budget it is, as the registry tells: an address, a network or an account.
    pub source: Option<String>,
    /// Pulls in a window.
    pub limit: Option<u64>,
    /// Pulls that are left, by what was told last and spent since.
    pub left: Option<u64>,
    /// When all of it is back at the latest; when nothing is left, when something is.
    pub back_at: Option<Timestamp>,
    /// How long it lasts if it is spent as in the last hours.
    pub lasts: Option<Duration>,
    /// Nothing is left, or the registry refuses.
    pub exhausted: bool,
    /// Something was pulled with it in this window.
    pub in_use: bool,
}

/// How much longer spans are, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch(u32);

impl Stretch {
    /// As configured.
    pub const NONE: Self = Self(1000);

    /// By how much while this share (0 to 1) of the pulls is left: not at all while more than half is, then more and
    /// more, up to eightfold.
    pub fn of_share(share: f64) -> Self {
        let lacking = 1.0 - share.clamp(0.0, 1.0) / STRETCH_BELOW;
        if lacking <= 0.0 || lacking.is_nan() {
            return Self::NONE;
        }
        // From 1000 to 8000.
        let factor = Duration::from_secs_f64(MOST_STRETCH.powf(lacking));
        Self(u32::try_from(factor.as_millis()).unwrap_or(Self::NONE.0))
    }

    /// A span, as long as it is now.
    pub fn apply(self, span: Duration) -> Duration {
        if self == Self::NONE {
            return span;
        }
        let millis = span.as_millis().saturating_mul(u128::from(self.0)) / 1000;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The factor, in percent.
    pub fn percent(self) -> u64 {
        u64::from(self.0).saturating_add(5) / 10
    }

    /// The factor.
    #[cfg(test)]
    pub(super) fn factor(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

/// Decides what is pulled from an endpoint.
pub(super) struct Governor {
    prefix: Arc<str>,
    /// Stands before the names of a mirror's budgets.
    host: Option<String>,
    reserve: Vec<Glob>,
    rules: Rules,
    budgets: Mutex<BTreeMap<Arc<str>, Budget>>,
    /// Repositories that answer without telling a limit, at a registry that tells one: verified publishers' and the like.
    uncounted: moka::sync::Cache<RepositoryName, ()>,
    stretch: AtomicU32,
    held: [AtomicU64; Purpose::ALL.len()],
    /// What is to be kept across restarts has changed so often.
    changes: AtomicU64,
    /// Something was heard of a budget.
    heard: Notify,
    observer: Arc<dyn Observer>,
}

impl Governor {
    /// For the endpoint of `prefix` (at `host`, when it is a mirror), of which the last `share` percent are kept for
    /// `reserve`.
    pub(super) fn new(
        prefix: &str,
        host: Option<String>,
        (reserve, share): (Vec<Glob>, u8),
        observer: Arc<dyn Observer>,
    ) -> Self {
        let share = if reserve.is_empty() { 0 } else { share };
        Self {
            prefix: prefix.into(),
            host,
            reserve,
            rules: Rules { reserve: share },
            budgets: Mutex::default(),
            uncounted: moka::sync::Cache::new(UNCOUNTED),
            stretch: AtomicU32::new(Stretch::NONE.0),
            held: [const { AtomicU64::new(0) }; Purpose::ALL.len()],
            changes: AtomicU64::new(0),
            heard: Notify::new(),
            observer,
        }
    }

    fn budgets(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Budget>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave for a request that does not count, with this credential: its answer tells something all the same.
    pub(super) fn free(self: &Arc<Self>, credential: &str) -> Spending {
        self.begin_free(credential, Timestamp::now())
    }

    /// The same, unless what does not count is refused as well, which is tried only now and then.
    ///
    /// # Errors
    /// What is to be said instead of asking.
    pub(super) fn question(self: &Arc<Self>, credential: &str) -> Result<Spending, Held> {
        let now = Timestamp::now();
        self.with(credential, |budget| budget.admit_free(now))?;
        Ok(self.begin_free(credential, now))
    }

    /// Leave for a counted request about `repository`. While what is under way may leave enough for it, its answers are
    /// waited for.
    ///
    /// # Errors
    /// What is to be said instead of asking; with `probe`, a free question may be asked first, and then leave once more.
    pub(super) async fn counted(
        self: &Arc<Self>,
        credential: &str,
        purpose: Purpose,
        repository: &RepositoryName,
    ) -> Result<Spending, Held> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard.notified();
            tokio::pin!(heard);
            // Before looking, or the news could be missed.
            heard.as_mut().enable();
            let held = match self.admit(credential, purpose, repository, Timestamp::now()) {
                Ok(spending) => return Ok(spending),
                Err(held) => held,
            };
            if !held.soon || purpose < Purpose::Miss || Instant::now() >= patience {
                return Err(held);
            }
            tokio::select! {
                () = heard => {}
                () = tokio::time::sleep_until(patience) => {}
            }
        }
    }

    /// Leave at `now`, or why not.
    pub(super) fn admit(
        self: &Arc<Self>,
        credential: &str,
        purpose: Purpose,
        repository: &RepositoryName,
        now: Timestamp,
    ) -> Result<Spending, Held> {
        let uncounted = self.uncounted.contains_key(repository);
        let reserved = self.is_reserved(repository);
        // At one time with the beginning: the last pull is one request's.
        let ticket = self.with(credential, |budget| {
            if !uncounted {
                budget.admit(purpose, reserved, self.rules, now)?;
            }
            Ok(budget.begin(true, now))
        })?;
        self.changed(credential, now);
        Ok(self.spending(credential, true, ticket))
    }

    /// How many pulls a credential has left; `None` while nothing is known.
    pub(super) fn left(&self, credential: &str) -> Option<u64> {
        self.with(credential, |budget| budget.left())
    }

    /// Whether leave would be given for such a request, as far as is known now.
    pub(super) fn allows(&self, credential: &str, purpose: Purpose, repository: &RepositoryName) -> bool {
        let reserved = self.is_reserved(repository);
        self.uncounted.contains_key(repository)
            || self.with(credential, |budget| budget.allows(purpose, reserved, self.rules))
    }

    /// Whether a free question may be asked now to learn whether a credential has something left again.
    pub(super) fn is_probe_due(&self, credential: &str) -> bool {
        self.with(credential, |budget| budget.next_probe(Timestamp::now()).is_zero())
    }

    /// A request was not made, for this reason.
    pub(super) fn note_held(&self, credential: &str, purpose: Purpose, held: &Held) {
        self.held[purpose as usize].fetch_add(1, Ordering::Relaxed);
        self.observer.held(&self.prefix, purpose);
        tracing::debug!(
            upstream = &*self.prefix,
            credential = &*self.name(credential),
            purpose = purpose.as_str(),
            reason = held.reason.as_str(),
            seconds = held.retry_after.as_secs(),
            "not asked: it would cost a pull"
        );
    }

    /// Requests that were not made, by purpose.
    pub(super) fn held(&self) -> [u64; Purpose::ALL.len()] {
        self.held.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Whether the last pulls are kept for it.
    pub(super) fn is_reserved(&self, repository: &RepositoryName) -> bool {
        self.reserve.iter().any(|glob| glob.matches(repository.as_str()))
    }

    /// Whether it is known that pulls are counted here.
    pub(super) fn counts(&self) -> bool {
        self.budgets().values().any(|budget| budget.left().is_some())
    }

    /// Whether a pull from `repository` is known to be counted here: then a question that is free should come first.
    pub(super) fn counts_in(&self, repository: &RepositoryName) -> bool {
        self.counts() && !self.uncounted.contains_key(repository)
    }

    /// How much longer spans are now.
    pub(super) fn stretch(&self) -> Stretch {
        Stretch(self.stretch.load(Ordering::Relaxed))
    }

    /// All budgets that something is known of, by the credential's name.
    pub(super) fn report(&self, now: Timestamp) -> Vec<BudgetReport> {
        let mut budgets = self.budgets();
        let known = budgets.iter_mut().filter_map(|(name, budget)| {
            budget.settle(now);
            (budget.limit().is_some() || budget.left().is_some()).then(|| report(name, budget, now))
        });
        known.collect()
    }

    /// Brings everything up to `now`: called every few seconds, so that windows pass and metrics tell the truth.
    pub(super) fn tick(&self, now: Timestamp) {
        let known: Vec<_> = self.report(now);
        for report in &known {
            self.observer.budget(&self.prefix, report);
        }
        self.set_stretch(&self.budgets());
        self.heard.notify_waiters();
    }

    /// How often something changed that is to be kept.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The budgets, to be kept.
    pub(super) fn to_keep(&self) -> BTreeMap<String, Budget> {
        let budgets = self.budgets();
        let known = budgets.iter().filter(|(_, budget)| budget.is_known());
        known
            .map(|(name, budget)| (name.to_string(), budget.to_keep()))
            .collect()
    }

    /// Takes back what was kept, where nothing is known yet.
    pub(super) fn take_back(&self, kept: BTreeMap<String, Budget>, now: Timestamp) {
        let mut budgets = self.budgets();
        for (name, budget) in kept {
            if self.owns(&name) {
                budgets.entry(name.into()).or_insert(budget).settle(now);
            }
        }
        self.set_stretch(&budgets);
    }

    /// Whether a budget of this name is one of this endpoint.
    fn owns(&self, name: &str) -> bool {
        match &self.host {
            Some(host) => name
                .strip_prefix(host.as_str())
                .is_some_and(|rest| rest.starts_with('/')),
            None => !name.contains('/'),
        }
    }

    /// What a credential's budget is called: names of credentials have no slash.
    fn name(&self, credential: &str) -> Arc<str> {
        let credential = credential.replace('/', "_");
        match &self.host {
            Some(host) => format!("{host}/{credential}").into(),
            None => credential.into(),
        }
    }

    fn with<T>(&self, credential: &str, act: impl FnOnce(&mut Budget) -> T) -> T {
        act(self.budgets().entry(self.name(credential)).or_default())
    }

    fn begin_free(self: &Arc<Self>, credential: &str, now: Timestamp) -> Spending {
        let ticket = self.with(credential, |budget| budget.begin(false, now));
        self.spending(credential, false, ticket)
    }

    fn spending(self: &Arc<Self>, credential: &str, counted: bool, ticket: Ticket) -> Spending {
        Spending {
            governor: self.clone(),
            credential: credential.into(),
            counted,
            told: AtomicBool::new(false),
            ticket: Mutex::new(Some(ticket)),
        }
    }

    /// A budget changed.
    fn changed(&self, credential: &str, now: Timestamp) {
        let name = self.name(credential);
        let report = {
            let budgets = self.budgets();
            self.set_stretch(&budgets);
            budgets
                .get(&name)
                .filter(|budget| budget.is_known())
                .map(|budget| report(&name, budget, now))
        };
        if let Some(report) = report {
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.observer.budget(&self.prefix, &report);
        }
        self.heard.notify_waiters();
    }

    /// By all that is known to be left, of all that is known.
    fn set_stretch(&self, budgets: &BTreeMap<Arc<str>, Budget>) {
        let used = budgets.values().filter(|budget| budget.is_used());
        let known = used.filter_map(|budget| Some((budget.left()?, budget.limit()?)));
        let (left, limit) = known.fold((0_u64, 0_u64), |sum, one| {
            (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1))
        });
        let stretch = if limit == 0 {
            Stretch::NONE
        } else {
            Stretch::of_share(left as f64 / limit as f64)
        };
        self.stretch.store(stretch.0, Ordering::Relaxed);
    }
}

fn report(name: &str, budget: &Budget, now: Timestamp) -> BudgetReport {
    BudgetReport {
        credential: name.to_owned(),
        source: budget.source().map(str::to_owned),
        limit: budget.limit(),
        left: budget.left(),
        back_at: budget.back_at(),
        lasts: budget.lasts(now),
        exhausted: budget.is_exhausted(),
        in_use: budget.is_used(),
    }
}

impl Reason {
    /// The log word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Kept => "kept",
        }
    }
}

/// A request that is under way, for the budget that it is made with. Dropped without a word it may have been counted.
pub(super) struct Spending {
    governor: Arc<Governor>,
    credential: Arc<str>,
    counted: bool,
    /// An answer told a limit.
    told: AtomicBool,
    /// Until it has ended.
    ticket: Mutex<Option<Ticket>>,
}

impl Spending {
    fn ticket(&self) -> MutexGuard<'_, Option<Ticket>> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer of the registry to it: what its headers tell.
    pub(super) fn hear(&self, headers: &HeaderMap) {
        let Some(told) = Told::read(headers) else { return };
        let (governor, now) = (&self.governor, Timestamp::now());
        if let Some(ticket) = &mut *self.ticket() {
            governor.with(&self.credential, |budget| budget.hear(*ticket, &told, now));
            // What it cost is in what was told; what comes after tells no less.
            ticket.counted = false;
        }
        if !self.told.swap(true, Ordering::Relaxed) && !self.counted {
            governor.with(&self.credential, Budget::note_free_tells);
        }
        governor.changed(&self.credential, now);
    }

    /// It is answered; `well` when what was asked for comes.
    pub(super) fn answered(self, repository: &RepositoryName, well: bool) {
        let Some(ticket) = self.ticket().take() else {
            return;
        };
        let governor = &self.governor;
        // That a credential without any limit is told none says nothing about the repository.
        let speaks = |budget: &mut Budget| budget.is_known() && (self.counted || budget.free_tells());
        if well && self.told.load(Ordering::Relaxed) {
            governor.uncounted.invalidate(repository);
        } else if well && governor.with(&self.credential, speaks) {
            governor.uncounted.insert(repository.clone(), ());
        }
        governor.with(&self.credential, |budget| {
            if well && ticket.counted {
                budget.give(ticket);
            } else {
                budget.end(ticket);
            }
        });
        if ticket.counted {
            governor.changed(&self.credential, Timestamp::now());
        }
    }

    /// The registry refuses it for its limit on pulls, for so long if it told.
    pub(super) fn refused(self, repository: &RepositoryName, retry_after: Option<Duration>) {
        let Some(ticket) = self.ticket().take() else {
            return;
        };
        let now = Timestamp::now();
        let (governor, credential) = (&self.governor, &self.credential);
        governor.uncounted.invalidate(repository);
        let until = governor.with(credential, |budget| {
            budget.end(ticket);
            budget.refuse(retry_after, now);
            if !self.counted {
                budget.refuse_free();
            }
            budget.back_at()
        });
        tracing::warn!(
            upstream = &*governor.prefix,
            credential = &*governor.name(credential),
            seconds = until.map(|until| until.since(now).as_secs()),
            "its pulls are used up: what is here is served, and what would count is not asked until then"
        );
        governor.changed(credential, now);
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        let ticket = self.ticket().take();
        if let Some(ticket) = ticket {
            self.governor.with(&self.credential, |budget| budget.lose(ticket));
            if ticket.counted {
                self.governor.changed(&self.credential, Timestamp::now());
            }
        }
    }
}
