//! What the kernel knows about a process: CPU time and memory, and how many files we may open.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A process that is looked at from outside.
#[derive(Clone, Copy, Debug)]
pub struct Process(u32);

impl Process {
    /// The one with this number.
    #[must_use]
    pub const fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// This one.
    #[must_use]
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// CPU time of all its threads that still live, in nanoseconds.
    pub fn cpu_ns(self) -> io::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0))? {
            // A thread may end between the two looks.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += first_number(&text).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Anonymous memory in bytes: what the process itself keeps, without files and without what the
    /// kernel keeps for its sockets.
    pub fn anonymous_bytes(self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        line.and_then(first_number).map(|kib| kib * 1_024).ok_or_else(|| io::Error::other("no line `Anonymous:`"))
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Lets this process open as many files as it ever may, and says how many that is.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.or(limit.current);
    if limit.current != most && setrlimit(Resource::Nofile, Rlimit { current: most, maximum: limit.maximum }).is_err() {
        return limit.current.unwrap_or(u64::MAX);
    }
    most.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_looked_at() {
        let own = Process::own();
        let before = own.cpu_ns().unwrap();
        let kept = std::hint::black_box(vec![1_u8; 64 * 1024 * 1024]);
        assert!(own.cpu_ns().unwrap() > before, "filling memory takes time");
        assert!(own.anonymous_bytes().unwrap() > kept.len() as u64);
    }
}
