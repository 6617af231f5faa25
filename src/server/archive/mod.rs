//! The log and its snapshots as files: what is read when a server starts, and what an operator can do with
//! them when none runs.
//!
//! The surprising idea: a start ends the past. Whatever is found is put together into one snapshot, which
//! is read back before the old files go; the logs of this start begin empty. So there are never more than
//! one snapshot and the logs of one start to be read, and the number of shards may be another each time.
//!
//! Costs: a start reads and writes everything once, a frame at a time: beside what there is it needs the memory
//! of the longest frame.

mod copy;
mod files;
mod progress;

pub use copy::{backup, restore};
pub use files::{Damaged, Findings, verify};
pub use progress::{Progress, Stage};

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::engine::{Settled, Speech};
use crate::log::{ALL_SHARDS, FileId, Kind, Record, State, Tail, scan, snapshot};
use files::{Disk, Reading};

/// The directory of the log within the data directory.
const DIRECTORY: &str = "log";
/// Data is nobody else's to read.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What there was when the last server ended.
#[derive(Debug)]
pub struct Recovered {
    /// Where this start's logs go.
    pub directory: PathBuf,
    /// Which start this is.
    pub epoch: u32,
    /// What there was.
    pub state: State,
    /// What was owed and is spoken already: so it stands in the state.
    pub speeches: Vec<Speech>,
}

/// Why a server must not start.
#[derive(Debug)]
pub enum Broken {
    /// A file is damaged. Each is told for people, with its place.
    Damaged(Vec<String>),
    /// The files cannot be read or written.
    Failed(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Where the log of a data directory is.
#[must_use]
pub fn directory(data: &Path) -> PathBuf {
    data.join(DIRECTORY)
}

/// Reads what is there, lets `settle` decide what of it still holds, and makes that the snapshot with which
/// this start begins.
///
/// # Errors
/// See [`Broken`]; then nothing has changed.
pub fn recover(
    data: &Path,
    progress: &Progress<'_>,
    settle: impl FnOnce(&mut State) -> Settled,
) -> Result<Recovered, Broken> {
    let directory = directory(data);
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&directory)?;
    // The executor opens no files by relative paths.
    let directory = directory.canonicalize()?;
    let Reading { findings, mut state, .. } = files::read(&directory, progress)?;
    if !findings.damaged.is_empty() {
        return Err(Broken::Damaged(findings.damaged.iter().map(ToString::to_string).collect()));
    }
    for (name, end) in &findings.torn {
        tracing::warn!(
            file = name,
            end,
            "the last turn was not written to its end: it was never acknowledged, and is cut off"
        );
    }
    let epoch = findings.epoch_last + 1;
    let mut speeches = Vec::new();
    if findings.records > 0 {
        let settled = settle(&mut state);
        progress.begin(Stage::Writing, 2 * findings.bytes);
        write_snapshot(&directory, epoch, &state, progress)?;
        let owed = settled.owed_count;
        speeches = settled.speeches;
        let (files, bytes, databases) = (findings.files, findings.bytes, state.databases.len());
        let (records, devices) = (findings.records, state.devices.len());
        tracing::info!(epoch, files, bytes, records, databases, owed, devices, "recovered");
    }
    files::remove_before(&directory, epoch)?;
    Ok(Recovered { directory, epoch, state, speeches })
}

/// Writes a snapshot of everything and reads it back; only then it has its name.
fn write_snapshot(directory: &Path, epoch: u32, state: &State, progress: &Progress<'_>) -> io::Result<()> {
    let file = FileId { epoch, shard: ALL_SHARDS, number: 0, kind: Kind::Snapshot };
    let (path, unfinished) = (directory.join(file.name()), directory.join(format!("{}.new", file.name())));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let mut output = io::BufWriter::with_capacity(1 << 20, options.open(&unfinished)?);
    snapshot(state, file, |frame| {
        progress.add(frame.len());
        output.write_all(frame)
    })?;
    output.flush()?;
    output.get_ref().sync_all()?;
    drop(output);
    let mut is_whole = false;
    let read = scan(&mut Disk::new(File::open(&unfinished)?, progress), file, |record| {
        is_whole = matches!(record, Record::End { .. });
    })?;
    if read.tail != Tail::Clean || !is_whole {
        return Err(io::Error::other(format!("{} cannot be read back", unfinished.display())));
    }
    fs::rename(&unfinished, &path)?;
    File::open(directory)?.sync_all()
}
