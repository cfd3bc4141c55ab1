//! TLS on the doors: one certificate for all of them, read again when its files change. Handshakes that began keep the
//! one before, and so do connections: a renewal drops none. `app` loads it, and keeps it in a task.

mod certificate;
mod der;
mod self_signed;
mod stream;

use std::error::Error as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, ServerConfig};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::config::{ClientAuth, TlsConfig, TlsFault, TlsMaterial};

pub use certificate::{ClientCertificate, OwnCertificate};
pub use self_signed::self_signed;
pub(super) use stream::SecureStream;

/// How often the files are looked at.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// A certificate that ends sooner is told as a warning.
const ENDS_SOON: Duration = Duration::from_hours(7 * 24);

/// What browsers and clients may speak, best first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Our TLS. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Tls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: TlsConfig,
    current: RwLock<Current>,
    seen: Mutex<Seen>,
}

#[derive(Clone, Debug)]
struct Current {
    asking: Arc<ServerConfig>,
    open: Arc<ServerConfig>,
    own: Arc<OwnCertificate>,
}

/// The files when they were read last: device, inode, length, time of change. `None` for one that is not there.
type Stamp = Vec<Option<(u64, u64, u64, i64, i64)>>;

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    failed: bool,
}

/// Shakes hands for one door.
#[derive(Clone, Debug)]
pub struct Acceptor {
    tls: Tls,
    asks: bool,
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(config: TlsConfig) -> Result<Self, TlsFault> {
        // Before they are read, so that a change in between is found at the next look.
        let stamp = stamp(&config);
        let current = Current::load(&config)?;
        let seen = Seen { stamp, failed: false };
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                current: RwLock::new(current),
                seen: Mutex::new(seen),
            }),
        })
    }

    /// For a door that asks its clients for certificates, where the configuration says so.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor {
            tls: self.clone(),
            asks: true,
        }
    }

    /// For a door whose clients need no certificate in any case.
    pub fn open_acceptor(&self) -> Acceptor {
        Acceptor {
            tls: self.clone(),
            asks: false,
        }
    }

    /// The certificate that clients are shown.
    pub fn certificate(&self) -> Arc<OwnCertificate> {
        self.current().own
    }

    /// Its file, for clients that are to trust it.
    pub fn certificate_file(&self) -> &Path {
        &self.shared.config.cert_file
    }

    /// Reads the files again when they change, and at SIGHUP, until `stop`. What is broken is told in the log, and the
    /// certificate stays. `told` hears of each one that is used from then on. From this call on, not only once it is
    /// awaited, SIGHUP no longer ends the process.
    pub fn keep(
        self,
        stop: CancellationToken,
        told: impl Fn(&OwnCertificate) + Send,
    ) -> impl Future<Output = ()> + Send {
        let mut hangups = signal(SignalKind::hangup()).ok();
        async move {
            told(&self.certificate());
            loop {
                let asked = tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(BETWEEN_LOOKS) => false,
                    () = hangup(hangups.as_mut()) => true,
                };
                let tls = self.clone();
                let looked = tokio::task::spawn_blocking(move || tls.look(asked));
                if looked.await.unwrap_or(false) {
                    told(&self.certificate());
                }
            }
        }
    }

    /// Whether there is a new certificate. After a failure the files are read at each look: of several one may have
    /// been read while it was written.
    fn look(&self, asked: bool) -> bool {
        let stamp = stamp(&self.shared.config);
        let mut seen = lock(&self.shared.seen);
        let changed = stamp != seen.stamp;
        if !changed && !asked && !seen.failed {
            return false;
        }
        seen.stamp = stamp;
        match Current::load(&self.shared.config) {
            Ok(current) => {
                seen.failed = false;
                let own = Arc::clone(&current.own);
                *self
                    .shared
                    .current
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = current;
                own.tell("the TLS certificate was read again");
                true
            }
            Err(fault) => {
                if changed || asked {
                    tracing::error!(%fault, "the TLS certificate cannot be read again, the one before stays");
                }
                seen.failed = true;
                false
            }
        }
    }

    fn current(&self) -> Current {
        let current = self.shared.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The next SIGHUP; never, where none can be caught.
pub async fn hangup(hangups: Option<&mut Signal>) {
    if let Some(hangups) = hangups {
        hangups.recv().await;
    } else {
        std::future::pending::<()>().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stamp(config: &TlsConfig) -> Stamp {
    // The files themselves, behind symbolic links: Kubernetes exchanges the link of the folder.
    let of = |path: &Path| {
        let file = fs::metadata(path).ok()?;
        Some((
            file.dev(),
            file.ino(),
            file.len(),
            file.mtime(),
            file.mtime_nsec(),
        ))
    };
    config.files().map(of).collect()
}

impl Current {
    fn load(config: &TlsConfig) -> Result<Self, TlsFault> {
        let material = config.load()?;
        let fault = |key, reason: String| TlsFault { key, reason };
        let own = OwnCertificate::read(&material.certified.cert)
            .ok_or_else(|| fault("cert_file", "holds a certificate that is not valid".to_owned()))?;
        let unfit = |error: rustls::Error| fault("client_ca_file", error.to_string());
        let open = server_config(&material, None).map_err(unfit)?;
        let asking = server_config(&material, Some(config.client_auth)).map_err(unfit)?;
        Ok(Self {
            asking: Arc::new(asking),
            open: Arc::new(open),
            own: Arc::new(own),
        })
    }
}

fn server_config(material: &TlsMaterial, asks: Option<ClientAuth>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let resolver = Arc::new(SingleCertAndKey::from(material.certified.clone()));
    let mut config = match asks.zip(material.clients.clone()) {
        None => builder.with_no_client_auth().with_cert_resolver(resolver),
        Some((client_auth, roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match client_auth {
                ClientAuth::Optional => verifier.allow_unauthenticated(),
                ClientAuth::Required => verifier,
            };
            let verifier = verifier
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            let mut config = builder
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(resolver);
            // A session that is taken up again would not show its certificate again, which may have ended meanwhile.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the client's certificate is valid, but cannot be read")]
    Certificate,
}

impl HandshakeError {
    /// Whether an operator wants to know: certificates do not match up. Else somebody only knocked.
    pub(super) fn is_telling(&self) -> bool {
        let Self::Io(error) = self else {
            return true;
        };
        let cause = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::AlertReceived(alert)) => *alert != AlertDescription::CloseNotify,
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => true,
            _ => false,
        }
    }
}

impl Acceptor {
    /// Shakes hands, and gives the connection with the certificate that the client showed, if it did.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<ClientCertificate>>), HandshakeError> {
        let current = self.tls.current();
        let config = if self.asks { current.asking } else { current.open };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = match shown {
            None => None,
            // Nobody must pass as somebody without a name.
            Some(der) => Some(Arc::new(
                ClientCertificate::read(der).ok_or(HandshakeError::Certificate)?,
            )),
        };
        Ok((stream, certificate))
    }
}

/// Whether a connection begins with TLS (a handshake record, RFC 8446 section 5.1). Leaves the byte where it is.
pub(super) async fn begins_with_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == 0x16),
    }
}

/// The milliseconds of a time in seconds.
fn at(seconds: i64) -> Timestamp {
    Timestamp(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000))
}

impl OwnCertificate {
    /// Says in the log what it is, and whether it is time for another one.
    pub fn tell(&self, what: &str) {
        let (names, fingerprint, ends) = (self.names.join(", "), &*self.fingerprint, &*self.ends_text);
        tracing::info!(names, fingerprint, ends, "{what}");
        let now = Timestamp::now();
        if at(self.ends) < now {
            tracing::warn!(ends, "the TLS certificate has ended: clients refuse it");
        } else if at(self.ends) < now.after(ENDS_SOON) {
            tracing::warn!(ends, "the TLS certificate ends soon");
        }
    }
}

/// The causes of an error behind each other.
pub(super) fn causes(error: &HandshakeError) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
