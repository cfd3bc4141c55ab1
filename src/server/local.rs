//! The door on a unix socket, for programs of this machine that may use the data folder: bound with mode 0600 from its
//! first moment, HTTP/1 alone. And the way to it, for the subcommands.

use std::convert::Infallible;
use std::error::Error;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};

use super::activity::Activity;
use super::{Connection, PAUSE, Peer, RequestBody, Server};

/// Bytes of a path that a socket's address holds, without the NUL (unix(7)).
const MOST_PATH: usize = 107;

/// A unix socket that listens, nothing accepted from it yet. Dropped, it takes its file away.
#[derive(Debug)]
pub struct LocalBound {
    listener: UnixListener,
    path: PathBuf,
    /// Its device and inode: another daemon's socket at the same path is not ours to remove.
    identity: (u64, u64),
}

impl LocalBound {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LocalBound {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Listens at `path`, in the place of whatever socket was there: the caller knows that nobody serves it any more. Must
/// be called within a tokio runtime.
///
/// The file appears with mode 0600: it is bound in a folder of mode 0700 and renamed, since between bind(2) and
/// chmod(2) anybody could connect.
///
/// # Errors
/// What the system says of the folder and of the socket.
pub fn bind_local(path: &Path) -> io::Result<LocalBound> {
    let folder = path.with_extension("new");
    // Of a start that was interrupted.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&folder)?;
    let bound = bind_in(&folder, path);
    let _ = fs::remove_dir_all(&folder);
    bound
}

fn bind_in(folder: &Path, path: &Path) -> io::Result<LocalBound> {
    let draft = folder.join("s");
    let listener = {
        let (address, _folder) = address(&draft)?;
        UnixListener::bind(address)?
    };
    fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    let identity = identity(&fs::symlink_metadata(&draft)?);
    fs::rename(&draft, path)?;
    Ok(LocalBound {
        listener,
        path: path.to_owned(),
        identity,
    })
}

/// Connects to the socket at `path`.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` when nobody listens there, `PermissionDenied` when it is not ours to use.
pub async fn connect_local(path: &Path) -> io::Result<UnixStream> {
    let (address, _folder) = address(path)?;
    UnixStream::connect(address).await
}

/// `path` in a form that fits into a socket's address: a long one is named by its folder's descriptor, to be kept until
/// the address is used.
fn address(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= MOST_PATH {
        return Ok((path.to_owned(), None));
    }
    let parts = path.parent().zip(path.file_name());
    let (folder, name) = parts.ok_or(io::ErrorKind::InvalidInput)?;
    let folder = File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((short, Some(folder)))
}

impl Server {
    /// Accepts from `bound` until the drain starts, and serves each connection as [`Server::serve`] does. Who got this
    /// far may read and write the data folder, so nothing is limited but the number of connections.
    pub async fn serve_local<F, S, B>(&self, bound: LocalBound, make: F)
    where
        F: Fn(Connection) -> S,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let watch = self.shared.drain.watch();
        loop {
            let accepted = tokio::select! {
                biased;
                () = watch.stopped() => return,
                accepted = bound.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, path = %bound.path.display(), "cannot accept connections, trying again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = self.shared.slots.clone().try_acquire_owned() else {
                tracing::warn!(path = %bound.path.display(), "too many connections, one was closed");
                continue;
            };
            let service = make(Connection {
                peer: Peer::Local,
                plain: true,
                certificate: None,
            });
            // A command may take its time: what is piped into it comes when it comes.
            let activity = Arc::new(Activity::default());
            let service = service_fn(move |request: Request<Incoming>| {
                service.call(request.map(|body| RequestBody::new(body, Arc::clone(&activity), None)))
            });
            let watch = self.shared.drain.watch();
            let limit = self.shared.limits.header_timeout;
            tokio::spawn(async move {
                let _slot = slot;
                let mut connection = pin!(
                    http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(limit)
                        .serve_connection(TokioIo::new(stream), service)
                );
                let result = tokio::select! {
                    result = connection.as_mut() => result,
                    () = watch.stopped() => {
                        connection.as_mut().graceful_shutdown();
                        tokio::select! {
                            result = connection => result,
                            () = watch.cut() => return,
                        }
                    }
                };
                if let Err(error) = result {
                    tracing::debug!(error = &error as &dyn Error, "local connection ended");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn bound_replaced_and_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let gone = connect_local(&path).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        let first = bind_local(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        connect_local(&path).await.unwrap();
        // As after a kill: the file stays, and the folder of an interrupted start too.
        fs::create_dir(path.with_extension("new")).unwrap();
        let second = bind_local(&path).unwrap();
        assert_ne!(second.identity, first.identity);
        drop(first);
        connect_local(&path).await.expect("the second one's file stays");
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_path_of_any_length() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("d".repeat(120));
        fs::create_dir(&long).unwrap();
        let path = long.join("admin.sock");
        let bound = bind_local(&path).unwrap();
        assert_eq!((bound.path(), mode(&path)), (path.as_path(), 0o600));
        connect_local(&path).await.unwrap();
    }
}
