//! What keeps the data folder in order, when an operator asks or by itself: jobs over the engine. Joined in `app`.

mod evict;

pub use evict::{Evict, EvictOptions};
