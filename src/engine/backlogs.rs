//! What waits to be sent to clients that read too slowly, and when it is too much.
//!
//! The surprising idea: one client that takes nothing for a while is owed its events, so the bound of one is
//! generous; a thousand such clients at once are not, so there is a bound of all. Beyond that one nobody is searched
//! for: whoever reports and is owed more than the average goes, and somebody always is.
//!
//! Who is sent away loses nothing that matters: it comes again, listens again, and is told what stands there now.
//!
//! Costs: one entry for each connection that has something waiting; none in a server whose clients read.

use crate::base::limits::{SEND_BACKLOG_BYTES_MAX, SEND_BACKLOGS_BYTES_MAX};
use crate::base::{ConnId, Hashing, Map};

/// Bytes that wait, by connection. Without those that are being closed.
#[derive(Debug)]
pub(super) struct Backlogs {
    of: Map<ConnId, usize>,
    /// Their sum.
    bytes: usize,
}

impl Backlogs {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self { of: hashing.map(), bytes: 0 }
    }

    /// So much waits for a connection now. Says whether that is too much: then it must be closed.
    pub(super) fn note(&mut self, conn: ConnId, bytes: usize) -> bool {
        self.forget(conn);
        if bytes > SEND_BACKLOG_BYTES_MAX {
            return true;
        }
        if bytes > 0 {
            self.of.insert(conn, bytes);
            self.bytes += bytes;
        }
        // At most 2^24 connections of at most 2^26 bytes each.
        self.bytes > SEND_BACKLOGS_BYTES_MAX && bytes * self.of.len() >= self.bytes
    }

    /// A connection is closed, or is being closed.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if self.of.is_empty() {
            return;
        }
        self.bytes -= self.of.remove(&conn).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// Tells of backlogs by connection and MiB, and asserts which of the reports were too much.
    #[track_caller]
    fn check(reports: &[(u32, usize)], too_much: &[usize]) {
        let mut backlogs = Backlogs::new(&Hashing::from_seed([1, 2, 3, 4]));
        let mut found = Vec::new();
        for (index, (conn, mib)) in reports.iter().enumerate() {
            if backlogs.note(ConnId(*conn), mib * MIB) {
                backlogs.forget(ConnId(*conn));
                found.push(index);
            }
            let bytes: usize = backlogs.of.values().sum();
            assert_eq!(backlogs.bytes, bytes, "the sum is right after report {index}");
            assert!(bytes <= SEND_BACKLOGS_BYTES_MAX + SEND_BACKLOG_BYTES_MAX, "it is bounded");
        }
        assert_eq!(found, too_much);
    }

    #[test]
    fn one_may_be_owed_much_and_all_together_are_bounded() {
        check(&[(1, 64), (1, 65)], &[1]);
        check(&[(1, 60), (1, 10), (1, 0), (1, 64)], &[]);
        let crowd: Vec<_> = (0..8).map(|conn| (conn, 60)).collect();
        check(&crowd, &[]);
        // 480 MiB of eight: who is owed little is left alone, who is owed much is not.
        check(&[&crowd[..], &[(8, 10), (9, 10), (10, 10), (11, 3), (3, 61), (12, 10)]].concat(), &[12]);
        // Those who take something, but not enough, are among those who go.
        check(&[&crowd[..], &[(8, 40), (3, 59)]].concat(), &[9]);
    }

    #[test]
    fn a_crowd_that_reads_nothing_is_sent_away_one_after_the_other() {
        let reports: Vec<_> = (1..=8).flat_map(|mib| (0..200).map(move |conn| (conn, mib))).collect();
        let mut backlogs = Backlogs::new(&Hashing::from_seed([1, 2, 3, 4]));
        let mut gone = [false; 200];
        for (conn, mib) in reports {
            if !gone[conn as usize] && backlogs.note(ConnId(conn), mib * MIB) {
                backlogs.forget(ConnId(conn));
                gone[conn as usize] = true;
            }
        }
        let left = gone.iter().filter(|is_gone| !**is_gone).count();
        assert!(backlogs.bytes <= SEND_BACKLOGS_BYTES_MAX, "{}", backlogs.bytes);
        assert_eq!(left, 64, "as many as fit in with 8 MiB each");
    }
}
