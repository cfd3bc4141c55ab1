//! How urgent a question to an upstream is that several wait for: as urgent as for the most urgent of them, also when
//! somebody else began it for whom nobody waits. Called by whoever runs one question for all (`manifests`, `current`,
//! `refresh`); fills have the same in `inflight`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oci::Reference;
use crate::repository::Key;
use crate::upstream::SharedPurpose;

use super::Place;

type About = (Key, Reference);

/// The questions that somebody waits for, and by how many.
#[derive(Default)]
pub(super) struct Urgency {
    waiting: Mutex<HashMap<About, (SharedPurpose, usize)>>,
}

/// One who waits, or the one who asks.
pub(super) struct Urgent {
    urgency: Arc<Urgency>,
    about: About,
    purpose: SharedPurpose,
}

impl Urgency {
    fn waiting(&self) -> MutexGuard<'_, HashMap<About, (SharedPurpose, usize)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what `reference` is, as urgently as `place` says, for as long as the answer lives.
    pub(super) fn wait(self: &Arc<Self>, place: &Place, reference: &Reference) -> Urgent {
        let about = (place.key.clone(), reference.clone());
        let own = place.errand().purpose;
        let mut waiting = self.waiting();
        let (purpose, count) = waiting.entry(about.clone()).or_insert_with(|| (own.clone(), 0));
        purpose.raise(own.get());
        *count += 1;
        let purpose = purpose.clone();
        drop(waiting);
        Urgent {
            urgency: self.clone(),
            about,
            purpose,
        }
    }
}

impl Urgent {
    /// The place, for whom asks for all of them.
    pub(super) fn asks(&self, place: &Place) -> Place {
        Place {
            shared_purpose: Some(self.purpose.clone()),
            ..place.clone()
        }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        let mut waiting = self.urgency.waiting();
        if let Some((_, count)) = waiting.get_mut(&self.about) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.about);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::upstream::{Purpose, Upstream};

    #[tokio::test]
    async fn whoever_joins_makes_it_urgent_and_nothing_else() {
        let text = "[upstream.corp]\nurl = \"http://127.0.0.1:1\"\n";
        let config = Config::from_toml_str(text, "test.toml").unwrap();
        let upstream = Upstream::new(config.upstream("corp").unwrap().clone(), Arc::new(())).unwrap();
        let place = Place::new(upstream, "acme/app".parse().unwrap());
        let urgency = Arc::new(Urgency::default());
        let [one, other] = ["1", "2"].map(|tag| tag.parse::<Reference>().unwrap());
        let background = place.clone().in_background();
        let [first, second] = [&one, &other].map(|tag| urgency.wait(&background, tag));
        let asked = first.asks(&background);
        assert_eq!(asked.errand().purpose.get(), Purpose::Background);
        // What it leads to is a part of it.
        let within = urgency.wait(&asked, &"3".parse().unwrap());
        let client = urgency.wait(&place, &one);
        assert_eq!(asked.errand().purpose.get(), Purpose::Miss);
        assert_eq!(within.asks(&asked).errand().purpose.get(), Purpose::Miss);
        assert_eq!(
            second.asks(&background).errand().purpose.get(),
            Purpose::Background
        );
        // Taken out of it, it is work of its own again.
        assert_eq!(asked.in_background().errand().purpose.get(), Purpose::Background);
        drop((first, second, within, client));
        assert!(urgency.waiting().is_empty());
        let later = urgency.wait(&background, &one);
        assert_eq!(
            later.asks(&background).errand().purpose.get(),
            Purpose::Background
        );
    }
}
