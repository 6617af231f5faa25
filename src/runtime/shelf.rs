//! Where connections are put that have no file descriptor of their own.
//!
//! A process may open so many files (`RLIMIT_NOFILE`), but the limit counts descriptors, not sockets. A ring can keep
//! files in a *table* of its own, which takes no descriptors; each table is as long as the limit at most, and there
//! may be many. The surprising idea: nobody reads or writes there. A connection on the shelf is lent a descriptor for
//! as long as something is done with it, and closing that leaves the connection where it is. So everything else works
//! as ever, with plain calls: receiving, sending, TLS, polls, which hold the socket themselves once they are begun.
//!
//! Whoever has no descriptor left gets on only by putting somebody here, which may take another table and so a
//! descriptor, or by lending somebody one. So one is kept back for either.
//!
//! Costs: two calls and a `close` for each time that a connection on the shelf is used (about a microsecond and a
//! half), 8 bytes of ours and some 60 of the kernel's beside its socket; one descriptor for each table, and two.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use io_uring::{IoUring, Probe, opcode, types};

use crate::base::ConnId;

/// Places of a table, at most.
const TABLE_PLACES_MAX: u32 = 16_384;
/// Requests of a table that are under way: one.
const TABLE_SUBMISSIONS: u32 = 2;
/// Who is not on the shelf.
const NOWHERE: u32 = u32::MAX;

/// Whether this kernel can lend what is on a shelf (Linux 6.8 and later).
#[must_use]
pub(super) fn is_available() -> bool {
    let Ok(ring) = IoUring::new(TABLE_SUBMISSIONS) else { return false };
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::FixedFdInstall::CODE)
}

/// One core's connections without descriptors.
pub(super) struct Shelf {
    tables: Vec<IoUring>,
    table_places: u32,
    /// Places that nobody has: the number of the table times its places, and where in it.
    free: Vec<u32>,
    /// A descriptor that is kept for a loan: what is lent is given back, so this one always is.
    for_loan: Option<OwnedFd>,
    /// A descriptor that is kept for a further table: that must not fail because the last ones were taken meanwhile.
    for_table: Option<OwnedFd>,
    /// By connection: its place, or [`NOWHERE`]. As long as it had to be.
    places: Vec<u32>,
}

impl Shelf {
    /// An empty one, of a process that may open `files` files.
    pub(super) fn new(files: usize) -> Self {
        let table_places = u32::try_from(files).unwrap_or(u32::MAX).clamp(1, TABLE_PLACES_MAX);
        Self { table_places, tables: Vec::new(), free: Vec::new(), for_loan: None, for_table: None, places: Vec::new() }
    }

    /// Whether a connection is here.
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        self.place(conn).is_some()
    }

    fn place(&self, conn: ConnId) -> Option<u32> {
        self.places.get(conn.0 as usize).copied().filter(|place| *place != NOWHERE)
    }

    /// Whether it is time for another table: one needs a descriptor, so it has to be there before these run out.
    pub(super) const fn is_low(&self) -> bool {
        self.free.len() < self.table_places as usize / 2 + 1
    }

    /// Makes another table.
    ///
    /// # Errors
    /// The kernel's: no descriptor or no memory is left for it.
    pub(super) fn grow(&mut self) -> io::Result<()> {
        let ring =
            with_kept(&mut self.for_table, || IoUring::builder().setup_single_issuer().build(TABLE_SUBMISSIONS))?;
        ring.submitter().register_files_sparse(self.table_places)?;
        let first = u32::try_from(self.tables.len()).expect("there are fewer tables than places") * self.table_places;
        self.tables.push(ring);
        self.free.extend((first..first + self.table_places).rev());
        Ok(())
    }

    /// Keeps the descriptors back that are to be kept: further ones of a table. To be tried again whenever one may
    /// have become free.
    pub(super) fn save(&mut self) {
        let Some(table) = self.tables.first() else { return };
        for kept in [&mut self.for_loan, &mut self.for_table] {
            if kept.is_none() {
                // SAFETY: the ring is open for as long as this is borrowed.
                let table = unsafe { BorrowedFd::borrow_raw(table.as_raw_fd()) };
                *kept = table.try_clone_to_owned().ok();
            }
        }
    }

    /// Gives up the descriptor that is kept for a further table, if none is needed yet. Says whether it was there.
    pub(super) fn spare(&mut self) -> bool {
        !self.free.is_empty() && self.for_table.take().is_some()
    }

    /// Puts a connection here. Its descriptor may be closed from now on.
    ///
    /// # Errors
    /// As for [`grow`](Self::grow); then nothing has changed.
    pub(super) fn put(&mut self, conn: ConnId, socket: BorrowedFd<'_>) -> io::Result<()> {
        assert!(!self.holds(conn), "nobody is here twice");
        if self.free.is_empty() {
            self.grow()?;
        }
        let place = self.free.pop().expect("there is one, or was made");
        if let Err(error) = self.set(place, socket.as_raw_fd()) {
            self.free.push(place);
            return Err(error);
        }
        let index = conn.0 as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, NOWHERE);
        }
        self.places[index] = place;
        Ok(())
    }

    /// A descriptor for a connection that is here.
    ///
    /// # Errors
    /// The kernel's: no descriptor or no memory is left.
    pub(super) fn lend(&mut self, conn: ConnId) -> io::Result<OwnedFd> {
        let place = self.place(conn).expect("only who is here is lent a descriptor");
        let mut for_loan = self.for_loan.take();
        let lent = with_kept(&mut for_loan, || self.install(place));
        self.for_loan = for_loan;
        lent
    }

    fn install(&mut self, place: u32) -> io::Result<OwnedFd> {
        let ring = &mut self.tables[(place / self.table_places) as usize];
        let install = opcode::FixedFdInstall::new(types::Fixed(place % self.table_places), 0).build();
        // SAFETY: the request points to no memory.
        unsafe { ring.submission().push(&install) }.expect("nothing else is under way");
        let answer = loop {
            match ring.submit_and_wait(1) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
                Err(error) => panic!("a ring that only keeps files is broken: {error}"),
                Ok(_) => {}
            }
            if let Some(answer) = ring.completion().next() {
                break answer.result();
            }
        };
        if answer < 0 {
            return Err(io::Error::from_raw_os_error(-answer));
        }
        // SAFETY: the kernel has just made this descriptor for us, and us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(answer) })
    }

    /// Takes a connection off the shelf, if it is here. Says whether it was.
    pub(super) fn clear(&mut self, conn: ConnId) -> bool {
        let Some(place) = self.place(conn) else { return false };
        self.places[conn.0 as usize] = NOWHERE;
        self.set(place, -1).expect("nothing is needed to empty a place");
        self.free.push(place);
        true
    }

    /// Whether nobody is here.
    pub(super) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections are here.
    pub(super) const fn len(&self) -> usize {
        self.tables.len() * self.table_places as usize - self.free.len()
    }

    fn set(&self, place: u32, fd: i32) -> io::Result<()> {
        let ring = &self.tables[(place / self.table_places) as usize];
        let count = ring.submitter().register_files_update(place % self.table_places, &[fd])?;
        assert_eq!(count, 1, "the place is changed, or an error says why not");
        Ok(())
    }
}

/// Does what needs a descriptor; with the one that was kept for that if no other is left.
fn with_kept<T>(kept: &mut Option<OwnedFd>, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let made = make();
    let is_out = made.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EMFILE));
    if !is_out || kept.is_none() {
        return made;
    }
    *kept = None;
    make()
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "files stand for sockets here")]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn read(fd: OwnedFd) -> String {
        let mut file = File::from(fd);
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn everybody_finds_his_own_on_any_table() {
        let mut shelf = Shelf::new(3);
        for index in 0..10 {
            shelf.put(ConnId(index), file(&format!("file {index}")).as_fd()).unwrap();
        }
        assert_eq!((shelf.len(), shelf.tables.len()), (10, 4));
        for index in [9, 0, 5, 5] {
            assert_eq!(read(shelf.lend(ConnId(index)).unwrap()), format!("file {index}"));
        }
        assert!(shelf.clear(ConnId(5)));
        assert!(!shelf.clear(ConnId(5)));
        assert!(!shelf.clear(ConnId(77)));
        shelf.put(ConnId(20), file("another").as_fd()).unwrap();
        assert_eq!(read(shelf.lend(ConnId(20)).unwrap()), "another");
        assert_eq!((shelf.len(), shelf.tables.len()), (10, 4), "a place is used again");
    }

    #[test]
    fn what_is_taken_off_is_closed() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut shelf = Shelf::new(3);
        shelf.put(ConnId(0), reader.as_fd()).unwrap();
        drop(reader);
        writer.write_all(b"x").unwrap();
        drop(shelf.lend(ConnId(0)).unwrap());
        writer.write_all(b"x").unwrap();
        shelf.clear(ConnId(0));
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
