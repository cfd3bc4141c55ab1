//! What the daemon says about itself: metrics, the log, the access log, and the audit log.
//!
//! Knows none of the rooms above: they hand in words and numbers. Built once by `app`, used by every room.

mod access_log;
mod audit;
mod hosted_metrics;
mod line;
mod lines;
mod logging;
mod metrics;
mod preserve_metrics;
mod storage_metrics;
mod upstream_metrics;

pub use access_log::{AccessEntry, AccessLog, AccessLogGuard, Ending};
pub use audit::{AuditEntry, AuditLog, AuditLogGuard};
pub use hosted_metrics::HostedMetrics;
pub use logging::{LogGuard, LoggingError, start_logging};
pub use metrics::{Metrics, Word};
pub use preserve_metrics::PreserveMetrics;
pub use storage_metrics::StorageMetrics;
pub use upstream_metrics::{FillMetrics, Health, PullsLeft, UpstreamMetrics};
