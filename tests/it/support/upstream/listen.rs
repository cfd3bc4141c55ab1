//! The sockets of an upstream: accepting, closing the port under a client's hands, opening it again.

use std::io::ErrorKind;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

use super::{Upstream, serve, wire};
use crate::support::{locked, soon};

/// What stands at the port.
pub(super) enum Socket {
    Listening(JoinHandle<()>),
    /// Bound, so that nobody takes the port, but not listening.
    Refusing(TcpSocket),
    Changing,
}

impl Upstream {
    pub(super) fn listen(&self, listener: TcpListener) {
        let task = tokio::spawn(accept(self.clone(), listener));
        *locked(&self.inner.socket) = Socket::Listening(task);
    }

    /// Closes the port and every connection: whoever connects is refused.
    pub async fn refuse(&self) {
        let socket = std::mem::replace(&mut *locked(&self.inner.socket), Socket::Changing);
        if let Socket::Listening(task) = socket {
            task.abort();
            // It ends as cancelled, with its listener and connections.
            let _ = task.await;
        }
        let reserved = TcpSocket::new_v4().expect("a socket");
        reserved.set_reuseaddr(true).expect("a socket option");
        let bind = async {
            // A program that another test is starting holds a copy of our listener until it runs.
            while let Err(error) = reserved.bind(self.inner.address) {
                assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("the port that was just freed", bind).await;
        *locked(&self.inner.socket) = Socket::Refusing(reserved);
    }

    /// Listens again on the same port.
    pub fn resume(&self) {
        let socket = std::mem::replace(&mut *locked(&self.inner.socket), Socket::Changing);
        let Socket::Refusing(reserved) = socket else {
            panic!("resume follows refuse")
        };
        self.listen(reserved.listen(1024).expect("the reserved port"));
    }
}

/// Accepts until aborted; its connections end with it.
async fn accept(upstream: Upstream, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                *locked(&upstream.inner.connections) += 1;
                upstream.inner.log.bump();
                let _ = stream.set_nodelay(true);
                let (wire, flushes) = wire::Wire::new(stream);
                let upstream = upstream.clone();
                let service = service_fn(move |request| {
                    serve::respond(upstream.clone(), request, flushes.clone())
                });
                let connection = http1::Builder::new()
                    .max_buf_size(64 * 1024)
                    .serve_connection(TokioIo::new(wire), service);
                connections.spawn(connection);
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
