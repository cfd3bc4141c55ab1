//! Sockets: binds, accepts, shakes hands, limits, drains, and serves any hyper service on what it accepted. Knows no
//! registry.
//!
//! `app` builds one [`Server`], and calls [`Server::serve`] for each door.

mod activity;
mod addresses;
mod bodies;
mod connection;
mod drain;
mod forwarded;
mod linger;
mod local;
mod sendfile;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::service::Service;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use bodies::{RequestBody, RequestBodyError};
pub use drain::{Drain, DrainOutcome};
pub use forwarded::Origin;
pub use local::{LocalBound, bind_local, connect_local};
pub use tls::{Acceptor, ClientCertificate, OwnCertificate, Tls, hangup, self_signed};

use activity::Activity;
use addresses::Addresses;
use drain::Watch;
use linger::Closing;
use sendfile::SendfileStream;
use throttle::Throttle;
use tls::{HandshakeError, SecureStream};

/// Connections that the kernel accepts on its own before we do.
const BACKLOG: u32 = 1024;

/// Waits after an accept that failed for want of something: the first, doubled up to the last.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a client that speaks plain HTTP to TLS gets, as Go's servers say it.
const WRONG_SCHEME: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";

/// What a server bears.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at a time, over all doors; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Of these, how many from one address (IPv6: from one /64); zero is any number. More are closed.
    pub max_connections_per_address: usize,
    /// Proxies, for which that does not count.
    pub trusted_proxies: Vec<IpNet>,
    /// How long an HTTP/1 client may take for the head of a request, or stay idle before one. A little above
    /// 30 s, after which the Go clients close idle connections themselves: the side that sends must be the
    /// one that closes. The handshake of TLS has the same time for itself.
    pub header_timeout: Duration,
    /// How long a client may send nothing in the midst of a request's body.
    pub body_timeout: Duration,
    /// Bytes of the head of a request (at least 8 KiB); beyond them the answer is 431. It is also hyper's
    /// buffer for reading.
    pub max_header_bytes: usize,
    /// How long next to nothing may move: then a client that does not read is cut, an idle HTTP/2 connection
    /// ended. Noticed after one to two times this.
    pub stall_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            max_connections_per_address: 0,
            trusted_proxies: Vec::new(),
            header_timeout: Duration::from_secs(35),
            body_timeout: Duration::from_mins(1),
            max_header_bytes: 32 * 1024,
            stall_timeout: Duration::from_mins(2),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client at this address.
    Network(SocketAddr),
    /// A program of this machine, through the unix socket.
    Local,
}

impl Peer {
    /// Its address, if it has one.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(address),
            Self::Local => None,
        }
    }
}

/// What a service may know of the connection that it is made for.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client.
    pub peer: Peer,
    /// Whether bytes go out as they are (not through TLS).
    pub plain: bool,
    /// The certificate that the client showed, verified.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Connection {
    /// Whether a response to a request of `version` may carry slices of a mapped file. Over HTTP/1 without
    /// TLS they go out by sendfile. TLS reads all of a body, and HTTP/2 the first bytes of each frame, with
    /// the CPU: there the body has to come from reads of the file, so that a disk error stays an error.
    pub fn takes_mapped(&self, version: Version) -> bool {
        self.plain && version <= Version::HTTP_11
    }
}

/// A socket that listens, nothing accepted from it yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    local: SocketAddr,
    tls: Option<Acceptor>,
}

impl Bound {
    /// The address, with the port that the kernel chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Speaks TLS alone from now on.
    #[must_use]
    pub fn secured(self, tls: Acceptor) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    /// Whether it speaks TLS.
    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }
}

/// Listens on `addr`. `[::]` takes IPv4 as well, as the system is set. Must be called within a tokio runtime.
///
/// # Errors
/// What bind(2) and listen(2) say: the address is in use, is not ours, or needs a privilege.
pub fn bind(addr: SocketAddr) -> io::Result<Bound> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restart must not wait for the connections of the previous run to be forgotten.
    socket.set_reuseaddr(true)?;
    // The rest is for the connections, which inherit it from here. Answers are written whole: waiting for
    // more to fill a packet would only delay them. And a silent client whose machine is gone is found out
    // within two minutes.
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, Duration::from_mins(1))?;
    sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(&socket, 4)?;
    socket.bind(addr)?;
    let listener = socket.listen(BACKLOG)?;
    let local = listener.local_addr()?;
    Ok(Bound {
        listener,
        local,
        tls: None,
    })
}

/// Serves connections under one set of limits. Clones share them.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    drain: Drain,
    slots: Arc<Semaphore>,
    addresses: Addresses,
    /// Of connections beyond `max_connections_per_address`, and of failed handshakes.
    crowds: Throttle,
    failures: Throttle,
    builder: auto::Builder<TokioExecutor>,
}

impl Server {
    /// A server that `drain` stops.
    pub fn new(limits: Limits, drain: Drain) -> Self {
        let slots = Arc::new(Semaphore::new(
            limits.max_connections.clamp(1, Semaphore::MAX_PERMITS),
        ));
        let builder = connection::builder(&limits);
        Self {
            shared: Arc::new(Shared {
                limits,
                drain,
                slots,
                addresses: Addresses::default(),
                crowds: Throttle::default(),
                failures: Throttle::default(),
                builder,
            }),
        }
    }

    /// Accepts from `bound` until the drain starts, and serves each connection in a task of its own with the
    /// service that `make` gives it. Connections outlive this call: [`Drain::wait`] waits for them.
    ///
    /// A body that fails breaks the connection (HTTP/1) or resets the stream (HTTP/2), so that no client
    /// takes a part for the whole.
    pub async fn serve<F, S, B>(&self, bound: Bound, make: F)
    where
        F: Fn(Connection) -> S + Send + Sync + 'static,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let make = Arc::new(make);
        let watch = self.shared.drain.watch();
        loop {
            let (stream, peer, slot) = tokio::select! {
                biased;
                () = watch.stopped() => return,
                accepted = self.accept(&bound) => accepted,
            };
            let shared = Arc::clone(&self.shared);
            let Ok(place) = shared.place(peer) else {
                continue;
            };
            let (watch, make, tls) = (shared.drain.watch(), Arc::clone(&make), bound.tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => shared.serve_plain(stream, peer, &*make, &watch).await,
                    Some(tls) => shared.serve_secured(stream, peer, &tls, &*make, &watch).await,
                }
                drop((slot, place));
            });
        }
    }

    /// Waits for a free slot and a connection, and through errors.
    async fn accept(&self, bound: &Bound) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        // Never closed, so there always is a permit in the end.
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await.ok();
        let mut pause = PAUSE;
        loop {
            let error = match bound.listener.accept().await {
                Ok((stream, peer)) => return (stream, peer, slot),
                Err(error) => error,
            };
            if concerns_one_connection(&error) {
                tracing::debug!(%error, "a connection was gone before it was accepted");
                continue;
            }
            tracing::warn!(%error, listen = %bound.local, "cannot accept connections, trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

impl Shared {
    /// The place of a connection from `peer`, if there is one left.
    fn place(&self, peer: SocketAddr) -> Result<Option<addresses::Place>, ()> {
        let (most, address) = (self.limits.max_connections_per_address, peer.ip());
        if addresses::is_in(&self.limits.trusted_proxies, address) {
            return Ok(None);
        }
        let place = self.addresses.enter(address, most);
        if place.is_err()
            && let Some(more) = self.crowds.pass()
        {
            tracing::warn!(client = %peer, limit = most, more, "too many connections from one address: one was closed");
        }
        place
    }

    async fn serve_plain<S, B>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        make: &(impl Fn(Connection) -> S + Sync),
        watch: &Watch,
    ) where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let service = make(Connection {
            peer: Peer::Network(peer),
            plain: true,
            certificate: None,
        });
        let activity = Arc::new(Activity::default());
        let stream = SendfileStream::new(stream, Arc::clone(&activity));
        connection::serve(stream, activity, &self.builder, service, &self.limits, watch).await;
    }

    async fn serve_secured<S, B>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: &Acceptor,
        make: &(impl Fn(Connection) -> S + Sync),
        watch: &Watch,
    ) where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let shaken = tokio::select! {
            biased;
            () = watch.stopped() => return,
            shaken = tokio::time::timeout(self.limits.header_timeout, shake(tls, stream)) => shaken,
        };
        let (stream, certificate) = match shaken {
            Ok(Ok(Some(shaken))) => shaken,
            Ok(Ok(None)) => {
                tracing::debug!(client = %peer, "plain HTTP to a TLS door");
                return;
            }
            Ok(Err(error)) => {
                if error.is_telling()
                    && let Some(more) = self.failures.pass()
                {
                    tracing::warn!(client = %peer, error = tls::causes(&error), more, "a TLS handshake failed");
                } else {
                    tracing::debug!(client = %peer, error = tls::causes(&error), "no TLS handshake");
                }
                return;
            }
            Err(_elapsed) => {
                tracing::debug!(client = %peer, "no TLS handshake in time");
                return;
            }
        };
        let service = make(Connection {
            peer: Peer::Network(peer),
            plain: false,
            certificate,
        });
        let activity = Arc::new(Activity::default());
        let stream = SecureStream::new(stream, Arc::clone(&activity));
        connection::serve(stream, activity, &self.builder, service, &self.limits, watch).await;
    }
}

type Shaken = (
    tokio_rustls::server::TlsStream<TcpStream>,
    Option<Arc<ClientCertificate>>,
);

/// Shakes hands, or tells a client that speaks no TLS so: `None`.
async fn shake(tls: &Acceptor, mut stream: TcpStream) -> Result<Option<Shaken>, HandshakeError> {
    if tls::begins_with_tls(&stream).await? {
        return tls.accept(stream).await.map(Some);
    }
    stream.write_all(WRONG_SCHEME).await?;
    stream.shutdown().await?;
    let mut closing = Closing::default();
    poll_fn(|cx| closing.poll(&mut stream, cx)).await;
    Ok(None)
}

/// Whether accept(2) reports an error of the connection at hand, and not one that the next call would meet as
/// well.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::TIMEDOUT
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
        )
    )
}
