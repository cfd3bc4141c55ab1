//! Who may read what is private at an upstream with `caller_check`: those whom the upstream itself lets read it, by a login of
//! their own. Each is asked about in their name, and believed for minutes; what is public is everybody's.
//!
//! That an upstream fails is never a yes, however often it said yes before. Called by `registry` before anything is looked
//! for, so that content that is here is guarded like content that is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collapse::Collapse;
use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::upstream::{self, CallerLogin, Errand};

use super::error::{Error, ErrorKind};
use super::visibility::{is_refused, unknown};
use super::{Cache, Place, Shared};

/// How long a yes holds.
const YES_HOLDS: Duration = Duration::from_mins(5);
/// How long a no does: somebody may be let in.
const NO_HOLDS: Duration = Duration::from_secs(30);
/// Callers and repositories that are remembered.
const MOST: u64 = 50_000;

/// A repository, and who wants to read it.
type Who = (Key, [u8; 32]);

/// What somebody wants to read.
#[derive(Clone, Copy, Debug)]
pub enum Sought<'a> {
    /// A manifest.
    Manifest(&'a Reference),
    /// A blob.
    Blob(&'a Digest),
    /// Tags, or what refers to something.
    List,
}

/// The same, to be kept.
#[derive(Clone)]
enum Subject {
    Manifest(Reference),
    Blob(Digest),
    List,
}

/// What an upstream said of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    /// It may not read this repository, or there is none.
    No,
    /// The login itself is not good.
    Rejected,
}

/// What upstreams said of callers.
pub(super) struct Admitted {
    verdicts: moka::sync::Cache<Who, (Verdict, Instant)>,
    running: Collapse<Who, Result<Verdict, Error>>,
}

impl Default for Admitted {
    fn default() -> Self {
        Self {
            verdicts: moka::sync::Cache::builder()
                .max_capacity(MOST)
                .time_to_live(YES_HOLDS)
                .build(),
            running: Collapse::default(),
        }
    }
}

impl Admitted {
    fn get(&self, who: &Who) -> Option<Verdict> {
        let (verdict, at) = self.verdicts.get(who)?;
        let holds = if verdict == Verdict::Yes {
            YES_HOLDS
        } else {
            NO_HOLDS
        };
        (at.elapsed() < holds).then_some(verdict)
    }
}

impl Cache {
    /// Lets whoever asks by `place` read what is sought, where their upstream says who may: see `caller_check`.
    ///
    /// # Errors
    /// [`ErrorKind::LoginNeeded`] for who brought no login, where it is not public; [`ErrorKind::LoginRejected`] for a
    /// login that is not good; "name unknown" for one that may not read it; and whatever keeps the upstream from telling.
    pub async fn admit(&self, place: &Place, sought: Sought<'_>) -> Result<(), Error> {
        if !place.upstream.config().caller_check || self.shared.visibility.is_public(place) {
            return Ok(());
        }
        Box::pin(self.shared.admit(place, sought)).await
    }
}

impl Shared {
    async fn admit(self: &Arc<Self>, place: &Place, sought: Sought<'_>) -> Result<(), Error> {
        let verdict = match &place.caller {
            Some(caller) => Some(self.verdict(place, caller, sought).await?),
            None => None,
        };
        if verdict == Some(Verdict::Yes) {
            return Ok(());
        }
        // What is public is theirs too, whatever became of their login.
        match (self.public(place, sought).await, verdict) {
            (Ok(()), _) => Ok(()),
            (Err(error), _) if error.allows_stale => Err(error),
            (Err(_), None) => Err(Error::upstream(
                ErrorKind::LoginNeeded,
                place,
                format!(
                    "a login for {} is needed, which may read this",
                    place.upstream.prefix()
                ),
            )),
            (Err(_), Some(Verdict::Rejected)) => Err(Error::upstream(
                ErrorKind::LoginRejected,
                place,
                format!("{} does not take this login", place.upstream.prefix()),
            )),
            (Err(error), Some(_)) => Err(error),
        }
    }

    /// Whether anybody can read it, as the upstream says.
    async fn public(&self, place: &Place, sought: Sought<'_>) -> Result<(), Error> {
        match sought {
            Sought::Manifest(reference) => self.ask_publicly(place, reference).await,
            Sought::Blob(digest) => self.visible_blob(place, digest).await,
            Sought::List => match self.told_by_list(place).await {
                Some(told) => told,
                // While it cannot tell, what was public is.
                None if self.was_public_lately(place).await => Ok(()),
                None => Err(unknown(place)),
            },
        }
    }

    /// What the upstream says of a caller, or said minutes ago.
    async fn verdict(
        self: &Arc<Self>,
        place: &Place,
        caller: &CallerLogin,
        sought: Sought<'_>,
    ) -> Result<Verdict, Error> {
        let who = (place.key.clone(), *caller.fingerprint());
        if let Some(known) = self.admitted.get(&who) {
            return Ok(known);
        }
        let subject = match sought {
            Sought::Manifest(reference) => Subject::Manifest(reference.clone()),
            Sought::Blob(digest) => Subject::Blob(*digest),
            Sought::List => Subject::List,
        };
        let (shared, its, errand) = (
            self.clone(),
            place.clone(),
            place.errand().in_the_name_of(caller.clone()),
        );
        let key = who.clone();
        let ask = || async move {
            let verdict = ask(&its, &subject, &errand).await?;
            shared.admitted.verdicts.insert(key, (verdict, Instant::now()));
            Ok(verdict)
        };
        let (told, _) = self.admitted.running.run(who, ask).await;
        told.unwrap_or_else(|| Err(Error::internal("asking for a caller was given up")))
    }
}

/// Asks an upstream in a caller's name whether this can be read.
async fn ask(place: &Place, subject: &Subject, errand: &Errand) -> Result<Verdict, Error> {
    let (upstream, name) = (&place.upstream, &place.name);
    let asked = match subject {
        Subject::Manifest(reference) => upstream.manifest_head(name, reference, errand).await.map(drop),
        Subject::Blob(digest) => upstream.blob_probe(name, digest, errand).await.map(drop),
        Subject::List => return ask_for_list(place, errand).await,
    };
    match asked {
        Ok(()) => Ok(Verdict::Yes),
        // It is not there, or HEAD does not tell: the same right opens the list.
        Err(error)
            if matches!(
                error.kind(),
                upstream::ErrorKind::NotFound | upstream::ErrorKind::HeadRefused
            ) =>
        {
            ask_for_list(place, errand).await
        }
        Err(error) => judge(place, &error),
    }
}

async fn ask_for_list(place: &Place, errand: &Errand) -> Result<Verdict, Error> {
    match place.upstream.tags(&place.name, "n=1", errand).await {
        // An empty one may be what a registry tells those who must not know.
        Ok(page) if page.tags.is_empty() => Ok(Verdict::No),
        Ok(_) => Ok(Verdict::Yes),
        Err(error) if *error.kind() == upstream::ErrorKind::NotFound => Ok(Verdict::No),
        Err(error) => judge(place, &error),
    }
}

fn judge(place: &Place, error: &upstream::Error) -> Result<Verdict, Error> {
    match error.kind() {
        upstream::ErrorKind::CredentialsRejected => Ok(Verdict::Rejected),
        _ if is_refused(error) => Ok(Verdict::No),
        _ => Err(Error::of_upstream(place, error, ErrorKind::NameUnknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_holds_for_five_minutes_and_a_no_for_less() {
        let table = [
            (Verdict::Yes, 299, true),
            (Verdict::Yes, 301, false),
            (Verdict::No, 29, true),
            (Verdict::No, 31, false),
            (Verdict::Rejected, 31, false),
        ];
        let admitted = Admitted::default();
        let who = |number| (Key::from("hub/acme/app"), [number; 32]);
        for (verdict, seconds, holds) in table {
            let at = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            admitted.verdicts.insert(who(1), (verdict, at));
            assert_eq!(admitted.get(&who(1)).is_some(), holds, "{verdict:?} {seconds}");
            assert_eq!(admitted.get(&who(2)), None);
        }
    }
}
