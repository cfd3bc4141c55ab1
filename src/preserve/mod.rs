//! What must still be here tomorrow: proof that what was pulled would survive the loss of its upstream (`drill`), and what
//! carries it to a cache that nothing reaches (`bundle`).
//!
//! Jobs and exports of the daemon, built by `app`.

mod bundle;
mod closure;
mod drill;
mod lack;

use std::sync::Arc;

use crate::cache::{Error, Place};
use crate::oci::Reference;

pub use bundle::{BundleExport, BundleImport, ExportOptions, Exported, Imported, ImportedImage, Refusal};
pub use drill::{Drill, DrillOptions, Drilled, DrilledUpstream, Filled, Hole};
pub use lack::{Lack, Reason, What};

/// Finds the repository and the tag or digest that a person means, as the registry does.
pub type Finder = Arc<dyn Fn(&str) -> Result<(Place, Reference), Error> + Send + Sync>;
