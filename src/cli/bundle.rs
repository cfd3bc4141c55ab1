//! `wharfinger bundle`: an archive between a running daemon and a file, or a pipe. Called by `cli`.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::path::Path;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::job::{Event, Job as _, Unit};
use crate::preserve::{BundleExport, BundleImport, ExportOptions, Exported};
use crate::transfer::Export as _;

use super::admin::Told;
use super::bars::Bars;
use super::client::{CallError, Client};
use super::complain;
use super::job::Watch;
use super::preserve;

/// Bytes that are read at a time, and pieces that wait for the daemon.
const PIECE: usize = 256 * 1024;
const AHEAD: usize = 4;

fn at(path: &Path) -> impl FnOnce(io::Error) -> CallError + '_ {
    move |error| {
        let message = format!("{}: {error}", path.display());
        CallError::Local(io::Error::new(error.kind(), message))
    }
}

fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a bundle to `path`: under another name until it is whole.
pub(super) async fn export(
    config: &Config,
    path: &Path,
    options: &ExportOptions,
    json: bool,
) -> Result<Told, CallError> {
    if is_pipe(path) {
        let out = io::stdout();
        if out.is_terminal() {
            let message = "an archive is nothing to read: name a file, or send it on";
            return Err(CallError::Local(io::Error::other(message)));
        }
        let told = write(config, options, &mut out.lock()).await?;
        // Standard output has the archive.
        complain(&words(&told, json));
        return Ok(Told {
            text: String::new(),
            well: true,
        });
    }
    let draft = path.with_added_extension("part");
    let mut file = File::create(&draft).map_err(at(&draft))?;
    let told = match write(config, options, &mut file).await {
        Ok(told) => told,
        Err(error) => {
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
    };
    file.sync_all().map_err(at(&draft))?;
    fs::rename(&draft, path).map_err(at(path))?;
    Ok(Told {
        text: words(&told, json),
        well: true,
    })
}

fn words(told: &str, json: bool) -> String {
    match serde_json::from_str::<Exported>(told) {
        Ok(exported) if !json => preserve::exported(&exported),
        _ => told.to_owned(),
    }
}

/// Writes a bundle; gives what the daemon says of it.
async fn write(config: &Config, options: &ExportOptions, out: &mut impl Write) -> Result<String, CallError> {
    let client = Client::new(config);
    let mut bars = Bars::new(io::stderr().is_terminal());
    let (mut about, total, mut done) = (String::new(), Cell::new(None), 0);
    client
        .take_away(
            BundleExport::NAME,
            options,
            |told, size| {
                told.clone_into(&mut about);
                total.set(size);
            },
            |piece| {
                done += piece.len() as u64;
                bars.show(&Event::Progress {
                    done,
                    total: total.get(),
                    unit: Unit::Bytes,
                });
                out.write_all(&piece)
            },
        )
        .await?;
    out.flush().map_err(CallError::Local)?;
    bars.end();
    Ok(about)
}

/// Brings a bundle from `path` to the daemon.
pub(super) async fn import(config: &Config, path: &Path, json: bool) -> Result<Told, CallError> {
    let (mut source, size): (Box<dyn io::Read + Send>, _) = if is_pipe(path) {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(at(path))?;
        let metadata = file.metadata().map_err(at(path))?;
        // What is no file, such as a named pipe, has no size that would say anything.
        let size = Some(metadata.len()).filter(|_| metadata.is_file());
        (Box::new(file), size)
    };
    let (sender, pieces) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let read = source.read(&mut piece);
            let (last, piece) = match read {
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    (false, Ok(Bytes::from(piece)))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (true, Err(error)),
            };
            // The daemon has heard enough.
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    let mut watch = Watch::new(json);
    Client::new(config)
        .bring(BundleImport::NAME, size, pieces, |line, event| {
            watch.hear(line, event);
        })
        .await?;
    Ok(watch.end(BundleImport::NAME, preserve::imported, preserve::is_taken))
}
