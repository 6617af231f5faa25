//! Snapshots, written beside the work: the executor's thread for blocking calls writes them, reads them
//! back, and only then removes what they replace.

#![expect(clippy::disallowed_types, reason = "this is where the runtime's own files are")]

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::log::{FileId, Kind, Record, Source, Tail, begin_frame, scan, seal_frame};

/// Data is nobody else's to read.
const FILE_MODE: u32 = 0o600;

/// Where a core's snapshots go.
pub(super) struct Snapshots {
    directory: PathBuf,
    epoch: u32,
    shard: u8,
    bell: Rc<dyn Fn()>,
    is_busy: Rc<Cell<bool>>,
    /// Frames and records of the one under way.
    sequence: Cell<u32>,
    records: Rc<Cell<u64>>,
    has_failed: Rc<Cell<bool>>,
}

impl Snapshots {
    pub(super) fn new(directory: PathBuf, epoch: u32, shard: u8, bell: Rc<dyn Fn()>) -> Self {
        let (is_busy, records, has_failed) = Default::default();
        Self { directory, epoch, shard, bell, is_busy, sequence: Cell::new(0), records, has_failed }
    }

    /// Whether a slice can be taken.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy.get()
    }

    /// Writes the next slice of the snapshot that stands before the segment `number`.
    pub(super) fn write(&self, number: u32, slice: Vec<u8>, is_more: bool) {
        let sequence = self.sequence.replace(if is_more { self.sequence.get() + 1 } else { 0 });
        let file = FileId { epoch: self.epoch, shard: self.shard, number, kind: Kind::Snapshot };
        let directory = self.directory.clone();
        let (is_busy, bell, has_failed) =
            (Rc::clone(&self.is_busy), Rc::clone(&self.bell), Rc::clone(&self.has_failed));
        let records = Rc::clone(&self.records);
        is_busy.set(true);
        if sequence == 0 {
            has_failed.set(false);
            records.set(0);
        }
        glommio::spawn_local(async move {
            if !has_failed.get() {
                let before = records.get();
                let write = move || append(&directory, file, sequence, slice, before, is_more);
                match glommio::executor().spawn_blocking(write).await {
                    Ok(count) => records.set(before + count),
                    Err(error) => {
                        // The log is whole without it; the next one is tried when it is due.
                        tracing::error!(%error, snapshot = file.name(), "a snapshot cannot be written");
                        has_failed.set(true);
                    }
                }
            }
            is_busy.set(false);
            bell();
        })
        .detach();
    }
}

/// Appends a frame; after the last one reads the file back, gives it its name, removes what it replaces.
/// Returns how many records the frame has.
fn append(
    directory: &Path,
    file: FileId,
    sequence: u32,
    mut slice: Vec<u8>,
    records_before: u64,
    is_more: bool,
) -> io::Result<u64> {
    let mut frame = Vec::new();
    begin_frame(&mut frame);
    let mut count = count_records(&slice)?;
    if sequence == 0 {
        Record::Begin { previous_frames: 0 }.encode(&mut frame);
        count += 1;
    }
    frame.append(&mut slice);
    if !is_more {
        Record::End { records: records_before + count }.encode(&mut frame);
    }
    seal_frame(&mut frame, file, sequence, 0);
    let unfinished = directory.join(format!("{}.new", file.name()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(sequence == 0).mode(FILE_MODE);
    let mut output = options.open(&unfinished)?;
    output.seek(SeekFrom::End(0))?;
    output.write_all(&frame)?;
    if is_more {
        return Ok(count);
    }
    output.sync_all()?;
    let mut is_whole = false;
    let read = scan(&mut Reading(output), file, |record| is_whole = matches!(record, Record::End { .. }))?;
    if read.tail != Tail::Clean || !is_whole {
        return Err(io::Error::other("it cannot be read back"));
    }
    fs::rename(&unfinished, directory.join(file.name()))?;
    File::open(directory)?.sync_all()?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(other) = entry.file_name().to_str().and_then(FileId::parse) else { continue };
        if (other.epoch, other.shard) == (file.epoch, file.shard) && other.number < file.number {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(count)
}

fn count_records(mut slice: &[u8]) -> io::Result<u64> {
    let mut count = 0;
    while !slice.is_empty() {
        Record::skip(&mut slice).map_err(|bad| io::Error::other(format!("a record is none: {bad:?}")))?;
        count += 1;
    }
    Ok(count)
}

/// A file as it is read back.
struct Reading(File);

impl Source for Reading {
    type Error = io::Error;

    fn read(&mut self, offset: u64, count: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        self.0.seek(SeekFrom::Start(offset))?;
        let mut part = (&self.0).take(count as u64);
        part.read_to_end(buffer).map(drop)
    }
}
