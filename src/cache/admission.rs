//! Who may read what is private at an upstream with `caller_check`: those whom the upstream itself lets read it, by a login of
//! their own. Each is asked about in their name, and believed for minutes; what is public is everybody's.
//!
//! That an upstream fails is never a yes, however often it said yes before: then only what is here, and was public when the
//! upstream could last tell, is given. Called by `registry` before anything is looked for, so that content that is here is
//! guarded like content that is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collapse::Collapse;
use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::upstream::{self, CallerLogin, Errand};

use super::error::{Error, ErrorKind};
use super::negative::Missing;
use super::visibility::{is_refused, unknown};
use super::{Cache, Place, Shared};

/// How long a yes holds.
const YES_HOLDS: Duration = Duration::from_mins(5);
/// How long a no does: somebody may be let in.
const NO_HOLDS: Duration = Duration::from_secs(30);
/// How long it is known that the upstream cannot tell, where an answer can be had without it.
const TROUBLE_HOLDS: Duration = Duration::from_secs(10);
/// Callers and repositories that are remembered.
const MOST: u64 = 50_000;

/// A right: who may list need not be who may pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Right {
    Pull,
    List,
}

/// A repository, a right, and who wants to have it: nobody in particular, or somebody by a login.
type Who = (Key, Right, Option<[u8; 32]>);

/// What somebody wants to read.
#[derive(Clone, Copy, Debug)]
pub enum Sought<'a> {
    /// A manifest.
    Manifest(&'a Reference),
    /// A blob.
    Blob(&'a Digest),
    /// Tags.
    Tags,
}

impl Sought<'_> {
    fn to_missing(self) -> Missing {
        match self {
            Self::Manifest(reference) => Missing::Manifest(reference.clone()),
            Self::Blob(digest) => Missing::Blob(*digest),
            Self::Tags => Missing::Tags,
        }
    }

    fn right(self) -> Right {
        match self {
            Self::Manifest(_) | Self::Blob(_) => Right::Pull,
            Self::Tags => Right::List,
        }
    }
}

/// What an upstream said of a caller.
#[derive(Clone, Debug)]
enum Verdict {
    Yes,
    /// They may not, or there is no such repository.
    No,
    /// The login itself is not good.
    Rejected,
    /// What they want is not there, or is hidden from them: which, nobody can tell.
    Hidden,
    /// What they want is not there, which says nothing of the rest.
    Missing(Error),
    /// It could not tell.
    Unknown(Error),
}

/// What upstreams said of callers.
pub(super) struct Admitted {
    verdicts: moka::sync::Cache<Who, (Verdict, Instant)>,
    running: Collapse<(Who, Missing), Verdict>,
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
        let holds = match verdict {
            Verdict::Yes => YES_HOLDS,
            Verdict::No | Verdict::Rejected => NO_HOLDS,
            Verdict::Hidden | Verdict::Missing(_) | Verdict::Unknown(_) => TROUBLE_HOLDS,
        };
        (at.elapsed() < holds).then_some(verdict)
    }

    fn learn(&self, who: &Who, verdict: &Verdict) {
        let lasts = match verdict {
            Verdict::Yes | Verdict::No | Verdict::Rejected => true,
            Verdict::Hidden | Verdict::Missing(_) | Verdict::Unknown(_) => false,
        };
        if lasts {
            self.verdicts
                .insert(who.clone(), (verdict.clone(), Instant::now()));
        }
    }
}

impl Cache {
    /// Lets whoever asks by `place` read what is sought, where their upstream says who may: see `caller_check`. With an
    /// error, only what is here already, and that error for the rest.
    ///
    /// # Errors
    /// [`ErrorKind::LoginNeeded`] for who brought no login, where it is not public; [`ErrorKind::LoginRejected`] for a
    /// login that is not good; "name unknown" for one that may not read it; and whatever keeps the upstream from telling.
    pub async fn admit(&self, place: &Place, sought: Sought<'_>) -> Result<Option<Error>, Error> {
        if !place.upstream.config().caller_check {
            return Ok(None);
        }
        if sought.right() == Right::Pull && self.shared.visibility.is_public(place) {
            return Ok(None);
        }
        Box::pin(self.shared.admit(place, sought)).await
    }
}

impl Shared {
    async fn admit(self: &Arc<Self>, place: &Place, sought: Sought<'_>) -> Result<Option<Error>, Error> {
        if let Some(caller) = &place.caller {
            let who = (place.key.clone(), sought.right(), Some(*caller.fingerprint()));
            if matches!(self.admitted.get(&who), Some(Verdict::Yes)) {
                return Ok(None);
            }
        }
        let was_public = self.was_public_lately(place).await;
        let limit = place.freshness().wait_with_copy();
        let mut nobody = None;
        if was_public {
            // Somebody waits for what may be here: not for long.
            let told = tokio::time::timeout(limit, self.verdict(place, None, sought)).await;
            nobody = Some(match told {
                Ok(verdict) => verdict,
                Err(_) => self.cannot_tell(place, sought),
            });
        }
        let troubled = matches!(nobody, Some(Verdict::Unknown(_)));
        let mut told = None;
        if !matches!(nobody, Some(Verdict::Yes | Verdict::Missing(_)))
            && let Some(caller) = &place.caller
        {
            let asked = self.verdict(place, Some(caller), sought);
            told = if troubled {
                tokio::time::timeout(limit, asked).await.ok()
            } else {
                Some(asked.await)
            };
        }
        let nobody = match (nobody, &told) {
            (Some(verdict), _) => verdict,
            (None, Some(Verdict::Yes)) => Verdict::No,
            (None, _) => self.verdict(place, None, sought).await,
        };
        conclude(place, nobody, told, was_public)
    }

    /// What the upstream says of a caller, or of nobody in particular.
    async fn verdict(
        self: &Arc<Self>,
        place: &Place,
        caller: Option<&CallerLogin>,
        sought: Sought<'_>,
    ) -> Verdict {
        let fingerprint = caller.map(|caller| *caller.fingerprint());
        let who = (place.key.clone(), sought.right(), fingerprint);
        if let Some(known) = self.admitted.get(&who) {
            return known;
        }
        let errand = match caller {
            Some(caller) => place.errand().in_the_name_of(caller.clone()),
            None => place.anonymous_errand(),
        };
        let (shared, its, subject) = (self.clone(), place.clone(), sought.to_missing());
        let (key, missing) = (who.clone(), subject.clone());
        let ask = || async move {
            let verdict = ask(&its, &subject, &errand).await;
            shared.admitted.learn(&key, &verdict);
            match (&verdict, key) {
                // The right to list is not the right to pull.
                (Verdict::Yes, (_, Right::Pull, None)) => shared.note_public(&its),
                (Verdict::No, (_, Right::Pull, None)) => shared.note_private(&its).await,
                _ => {}
            }
            verdict
        };
        let (told, _) = self.admitted.running.run((who, missing), ask).await;
        told.unwrap_or_else(|| Verdict::Unknown(Error::internal("asking for a caller was given up")))
    }

    /// It does not answer about nobody in particular: for a moment nobody else waits for that.
    fn cannot_tell(&self, place: &Place, sought: Sought<'_>) -> Verdict {
        let verdict = Verdict::Unknown(Error::late(place));
        let who = (place.key.clone(), sought.right(), None);
        self.admitted
            .verdicts
            .insert(who, (verdict.clone(), Instant::now()));
        verdict
    }
}

/// What follows from what is said of nobody in particular and of a caller.
fn conclude(
    place: &Place,
    nobody: Verdict,
    caller: Option<Verdict>,
    was_public: bool,
) -> Result<Option<Error>, Error> {
    let prefix = place.upstream.prefix();
    match (nobody, caller) {
        (Verdict::Yes, _) | (_, Some(Verdict::Yes)) => Ok(None),
        // How long what its upstream lost is served is for the cache to say.
        (Verdict::Missing(_), None | Some(Verdict::Unknown(_))) if was_public => Ok(None),
        (_, Some(Verdict::Missing(error))) | (Verdict::Missing(error), None | Some(Verdict::Unknown(_))) => {
            Err(error)
        }
        (_, Some(Verdict::Rejected)) => Err(Error::upstream(
            ErrorKind::LoginRejected,
            place,
            format!("{prefix} does not take this login"),
        )),
        (_, Some(Verdict::No | Verdict::Hidden)) => Err(unknown(place)),
        (Verdict::Unknown(error), _) if was_public => Ok(Some(error)),
        (Verdict::Unknown(error), _) | (_, Some(Verdict::Unknown(error))) => Err(error),
        (Verdict::No | Verdict::Hidden | Verdict::Rejected, None) => Err(Error::upstream(
            ErrorKind::LoginNeeded,
            place,
            format!("a login for {prefix} is needed, which may read this"),
        )),
    }
}

/// Asks an upstream whether this can be read with what the errand says.
async fn ask(place: &Place, subject: &Missing, errand: &Errand) -> Verdict {
    let (upstream, name) = (&place.upstream, &place.name);
    let asked = match subject {
        Missing::Manifest(reference) => match upstream.manifest_head(name, reference, errand).await {
            // No HEAD here: only GET can tell.
            Err(error) if *error.kind() == upstream::ErrorKind::HeadRefused => {
                upstream.manifest(name, reference, errand).await.map(drop)
            }
            asked => asked.map(drop),
        },
        Missing::Blob(digest) => upstream.blob_probe(name, digest, errand).await.map(drop),
        Missing::Tags => return lists(place, errand).await,
    };
    let error = match asked {
        Ok(()) => return Verdict::Yes,
        Err(error) => error.without_words(),
    };
    match error.kind() {
        // Not there, or hidden: who may list the repository hears the truth about what is in it.
        upstream::ErrorKind::NotFound => match lists(place, errand).await {
            Verdict::Yes => Verdict::Missing(Error::of_upstream(place, &error, unknown_kind(subject))),
            Verdict::No => Verdict::Hidden,
            told => told,
        },
        _ => judge(place, &error),
    }
}

/// What a client is told that is not there.
fn unknown_kind(subject: &Missing) -> ErrorKind {
    match subject {
        Missing::Blob(_) => ErrorKind::BlobUnknown,
        Missing::Manifest(_) => ErrorKind::ManifestUnknown,
        Missing::Tags => ErrorKind::NameUnknown,
    }
}

async fn lists(place: &Place, errand: &Errand) -> Verdict {
    match place.upstream.tags(&place.name, "n=1", errand).await {
        // An empty one may be what a registry tells those who must not know.
        Ok(page) if page.tags.is_empty() => Verdict::No,
        Ok(_) => Verdict::Yes,
        Err(error) if *error.kind() == upstream::ErrorKind::NotFound => Verdict::No,
        Err(error) => judge(place, &error.without_words()),
    }
}

fn judge(place: &Place, error: &upstream::Error) -> Verdict {
    match error.kind() {
        upstream::ErrorKind::CredentialsRejected => Verdict::Rejected,
        _ if is_refused(error) => Verdict::No,
        _ => Verdict::Unknown(Error::of_upstream(place, error, ErrorKind::NameUnknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::upstream::Upstream;

    #[test]
    fn a_yes_holds_for_five_minutes_and_a_no_for_less() {
        let unknown = || Verdict::Unknown(Error::new(ErrorKind::UpstreamTimeout, "late"));
        let table = [
            (Verdict::Yes, 299, true),
            (Verdict::Yes, 301, false),
            (Verdict::No, 29, true),
            (Verdict::No, 31, false),
            (Verdict::Rejected, 31, false),
            (unknown(), 9, true),
            (unknown(), 11, false),
        ];
        let admitted = Admitted::default();
        let who = |right, number| (Key::from("hub/acme/app"), right, Some([number; 32]));
        for (verdict, seconds, holds) in table {
            let at = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            let told = format!("{verdict:?} {seconds}");
            admitted.verdicts.insert(who(Right::Pull, 1), (verdict, at));
            assert_eq!(admitted.get(&who(Right::Pull, 1)).is_some(), holds, "{told}");
            assert!(admitted.get(&who(Right::Pull, 2)).is_none());
            assert!(admitted.get(&who(Right::List, 1)).is_none());
        }
        admitted.learn(&who(Right::Pull, 3), &unknown());
        assert!(
            admitted.get(&who(Right::Pull, 3)).is_none(),
            "a failure is no verdict"
        );
    }

    #[test]
    fn what_follows_from_what_is_said() {
        let text = "[upstream.test]\nurl = \"http://127.0.0.1:1\"\nusername = \"u\"\npassword = \"p\"\n";
        let config = Config::from_toml_str(text, "test.toml").unwrap();
        let upstream = Upstream::new(config.upstream("test").unwrap().clone(), Arc::new(())).unwrap();
        let place = Place::new(upstream, "acme/app".parse().unwrap());
        let (yes, no, hidden) = (Some(Verdict::Yes), Some(Verdict::No), Some(Verdict::Hidden));
        let rejected = Some(Verdict::Rejected);
        let missing = Some(Verdict::Missing(Error::new(ErrorKind::BlobUnknown, "")));
        let unknown = Some(Verdict::Unknown(Error::new(ErrorKind::UpstreamFailed, "")));
        let (open, here) = ("open", "here");
        // Of nobody in particular, of the caller; what that means where it was never public, and where it was.
        let table = [
            (&yes, &None, open, open),
            (&yes, &no, open, open),
            (&no, &yes, open, open),
            (&unknown, &yes, open, open),
            (&no, &None, "LoginNeeded", "LoginNeeded"),
            (&hidden, &None, "LoginNeeded", "LoginNeeded"),
            (&no, &no, "NameUnknown", "NameUnknown"),
            (&no, &rejected, "LoginRejected", "LoginRejected"),
            (&no, &unknown, "UpstreamFailed", "UpstreamFailed"),
            (&missing, &None, "BlobUnknown", open),
            (&missing, &unknown, "BlobUnknown", open),
            (&missing, &no, "NameUnknown", "NameUnknown"),
            (&unknown, &None, "UpstreamFailed", here),
            (&unknown, &unknown, "UpstreamFailed", here),
            // The upstream says that they may not, and nobody says that it is public.
            (&unknown, &no, "NameUnknown", "NameUnknown"),
            (&unknown, &rejected, "LoginRejected", "LoginRejected"),
            (&unknown, &missing, "BlobUnknown", "BlobUnknown"),
        ];
        for (nobody, caller, never, before) in table {
            for (was_public, expected) in [(false, never), (true, before)] {
                let nobody = nobody.clone().unwrap();
                let told = format!("{nobody:?} {caller:?} {was_public}");
                let found = match conclude(&place, nobody, caller.clone(), was_public) {
                    Ok(None) => open.to_owned(),
                    Ok(Some(_)) => here.to_owned(),
                    Err(error) => format!("{:?}", error.kind),
                };
                assert_eq!(found, expected, "{told}");
            }
        }
    }
}
