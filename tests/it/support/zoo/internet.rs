//! A small internet: registries, token services and storage under the host names that they really have, all behind one
//! port of 127.0.0.1 that speaks as an outbound proxy. So realms, redirects and credentials cross hosts and domains as
//! they do outside, and no name is ever looked up.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::locked;
use crate::support::upstream::{Body, Flushes, Upstream, Wire, respond};

/// The hosts, and the way to them; clones are handles to the same one. It ends with the test's runtime.
#[derive(Clone)]
pub struct Internet {
    address: SocketAddr,
    hosts: Arc<Mutex<BTreeMap<String, Upstream>>>,
    /// Requests to hosts that do not exist.
    strays: Arc<Mutex<Vec<String>>>,
}

impl Internet {
    /// Starts without any hosts.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let internet = Self {
            address: listener.local_addr().expect("a bound socket"),
            hosts: Arc::default(),
            strays: Arc::default(),
        };
        tokio::spawn(internet.clone().accept(listener));
        internet
    }

    /// The proxy that leads to the hosts: `http://127.0.0.1:PORT`.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The host of this name: a new one, or the one that is there.
    pub fn host(&self, name: &str) -> Upstream {
        locked(&self.hosts)
            .entry(name.to_owned())
            .or_insert_with(|| Upstream::named(name))
            .clone()
    }

    /// All hosts.
    pub fn hosts(&self) -> Vec<Upstream> {
        locked(&self.hosts).values().cloned().collect()
    }

    /// One line per request to any host: by host, in order of arrival at each.
    pub fn requests(&self) -> Vec<String> {
        let hosts = locked(&self.hosts).clone();
        let lines = hosts.iter().flat_map(|(name, host)| {
            let lines = host.summary().into_iter();
            lines.map(move |line| format!("{name}: {line}"))
        });
        let strays = locked(&self.strays).clone();
        lines.chain(strays).collect()
    }

    /// Counts from here on, at every host.
    pub fn forget(&self) {
        locked(&self.hosts).values().for_each(Upstream::forget_requests);
        locked(&self.strays).clear();
    }

    async fn accept(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { return };
                    let _ = stream.set_nodelay(true);
                    let (wire, flushes) = Wire::new(stream);
                    let internet = self.clone();
                    let service = service_fn(move |request| internet.clone().route(request, flushes.clone()));
                    let connection = http1::Builder::new()
                        .max_buf_size(64 * 1024)
                        .serve_connection(TokioIo::new(wire), service);
                    connections.spawn(connection);
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn route(self, request: Request<Incoming>, flushes: Flushes) -> Result<Response<Body>, io::Error> {
        let Some(host) = request.uri().authority().map(|host| host.as_str().to_owned()) else {
            // Not as a proxy: whoever runs the hosts wants to know what they were asked.
            let body = json!(self.requests()).to_string();
            return Ok(plain(StatusCode::OK, "application/json", body));
        };
        let known = locked(&self.hosts).get(&host).cloned();
        if let Some(upstream) = known {
            return respond(upstream, request, flushes).await;
        }
        let line = format!(
            "{host}: {} {} (no such host)",
            request.method(),
            request.uri().path()
        );
        locked(&self.strays).push(line);
        Ok(plain(
            StatusCode::BAD_GATEWAY,
            "text/plain",
            format!("no such host: {host}\n"),
        ))
    }
}

fn plain(status: StatusCode, media_type: &'static str, body: String) -> Response<Body> {
    let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let media_type = http::HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
