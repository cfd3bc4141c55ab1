//! Any other HTTP service, as a closure: an AWS API, a metadata endpoint, a token service of its own kind. It remembers
//! what it was asked, bodies included. And TLS in front of a server that has none.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::locked;

/// The certificates of the tests, made anew by each run.
pub static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

/// Certificates and keys in PEM.
pub struct Pki {
    /// Who signed the others.
    pub ca: String,
    /// A client's certificate.
    pub client: String,
    /// Its key.
    pub client_key: String,
    /// The certificate of a server at 127.0.0.1.
    pub server: String,
    /// Its key.
    pub server_key: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let ((client, client_key), (server, server_key)) = (issue(&ca, "client"), issue(&ca, "127.0.0.1"));
        Self {
            ca: ca.pem(),
            issuer: ca,
            client,
            client_key,
            server,
            server_key,
        }
    }
}

impl Pki {
    /// Another certificate and its key, for this name or address, which is the common name too.
    pub fn issue(&self, name: &str) -> (String, String) {
        issue(&self.issuer, name)
    }
}

fn issue(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Call {
    /// A header's value, or "".
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The service. It ends with the test's runtime.
pub struct Service {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Service {
    /// Answers each request with a status and a body.
    pub async fn start(answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::with_header(("content-type", "application/json"), answer).await
    }

    /// The same, with this header in all answers.
    pub async fn with_header(
        (name, value): (&'static str, &'static str),
        answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (log, answer) = (calls.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (log.clone(), answer.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (log.clone(), answer.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
                        let call = Call {
                            method: head.method.to_string(),
                            path: head.uri.path().to_owned(),
                            headers: head.headers,
                            body: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned(),
                        };
                        locked(&log).push(call.clone());
                        let (status, body) = answer(&call);
                        let response = Response::builder()
                            .status(status)
                            .header(name, value)
                            .body(Full::new(Bytes::from(body)));
                        Ok::<_, Infallible>(response.expect("a valid response"))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, calls }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that it was asked.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.calls).clone()
    }
}

/// TLS for 127.0.0.1 in front of a server on this port, for clients that show a certificate of the tests' CA if
/// `demanding`. Gives the port.
pub async fn tls_before(port: u16, demanding: bool) -> u16 {
    let authority = CertificateDer::from_pem_slice(PKI.ca.as_bytes()).expect("a certificate");
    let chain = vec![CertificateDer::from_pem_slice(PKI.server.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(PKI.server_key.as_bytes()).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if demanding {
        let mut roots = RootCertStore::empty();
        roots.add(authority).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("a verifier");
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(chain, key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let own = listener.local_addr().expect("a bound socket").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else {
                    return;
                };
                if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    own
}
