//! What must still be here tomorrow: proof that what was pulled would survive the loss of its upstream (`drill`), and what
//! carries it to a cache that nothing reaches (`bundle`); images brought in before anybody asks (`pull`, `warm`), kept up to
//! date (`ahead`), and never evicted (`pins`).
//!
//! Jobs and exports of the daemon, built by `app`.

mod ahead;
mod bring;
mod bundle;
mod closure;
mod drill;
mod lack;
mod pins;
mod platforms;
mod pull;
mod runs;
mod schedule;
mod warm;

use std::sync::Arc;

use crate::cache::{Error, Place};
use crate::oci::Reference;

pub use ahead::RefreshAhead;
pub use bring::{Amount, Brought, BroughtResult};
pub use bundle::{BundleExport, BundleImport, ExportOptions, Exported, Imported, ImportedImage, Refusal};
pub use drill::{Drill, DrillOptions, Drilled, DrilledUpstream, Filled, Hole};
pub use lack::{Lack, Reason, What};
pub use pins::{KeepPinned, PinAll, PinnedAll};
pub use pull::{Pull, PullOptions, Pulled};
pub use warm::{Warm, WarmOptions, WarmRun, Warmed};

/// Finds the repository and the tag or digest that a person means, as the registry does.
pub type Finder = Arc<dyn Fn(&str) -> Result<(Place, Reference), Error> + Send + Sync>;
