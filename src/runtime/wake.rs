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

use std::future::{Future as _, poll_fn};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Poll;
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

    /// Sleeps until somebody rings, unless `has_work` finds something now that everybody would ring. With
    /// `has_files` the executor is given time for files and other tasks in any case: a sleep gives it that, but
    /// one that is over at once does not, and if every one is, what a file has done would never be seen.
    ///
    /// # Errors
    /// When the executor cannot read the bell: then nothing would ever wake this core.
    pub(super) async fn unless(&self, bell: &Bell, has_files: bool, has_work: impl FnOnce() -> bool) -> io::Result<()> {
        bell.listen();
        let has_slept = if has_work() { false } else { self.wait().await? };
        bell.stop_listening();
        if has_files && !has_slept {
            Self::pass().await;
        }
        Ok(())
    }

    /// Waits for a ring. Says whether it had to: of a bell that has been rung the executor brings the number
    /// at once, without looking at anything else.
    async fn wait(&self) -> io::Result<bool> {
        let mut read = pin!(self.file.read_at(0, size_of::<u64>()));
        let first = poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await;
        let had_to = first.is_pending();
        match first {
            Poll::Ready(read) => drop(read?),
            Poll::Pending => drop(read.await?),
        }
        Ok(had_to)
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use glommio::LocalExecutorBuilder;
    use glommio::io::DmaFile;

    use super::*;

    /// What is written by a task of the executor while its core sleeps as `sleep` says, again and again. Says how
    /// many sleeps that took.
    fn sleeps_while_a_file_is_written(is_rung: bool, has_work: bool) -> u32 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // No other task makes the executor look at its files in between.
        let executor = LocalExecutorBuilder::default().preempt_timer(Duration::from_secs(3_600)).make().unwrap();
        executor.run(async {
            let bell = Rc::new(Bell::new().unwrap());
            let sleep = Sleep::new(&bell).unwrap();
            let is_done = Rc::new(Cell::new(false));
            let (written, writer_bell) = (Rc::clone(&is_done), Rc::clone(&bell));
            glommio::spawn_local(async move {
                let file = DmaFile::create(&path).await.unwrap();
                for block in 0..4 {
                    let mut buffer = file.alloc_dma_buffer(4_096);
                    buffer.as_bytes_mut().fill(1);
                    file.write_at(buffer, block * 4_096).await.unwrap();
                    file.fdatasync().await.unwrap();
                }
                file.close().await.unwrap();
                written.set(true);
                writer_bell.ring();
            })
            .detach();
            let mut sleeps = 0;
            while !is_done.get() {
                sleep
                    .unless(&bell, true, || {
                        if is_rung {
                            bell.ring();
                        }
                        has_work
                    })
                    .await
                    .unwrap();
                sleeps += 1;
                assert!(sleeps < 10_000_000, "the file is never looked at");
            }
            sleep.close().await;
            sleeps
        })
    }

    #[test]
    fn a_file_is_looked_after_even_by_a_core_that_never_sleeps() {
        sleeps_while_a_file_is_written(true, false);
        sleeps_while_a_file_is_written(false, true);
    }

    #[test]
    fn a_core_with_nothing_else_to_do_sleeps_until_its_file_is_written() {
        assert_eq!(sleeps_while_a_file_is_written(false, false), 1, "one ring, one sleep");
    }
}
