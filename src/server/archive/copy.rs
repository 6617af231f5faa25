//! Backups: copies of a log, taken while a server writes it, and put in place again.
//!
//! The surprising idea: a copy needs nothing from the server. What is in a log never changes, so a copy
//! up to some frame is what a start would find if the power had failed when that was written. Several logs
//! are cut at one moment: each frame bears the time at which it was finished, and nobody learns of a frame before it is
//! safe, so what follows from one that is missing is later than all that was there to be seen when the copy began.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::files::{self, Disk, Findings};
use super::{DIRECTORY_MODE, FILE_MODE, Progress};
use crate::log::{FileId, Kind, scan, scan_until};

/// How often a backup begins anew because a server that started meanwhile has removed files.
const TRIES_MAX: usize = 5;

/// Copies a log that a server may be writing. `to` must be empty or missing.
///
/// # Errors
/// The files cannot be read or written, or what was copied cannot be read.
pub fn backup(from: &Path, to: &Path) -> io::Result<Findings> {
    make_empty(to)?;
    for _ in 0..TRIES_MAX {
        match copy_all(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for file in files::list(to)? {
                    fs::remove_file(to.join(file.name()))?;
                }
            }
            Err(error) => return Err(error),
            Ok(()) => return check(to),
        }
    }
    Err(io::Error::other("the files change faster than they can be copied"))
}

/// Puts a backup in place as a log. `to` must be empty or missing.
///
/// # Errors
/// The backup is damaged, or the files cannot be read or written.
pub fn restore(from: &Path, to: &Path) -> io::Result<Findings> {
    check(from)?;
    make_empty(to)?;
    copy_all(from, to)?;
    check(to)
}

fn make_empty(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    if fs::read_dir(directory)?.next().is_some() {
        let text = format!("{} is not empty", directory.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    Ok(())
}

fn check(directory: &Path) -> io::Result<Findings> {
    let findings = files::verify(directory, false)?;
    match findings.damaged.first() {
        None => Ok(findings),
        Some(damaged) => Err(io::Error::new(io::ErrorKind::InvalidData, damaged.to_string())),
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    // Files that are made after this are not missed: what is in them happened later.
    let files = files::list(from)?;
    let epoch = files.iter().map(|file| file.epoch).max();
    let (now, before): (Vec<FileId>, _) = files.into_iter().partition(|file| Some(file.epoch) == epoch);
    let (mut moment, untold) = (0, Progress::untold());
    for file in now.iter().filter(|file| file.kind == Kind::Log) {
        let mut log = Disk::new(File::open(from.join(file.name()))?, &untold);
        moment = moment.max(scan(&mut log, *file, |_| {})?.stamp);
    }
    now.into_iter().try_for_each(|file| copy(from, to, file, moment))?;
    // Stamps of another start are by another clock, and nobody writes those files any more.
    before.into_iter().try_for_each(|file| copy(from, to, file, u64::MAX))?;
    File::open(to)?.sync_all()
}

/// Copies a file, of a log what was written until a moment.
fn copy(from: &Path, to: &Path, file: FileId, moment: u64) -> io::Result<()> {
    let source = File::open(from.join(file.name()))?;
    let bytes = match file.kind {
        Kind::Snapshot => source.metadata()?.len(),
        Kind::Log => scan_until(&mut Disk::new(source.try_clone()?, &Progress::untold()), file, moment, |_| {})?.end,
    };
    if bytes == 0 {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let mut copy = options.open(to.join(file.name()))?;
    io::copy(&mut source.take(bytes), &mut copy)?;
    copy.sync_all()
}
