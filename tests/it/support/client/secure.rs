//! A client that speaks TLS, HTTP/1 or HTTP/2 over it by ALPN, trusts one authority alone, and may show a certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Answer;
use super::h2::{H2Answer, exchange_over};
use crate::support::soon;

/// A connection after its handshake.
pub type SecureStream = TlsStream<TcpStream>;

/// How to connect.
#[derive(Clone)]
pub struct Secure {
    authority: String,
    identity: Option<(String, String)>,
}

impl Secure {
    /// Trusts what this certificate (PEM) signed, or is.
    pub fn trusting(authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            identity: None,
        }
    }

    /// Shows a certificate, with its key.
    pub fn showing(mut self, certificate: &str, key: &str) -> Self {
        self.identity = Some((certificate.to_owned(), key.to_owned()));
        self
    }

    /// Shakes hands for one protocol, which the server has to agree to.
    pub async fn connect(&self, address: SocketAddr, protocol: &str) -> io::Result<SecureStream> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        let shaken = soon("a TLS handshake", self.connector(protocol).connect(name, stream)).await?;
        assert_eq!(shaken.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        Ok(shaken)
    }

    fn connector(&self, protocol: &str) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).expect("a certificate");
        roots.add(authority).expect("a root");
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(vec![chain], key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// GETs a URL over HTTP/2.
    pub async fn h2_get(&self, url: &str) -> H2Answer {
        let stream = self.connect(address_of(url), "h2").await.expect("a handshake");
        soon(&format!("HTTP/2 GET {url}"), exchange_over(stream, url, &[])).await
    }

    /// GETs a URL over HTTP/1.1.
    pub async fn get(&self, url: &str) -> Answer {
        self.try_get(url)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// The same; an error when nobody answers.
    pub async fn try_get(&self, url: &str) -> io::Result<Answer> {
        let stream = self.connect(address_of(url), "http/1.1").await?;
        soon(&format!("GET {url}"), get_over(stream, url)).await
    }
}

fn address_of(url: &str) -> SocketAddr {
    let uri: http::Uri = url.parse().expect("a valid URL");
    let authority = uri.authority().expect("a URL with a host").as_str();
    authority.parse().expect("an address and a port")
}

/// GETs a URL over a connection that is there, by HTTP/1.1.
async fn get_over(stream: SecureStream, url: &str) -> io::Result<Answer> {
    let uri: http::Uri = url.parse().expect("a valid URL");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let request = Request::get(target).header("host", host);
    let request = request.body(Empty::<Bytes>::new()).expect("a valid request");
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let mut answer = Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: Bytes::new(),
        error: None,
    };
    let (mut incoming, mut body) = (response.into_body(), BytesMut::new());
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => body.extend(frame.into_data().ok()),
            Err(error) => {
                answer.error = Some(format!("{error:?}"));
                break;
            }
        }
    }
    answer.body = body.freeze();
    Ok(answer)
}
