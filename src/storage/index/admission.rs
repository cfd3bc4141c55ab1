//! Whether a push is let in, decided in the transaction that would write it, so that nothing comes in between: the
//! repository that it is for has to be there still, and what it adds has to fit into that one's quota. `writer` asks
//! before it applies a submission.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::oci::RepositoryName;
use crate::storage::error::Error;

use super::apply::{Applier, read_usage};
use super::change::{Action, Change};
use super::keys::{HOSTED, content_key};
use super::records::{LinkRow, RepositoryRow};

/// What has to hold for a submission to be applied.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) repository: RepositoryName,
    /// When the repository was made: another one of its name is another one.
    pub(super) created_at: Timestamp,
    pub(super) quota: Option<u64>,
}

impl Applier<'_> {
    /// Whether all that `changes` ask for holds; if not, why none of them is to be applied. The outer error is the index's.
    pub(super) fn admit(&self, changes: &[Change]) -> Result<Result<(), Error>, Error> {
        for Change(action) in changes {
            if let Action::Admit(admission) = action
                && let Err(refusal) = self.judge(admission, changes)?
            {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    }

    fn judge(&self, admission: &Admission, changes: &[Change]) -> Result<Result<(), Error>, Error> {
        let name = admission.repository.as_str();
        let row = self.repositories.get::<RepositoryRow>(name.as_bytes())?;
        if row.is_none_or(|row| row.created_at != admission.created_at) {
            return Ok(Err(Error::RepositoryGone));
        }
        let Some(quota) = admission.quota else {
            return Ok(Ok(()));
        };
        let key = format!("{HOSTED}{name}");
        // By what is linked, so that the same digest twice counts once.
        let mut linked = HashMap::new();
        for Change(action) in changes {
            if let Action::PutLink(repository, digest, row) = action
                && *repository == key
            {
                linked.insert(digest, row.size);
            }
        }
        let used = self.usage.raw(key.as_bytes())?.as_deref().map_or(0, read_usage);
        let mut after = used;
        for (digest, size) in linked {
            let old = self.links.get::<LinkRow>(&content_key(&key, digest))?;
            after = after
                .saturating_sub(old.map_or(0, |old| old.size))
                .saturating_add(size);
        }
        // What adds nothing is let in whatever the quota is: it may have been made smaller.
        Ok(if after > quota && after > used {
            Err(Error::Quota(quota))
        } else {
            Ok(())
        })
    }
}
