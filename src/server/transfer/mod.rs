//! `export` and `import`: the data of a running server to a file and back, over its REST API.
//!
//! The surprising idea: neither ever holds the data. An export is copied as it comes; an import is cut
//! into updates of single values by a reader that remembers only the path to where it is. Costs: one
//! update in memory, however long the file.

pub(super) mod client;
mod leaves;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Stop;
use super::flags::{ExportFlags, ImportFlags, SourceFlags};
use client::{Client, Refused};
use leaves::{Leaf, Leaves};

/// Bytes of one update, about.
const UPDATE_BYTES: usize = 1024 * 1024;
/// Values of one update.
const UPDATE_VALUES_MAX: usize = 20_000;

/// Writes the data of a running server to a file.
///
/// # Errors
///
/// The server cannot be reached or refuses, or the file cannot be written.
pub fn export(flags: &ExportFlags) -> Result<(), Stop> {
    let mut client = connect(&flags.source)?;
    let mut progress = Progress::new("exported", None);
    let copied = match &flags.file {
        None => copy(&mut client, &mut io::stdout().lock(), &mut progress),
        Some(path) => {
            let partial = partial(path);
            let written = File::create(&partial).map_err(Refused::Io).and_then(|mut file| {
                copy(&mut client, &mut file, &mut progress)?;
                file.sync_all()?;
                std::fs::rename(&partial, path).map_err(Refused::Io)
            });
            if written.is_err() {
                // What is not whole is worth nothing, and must not be taken for more.
                let _ = std::fs::remove_file(&partial);
            }
            written
        }
    };
    progress.end();
    copied.map_err(|refused| Stop::Failed(format!("export: {refused}")))
}

fn copy(client: &mut Client, to: &mut dyn Write, progress: &mut Progress) -> Result<(), Refused> {
    client.get("format=export", &mut |piece| {
        progress.add(piece.len());
        to.write_all(piece)
    })?;
    to.flush()?;
    Ok(())
}

/// Where a file grows before it is whole.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Reads data from a file into a running server.
///
/// # Errors
///
/// The file cannot be read or is not JSON, the server cannot be reached or refuses, or there is data
/// already.
pub fn import(flags: &ImportFlags) -> Result<(), Stop> {
    let failed = |refused: Refused| Stop::Failed(format!("import: {refused}"));
    let mut client = connect(&flags.source)?;
    let (file, bytes): (Box<dyn Read>, _) = if flags.file.as_os_str() == "-" {
        (Box::new(io::stdin().lock()), None)
    } else {
        let file = File::open(&flags.file)
            .map_err(|error| Stop::Failed(format!("{} cannot be read: {error}", flags.file.display())))?;
        let bytes = file.metadata().ok().map(|metadata| metadata.len());
        (Box::new(file), bytes)
    };
    if !flags.replace && !flags.merge {
        let mut standing = Vec::new();
        let shown = client.get("shallow=true&limitToFirst=1", &mut |piece| {
            standing.extend_from_slice(piece);
            Ok(())
        });
        shown.map_err(failed)?;
        if standing != b"null" {
            let what = "there is data already: add --replace to remove it, or --merge to keep what is not in the file";
            return Err(Stop::Failed(format!("import: {what}")));
        }
    }
    let mut progress = Progress::new("imported", bytes);
    let done = transfer(&mut client, file, flags, &mut progress);
    progress.end();
    done.map_err(failed)
}

fn transfer(
    client: &mut Client,
    mut file: Box<dyn Read>,
    flags: &ImportFlags,
    progress: &mut Progress,
) -> Result<(), Refused> {
    let mut beginning = Vec::new();
    file.by_ref().take(UPDATE_BYTES as u64 + 1).read_to_end(&mut beginning)?;
    if beginning.len() <= UPDATE_BYTES && !flags.merge {
        // Whole in one write: all of it or nothing.
        client.send("PUT", &beginning)?;
        progress.add(beginning.len());
        return Ok(());
    }
    if flags.replace {
        client.send("DELETE", b"")?;
    }
    let mut leaves = Leaves::new(io::Cursor::new(beginning).chain(file));
    let mut update = Update::default();
    while let Some(leaf) = leaves.next()? {
        update.add(&leaf);
        if update.body.len() >= UPDATE_BYTES || update.count >= UPDATE_VALUES_MAX {
            update.send(client)?;
        }
        progress.set(leaves.taken_bytes());
    }
    update.send(client)?;
    progress.set(leaves.taken_bytes());
    Ok(())
}

/// Values that are written together.
#[derive(Default)]
struct Update {
    body: Vec<u8>,
    count: usize,
    /// The value of the location itself: then there is no other.
    own: Option<Vec<u8>>,
}

impl Update {
    fn add(&mut self, leaf: &Leaf) {
        if leaf.path.is_empty() {
            self.own = Some(leaf.value.clone());
            return;
        }
        self.body.extend_from_slice(if self.count == 0 { b"{\"" } else { b",\"" });
        self.body.extend_from_slice(&leaf.path);
        self.body.extend_from_slice(b"\":");
        self.body.extend_from_slice(&leaf.value);
        self.count += 1;
    }

    fn send(&mut self, client: &mut Client) -> Result<(), Refused> {
        if let Some(own) = self.own.take() {
            client.send("PUT", &own)?;
        }
        if self.count > 0 {
            self.body.push(b'}');
            client.send("PATCH", &self.body)?;
        }
        self.body.clear();
        self.count = 0;
        Ok(())
    }
}

fn connect(source: &SourceFlags) -> Result<Client, Stop> {
    let SourceFlags { server, path } = source;
    Client::connect(server, path).map_err(|refused| Stop::Failed(format!("{}: {refused}", server.url)))
}

/// How far it is: a line that is written over, where somebody watches.
struct Progress {
    verb: &'static str,
    bytes: u64,
    bytes_max: Option<u64>,
    began: Instant,
    shown: Option<Instant>,
    is_watched: bool,
}

impl Progress {
    fn new(verb: &'static str, bytes_max: Option<u64>) -> Self {
        let is_watched = io::stderr().is_terminal();
        Self { verb, bytes: 0, bytes_max, began: Instant::now(), shown: None, is_watched }
    }

    fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes as u64);
    }

    fn set(&mut self, bytes: u64) {
        const OFTEN: Duration = Duration::from_millis(100);
        self.bytes = bytes;
        if self.is_watched && self.shown.is_none_or(|shown| shown.elapsed() >= OFTEN) {
            self.shown = Some(Instant::now());
            let _ = write!(io::stderr(), "\r\x1b[K{}", self.line());
        }
    }

    fn end(&self) {
        if self.is_watched {
            let _ = writeln!(io::stderr(), "\r\x1b[K{}", self.line());
        }
    }

    fn line(&self) -> String {
        const WIDTH: u64 = 30;
        let kib = self.bytes / 1_024;
        let rate = u128::from(kib) * 1_000 / self.began.elapsed().as_millis().max(1);
        let bar = self.bytes_max.filter(|bytes_max| *bytes_max > 0).map(|bytes_max| {
            let part = (self.bytes.min(bytes_max) * WIDTH / bytes_max) as usize;
            format!(
                "[{:<width$}] {:>3} % ",
                "#".repeat(part),
                self.bytes.min(bytes_max) * 100 / bytes_max,
                width = WIDTH as usize
            )
        });
        format!("{}{} {kib} KiB, {rate} KiB/s", bar.unwrap_or_default(), self.verb)
    }
}
