//! A file of Apache's `htpasswd` that is kept up with: read again when it changes, while logins read memory alone. Opened and
//! refreshed by `app`, asked wherever identities are looked up.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::clock::Timestamp;

use super::stored::Stored;
use super::users::{Fault, Users};

/// A larger file is not read: a hundred thousand users take less.
const LARGEST: u64 = 16 * 1024 * 1024;

/// A file that changed more recently is read once more.
const SETTLED: Duration = Duration::from_secs(2);

/// The file when it was read last: device, inode, length, times of the last change of content and of anything.
type Stamp = (u64, u64, u64, [i64; 4]);

struct Seen {
    /// `None`: to be read again in any case.
    stamp: Option<Stamp>,
    /// Why it could not be read at the last look, so that this is told once.
    trouble: Option<io::ErrorKind>,
    /// It was empty at the last look: whoever writes it in place may have just begun.
    emptied: bool,
}

/// The users of a file, as it is now.
pub struct Htpasswd {
    path: PathBuf,
    users: RwLock<Arc<Users>>,
    seen: Mutex<Seen>,
}

impl Htpasswd {
    /// How often to call [`Htpasswd::refresh`].
    pub const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

    /// Reads the file. Its [`Htpasswd::faults`] are the caller's to tell; later ones are told here. Blocks.
    ///
    /// # Errors
    /// When it cannot be read, or is larger than 16 MiB.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let (users, stamp) = read(&path)?;
        let seen = Seen {
            stamp,
            trouble: None,
            emptied: false,
        };
        Ok(Self {
            path,
            users: RwLock::new(Arc::new(users)),
            seen: Mutex::new(seen),
        })
    }

    /// Reads the file again if it changed, and says whether anything is different now. While it cannot be read, what was read last
    /// stays, and that is told once; so does an empty file until the second look. Blocks.
    pub fn refresh(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match fs::metadata(&self.path) {
            Ok(file) if seen.trouble.is_none() && !seen.emptied && seen.stamp == Some(stamp(&file)) => {
                return false;
            }
            Ok(_) => read(&self.path),
            Err(error) => Err(error),
        };
        let (users, stamp) = match read {
            Ok(read) => read,
            Err(error) => {
                if seen.trouble.replace(error.kind()) != Some(error.kind()) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "the htpasswd file cannot be read, its users stay as they were");
                }
                return false;
            }
        };
        if seen.trouble.take().is_some() {
            tracing::info!(path = %self.path.display(), "the htpasswd file can be read again");
        }
        let before = self.users();
        let emptied = users.is_empty() && !before.is_empty();
        if emptied && !seen.emptied {
            seen.emptied = true;
            return false;
        }
        seen.emptied = false;
        seen.stamp = stamp;
        if *before == users {
            return false;
        }
        warn(&self.path, &users);
        let count = users.len();
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
        // Not before it is true: operators wait for this line.
        tracing::info!(path = %self.path.display(), users = count, "the htpasswd file was read again");
        true
    }

    /// All users of now.
    pub fn users(&self) -> Arc<Users> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The hash of a user's password.
    pub fn find(&self, name: &str) -> Option<Arc<Stored>> {
        self.users().find(name)
    }

    /// A number that changes with a user's password; `None` once there is no such user, whose tokens are then dead.
    pub fn generation(&self, name: &str) -> Option<u64> {
        self.find(name).map(|stored| stored.generation())
    }

    /// Lines that are not as they should be, for `check-config`.
    pub fn faults(&self) -> Vec<Fault> {
        self.users().faults().to_vec()
    }
}

/// The users, and the file's stamp if nothing can have changed since without changing that.
fn read(path: &Path) -> io::Result<(Users, Option<Stamp>)> {
    // To open a pipe would wait for whoever writes it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    }
    let mut file = File::open(path)?;
    let before = stamp(&file.metadata()?);
    let mut bytes = Vec::new();
    file.by_ref().take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 16 MiB",
        ));
    }
    let after = file.metadata()?;
    // Two changes may come within one tick of the clock that stamps files.
    let changed = Timestamp(u64::try_from(after.mtime()).unwrap_or(0).saturating_mul(1000));
    let settled = before == stamp(&after) && Timestamp::now().since(changed) > SETTLED;
    Ok((Users::parse(&bytes), settled.then_some(before)))
}

fn stamp(file: &fs::Metadata) -> Stamp {
    let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
    (file.dev(), file.ino(), file.len(), times)
}

fn warn(path: &Path, users: &Users) {
    for fault in users.faults() {
        tracing::warn!(path = %path.display(), %fault, "in the htpasswd file");
    }
}
