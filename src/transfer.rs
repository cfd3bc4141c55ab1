//! Large things that an operator takes away from a running daemon, or brings: streams of bytes beside the jobs, which only
//! tell lines.
//!
//! What gives something away implements [`Export`], and is served as `POST /api/<name>`. What takes something in is a
//! job (`job::Job`) whose options name an upload: `api` keeps the body of the request here until the job takes it.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The type of an archive, on the wire.
pub const TAR: &str = "application/x-tar";

/// Pieces of a stream; an error is its end.
pub type Pieces = BoxStream<'static, Result<Bytes, String>>;

/// What is given away.
pub struct Outgoing {
    /// Its size in bytes, exactly.
    pub size: u64,
    /// What is in it, as JSON for a program: the header `Wharfinger-Bundle`.
    pub about: String,
    /// The bytes.
    pub pieces: Pieces,
}

/// What is brought.
pub struct Incoming {
    /// Its size in bytes, when that is known.
    pub size: Option<u64>,
    /// The bytes.
    pub pieces: Pieces,
}

/// Something that can be taken away.
pub trait Export: Send + Sync + 'static {
    /// Its name: the last part of `/api/<name>`. Letters `a-z` and hyphens.
    const NAME: &'static str;
    /// What is asked for: the JSON body of the request.
    type Options: DeserializeOwned + Send;

    /// Finds out what there is to give. Nothing is read before the first piece is wanted.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn open(&self, options: Self::Options) -> impl Future<Output = Result<Outgoing, String>> + Send;
}

type Opening = Pin<Box<dyn Future<Output = Result<Outgoing, String>> + Send>>;
type Open = Box<dyn Fn(&[u8]) -> Result<Opening, String> + Send + Sync>;

/// All that can be taken away, and what is being brought.
#[derive(Default)]
pub struct Transfers {
    exports: BTreeMap<&'static str, Open>,
    uploads: Uploads,
}

impl std::fmt::Debug for Transfers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.exports.keys()).finish()
    }
}

impl Transfers {
    /// With the uploads that jobs take theirs from.
    pub fn new(uploads: Uploads) -> Self {
        Self {
            exports: BTreeMap::new(),
            uploads,
        }
    }

    /// These and one more.
    #[must_use]
    pub fn with<E: Export>(mut self, export: E) -> Self {
        let export = Arc::new(export);
        let open: Open = Box::new(move |options| {
            let options = serde_json::from_slice(options).map_err(|error| error.to_string())?;
            let export = export.clone();
            Ok(Box::pin(async move { export.open(options).await }))
        });
        self.exports.insert(E::NAME, open);
        self
    }

    /// Whether `name` can be taken away.
    pub fn knows(&self, name: &str) -> bool {
        self.exports.contains_key(name)
    }

    /// Opens the export `name` with the JSON text `options`: what is given, or why not; the outer error is about the
    /// options.
    pub fn open(
        &self,
        name: &str,
        options: &[u8],
    ) -> Result<impl Future<Output = Result<Outgoing, String>> + use<>, String> {
        let open = self.exports.get(name).ok_or("there is no such export")?;
        open(options)
    }

    /// What is being brought.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }
}

/// The options of a job that takes something in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// Which one.
    pub upload: u64,
}

/// Bodies of requests on their way to the jobs that read them. Clones share them.
#[derive(Clone, Default)]
pub struct Uploads(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    next: AtomicU64,
    bodies: Mutex<HashMap<u64, Incoming>>,
}

/// An upload that waits for its job; dropped, it waits no longer.
pub struct Offered {
    waiting: Arc<Waiting>,
    /// What the job is told.
    pub upload: Upload,
}

impl Waiting {
    fn bodies(&self) -> MutexGuard<'_, HashMap<u64, Incoming>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.waiting.bodies().remove(&self.upload.upload);
    }
}

impl Uploads {
    /// Keeps a body for the job that is started next.
    pub fn offer(&self, incoming: Incoming) -> Offered {
        let upload = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.bodies().insert(upload, incoming);
        Offered {
            waiting: self.0.clone(),
            upload: Upload { upload },
        }
    }

    /// The body, once.
    pub fn take(&self, upload: Upload) -> Option<Incoming> {
        self.0.bodies().remove(&upload.upload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;

    struct Letters;

    #[derive(Deserialize)]
    struct Count {
        count: usize,
    }

    impl Export for Letters {
        const NAME: &'static str = "letters";
        type Options = Count;

        async fn open(&self, options: Count) -> Result<Outgoing, String> {
            if options.count > 26 {
                return Err("there are no more".to_owned());
            }
            let pieces = (b'a'..)
                .take(options.count)
                .map(|letter| Ok(Bytes::from(vec![letter])));
            Ok(Outgoing {
                size: options.count as u64,
                about: String::new(),
                pieces: futures_util::stream::iter(pieces.collect::<Vec<_>>()).boxed(),
            })
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_given() {
        let transfers = Transfers::default().with(Letters);
        assert!(transfers.knows("letters") && !transfers.knows("digits"));
        assert!(transfers.open("digits", b"{}").is_err() && transfers.open("letters", b"{}").is_err());
        let given = transfers
            .open("letters", br#"{"count": 3}"#)
            .unwrap()
            .await
            .unwrap();
        let pieces: Vec<_> = given.pieces.map(Result::unwrap).collect().await;
        assert_eq!((given.size, pieces.concat()), (3, b"abc".to_vec()));
        let refused = transfers.open("letters", br#"{"count": 30}"#).unwrap().await;
        assert_eq!(refused.err().unwrap(), "there are no more");
    }

    #[test]
    fn an_upload_is_taken_once_and_not_after_its_request() {
        let uploads = Uploads::default();
        let body = || Incoming {
            size: None,
            pieces: futures_util::stream::empty().boxed(),
        };
        let (first, second) = (uploads.offer(body()), uploads.offer(body()));
        assert_ne!(first.upload, second.upload);
        assert!(uploads.take(first.upload).is_some() && uploads.take(first.upload).is_none());
        let upload = second.upload;
        drop(second);
        assert!(uploads.take(upload).is_none());
    }
}
