//! TLS on the doors: pulls over it are what they are without, certificates change under open connections, clients are
//! asked for theirs, and one of our own making survives a restart.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::scene::{Blob, NAME, REPO, Scene};
use crate::support::client::SecureStream;
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::support::service::PKI;

/// A certificate and its key, in files that a daemon reads.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        files.replace(&PKI.server, &PKI.server_key);
        fs::write(files.path("ca.pem"), &PKI.ca).expect("a file");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts others in their place, as renewals do.
    fn replace(&self, certificate: &str, key: &str) {
        for (name, text) in [("key.pem", key), ("cert.pem", certificate)] {
            let draft = self.path("draft");
            fs::write(&draft, text).expect("a file");
            fs::rename(draft, self.path(name)).expect("a file");
        }
    }

    fn settings(&self, builder: Builder) -> Builder {
        let quoted = |name: &str| format!("{:?}", self.path(name).display().to_string());
        builder
            .setting("server.tls.cert_file", &quoted("cert.pem"))
            .setting("server.tls.key_file", &quoted("key.pem"))
    }

    fn asking(&self, builder: Builder, client_auth: &str) -> Builder {
        let authority = format!("{:?}", self.path("ca.pem").display().to_string());
        self.settings(builder)
            .setting("server.tls.client_ca_file", &authority)
            .setting("server.tls.client_auth", &format!("{client_auth:?}"))
    }
}

fn client() -> Secure {
    Secure::trusting(&PKI.ca)
}

/// A daemon with TLS on its door, over an empty upstream.
async fn scene(files: &Files) -> Scene {
    let upstream = Upstream::start().await;
    let daemon = files.settings(Daemon::over(&upstream)).start().await;
    Scene { upstream, daemon }
}

/// Waits until the log says it `count` times.
async fn logged(daemon: &Daemon, text: &str, count: usize) {
    let wait = async {
        while daemon.logs().iter().filter(|line| line.contains(text)).count() < count {
            tokio::task::yield_now().await;
        }
    };
    soon(&format!("the log to say {text} {count} times"), wait).await;
}

/// Whether the daemon shows this certificate.
async fn shows(daemon: &Daemon, certificate: &str) -> bool {
    let stream = client()
        .connect(daemon.address(), "h2")
        .await
        .expect("a handshake");
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate");
    shown[0] == CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")
}

#[tokio::test]
async fn blobs_arrive_whole_cold_and_warm_over_both_protocols() {
    let files = Files::new();
    let scene = scene(&files).await;
    // Below and above what is mapped on plain connections, and more than any window holds.
    for (seed, size) in [(1, 0), (2, 1), (3, 65_536), (4, 300_001), (5, 20_000_000)] {
        let blob = scene.put(random(seed, size));
        for warm in [false, true] {
            let framed = client().h2_get(&blob.url).await;
            assert_eq!(
                (framed.status, framed.end),
                (200, H2End::Clean),
                "{size}, warm: {warm}"
            );
            assert!(framed.body == blob.bytes, "{size}, warm: {warm}");
            let plain = client().get(&blob.url).await;
            assert_eq!(plain.header("content-length"), size.to_string());
            assert!(plain.ok() == blob.bytes, "{size}, warm: {warm}");
        }
        assert_eq!(scene.gets(&blob), 1);
    }
    let image = Image::new().layer(random(6, 1000));
    scene.upstream.put(REPO, "latest", &image);
    let answer = client().get(&scene.daemon.manifest_url(NAME, "latest")).await;
    assert!(answer.ok() == image.root().bytes);
    let line = scene.daemon.wait_for_log("/manifests/latest").await;
    assert!(
        line.contains(" scheme=https ") && !line.contains("certificate="),
        "{line}"
    );
}

/// A client of each protocol gets a part at the most.
async fn never_whole(scene: &Scene, blob: &Blob) {
    let framed = client().h2_get(&blob.url).await;
    assert!(matches!(framed.end, H2End::Reset(_)), "{:?}", framed.end);
    assert!(framed.body.len() < blob.bytes.len());
    // A body that fails at once may take the head with it.
    if let Ok(plain) = client().try_get(&blob.url).await {
        assert!(!plain.is_complete() && plain.body.len() < blob.bytes.len());
    }
    // The client is told a little before the file goes.
    let gone = async {
        while !scene.files(blob).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the bad bytes to go", gone).await;
}

#[tokio::test]
async fn a_bad_blob_is_broken_off() {
    let files = Files::new();
    let scene = scene(&files).await;
    for (seed, size) in [(11, 5_000), (12, 300_000), (13, 3_000_000)] {
        let blob = scene.put(random(seed, size));
        scene
            .upstream
            .always(blob.get(), serve().flip_at(size as u64 - 1));
        never_whole(&scene, &blob).await;
    }
}

/// Asks for a blob over HTTP/1.1, and gives the connection when the head and a part of the body have come.
async fn begin(scene: &Scene, blob: &Blob, part: usize) -> (SecureStream, Vec<u8>) {
    let mut stream = client()
        .connect(scene.daemon.address(), "http/1.1")
        .await
        .expect("a handshake");
    let path = format!("/v2/{NAME}/blobs/{}", blob.digest);
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("an open connection");
    let mut got = Vec::new();
    let end = loop {
        soon("bytes", stream.read_buf(&mut got))
            .await
            .expect("an open connection");
        if let Some(at) = got.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    assert!(got.starts_with(b"HTTP/1.1 200 OK"));
    let mut body = got.split_off(end);
    while body.len() < part {
        soon("bytes", stream.read_buf(&mut body))
            .await
            .expect("an open connection");
    }
    (stream, body)
}

#[tokio::test]
async fn a_renewed_certificate_drops_no_connection() {
    let files = Files::new();
    let scene = scene(&files).await;
    assert!(shows(&scene.daemon, &PKI.server).await);
    let blob = scene.put(random(21, 300_000));
    let gate = scene.upstream.stall(blob.get(), 100_000);
    let (mut stream, mut body) = begin(&scene, &blob, 90_000).await;

    let (certificate, key) = PKI.issue("127.0.0.1");
    files.replace(&certificate, &key);
    // Nobody tells it: it looks by itself.
    logged(&scene.daemon, "the TLS certificate was read again", 1).await;
    assert!(shows(&scene.daemon, &certificate).await);

    gate.release();
    soon("the rest", stream.read_to_end(&mut body))
        .await
        .expect("a clean end");
    assert!(body == blob.bytes);
    let metrics = client()
        .get(&format!("{}/metrics", scene.daemon.url()))
        .await
        .text();
    let told = "wharfinger_tls_certificate_expiry_timestamp_seconds{names=\"127.0.0.1\"} ";
    assert!(metrics.contains(told), "{metrics}");
}

#[tokio::test]
async fn a_broken_renewal_is_told_and_the_one_before_stays() {
    const BROKEN: &str = "the TLS certificate cannot be read again, the one before stays";
    let files = Files::new();
    let scene = scene(&files).await;
    let (certificate, key) = PKI.issue("127.0.0.1");
    // Only half of the new pair is there; then neither file is what it should be, or there at all.
    fs::write(files.path("cert.pem"), &certificate).expect("a file");
    scene.daemon.hang_up();
    let line = scene.daemon.wait_for_log(BROKEN).await;
    assert!(
        line.contains("server.tls.key_file") && line.contains("is not the key of the certificate"),
        "{line}"
    );
    assert!(shows(&scene.daemon, &PKI.server).await);
    fs::write(files.path("cert.pem"), "nonsense").expect("a file");
    scene.daemon.hang_up();
    logged(&scene.daemon, "holds no certificate in PEM", 1).await;
    fs::remove_file(files.path("key.pem")).expect("a file");
    assert!(shows(&scene.daemon, &PKI.server).await);
    // And on it goes.
    files.replace(&certificate, &key);
    scene.daemon.hang_up();
    logged(&scene.daemon, "the TLS certificate was read again", 1).await;
    assert!(shows(&scene.daemon, &certificate).await);
}

#[tokio::test]
async fn clients_have_to_show_a_certificate() {
    let files = Files::new();
    let upstream = Upstream::start().await;
    let builder = Daemon::over(&upstream).setting("server.admin_listen", "\"127.0.0.1:0\"");
    let daemon = files.asking(builder, "required").start().await;
    let base = format!("{}/v2/", daemon.url());
    assert!(client().try_get(&base).await.is_err(), "without any");
    let warned = daemon.wait_for_log("a TLS handshake failed").await;
    assert!(warned.contains("127.0.0.1"), "{warned}");
    // One that nobody signed.
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).expect("a certificate");
    let stranger = client().showing(&stranger.cert.pem(), &stranger.signing_key.serialize_pem());
    assert!(stranger.try_get(&base).await.is_err(), "with a stranger's");
    let (certificate, key) = PKI.issue("ci.acme.example");
    let known = client().showing(&certificate, &key);
    assert_eq!(known.get(&base).await.status, 200);
    let line = daemon.wait_for_log("certificate=\"").await;
    assert!(line.contains("certificate=\"CN=ci.acme.example\""), "{line}");
    // Probes have none to show.
    let admin = daemon.wait_for_log("door=\"admin\"").await;
    let (_, address) = admin.split_once("address=").expect("an address");
    let address = address.split(' ').next().unwrap_or_default();
    assert_eq!(client().get(&format!("http://{address}/livez")).await.status, 200);
}

#[tokio::test]
async fn clients_may_show_a_certificate() {
    let files = Files::new();
    let upstream = Upstream::start().await;
    let daemon = files.asking(Daemon::over(&upstream), "optional").start().await;
    let base = format!("{}/v2/", daemon.url());
    assert_eq!(client().get(&base).await.status, 200);
    assert_eq!(
        client()
            .showing(&PKI.client, &PKI.client_key)
            .get(&base)
            .await
            .status,
        200
    );
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).expect("a certificate");
    let stranger = client().showing(&stranger.cert.pem(), &stranger.signing_key.serialize_pem());
    assert!(
        stranger.try_get(&base).await.is_err(),
        "one that is shown has to be valid"
    );
}

#[tokio::test]
async fn plain_http_is_told_where_it_is() {
    let files = Files::new();
    let scene = scene(&files).await;
    let mut raw = Raw::get(&format!("{}/v2/", scene.daemon.url())).await;
    assert_eq!(raw.head().await.expect("an answer").status, 400);
    let (body, _) = raw.finish().await;
    assert_eq!(body, "Client sent an HTTP request to an HTTPS server.\n");
}

#[tokio::test]
async fn who_does_not_shake_hands_is_let_go() {
    let files = Files::new();
    let upstream = Upstream::start().await;
    let builder = Daemon::over(&upstream).setting("server.header_timeout", "\"300ms\"");
    let daemon = files.settings(builder).start().await;
    // Nothing, the beginning of a handshake, a handshake alone.
    for sent in [&b""[..], &[0x16, 3, 1, 0, 200]] {
        let mut stream = TcpStream::connect(daemon.address()).await.expect("a connection");
        stream.write_all(sent).await.expect("an open connection");
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    }
    let mut stream = client()
        .connect(daemon.address(), "h2")
        .await
        .expect("a handshake");
    let mut rest = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    assert_eq!(client().get(&format!("{}/v2/", daemon.url())).await.status, 200);
}

fn fingerprints(daemon: &Daemon) -> Vec<String> {
    let logs = daemon.logs();
    let lines = logs
        .iter()
        .filter(|line| line.contains("the certificate is self-signed"));
    lines
        .filter_map(|line| {
            line.split_once("fingerprint=\"")?
                .1
                .split('"')
                .next()
                .map(ToOwned::to_owned)
        })
        .collect()
}

#[tokio::test]
async fn a_certificate_of_our_own_making_survives_a_restart() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("server.public_url", "\"https://cache.example.com:5000\"")
        .argument("--tls-self-signed")
        .start()
        .await;
    let file = daemon.data_dir().join("tls/self-signed.pem");
    let trusting = |file: &Path| Secure::trusting(&fs::read_to_string(file).expect("a certificate"));
    let before = trusting(&file);
    assert_eq!(before.get(&format!("{}/v2/", daemon.url())).await.status, 200);
    daemon.restart().await;
    assert_eq!(before.get(&format!("{}/v2/", daemon.url())).await.status, 200);
    let told = fingerprints(&daemon);
    assert_eq!(told.len(), 2);
    assert!(told[0] == told[1] && told[0].len() == 95, "{told:?}");
    let line = daemon.wait_for_log("the certificate is self-signed").await;
    assert!(
        line.contains(&file.display().to_string()) && line.contains("certs.d"),
        "{line}"
    );
    let line = daemon.wait_for_log("names=").await;
    assert!(line.contains("cache.example.com"), "{line}");
}

#[tokio::test]
async fn one_certificate_is_enough() {
    let files = Files::new();
    let builder = files.settings(Daemon::builder()).argument("--tls-self-signed");
    let (status, logs) = builder.fail().await;
    assert_eq!(status.code(), Some(64));
    assert!(
        logs.iter().any(|line| line.contains("exclude each other")),
        "{logs:?}"
    );
}
