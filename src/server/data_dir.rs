//! The data directory: made when missing, and held by one server at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "lock";
/// Data is nobody else's to read.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Held: no other server opens it as long as this lives, however this process ends.
#[derive(Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// The lock goes with the descriptor.
    _lock: File,
}

/// Why a data directory cannot be had. The texts are for people.
#[derive(Debug)]
pub enum Unusable {
    /// It cannot be made, or not be written to.
    Bad(String),
    /// Another server has it.
    Held(String),
}

impl DataDir {
    /// Makes it if it is missing, and takes it.
    ///
    /// # Errors
    ///
    /// See [`Unusable`]; nothing is changed in a directory that another server has.
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        let shown = path.display();
        let bad = |what: &str, error: io::Error| Unusable::Bad(format!("data directory {shown} {what}: {error}"));
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(|error| bad("cannot be created", error))?;
        let mut lock = open_lock(path).map_err(|error| bad("cannot be written to", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut lock);
                return Err(Unusable::Held(format!("data directory {shown} is in use by {holder}")));
            }
            Err(TryLockError::Error(error)) => return Err(bad("cannot be locked", error)),
        }
        write_holder(&mut lock).map_err(|error| bad("cannot be written to", error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Whether [`Self::open`] would succeed but for another server. Leaves nothing behind.
    ///
    /// # Errors
    ///
    /// What is wrong, for people.
    pub fn check(path: &Path) -> Result<(), String> {
        let exists = |ancestor: &&Path| ancestor.as_os_str().is_empty() || ancestor.exists();
        let base = path.ancestors().find(exists).unwrap_or(path);
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        if !base.is_dir() {
            return Err(format!("data directory {}: {} is not a directory", path.display(), base.display()));
        }
        let probe = base.join(format!(".stillhere-check-{}", std::process::id()));
        let result = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&probe);
        let result = result.and_then(|_| std::fs::remove_file(&probe));
        result.map_err(|error| format!("data directory {} cannot be written to: {error}", path.display()))
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options.open(path.join(LOCK_NAME))
}

/// Who has the lock: what it wrote there, if it got so far.
fn holder(lock: &mut File) -> String {
    const HOLDER_BYTES_MAX: u64 = 64;
    let mut text = String::new();
    let is_read = lock.take(HOLDER_BYTES_MAX).read_to_string(&mut text).is_ok();
    match text.trim().parse::<u32>() {
        Ok(pid) if is_read => format!("process {pid}"),
        _ => "another process".into(),
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}
