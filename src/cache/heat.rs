//! Which tags are asked for often, so that they are revalidated before they fall due and no client waits for that. Kept in
//! memory alone, where `repository` counts beside the tag's state: a read never writes. Called by `manifests`, and by
//! `preserve::ahead`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::oci::Tag;
use crate::repository::TagState;
use crate::upstream::BreakerState;

use super::error::Error;
use super::revalidate::{Revalidated, fresh_until};
use super::{Cache, Place};

/// Requests since a tag was last confirmed that make it hot.
const HOT: u32 = 3;

/// How long before it falls due a hot tag is asked about: a tenth of the time that it is fresh for, and no more than this.
const MOST_AHEAD: Duration = Duration::from_secs(30);

/// Hot tags that wait to be taken. Those beyond count as cold.
const MOST_HOT: usize = 65_536;

/// A tag that is asked for often.
#[derive(Clone)]
pub struct HotTag {
    /// Its repository.
    pub place: Place,
    /// The tag.
    pub tag: Tag,
    /// When to ask the upstream about it.
    pub when: Timestamp,
    /// When it was last confirmed.
    pub validated_at: Timestamp,
}

/// What came of asking about a hot tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// It was not asked, since somebody else did meanwhile.
    Late,
    /// It was not asked, since the upstream is in trouble.
    Skipped,
    /// It is as it was.
    Unchanged,
    /// It points at another manifest now, which is here.
    Moved,
    /// The upstream does not have it.
    Gone,
    /// The upstream could not be asked.
    Failed,
}

impl Ahead {
    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Skipped => "skipped",
            Self::Unchanged => "unchanged",
            Self::Moved => "moved",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

/// Who became hot.
#[derive(Default)]
pub(super) struct Heat {
    hot: Mutex<Vec<HotTag>>,
    changed: Notify,
}

impl Heat {
    /// A client asked for a tag that is fresh, the `count`th since it was confirmed.
    pub(super) fn asked(&self, place: &Place, tag: &Tag, state: &TagState, count: u32) {
        if count == HOT {
            self.turned(place, tag, state);
        }
    }

    fn turned(&self, place: &Place, tag: &Tag, state: &TagState) {
        let due = fresh_until(place, tag, state);
        let fresh_for = due.since(state.validated_at);
        let ahead = (fresh_for / 10).min(MOST_AHEAD);
        let hot = HotTag {
            place: place.clone().in_background(),
            tag: tag.clone(),
            when: state.validated_at.after(fresh_for.saturating_sub(ahead)),
            validated_at: state.validated_at,
        };
        let mut all = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody takes them where nothing is refreshed ahead.
        if all.len() < MOST_HOT {
            all.push(hot);
        }
        drop(all);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<HotTag> {
        std::mem::take(&mut *self.hot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Cache {
    /// The tags that have become hot since the last call; waits for the first. For one caller.
    pub async fn hot_tags(&self) -> Vec<HotTag> {
        loop {
            let hot = self.shared.heat.take();
            if !hot.is_empty() {
                return hot;
            }
            self.shared.heat.changed.notified().await;
        }
    }

    /// Asks the upstream about a hot tag, unless somebody did meanwhile, or it would be asked in vain.
    ///
    /// # Errors
    /// Our own disk's.
    pub async fn refresh_ahead(&self, hot: &HotTag) -> Result<Ahead, Error> {
        let (place, tag) = (&hot.place, &hot.tag);
        let state = self.shared.repositories.tag(&place.key, tag).await?;
        let Some(state) = state.filter(|state| state.validated_at == hot.validated_at) else {
            return Ok(Ahead::Late);
        };
        // A tag is the registry's own to tell, which comes first among the endpoints.
        let registry = place.upstream.endpoint_states().into_iter().next();
        let is_asked = registry.is_none_or(|registry| registry.breaker == BreakerState::Closed);
        let health = self.shared.metrics.upstream(place.upstream.prefix()).health();
        if self.is_offline()
            || !is_asked
            || health.is_failing()
            || self.shared.troubled.get(place, tag).is_some()
        {
            return Ok(Ahead::Skipped);
        }
        Ok(match self.revalidate_now(place, tag, state).await {
            Ok(Revalidated::Unchanged(_)) => Ahead::Unchanged,
            Ok(Revalidated::Moved(_)) => Ahead::Moved,
            Ok(Revalidated::Gone { .. } | Revalidated::Forgotten(_)) => Ahead::Gone,
            Err(_) => Ahead::Failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::oci::{Algorithm, Digest};
    use crate::upstream::Upstream;

    #[test]
    fn the_third_request_since_it_was_confirmed_makes_a_tag_hot() {
        let text = "[upstream.corp]\nurl = \"http://127.0.0.1:1\"\ntag_ttl = \"100s\"\n";
        let config = Config::from_toml_str(text, "test.toml").unwrap();
        let upstream = Upstream::new(config.upstream("corp").unwrap().clone(), Arc::new(())).unwrap();
        let place = Place::new(upstream, "acme/app".parse().unwrap());
        let (heat, tag) = (Heat::default(), "latest".parse().unwrap());
        let state = |at: u64| TagState {
            digest: Digest::from_hash(Algorithm::Sha256, &[1; 32]).unwrap(),
            validated_at: Timestamp(at),
            gone_since: None,
        };
        let turned = |counts: std::ops::RangeInclusive<u32>| {
            counts.for_each(|count| heat.asked(&place, &tag, &state(1000), count));
            heat.take()
        };
        assert_eq!(turned(1..=2).len(), 0);
        let hot = turned(3..=3);
        assert_eq!(hot.len(), 1);
        // Fresh for 90 to 100 seconds, by its own jitter; asked about a tenth of that before.
        let span = hot[0].when.since(Timestamp(1000)).as_secs_f64();
        assert!((81.0..=90.0).contains(&span), "{span}");
        assert_eq!(turned(4..=50).len(), 0);
        // More than anybody takes.
        (0..2 * MOST_HOT).for_each(|_| heat.asked(&place, &tag, &state(1000), HOT));
        assert_eq!(heat.take().len(), MOST_HOT);
    }
}
