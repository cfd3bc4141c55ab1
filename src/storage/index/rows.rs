//! One table of a write transaction, which notes for the journal what is done to it. Used by `apply`.

use redb::{ReadableTable as _, WriteTransaction};

use crate::storage::error::Error;
use crate::storage::journal::{Entry, Kept};

use super::records::Record;
use super::tables::Table;

/// A table open for writing.
pub(super) struct Rows<'t> {
    rows: redb::Table<'t, &'static [u8], &'static [u8]>,
    /// What was done to it, of a table that the journal keeps.
    done: Option<(Kept, Vec<Entry>)>,
}

impl<'t> Rows<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, table: Table) -> Result<Self, Error> {
        let rows = transaction.open_table(table).map_err(Error::index)?;
        Ok(Self { rows, done: None })
    }

    pub(super) fn kept(self, kept: Kept) -> Self {
        Self {
            done: Some((kept, Vec::new())),
            ..self
        }
    }

    fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some((table, entries)) = &mut self.done {
            entries.push(Entry {
                table: *table,
                key: key.to_vec(),
                value: value.map(<[u8]>::to_vec),
            });
        }
    }

    /// A row; an unreadable one counts as none, since it must not stop all writing.
    pub(super) fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, Error> {
        let row = self.rows.get(key).map_err(Error::index)?;
        Ok(row.and_then(|row| R::decode(row.value())))
    }

    pub(super) fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let row = self.rows.get(key).map_err(Error::index)?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    pub(super) fn has(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.rows.get(key).map_err(Error::index)?.is_some())
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.rows.insert(key, value).map_err(Error::index)?;
        self.note(key, Some(value));
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<bool, Error> {
        let there = self.rows.remove(key).map_err(Error::index)?.is_some();
        if there {
            self.note(key, None);
        }
        Ok(there)
    }

    /// Puts back a row as the journal has it, or its absence.
    pub(super) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        match value {
            Some(value) => self.rows.insert(key, value).map(drop),
            None => self.rows.remove(key).map(drop),
        }
        .map_err(Error::index)
    }

    /// What the journal is to keep of what was done.
    pub(super) fn done(self) -> Vec<Entry> {
        self.done.map(|(_, entries)| entries).unwrap_or_default()
    }

    /// What follows `prefix` in each key that begins with it.
    pub(super) fn suffixes(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut found = Vec::new();
        for row in self.rows.range(prefix..).map_err(Error::index)? {
            let (key, _) = row.map_err(Error::index)?;
            let Some(rest) = key.value().strip_prefix(prefix) else {
                break;
            };
            found.push(rest.to_vec());
        }
        Ok(found)
    }

    pub(super) fn has_prefix(&self, prefix: &[u8]) -> Result<bool, Error> {
        let first = self.rows.range(prefix..).map_err(Error::index)?.next();
        let first = first.transpose().map_err(Error::index)?;
        Ok(first.is_some_and(|(key, _)| key.value().starts_with(prefix)))
    }

    /// Rows after `key`, `most` at the most.
    pub(super) fn page<R: Record>(&self, after: &[u8], most: usize) -> Result<Page<R>, Error> {
        let bounds = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let mut rows = Vec::new();
        for row in self.rows.range::<&[u8]>(bounds).map_err(Error::index)?.take(most) {
            let (key, value) = row.map_err(Error::index)?;
            rows.push((key.value().to_vec(), R::decode(value.value())));
        }
        Ok(rows)
    }
}

/// Keys with their rows, where they are readable.
pub(super) type Page<R> = Vec<(Vec<u8>, Option<R>)>;
