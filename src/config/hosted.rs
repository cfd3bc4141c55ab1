//! `[hosted]`: repositories of our own, and which of them a push makes. What is made of it is in `repository::hosted`.

use std::path::PathBuf;
use std::time::Duration;

use super::fault::Fault;
use super::glob::Glob;
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Section};
use crate::oci::RepositoryName;

/// Hosted repositories.
#[derive(Clone, Debug)]
pub struct HostedConfig {
    /// What was pushed, or said to be here, is not collected for so long.
    pub grace: Duration,
    /// From one collection to the next.
    pub collect_interval: Duration,
    /// An upload that nobody goes on with is given up after this.
    pub upload_timeout: Duration,
    /// Uploads that may be open at once for one identity, or one address without a login; zero is any number.
    pub max_uploads: usize,
    /// Bytes that each chunk of an upload but the last has at the least; zero is any number.
    pub min_chunk_size: u64,
    /// From one run over the lifecycle policies to the next.
    pub retention_interval: Duration,
    /// First components of names that no upstream is asked for.
    pub namespaces: Vec<Box<str>>,
    /// Which repositories a push makes: the first that matches says how.
    pub templates: Vec<RepositoryTemplate>,
}

/// `[[hosted.template]]`
#[derive(Clone, Debug)]
pub struct RepositoryTemplate {
    /// The names that it is about.
    pub pattern: Glob,
    /// What they are for.
    pub description: String,
    /// Whether tags may move.
    pub mutable: bool,
    /// Patterns of tags for which the opposite holds.
    pub except: Vec<Glob>,
    /// Bytes that each may hold.
    pub quota: Option<u64>,
    /// Whether a manifest may name what was not pushed.
    pub sparse: bool,
    /// Which images expire.
    pub lifecycle: Option<LifecycleFile>,
}

/// The file of a lifecycle policy. What it says, `repository` understands.
#[derive(Clone, Debug)]
pub struct LifecycleFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl LifecycleFile {
    fn read(entry: &Entry) -> Result<Self, String> {
        let path = entry.origin.resolve(entry.filled()?);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, text })
    }
}

impl HostedConfig {
    pub(super) fn read(section: Section, faults: &mut Vec<Fault>) -> Self {
        let mut reader = Reader::new(section, keys::HOSTED, faults);
        let span =
            |reader: &mut Reader<'_>, key, default| reader.take(key, Entry::time_out).unwrap_or(default);
        let grace = span(&mut reader, "grace", Duration::from_hours(24));
        let collect_interval = span(&mut reader, "collect_interval", Duration::from_hours(24));
        let upload_timeout = span(&mut reader, "upload_timeout", Duration::from_hours(24));
        let max_uploads = reader.take("max_uploads", |entry| entry.count_from(0));
        let min_chunk_size = reader.take("min_chunk_size", Entry::bytes);
        let retention_interval = span(&mut reader, "retention_interval", Duration::from_hours(24));
        let namespaces = reader.take("namespaces", |entry| {
            entry.list(|item| {
                if RepositoryName::is_component(item) {
                    Ok(Box::from(item))
                } else {
                    Err(format!("`{item}` is no first component of a name, like \"acme\""))
                }
            })
        });
        let tables = reader.take_entry("template", |entry| entry.tables("[[hosted.template]]"));
        reader.finish();
        let (tables, origin) = tables.unwrap_or((Vec::new(), Origin::Default));
        let templates = tables
            .into_iter()
            .enumerate()
            .filter_map(|(index, table)| {
                // People count from one.
                let section = Section::of(&format!("hosted.template[{}]", index + 1), table, &origin);
                RepositoryTemplate::read(section, &origin, faults)
            })
            .collect();
        Self {
            grace,
            collect_interval,
            upload_timeout,
            max_uploads: max_uploads.unwrap_or(1000),
            min_chunk_size: min_chunk_size.unwrap_or(0),
            retention_interval,
            namespaces: namespaces.unwrap_or_default(),
            templates,
        }
    }
}

impl RepositoryTemplate {
    fn read(section: Section, origin: &Origin, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut reader = Reader::new(section, keys::TEMPLATE, faults);
        let pattern = reader.take("pattern", |entry| Ok(Glob::new(entry.filled()?)));
        if pattern.is_none() && !reader.failed("pattern") {
            reader.fault(origin, "pattern", "is required, like \"acme/*\"");
        }
        let description = reader.take("description", |entry| entry.filled().map(str::to_owned));
        let mutable = reader.take("tags", |entry| match entry.filled()? {
            "mutable" => Ok(true),
            "immutable" => Ok(false),
            _ => Err("must be \"mutable\" or \"immutable\"".to_owned()),
        });
        let except = reader.take("except", |entry| entry.list(|item| Ok(Glob::new(item))));
        let quota = reader.take("quota", Entry::bytes);
        let sparse = reader.take("sparse", Entry::boolean);
        let lifecycle = reader.take("lifecycle_file", LifecycleFile::read);
        reader.finish();
        Some(Self {
            pattern: pattern?,
            description: description.unwrap_or_default(),
            mutable: mutable.unwrap_or(true),
            except: except.unwrap_or_default(),
            quota,
            sparse: sparse.unwrap_or(false),
            lifecycle,
        })
    }
}
