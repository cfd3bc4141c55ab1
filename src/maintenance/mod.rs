//! What keeps the data folder in order, when an operator asks or by itself: jobs over the engine. Joined in `app`.

mod evict;
mod pace;
mod scrub;
mod sweep;

pub use evict::{Evict, EvictOptions};
pub use scrub::{Scrub, ScrubOptions, Scrubbed};
pub use sweep::{Sweep, SweepOptions, SweptAll};
