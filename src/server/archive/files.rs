//! Reading the files of a log, and judging them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::progress::{Progress, Stage};
use crate::log::{ALL_SHARDS, Damage, FileId, Kind, Record, Scan, Source, State, Tail, begin_frame, scan, seal_frame};

/// A file on the disk.
pub(super) struct Disk<'p> {
    file: File,
    progress: &'p Progress<'p>,
}

impl<'p> Disk<'p> {
    pub(super) const fn new(file: File, progress: &'p Progress<'p>) -> Self {
        Self { file, progress }
    }
}

impl Source for Disk<'_> {
    type Error = io::Error;

    fn read(&mut self, offset: u64, count: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        // A damaged length does not ask for more memory than there is file.
        let left = self.file.metadata()?.len().saturating_sub(offset);
        buffer.resize(usize::try_from(left).map_or(count, |left| left.min(count)), 0);
        self.progress.add(buffer.len());
        self.file.read_exact_at(buffer, offset)
    }
}

/// What the files are like.
#[derive(Debug, Default)]
pub struct Findings {
    /// How many were read.
    pub files: usize,
    /// Bytes of whole frames.
    pub bytes: u64,
    /// Records in them, beside those that begin files.
    pub records: u64,
    /// The greatest epoch of all files, read or not.
    pub epoch_last: u32,
    /// Files whose last frame was never finished, and where it begins.
    pub torn: Vec<(String, u64)>,
    /// Files that are not what was written.
    pub damaged: Vec<Damaged>,
}

/// What is wrong with a file.
#[derive(Clone, Debug)]
pub struct Damaged {
    file: FileId,
    /// Whole frames before the damage, and where they end.
    frames: u32,
    end: u64,
    what: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file.name(), self.end, self.what)
    }
}

/// What was read.
pub(super) struct Reading<'p> {
    progress: &'p Progress<'p>,
    pub(super) findings: Findings,
    pub(super) state: State,
}

/// Reads the newest snapshot and the logs after it.
pub(super) fn read<'p>(directory: &Path, progress: &'p Progress<'p>) -> io::Result<Reading<'p>> {
    let mut reading = Reading { progress, findings: Findings::default(), state: State::default() };
    let files = list(directory)?;
    let mut bytes = 0;
    for file in &files {
        bytes += fs::metadata(directory.join(file.name()))?.len();
    }
    progress.begin(Stage::Reading, bytes);
    reading.findings.epoch_last = files.iter().map(|file| file.epoch).max().unwrap_or(0);
    let is_of_all = |file: &&FileId| file.kind == Kind::Snapshot && file.shard == ALL_SHARDS;
    let newest = files.iter().filter(is_of_all).max().copied();
    if let Some(file) = newest {
        reading.snapshot(directory, file)?;
    }
    let epoch_first = newest.map_or(0, |file| file.epoch);
    let mut logs: BTreeMap<(u32, u8), Vec<FileId>> = BTreeMap::new();
    let is_later = |file: &FileId| file.shard != ALL_SHARDS && file.epoch >= epoch_first;
    for file in files.into_iter().filter(is_later) {
        logs.entry((file.epoch, file.shard)).or_default().push(file);
    }
    for files in logs.into_values() {
        // A shard's own snapshot stands before the segment of its number.
        let snapshot = files.iter().rev().find(|file| file.kind == Kind::Snapshot);
        let first = snapshot.map_or(0, |file| file.number);
        if let Some(&file) = snapshot {
            reading.snapshot(directory, file)?;
        }
        let segments: Vec<FileId> =
            files.iter().filter(|file| file.kind == Kind::Log && file.number >= first).copied().collect();
        reading.segments(directory, &segments, first)?;
    }
    reading.state.put_together();
    Ok(reading)
}

/// The files of the log that are there, sorted.
pub(super) fn list(directory: &Path) -> io::Result<Vec<FileId>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.extend(entry?.file_name().to_str().and_then(FileId::parse));
    }
    files.sort_unstable_by_key(|file| (file.epoch, file.shard, file.number, file.kind));
    Ok(files)
}

/// Removes what an epoch has superseded, and what was never finished.
pub(super) fn remove_before(directory: &Path, epoch: u32) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_old = FileId::parse(name).is_some_and(|file| file.epoch < epoch);
        if is_old || name.ends_with(".spare") || name.ends_with(".new") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Reading<'_> {
    fn scan(&mut self, directory: &Path, file: FileId) -> io::Result<(Scan, u32)> {
        let mut previous_frames = 0;
        let mut records = 0;
        let state = &mut self.state;
        let found =
            scan(
                &mut Disk::new(File::open(directory.join(file.name()))?, self.progress),
                file,
                |record| match record {
                    Record::Begin { previous_frames: count } => previous_frames = count,
                    record => {
                        records += 1;
                        state.apply(record, file.shard);
                    }
                },
            )?;
        self.findings.files += 1;
        self.findings.bytes += found.end;
        self.findings.records += records;
        if let Tail::Damaged(damage) = found.tail {
            self.damaged(file, &found, damage_text(damage));
        }
        Ok((found, previous_frames))
    }

    fn damaged(&mut self, file: FileId, found: &Scan, what: String) {
        self.findings.damaged.push(Damaged { file, frames: found.frames, end: found.end, what });
    }

    fn snapshot(&mut self, directory: &Path, file: FileId) -> io::Result<()> {
        let (found, _) = self.scan(directory, file)?;
        // Two records are not of the state: the first and the last.
        let is_whole = is_ended(directory, file, &found)?;
        if !matches!(found.tail, Tail::Damaged(_)) && !is_whole {
            self.damaged(file, &found, "the snapshot has no end".into());
        }
        Ok(())
    }

    /// The segments of one shard's log. Only the last of them may end in the middle of a frame.
    fn segments(&mut self, directory: &Path, segments: &[FileId], first: u32) -> io::Result<()> {
        let mut previous: Option<(FileId, Scan)> = None;
        for (number, &file) in (first..).zip(segments) {
            let is_damaged = !self.findings.damaged.is_empty();
            let (found, previous_frames) = self.scan(directory, file)?;
            if file.number != number {
                self.damaged(file, &Scan { frames: 0, end: 0, ..found }, "the segment before it is missing".into());
                return Ok(());
            }
            if let Some((before, scan)) = previous
                && !is_damaged
                && found.frames > 0
                && (scan.tail != Tail::Clean || scan.frames != previous_frames)
            {
                self.damaged(before, &scan, "its last frames are missing".into());
            }
            previous = Some((file, found));
        }
        if let Some((file, Scan { end, tail: Tail::Torn, .. })) = previous {
            self.findings.torn.push((file.name(), end));
        }
        Ok(())
    }
}

fn is_ended(directory: &Path, file: FileId, found: &Scan) -> io::Result<bool> {
    let mut is_ended = false;
    scan(&mut Disk::new(File::open(directory.join(file.name()))?, &Progress::untold()), file, |record| {
        is_ended = matches!(record, Record::End { records } if records + 1 == found.records);
    })?;
    Ok(is_ended)
}

fn damage_text(damage: Damage) -> String {
    match damage {
        Damage::Sum => "it is not what was written there".into(),
        Damage::Record(bad) => format!("its checksum is right and its records make no sense ({bad:?})"),
        Damage::Version(version) => format!("it was written by a newer version of this program (format {version})"),
        Damage::Stranger => "it belongs to another file".into(),
    }
}

/// Reads everything as a start would, and says what it is like. With `is_repairing`, cuts each damaged
/// file off before its damage, and sets aside what cannot follow: the whole files stay beside it, with
/// `.damaged` behind their names.
///
/// # Errors
/// The files cannot be read, or not be repaired.
pub fn verify(directory: &Path, is_repairing: bool) -> io::Result<Findings> {
    let findings = read(directory, &Progress::untold())?.findings;
    if !is_repairing {
        return Ok(findings);
    }
    for damaged in &findings.damaged {
        let file = damaged.file;
        let path = directory.join(file.name());
        fs::copy(&path, directory.join(format!("{}.damaged", file.name())))?;
        let cut = OpenOptions::new().write(true).open(&path)?;
        cut.set_len(damaged.end)?;
        if file.kind == Kind::Snapshot {
            end_snapshot(directory, damaged, &cut)?;
        }
        cut.sync_all()?;
        for later in list(directory)? {
            let is_cut_off = (later.epoch, later.shard, later.kind) == (file.epoch, file.shard, file.kind);
            if is_cut_off && later.number > file.number && file.shard != ALL_SHARDS {
                let path = directory.join(later.name());
                fs::rename(&path, directory.join(format!("{}.damaged", later.name())))?;
            }
        }
    }
    File::open(directory)?.sync_all()?;
    Ok(findings)
}

/// What is left of a snapshot is made a whole one.
fn end_snapshot(directory: &Path, damaged: &Damaged, mut cut: &File) -> io::Result<()> {
    let mut records = 0;
    let path = directory.join(damaged.file.name());
    scan(&mut Disk::new(File::open(path)?, &Progress::untold()), damaged.file, |_| records += 1)?;
    let mut frame = Vec::new();
    begin_frame(&mut frame);
    Record::End { records }.encode(&mut frame);
    seal_frame(&mut frame, damaged.file, damaged.frames, 0);
    io::Seek::seek(&mut cut, io::SeekFrom::Start(damaged.end))?;
    cut.write_all(&frame)
}
