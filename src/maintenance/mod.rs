//! What keeps the data folder in order, when an operator asks or by itself: jobs over the engine. Joined in `app`.

mod collect;
mod due;
mod evict;
mod expire;
mod names;
mod pace;
mod scrub;
mod sweep;

pub use collect::{Collect, CollectOptions, CollectedAll};
pub use evict::{Evict, EvictOptions};
pub use expire::{Expire, ExpireOptions, ExpiredAll};
pub use scrub::{Scrub, ScrubOptions, Scrubbed};
pub use sweep::{Sweep, SweepOptions, SweptAll};
