//! The doors: bound before anything is served, with their certificate, and told of at the start. Called by `app`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

use crate::api::Entrance;
use crate::config::Config;
use crate::registry::{Door, OwnAddresses};
use crate::server::{self, Bound, LocalBound, Tls};

use super::ADMIN_SOCKET;

/// The certificate for our doors, if they speak TLS.
pub(super) fn load_tls(config: &Config, self_signed: bool) -> anyhow::Result<Option<Tls>> {
    let files = if self_signed {
        let host = config
            .server
            .public_url
            .as_ref()
            .and_then(|url| url.host_str())
            .map(|host| host.trim_matches(['[', ']']));
        let made = server::self_signed(&config.storage.data_dir, host);
        Some(made.context("cannot make a self-signed certificate")?)
    } else {
        config.server.tls.clone()
    };
    let Some(files) = files else { return Ok(None) };
    let tls = Tls::load(files).context("cannot speak TLS")?;
    tls.certificate().tell("TLS certificate");
    Ok(Some(tls))
}

/// Binds every door that the configuration names. Probes and Prometheus have no certificate to show, so the admin door
/// asks for none.
pub(super) fn bind_doors(
    config: &Config,
    tls: Option<&Tls>,
) -> anyhow::Result<Vec<(Bound, Entrance, &'static str)>> {
    let doors = [
        (Some(config.server.listen), Entrance::Main, "main"),
        (config.server.mirror_listen, Entrance::Mirror, "mirror"),
        (config.server.admin_listen, Entrance::Admin, "admin"),
    ];
    let mut bound = Vec::new();
    for (address, door, name) in doors {
        if let Some(address) = address {
            let socket =
                server::bind(address).with_context(|| format!("cannot listen on {address} ({name} door)"))?;
            let acceptor = tls.map(|tls| match door {
                Entrance::Admin => tls.open_acceptor(),
                _ => tls.acceptor(),
            });
            let socket = match acceptor {
                Some(acceptor) => socket.secured(acceptor),
                None => socket,
            };
            bound.push((socket, door, name));
        }
    }
    Ok(bound)
}

/// The door of the subcommands. Without it everything else works, and some file systems know no sockets.
pub(super) fn bind_local(data_dir: &Path) -> Option<LocalBound> {
    let path = data_dir.join(ADMIN_SOCKET);
    server::bind_local(&path)
        .inspect(|socket| tracing::info!(path = %socket.path().display(), "admin socket"))
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "no admin socket: subcommands like `wharfinger status` will not reach this daemon");
        })
        .ok()
}

/// What may stand before a name without being part of it.
pub(super) fn own_addresses(config: &Config, bound: &[(Bound, Entrance, &str)]) -> OwnAddresses {
    let door = |entrance: Entrance| match entrance {
        Entrance::Main => Some(Door::Main),
        Entrance::Mirror => Some(Door::Mirror),
        Entrance::Admin | Entrance::Local => None,
    };
    let ports = bound
        .iter()
        .filter_map(|(socket, entrance, _)| Some((socket.local_addr().port(), door(*entrance)?)));
    let host = config.server.public_url.as_ref().and_then(|url| {
        let host = url.host_str()?;
        Some(
            url.port()
                .map_or(host.to_owned(), |port| format!("{host}:{port}")),
        )
    });
    OwnAddresses {
        ports: ports.collect(),
        host,
    }
}

/// Where it listens, where its data is, and the one line that points Docker at it. `challenges`: whether the main door asks
/// for a login.
pub(super) fn announce(
    config: &Config,
    bound: &[(Bound, Entrance, &str)],
    self_signed: Option<&Tls>,
    challenges: bool,
) {
    for upstream in &config.upstreams {
        let logins: Vec<_> = upstream
            .credentials
            .iter()
            .map(|credential| credential.name.as_str())
            .collect();
        let login = (!logins.is_empty()).then(|| logins.join(", "));
        tracing::info!(prefix = upstream.prefix, url = %upstream.url, login, "upstream");
    }
    tracing::info!(folder = %config.storage.data_dir.display(), "data");
    let mut mirror = None;
    for (socket, door, name) in bound {
        let address = socket.local_addr();
        tracing::info!(%address, door = name, tls = socket.is_secured(), "listening");
        if *door != Entrance::Admin {
            mirror = Some((address, if socket.is_secured() { "https" } else { "http" }));
        }
    }
    if let Some(tls) = self_signed {
        let own = tls.certificate();
        tracing::warn!(
            fingerprint = own.fingerprint.as_str(),
            file = %tls.certificate_file().display(),
            "the certificate is self-signed: clients trust it when they have this file, for Docker, Podman and skopeo as \
             /etc/docker/certs.d/<host>:<port>/ca.crt"
        );
    }
    if let (Some((address, scheme)), Some(_)) = (mirror, &config.cache.mirror) {
        let own_port = config.server.mirror_listen.is_some();
        let url = config
            .server
            .public_url
            .as_ref()
            .filter(|_| !own_port)
            .map_or_else(
                || format!("{scheme}://{}", reachable(address)),
                |url| url.as_str().trim_end_matches('/').to_owned(),
            );
        // To a mirror that asks, Docker shows its login for Docker Hub, or none.
        let path = if challenges && !own_port { "/mirror" } else { "" };
        tracing::info!(
            r#"point Docker at it, in /etc/docker/daemon.json: {{"registry-mirrors": ["{url}{path}"]}}"#
        );
    }
}

/// The wildcard address is no destination.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("<this machine>:{}", address.port())
    } else {
        address.to_string()
    }
}
