//! What upstreams tell, brought to the metrics, and what is left of their limits, kept in the data folder. Made by `app`.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::telemetry::{Metrics, PullsLeft};
use crate::upstream::{
    BudgetReport, BudgetStore, Observer, Purpose, RequestKind, Slowed, StatusLabel, WaitedFor,
};

/// The name of the note that keeps what was left of the upstreams' limits.
const BUDGETS: &str = "budgets";

/// Keeps budgets in the data folder.
pub(super) struct BudgetNote(pub(super) Cache);

impl BudgetStore for BudgetNote {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.storage().notes().load(BUDGETS)
    }

    fn save(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.storage().notes().save(BUDGETS, bytes)
    }
}

/// Brings what upstreams tell to the metrics.
pub(super) struct Observed(pub(super) Arc<Metrics>);

impl Observer for Observed {
    fn request(&self, prefix: &str, kind: RequestKind, status: StatusLabel) {
        self.0
            .upstream_request(prefix, kind.as_str(), &status.to_string());
    }

    fn budget(&self, prefix: &str, budget: &BudgetReport) {
        let told = PullsLeft {
            limit: budget.limit,
            left: budget.left,
            back_at: budget.back_at.map(|at| at.0 / 1000),
            lasts: budget.lasts.map(|span| span.as_secs()),
        };
        self.0.pulls_left(prefix, &budget.credential, told);
    }

    fn held(&self, prefix: &str, purpose: Purpose) {
        self.0.pull_held(prefix, purpose.as_str());
    }

    fn pulls_saved(&self, prefix: &str, more: u64) {
        self.0.pulls_saved(prefix, more);
    }

    fn slowed(&self, prefix: &str, slowed: &Slowed) {
        self.0.slowed(prefix, &slowed.host, slowed.interval);
    }

    fn endpoint_open(&self, prefix: &str, host: &str, open: bool) {
        self.0.endpoint_open(prefix, host, open);
    }

    fn hedge(&self, prefix: &str, won: bool) {
        self.0.hedge(prefix, won);
    }

    fn moved_on(&self, prefix: &str) {
        self.0.moved_on(prefix);
    }

    fn bytes_in(&self, prefix: &str, _kind: RequestKind, bytes: u64) {
        self.0.bytes_in(prefix, bytes);
    }

    fn waited(&self, prefix: &str, what: WaitedFor, time: Duration) {
        self.0.waited(prefix, what.as_str(), time);
    }

    fn bandwidth(&self, prefix: &str, limit: Option<u64>) {
        self.0.bandwidth(prefix, limit);
    }

    fn credential(&self, prefix: &str, name: &str, set_aside: bool) {
        self.0.credential_set_aside(prefix, name, set_aside);
    }
}
