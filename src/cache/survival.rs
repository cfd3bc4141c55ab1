//! What would be told of a tag or a list if its upstream were lost this moment. Pure but for the clock; called by
//! `preserve`.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::oci::Tag;
use crate::repository::TagState;
use crate::storage::TagRow;

use super::freshness::{Verdict, judge_list};
use super::revalidate::judge;
use super::{Cache, Place};

/// What would become of a tag without its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is served, for so much longer; `None` is for ever.
    Served(Option<Duration>),
    /// It was confirmed too long ago to be served without a question.
    TooOld,
    /// It counts as deleted.
    Gone,
}

impl Cache {
    /// What would become of a tag if its upstream were lost now.
    pub fn fate_of(&self, place: &Place, tag: &Tag, row: &TagRow) -> Fate {
        let Ok(digest) = row.digest.parse() else {
            return Fate::Gone;
        };
        let state = TagState {
            digest,
            validated_at: row.validated_at,
            gone_since: row.gone_since,
        };
        let (now, settings) = (Timestamp::now(), place.freshness_of(tag));
        let left = |from: Timestamp, span: Duration| span.saturating_sub(now.since(from));
        let usable = left(
            row.validated_at,
            settings.tag_ttl.saturating_add(settings.stale_if_error),
        );
        let gone = row.gone_since.map(|since| left(since, settings.gone_ttl));
        match judge(place, tag, &state, None) {
            Verdict::Gone => Fate::Gone,
            _ if self.is_offline() => Fate::Served(gone),
            Verdict::Revalidate => Fate::TooOld,
            Verdict::Fresh | Verdict::Stale | Verdict::UsableOnError => {
                Fate::Served(Some(gone.map_or(usable, |gone| gone.min(usable))))
            }
        }
    }

    /// Whether a list that came at `came` would be told if the upstream were lost now.
    pub fn list_is_told(&self, place: &Place, came: Timestamp) -> bool {
        let age = Timestamp::now().since(came);
        self.is_offline() || judge_list(age, true, place.freshness()) < Verdict::Revalidate
    }
}
