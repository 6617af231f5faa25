//! `stillhere verify`, `backup` and `restore`.

use std::io::{self, Write as _};
use std::path::Path;

use super::Stop;
use super::archive::{self, Findings};
use super::data_dir::{DataDir, Unusable};
use super::flags::{BackupFlags, RestoreFlags, VerifyFlags};

/// Says what the log in a data directory, or a backup, is like.
///
/// # Errors
/// It is damaged and was not to be repaired, or it cannot be read.
pub fn verify(flags: &VerifyFlags) -> Result<(), Stop> {
    let _held = if flags.backup { None } else { Some(hold(&flags.data)?) };
    let directory = if flags.backup { flags.data.clone() } else { archive::directory(&flags.data) };
    let findings = archive::verify(&directory, flags.repair).map_err(|error| failed("verify", &directory, &error))?;
    for (name, end) in &findings.torn {
        say(&format!("{name} at byte {end}: its last frame was never finished; a start cuts it off"));
    }
    for damaged in &findings.damaged {
        say(&damaged.to_string());
    }
    summarize(&findings);
    match (findings.damaged.len(), flags.repair) {
        (0, _) => Ok(()),
        (_, true) => {
            say("cut off before the damage; the files as they were have .damaged behind their names");
            Ok(())
        }
        (count, false) => Err(Stop::Failed(format!(
            "{count} damaged; restore a backup, or give up what is damaged and all behind it in its file with \
             `stillhere verify --repair --data {}`",
            flags.data.display()
        ))),
    }
}

/// Copies the log of a data directory while a server may be running on it.
///
/// # Errors
/// It cannot be read, or the copy not be written.
pub fn backup(flags: &BackupFlags) -> Result<(), Stop> {
    let from = archive::directory(&flags.data);
    let findings = archive::backup(&from, &flags.to).map_err(|error| failed("back up", &from, &error))?;
    summarize(&findings);
    Ok(())
}

/// Puts a backup into a data directory that has no log.
///
/// # Errors
/// The backup is damaged, the directory is in use or has a log, or files cannot be read or written.
pub fn restore(flags: &RestoreFlags) -> Result<(), Stop> {
    let _held = hold(&flags.data)?;
    let to = archive::directory(&flags.data);
    let findings = archive::restore(&flags.from, &to).map_err(|error| failed("restore", &flags.from, &error))?;
    summarize(&findings);
    Ok(())
}

fn hold(data: &Path) -> Result<DataDir, Stop> {
    DataDir::open(data).map_err(|unusable| match unusable {
        Unusable::Bad(reason) | Unusable::Held(reason) => Stop::Failed(reason),
    })
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Stop {
    Stop::Failed(format!("cannot {what} {}: {error}", path.display()))
}

fn summarize(findings: &Findings) {
    let Findings { files, bytes, records, .. } = findings;
    say(&format!("{files} files, {bytes} bytes, {records} records"));
}

fn say(line: &str) {
    // Nobody can be told that nobody can be told.
    let _ = writeln!(io::stdout(), "{line}");
}
