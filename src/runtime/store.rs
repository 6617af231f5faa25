//! Where a core's records go, and what waits for them.
//!
//! A turn's records are one frame of the log. The surprising idea: everything that the engine wants done
//! in that turn, and after it, is *held* until the frame is safe: answers, events, messages to other
//! cores. So whoever learns of something, client or core, can rely on it, and the engine needs to know
//! nothing of disks. Turns go on meanwhile; what they bring gathers in the next frame. One write and one
//! sync are under way at a time, so a frame on the disk proves that the one before it is safe.
//!
//! Costs: where nothing is written down, one comparison a turn. Else a copy of the records, and per frame
//! one write, one sync, and two rounds of the executor.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use glommio::channels::local_channel::{self, LocalReceiver, LocalSender};

use super::clock;
use super::core::Core;
use super::files::{Files, Segment};
use super::meters::Meters;
use super::net::Net;
use super::snapshots::Snapshots;
use crate::base::ConnId;
use crate::base::meter::Histogram;
use crate::engine::{Effect, Output};
use crate::log::{BLOCK_BYTES, FileId, Kind, Record, begin_frame, seal_frame};

/// Bytes of a segment; one that must hold a longer frame is longer.
pub(super) const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes left in a segment when the next one is made. If that cannot be, these are the reserve from which
/// last words are written down.
pub(super) const RESERVE_BYTES: u64 = SEGMENT_BYTES / 2;
/// What may be held before clients are left unread.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
const HELD_MAX: usize = 4_096;
/// Emptied outputs that are kept for their room.
const POOL_MAX: usize = 8;
/// How long a disk that is full is left alone.
const FULL_REST: Duration = Duration::from_millis(200);

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(BLOCK_BYTES as u64), "frames fill whole blocks");

/// Where to write.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The directory of the log. It exists.
    pub directory: PathBuf,
    /// Which start of the server this is: greater than that of every file there.
    pub epoch: u32,
    /// From how many bytes of log on a core takes a snapshot, so that they need not be read again.
    pub snapshot_bytes: u64,
}

/// What the writer tells the loop.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last batch that is safe.
    stored: Cell<u64>,
    is_full: Cell<bool>,
    /// The number of the segment that the snapshot under way stands before.
    first_segment: Cell<u32>,
    /// Bytes of frames since the segment that a snapshot follows.
    bytes: Cell<u64>,
    /// Whoever waits is told through this.
    has_news: Cell<bool>,
    /// How long syncs took, in microseconds.
    syncs: Cell<Histogram>,
}

/// A frame to be written.
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) frame: Vec<u8>,
    pub(super) must_sync: bool,
    /// It begins a new segment.
    pub(super) is_first: bool,
}

/// Something that waits until a batch is safe.
struct Held {
    batch: u64,
    output: Output,
    /// For each effect: who had its connection when it was decided. Names of connections are used again.
    tenants: Vec<Option<u32>>,
}

/// The loop's side.
pub(super) struct Store {
    sender: LocalSender<Batch>,
    progress: Rc<Progress>,
    /// The frame that is being gathered: empty, or begun.
    frame: Vec<u8>,
    must_sync: bool,
    /// The batch that was given to the writer last.
    sent: u64,
    held: VecDeque<Held>,
    held_bytes: usize,
    pool: Vec<Output>,
    was_full: bool,
    /// From how many bytes of log on a snapshot is taken.
    snapshot_bytes: u64,
    snapshots: Option<Snapshots>,
    /// The batch whose segment the snapshot under way stands before.
    snapshot_batch: Option<u64>,
    slice: Vec<u8>,
    /// The last batch of which the last slice may tell: it must not be the only one to know.
    last_slice_batch: Option<u64>,
    /// Bytes of the last snapshot.
    snapshot_size: u64,
    /// When the first record of the frame came, and of the batch that was sent.
    begun: u64,
    begun_sent: u64,
    commits: Histogram,
}

impl Store {
    /// A store, and where its batches come out for a [`Writer`].
    pub(super) fn new(snapshot_bytes: u64, snapshots: Option<Snapshots>) -> (Self, LocalReceiver<Batch>, Rc<Progress>) {
        let (sender, receiver) = local_channel::new_unbounded();
        let progress = Rc::new(Progress::default());
        let store = Self {
            sender,
            progress: Rc::clone(&progress),
            frame: Vec::new(),
            must_sync: false,
            sent: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            pool: Vec::new(),
            was_full: false,
            snapshot_bytes,
            snapshots,
            snapshot_batch: None,
            slice: Vec::new(),
            last_slice_batch: None,
            snapshot_size: 0,
            begun: 0,
            begun_sent: 0,
            commits: Histogram::default(),
        };
        (store, receiver, progress)
    }

    /// Takes what must wait: `output` is empty afterwards if it had to.
    pub(super) fn hold(&mut self, output: &mut Output, net: &impl Net) {
        if output.records.is_empty() && self.held.is_empty() {
            return;
        }
        if !output.records.is_empty() {
            if self.frame.is_empty() {
                begin_frame(&mut self.frame);
                self.begun = clock::stamp();
            }
            self.frame.append(&mut output.records);
            self.must_sync |= output.must_sync;
        }
        let batch = self.batch();
        let tenants = output.effects.iter().map(|effect| net.tenant(conn_of(effect)?)).collect();
        let output = std::mem::replace(output, self.pool.pop().unwrap_or_default());
        self.held_bytes += output.bytes.len();
        self.held.push_back(Held { batch, output, tenants });
        self.send();
    }

    /// Gives the gathered frame to the writer if it has nothing to do.
    fn send(&mut self) {
        if self.frame.is_empty() || self.is_writing() {
            return;
        }
        self.sent += 1;
        self.begun_sent = self.begun;
        let frame = std::mem::take(&mut self.frame);
        let must_sync = std::mem::take(&mut self.must_sync);
        let is_first = self.snapshot_batch == Some(self.sent);
        let batch = Batch { number: self.sent, frame, must_sync, is_first };
        assert!(self.sender.try_send(batch).is_ok(), "the writer lives as long as the loop");
    }

    /// The next output whose records are safe, without what is for connections that are gone.
    pub(super) fn release(&mut self, net: &impl Net) -> Option<Output> {
        let stored = self.progress.stored();
        if stored == self.sent && self.begun_sent != 0 {
            self.commits.count((clock::stamp() - self.begun_sent) / 1_000);
            self.begun_sent = 0;
        }
        self.send();
        let Held { output, tenants, .. } = self.held.pop_front_if(|held| held.batch <= stored)?;
        self.held_bytes -= output.bytes.len();
        let mut output = output;
        let mut tenants = tenants.into_iter();
        output.effects.retain(|effect| {
            let tenant = tenants.next().expect("one for each effect");
            conn_of(effect).is_none_or(|conn| tenant.is_some() && net.tenant(conn) == tenant)
        });
        Some(output)
    }

    /// Takes a snapshot where one is due, a slice at a time. Called when everything that the core has decided
    /// was given to be held.
    pub(super) fn snapshot(&mut self, core: &mut impl Core) {
        let Some(snapshots) = &self.snapshots else { return };
        match self.snapshot_batch {
            None if self.wants_snapshot() && core.may_snapshot() => {
                core.begin_snapshot();
                self.progress.bytes.set(0);
                self.snapshot_size = 0;
                // All that is decided from here on stands in a segment of its own.
                self.snapshot_batch = Some(self.sent + 1);
                begin_frame(&mut self.frame);
                self.must_sync = true;
                self.send();
            }
            Some(batch) if self.progress.stored() >= batch && snapshots.is_idle() => {
                let number = self.progress.first_segment.get();
                if self.last_slice_batch.is_none() {
                    let is_more = core.snapshot_slice(&mut self.slice);
                    self.snapshot_size += self.slice.len() as u64;
                    if is_more {
                        return snapshots.write(number, std::mem::take(&mut self.slice), is_more);
                    }
                    self.last_slice_batch = Some(self.batch());
                }
                // What sessions leave is told as it is now: a word that is gone from there was spoken, and stands
                // where it was before until it is safe that it was.
                if self.last_slice_batch.is_some_and(|last| self.progress.stored() >= last) {
                    snapshots.write(number, std::mem::take(&mut self.slice), false);
                    (self.snapshot_batch, self.last_slice_batch) = (None, None);
                }
            }
            _ => {}
        }
    }

    /// The batch of what was decided last.
    fn batch(&self) -> u64 {
        if self.frame.is_empty() { self.sent } else { self.sent + 1 }
    }

    /// Whether so much was written that a snapshot is due, and this is a moment between two frames. A snapshot
    /// costs what it holds, so the log between two is at least as long.
    fn wants_snapshot(&self) -> bool {
        let due = self.snapshot_bytes.max(self.snapshot_size);
        self.frame.is_empty() && self.progress.bytes.get() >= due && !self.progress.is_full()
    }

    /// Whether a slice of a snapshot can be taken at once.
    pub(super) fn is_snapshot_due(&self, core: &impl Core) -> bool {
        let Some(snapshots) = &self.snapshots else { return false };
        match self.snapshot_batch {
            None => self.wants_snapshot() && core.may_snapshot(),
            Some(batch) => self.progress.stored() >= self.last_slice_batch.unwrap_or(batch) && snapshots.is_idle(),
        }
    }

    /// Takes back an output that was performed.
    pub(super) fn recycle(&mut self, mut output: Output) {
        if self.pool.len() < POOL_MAX {
            output.clear();
            output.bytes.shrink_to(64 * 1024);
            self.pool.push(output);
        }
    }

    /// Whether the disk has become full, or is no longer, since the last call.
    pub(super) fn take_fullness(&mut self) -> Option<bool> {
        self.progress.has_news.set(false);
        let is_full = self.progress.is_full();
        (std::mem::replace(&mut self.was_full, is_full) != is_full).then_some(is_full)
    }

    /// Notes what was counted, and what waits.
    pub(super) fn measure(&self, meters: &mut Meters) {
        meters.commits = self.commits;
        meters.syncs = self.progress.syncs.get();
        meters.held = self.held.len() as u64;
        meters.held_bytes = self.held_bytes as u64;
        meters.log_bytes = self.progress.bytes.get();
        meters.is_disk_full = self.progress.is_full();
    }

    /// Whether the writer has told something that was not looked at.
    pub(super) fn has_news(&self) -> bool {
        self.progress.has_news.get()
    }

    /// Whether the writer is at work.
    pub(super) fn is_writing(&self) -> bool {
        self.progress.stored() < self.sent
    }

    /// Whether nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.held.is_empty() && self.frame.is_empty() && !self.is_writing()
    }

    /// Whether so much waits that clients must wait, too.
    pub(super) fn is_congested(&self) -> bool {
        self.held_bytes > HELD_BYTES_MAX || self.held.len() > HELD_MAX || self.frame.len() > HELD_BYTES_MAX
    }
}

const fn conn_of(effect: &Effect) -> Option<ConnId> {
    match effect {
        Effect::Send { conn, .. } | Effect::Close { conn } | Effect::Read { conn, .. } => Some(*conn),
        _ => None,
    }
}

impl Progress {
    /// The last batch that is safe.
    pub(super) fn stored(&self) -> u64 {
        self.stored.get()
    }

    /// Whether there is no room for another segment.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    fn tell(&self, bell: &impl Fn()) {
        self.has_news.set(true);
        bell();
    }
}

/// The disk's side: writes frames into segments, one after the other.
pub(super) struct Writer<F: Files> {
    files: Rc<F>,
    file: FileId,
    segment: F::Segment,
    offset: u64,
    sequence: u32,
    /// The next segment, made before it is needed.
    spare: Rc<RefCell<Option<F::Segment>>>,
    is_making: Rc<Cell<bool>>,
}

impl<F: Files> Writer<F> {
    /// A writer with its first segment.
    ///
    /// # Errors
    /// The segment cannot be made.
    pub(super) async fn open(files: F, epoch: u32, shard: u8) -> io::Result<Self> {
        let file = FileId { epoch, shard, number: 0, kind: Kind::Log };
        let segment = files.make(&format!("{}.spare", file.name()), SEGMENT_BYTES).await?;
        let segment = files.name(segment, &file.name()).await?;
        let mut writer = Self {
            files: Rc::new(files),
            file,
            segment,
            offset: 0,
            sequence: 0,
            spare: Rc::default(),
            is_making: Rc::default(),
        };
        writer.begin_segment(0).await?;
        Ok(writer)
    }

    /// Writes what comes until nobody is left who could send. `bell` wakes the loop.
    ///
    /// # Errors
    /// What was to be safe may not be: nothing that waits may be said, now or later.
    pub(super) async fn run(
        mut self,
        batches: LocalReceiver<Batch>,
        progress: Rc<Progress>,
        bell: impl Fn() + Clone + 'static,
    ) -> io::Result<()> {
        while let Some(Batch { number, mut frame, must_sync, is_first }) = batches.recv().await {
            self.make_room(frame.len(), is_first, &progress, &bell).await?;
            if is_first {
                progress.first_segment.set(self.file.number);
            }
            progress.bytes.set(progress.bytes.get() + frame.len().next_multiple_of(BLOCK_BYTES) as u64);
            seal_frame(&mut frame, self.file, self.sequence, clock::stamp());
            self.append(&frame, must_sync, &progress, &bell).await?;
            progress.stored.set(number);
            progress.tell(&bell);
            if self.segment.bytes() - self.offset < RESERVE_BYTES {
                self.make_spare(&progress, &bell);
            }
        }
        Ok(())
    }

    /// Writes a sealed frame. A full disk is waited for: nothing is lost by it, as nobody has been told.
    /// A sync that fails is never tried again: the kernel may have dropped what it could not write.
    async fn append(
        &mut self,
        frame: &[u8],
        must_sync: bool,
        progress: &Rc<Progress>,
        bell: &impl Fn(),
    ) -> io::Result<()> {
        let mut has_waited = false;
        while let Err(error) = self.segment.write(self.offset, frame).await {
            if error.kind() != io::ErrorKind::StorageFull {
                return Err(error);
            }
            has_waited = true;
            set_full(true, progress, bell);
            glommio::timer::sleep(FULL_REST).await;
        }
        if has_waited {
            set_full(false, progress, bell);
        }
        if must_sync {
            let began = clock::stamp();
            self.segment.sync().await?;
            let mut syncs = progress.syncs.get();
            syncs.count((clock::stamp() - began) / 1_000);
            progress.syncs.set(syncs);
        }
        self.offset += frame.len() as u64;
        self.sequence += 1;
        Ok(())
    }

    /// Goes on to the next segment if a frame with so many bytes does not fit, or must be the first.
    async fn make_room(
        &mut self,
        frame_bytes: usize,
        is_first: bool,
        progress: &Rc<Progress>,
        bell: &(impl Fn() + Clone + 'static),
    ) -> io::Result<()> {
        let needed = frame_bytes.next_multiple_of(BLOCK_BYTES) as u64;
        if !is_first && self.offset + needed <= self.segment.bytes() {
            return Ok(());
        }
        // What is in this segment must be safe before anything in the next one is.
        self.segment.sync().await?;
        let next = FileId { number: self.file.number + 1, ..self.file };
        loop {
            self.make_spare(progress, bell);
            while self.is_making.get() {
                glommio::timer::sleep(Duration::from_millis(1)).await;
            }
            let Some(spare) = self.spare.take() else { continue };
            // The first block is for the record that begins each segment.
            let named = async {
                let spare = if needed + BLOCK_BYTES as u64 <= spare.bytes() {
                    spare
                } else {
                    spare.discard().await;
                    let bytes = needed + BLOCK_BYTES as u64;
                    self.files.make(&format!("{}.spare", next.name()), bytes).await?
                };
                self.files.name(spare, &next.name()).await
            };
            let spare = match named.await {
                Ok(spare) => spare,
                Err(error) => {
                    tracing::error!(%error, "no next segment for the log: what follows waits for one");
                    set_full(true, progress, bell);
                    glommio::timer::sleep(FULL_REST).await;
                    continue;
                }
            };
            std::mem::replace(&mut self.segment, spare).close().await;
            let frames = self.sequence;
            (self.file, self.offset, self.sequence) = (next, 0, 0);
            return self.begin_segment(frames).await;
        }
    }

    async fn begin_segment(&mut self, previous_frames: u32) -> io::Result<()> {
        let mut frame = Vec::new();
        begin_frame(&mut frame);
        Record::Begin { previous_frames }.encode(&mut frame);
        seal_frame(&mut frame, self.file, 0, clock::stamp());
        self.segment.write(0, &frame).await?;
        self.segment.sync().await?;
        (self.offset, self.sequence) = (frame.len() as u64, 1);
        Ok(())
    }

    /// Has the next segment made beside the work, however often that takes.
    fn make_spare(&self, progress: &Rc<Progress>, bell: &(impl Fn() + Clone + 'static)) {
        if self.is_making.get() || self.spare.borrow().is_some() {
            return;
        }
        self.is_making.set(true);
        let name = format!("{}.spare", FileId { number: self.file.number + 1, ..self.file }.name());
        let (files, spare, is_making) = (Rc::clone(&self.files), Rc::clone(&self.spare), Rc::clone(&self.is_making));
        let (progress, bell) = (Rc::clone(progress), bell.clone());
        glommio::spawn_local(async move {
            loop {
                match files.make(&name, SEGMENT_BYTES).await {
                    Ok(segment) => {
                        *spare.borrow_mut() = Some(segment);
                        is_making.set(false);
                        set_full(false, &progress, &bell);
                        return;
                    }
                    Err(error) => {
                        if !progress.is_full.get() {
                            tracing::error!(%error, "no room for the log: databases are read-only");
                        }
                        set_full(true, &progress, &bell);
                        glommio::timer::sleep(FULL_REST).await;
                    }
                }
            }
        })
        .detach();
    }
}

fn set_full(is_full: bool, progress: &Progress, bell: &impl Fn()) {
    if progress.is_full.replace(is_full) != is_full {
        progress.tell(bell);
    }
}
