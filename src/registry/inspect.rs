//! What an operator asks of the registry, by reference: explain, refresh, purge, and how it stands. Called by the admin
//! API.

use std::time::Duration;

use crate::cache::Error;
use crate::cache::report::{Answers, Explanation, OfflineReport, Pins, Purged, Refreshed, Status, Unpinned};

use super::Registry;

impl Registry {
    /// Why `text` would now be a hit, stale, or a miss.
    pub async fn explain(&self, text: &str) -> Result<Explanation, Error> {
        let (repository, reference) = self.find(text)?;
        self.cache.explain(&repository.place, &reference).await
    }

    /// Asks the upstream about `text` now.
    pub async fn refresh(&self, text: &str) -> Result<Refreshed, Error> {
        let (repository, reference) = self.find(text)?;
        self.cache.refresh(&repository.place, &reference).await
    }

    /// Removes the tag or manifest that `text` means; `with_content`, also what it reaches and nothing else needs.
    pub async fn purge(&self, text: &str, with_content: bool) -> Result<Purged, Error> {
        let (repository, reference) = self.find(text)?;
        self.cache
            .purge(&repository.place, &reference, with_content)
            .await
    }

    /// Whether anything is asked of any upstream; turned first, when `wanted` says so.
    pub async fn offline(&self, wanted: Option<bool>) -> Result<OfflineReport, Error> {
        match wanted {
            Some(on) => self.cache.set_offline(on).await,
            None => self.cache.offline().await,
        }
    }

    /// What is pinned.
    pub async fn pins(&self) -> Result<Pins, Error> {
        self.cache.pins().await
    }

    /// Takes pins away, by the references that were pinned. None, when one of these is none.
    pub async fn unpin(&self, texts: &[String]) -> Result<Vec<Unpinned>, Error> {
        let found: Vec<_> = texts
            .iter()
            .map(|text| self.find(text))
            .collect::<Result<_, _>>()?;
        let mut told = Vec::with_capacity(found.len());
        for (repository, reference) in found {
            told.push(self.cache.unpin(&repository.place, &reference).await?);
        }
        Ok(told)
    }

    /// How it stands: what is kept, what is being fetched, how the upstreams are. The caller knows how long it runs,
    /// where, and what it answered.
    pub async fn status(&self, uptime: Duration, data_dir: &str, answers: Answers) -> Result<Status, Error> {
        let content = self.cache.content().await?;
        let upstreams = self.names.upstreams();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: uptime.as_secs(),
            offline: self.cache.is_offline(),
            data_dir: data_dir.to_owned(),
            content,
            room: self.cache.room().await?,
            pins: self.cache.pins().await?.totals,
            answers,
            fills: self.cache.fills(),
            upstreams: upstreams
                .iter()
                .map(|upstream| self.cache.upstream_report(upstream))
                .collect(),
        })
    }
}
