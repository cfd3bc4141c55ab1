//! nginx with an access log, as deployed: as a server of static files, which is the floor for a warm answer, and with
//! `proxy_cache` and its lock, which is the common way to put a cache before a registry.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Contestant, Ground};
use crate::content::{Content, MANIFEST_TYPE, blob_path, manifest_path};
use crate::shared::install;
use crate::shared::process::{Launch, Ready};

/// Static files, sent with sendfile.
pub(crate) struct Static;

/// A caching reverse proxy.
pub(crate) struct Caching;

impl Contestant for Static {
    fn name(&self) -> &'static str {
        "nginx, static file"
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        let root = ground.folder.join("www");
        let file = |path: &str| root.join(path.trim_start_matches('/'));
        for kind in ["manifests", "blobs"] {
            fs::create_dir_all(root.join("v2").join(Content::REPOSITORY).join(kind))?;
        }
        let content = ground.upstream.content();
        if let Some(image) = content.the_image() {
            for reference in ["latest", &image.digest] {
                fs::write(file(&manifest_path(reference)), &image.manifest)?;
            }
        }
        for blob in content.every_blob() {
            let mut out = fs::File::create(file(&blob_path(&blob.digest)))?;
            let mut at = 0;
            while at < blob.size {
                let piece = blob.piece(at);
                out.write_all(&piece)?;
                at += piece.len() as u64;
            }
        }
        launch(
            ground,
            &format!("root {};\n    default_type {MANIFEST_TYPE};", root.display()),
            "",
        )
    }
}

impl Contestant for Caching {
    fn name(&self) -> &'static str {
        "nginx, proxy_cache"
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        let cache = ground.folder.join("cache");
        fs::create_dir_all(&cache)?;
        let zone = format!(
            "proxy_cache_path {} levels=1:2 keys_zone=all:10m max_size=100g inactive=1d use_temp_path=off;",
            cache.display()
        );
        // The lock's time-outs (5 s) would let waiting clients through to the upstream in the middle of a slow blob.
        let location = format!(
            "location / {{
      proxy_pass http://{};
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_cache all;
      proxy_cache_valid 200 1d;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 10m;
      proxy_cache_lock_age 10m;
    }}",
            ground.upstream.address()
        );
        launch(ground, &location, &zone)
    }
}

fn launch(ground: &Ground<'_>, server: &str, http: &str) -> Result<Launch> {
    let (folder, address) = (ground.folder.display(), ground.address);
    // Workers of a root-started nginx would be nobody, who may not read a temporary folder.
    let user = if rustix::process::getuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let configuration = format!(
        "{user}
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
daemon off;
events {{ worker_connections 4096; }}
http {{
  access_log {folder}/access.log combined;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 10000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {http}
  server {{
    listen {address};
    {server}
  }}
}}
"
    );
    let file = ground.folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new(install::find("nginx").context("nginx is not installed")?);
    command
        .arg("-p")
        .arg(ground.folder)
        .arg("-e")
        .arg(ground.folder.join("error.log"))
        .arg("-c")
        .arg(file);
    Ok(Launch {
        command,
        ready: Ready::At(ground.address),
    })
}
