//! How a sleeping core is woken.
//!
//! Each core has one eventfd, its [`Bell`]. Three parties write to it: the kernel when the socket ring
//! has work, other cores when they have put messages into the mesh, and anybody outside with a command.
//! The core sleeps by reading it through its executor, so the executor's other tasks go on meanwhile.
//!
//! The surprising idea: nobody writes while the core is awake. The core says that it is about to sleep,
//! and *then* looks a last time; who brings work leaves it first, and *then* looks whether the core
//! sleeps. One of the two sees the other, because there is a sequentially consistent fence between the
//! two steps on either side. So a busy core costs its peers one load a turn and no system call.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use glommio::io::BufferedFile;

/// The shortest wait: past before anybody looks, but not when it begins.
const PASS: Duration = Duration::from_micros(1);

/// Wakes one core.
#[derive(Debug)]
pub(super) struct Bell {
    /// In blocking mode, or the kernel would answer a read through a ring with `EAGAIN` instead of
    /// waiting.
    eventfd: OwnedFd,
    /// Set by the core alone, cleared by the core or by the first who rings.
    is_asleep: AtomicBool,
}

impl Bell {
    /// A bell that nobody waits for yet.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { eventfd, is_asleep: AtomicBool::new(false) })
    }

    /// Wakes the core if it sleeps. Whatever it is to find must be in its place already.
    pub(super) fn ring(&self) {
        // Pairs with the fence in `listen`: either we see that it sleeps, or it sees what we brought.
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: `one` is eight readable bytes.
            let wrote = unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            // The counter cannot be near its end: each sleep allows one ring, and begins by emptying it.
            assert_eq!(wrote, 8, "an eventfd takes eight bytes");
        }
    }

    /// From here on everybody rings. The core must look for work once more before it sleeps.
    fn listen(&self) {
        self.drain();
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// From here on nobody needs to ring.
    fn stop_listening(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Forgets earlier rings.
    fn drain(&self) {
        let mut count = 0_u64;
        let part = libc::iovec { iov_base: (&raw mut count).cast(), iov_len: size_of::<u64>() };
        // The position -1 means the file's own; an eventfd has none.
        let fd = self.eventfd.as_raw_fd();
        // SAFETY: `part` names eight writable bytes.
        let _bytes_or_nothing_to_forget = unsafe { libc::preadv2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT) };
    }

    /// What the socket ring is to write to.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

/// The core's side of its [`Bell`]. Lives within the core's executor.
pub(super) struct Sleep {
    file: BufferedFile,
}

impl Sleep {
    /// Needs to be called within an executor.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new(bell: &Bell) -> io::Result<Self> {
        let own = bell.eventfd.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is a fresh copy which the file shall own.
        let file = unsafe { BufferedFile::from_raw_fd(own.into_raw_fd()) };
        Ok(Self { file })
    }

    /// Sleeps until somebody rings, unless `has_work` finds something now that everybody would ring.
    ///
    /// # Errors
    /// When the executor cannot read the bell: then nothing would ever wake this core.
    pub(super) async fn unless(&self, bell: &Bell, has_work: impl FnOnce() -> bool) -> io::Result<()> {
        bell.listen();
        let is_woken = has_work();
        if !is_woken {
            self.file.read_at(0, size_of::<u64>()).await?;
        }
        bell.stop_listening();
        Ok(())
    }

    /// Lets the executor look after its files and other tasks once, and goes on. It looks after files only
    /// when no task can go on; and reading a bell that has been rung is over without a pause. So we wait for
    /// a moment that has passed before the executor can look.
    pub(super) async fn pass() {
        glommio::timer::sleep(PASS).await;
    }

    /// Gives the descriptor back.
    pub(super) async fn close(self) {
        let _closed_or_gone = self.file.close().await;
    }
}
