//! The writer of the log on a disk that fails as it is told to, and loses what was not synced.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use glommio::channels::local_channel::{self, LocalSender};

use super::*;
use crate::engine::Peer;
use crate::log::{BLOCK_BYTES, FileId, Kind, Record, Tail, begin_frame, scan};
use crate::runtime::files::{Files, Segment};
use crate::runtime::store::{Batch, Progress, RESERVE_BYTES, SEGMENT_BYTES, Store, Writer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Make,
    Name,
    Write,
    Sync,
}

/// What is on the disk.
#[derive(Clone, Debug, Default)]
struct Content {
    /// What survives.
    stable: Vec<u8>,
    /// The write that has not been synced.
    cached: Option<(u64, Vec<u8>)>,
}

#[derive(Clone, Default)]
struct Disk {
    files: Rc<RefCell<BTreeMap<String, Content>>>,
    /// What fails from now on: how often, and how.
    faults: Rc<RefCell<Vec<(Operation, usize, ErrorKind)>>>,
    done: Rc<RefCell<Vec<Operation>>>,
}

struct File {
    disk: Disk,
    name: String,
    bytes: u64,
}

impl Disk {
    fn attempt(&self, operation: Operation) -> io::Result<()> {
        self.done.borrow_mut().push(operation);
        let mut faults = self.faults.borrow_mut();
        let Some(fault) = faults.iter_mut().find(|(one, times, _)| *one == operation && *times > 0) else {
            return Ok(());
        };
        fault.1 -= 1;
        Err(fault.2.into())
    }

    fn fail(&self, operation: Operation, times: usize, kind: ErrorKind) {
        self.faults.borrow_mut().push((operation, times, kind));
    }

    fn count(&self, operation: Operation) -> usize {
        self.done.borrow().iter().filter(|one| **one == operation).count()
    }
}

impl Files for Disk {
    type Segment = File;

    async fn make(&self, name: &str, bytes: u64) -> io::Result<File> {
        self.attempt(Operation::Make)?;
        let stable = vec![0; usize::try_from(bytes).unwrap()];
        self.files.borrow_mut().insert(name.into(), Content { stable, cached: None });
        Ok(File { disk: self.clone(), name: name.into(), bytes })
    }

    async fn name(&self, mut segment: File, name: &str) -> io::Result<File> {
        self.attempt(Operation::Name)?;
        let content = self.files.borrow_mut().remove(&segment.name).unwrap();
        self.files.borrow_mut().insert(name.into(), content);
        segment.name = name.into();
        Ok(segment)
    }
}

impl Segment for File {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn write(&mut self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        let is_done = self.disk.attempt(Operation::Write);
        let mut files = self.disk.files.borrow_mut();
        let content = files.get_mut(&self.name).unwrap();
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && blocks.len().is_multiple_of(BLOCK_BYTES));
        assert!(content.cached.is_none(), "one write is under way at a time");
        // A write that fails may have done a part of its work.
        let kept = if is_done.is_ok() { blocks.len() } else { blocks.len() / 2 };
        content.cached = is_done.is_ok().then(|| (offset, blocks[..kept].to_vec()));
        is_done
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.disk.attempt(Operation::Sync)?;
        let mut files = self.disk.files.borrow_mut();
        let Content { stable, cached } = files.get_mut(&self.name).unwrap();
        if let Some((offset, blocks)) = cached.take() {
            let offset = usize::try_from(offset).unwrap();
            stable[offset..offset + blocks.len()].copy_from_slice(&blocks);
        }
        Ok(())
    }

    async fn close(self) {}

    async fn discard(self) {
        self.disk.files.borrow_mut().remove(&self.name);
    }
}

/// A writer at work, and what it tells.
struct Log {
    disk: Disk,
    sender: Option<LocalSender<Batch>>,
    progress: Rc<Progress>,
    /// How it ended.
    ended: Rc<Cell<Option<ErrorKind>>>,
    sent: u64,
}

impl Log {
    async fn open() -> Self {
        let disk = Disk::default();
        let writer = Writer::open(disk.clone(), 1, 0).await.unwrap();
        let (sender, receiver) = local_channel::new_unbounded();
        let (progress, ended) = (Rc::new(Progress::default()), Rc::new(Cell::new(None)));
        let (told, end) = (Rc::clone(&progress), Rc::clone(&ended));
        glommio::spawn_local(async move {
            if let Err(error) = writer.run(receiver, told, || {}).await {
                end.set(Some(error.kind()));
            }
        })
        .detach();
        Self { disk, sender: Some(sender), progress, ended, sent: 0 }
    }

    fn send(&mut self, bytes: usize) {
        self.sent += 1;
        let mut frame = Vec::new();
        begin_frame(&mut frame);
        Record::Database { namespace: self.sent.to_string() + &" ".repeat(bytes) }.encode(&mut frame);
        let batch = Batch { number: self.sent, frame, must_sync: true, is_first: false };
        assert!(self.sender.as_ref().unwrap().try_send(batch).is_ok());
    }

    /// Lets the writer do what it can.
    async fn settle(&self) {
        for _ in 0..50 {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let begun = Clock::now();
        while !what(self) {
            assert!(begun.elapsed() < PATIENCE, "it never comes to that");
            self.settle().await;
        }
    }

    /// What a start finds if the power fails now, whatever part of an unfinished write has reached the disk:
    /// everything that was told to be safe.
    fn check_safe(&self) {
        for part in 0..=4 {
            let mut numbers = Vec::new();
            for (name, content) in self.disk.files.borrow().iter() {
                let Some(file) = FileId::parse(name) else { continue };
                assert_eq!(file.kind, Kind::Log);
                let mut bytes = content.stable.clone();
                if let Some((offset, blocks)) = &content.cached {
                    let (offset, kept) = (usize::try_from(*offset).unwrap(), blocks.len() * part / 4);
                    bytes[offset..offset + kept].copy_from_slice(&blocks[..kept]);
                }
                let found = scan(&mut &bytes[..], file, |record| {
                    if let Record::Database { namespace } = record {
                        numbers.push(namespace.trim().parse::<u64>().unwrap());
                    }
                });
                let found = found.unwrap_or_else(|never| match never {});
                assert!(matches!(found.tail, Tail::Clean | Tail::Torn), "{name}: {found:?}");
            }
            let stored = self.progress.stored();
            let whole: Vec<u64> = (1..=numbers.len() as u64).collect();
            assert!(numbers == whole && numbers.len() as u64 >= stored, "{stored} are safe, {numbers:?} are there");
        }
    }
}

fn run(test: impl AsyncFnOnce()) {
    LocalExecutorBuilder::new(Placement::Unbound).io_memory(EXECUTOR_MEMORY_BYTES).make().unwrap().run(test());
}

/// Nobody's connections.
struct Nobody;

impl Net for Nobody {
    fn gather(&mut self, _: Instant) {}
    fn next(&mut self) -> Option<Input<'_>> {
        None
    }
    fn next_news(&mut self) -> Option<Input<'static>> {
        None
    }
    fn send(&mut self, _: ConnId, _: Range<usize>) {}
    fn post(&mut self, _: Peer, _: Range<usize>) {}
    fn close(&mut self, _: ConnId) {}
    fn read(&mut self, _: ConnId, _: bool) {}
    fn flush(&mut self, _: &[u8], _: Instant, _: bool) {}
    fn tenant(&self, conn: ConnId) -> Option<u32> {
        // The first has gone and its name belongs to another each time; the third to nobody.
        match conn.0 {
            0 => Some(u32::try_from(TENANTS.with(|count| count.replace(count.get() + 1))).unwrap()),
            1 => Some(7),
            _ => None,
        }
    }
    fn hold_reads(&mut self, _: bool) {}
    fn stop_accepting(&mut self) {}
    fn has_work(&self) -> bool {
        false
    }
    fn next_wake(&self) -> Option<Instant> {
        None
    }
    fn is_quiet(&mut self, _: Option<Instant>) -> bool {
        true
    }
    fn wake(&mut self) {}
    fn is_settled(&self) -> bool {
        true
    }
}

thread_local! {
    static TENANTS: Cell<usize> = const { Cell::new(0) };
}

fn output(text: &str, record: Option<&str>) -> Output {
    let mut output = Output { bytes: text.into(), must_sync: true, ..Output::default() };
    output.effects = (0..3).map(|conn| Effect::Send { conn: ConnId(conn), bytes: 0..text.len() }).collect();
    if let Some(name) = record {
        Record::Database { namespace: name.into() }.encode(&mut output.records);
    }
    output
}

#[test]
fn what_follows_from_a_record_waits_until_it_is_safe() {
    run(async || {
        let disk = Disk::default();
        let writer = Writer::open(disk.clone(), 1, 0).await.unwrap();
        let (mut store, batches, progress) = Store::new(u64::MAX, None);
        let told = Rc::clone(&progress);
        glommio::spawn_local(async move { writer.run(batches, told, || {}).await }).detach();
        let mut free = output("free", None);
        store.hold(&mut free, &Nobody);
        assert_eq!(free.bytes, b"free", "nothing is written down: nothing waits");
        for (text, record) in [("one", Some("1")), ("after one", None), ("two", Some("2")), ("three", Some("3"))] {
            let mut output = output(text, record);
            store.hold(&mut output, &Nobody);
            assert!(output.effects.is_empty() && output.records.is_empty() && output.bytes.is_empty());
            assert!(store.release(&Nobody).is_none(), "{text} is not safe yet");
        }
        let mut released = Vec::new();
        let begun = Clock::now();
        while !store.is_settled() {
            assert!(begun.elapsed() < PATIENCE, "{released:?}");
            glommio::timer::sleep(Duration::from_millis(1)).await;
            while let Some(output) = store.release(&Nobody) {
                let [Effect::Send { conn: ConnId(1), .. }] = output.effects[..] else { panic!("{:?}", output.effects) };
                let text = String::from_utf8(output.bytes.clone()).unwrap();
                let batch = match text.as_str() {
                    "one" | "after one" => 1,
                    _ => 2,
                };
                assert!(progress.stored() >= batch, "{text}");
                released.push(text);
            }
        }
        assert_eq!(released, ["one", "after one", "two", "three"]);
        assert_eq!(progress.stored(), 2, "what came while a frame was written is the next frame");
    });
}

const HALF: usize = SEGMENT_BYTES as usize / 2;

#[test]
fn what_is_told_to_be_safe_is_safe() {
    run(async || {
        let mut log = Log::open().await;
        // Frames that fit, that begin a segment, and one that is longer than a segment.
        for bytes in [1, 5_000, HALF, HALF, 1, 2 * HALF + 7, 1, HALF] {
            log.send(bytes);
            log.until(|log| log.progress.stored() == log.sent).await;
            log.check_safe();
        }
        assert_eq!(log.disk.files.borrow().keys().filter(|name| name.ends_with(".log")).count(), 4);
    });
}

#[test]
fn a_write_or_a_sync_that_fails_ends_the_shard_and_is_not_tried_again() {
    for (operation, kind) in [
        (Operation::Sync, ErrorKind::Other),
        (Operation::Sync, ErrorKind::StorageFull),
        (Operation::Write, ErrorKind::Other),
    ] {
        run(async || {
            let mut log = Log::open().await;
            log.send(1);
            log.until(|log| log.progress.stored() == 1).await;
            log.disk.fail(operation, 1, kind);
            let before = log.disk.count(operation);
            log.send(1);
            log.until(|log| log.ended.get() == Some(kind)).await;
            assert_eq!(log.disk.count(operation), before + 1);
            assert_eq!(log.progress.stored(), 1, "nobody is told that it is safe");
            log.check_safe();
        });
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    for (operation, kind) in [
        (Operation::Make, ErrorKind::StorageFull),
        (Operation::Make, ErrorKind::Other),
        (Operation::Name, ErrorKind::StorageFull),
        (Operation::Name, ErrorKind::Other),
        (Operation::Write, ErrorKind::StorageFull),
    ] {
        run(async || {
            let mut log = Log::open().await;
            log.disk.fail(operation, 3, kind);
            log.send(HALF);
            log.send(HALF);
            log.until(|log| log.progress.is_full() || log.progress.stored() == 2).await;
            log.check_safe();
            log.until(|log| log.progress.stored() == 2 && !log.progress.is_full()).await;
            log.check_safe();
            assert_eq!(log.ended.get(), None);
        });
    }
}

#[test]
fn last_words_are_written_down_while_there_is_no_room_for_more() {
    run(async || {
        let mut log = Log::open().await;
        log.disk.fail(Operation::Make, usize::MAX, ErrorKind::StorageFull);
        log.send(HALF);
        log.until(|log| log.progress.is_full()).await;
        let reserved = u64::try_from(HALF).unwrap().min(RESERVE_BYTES) - 3 * BLOCK_BYTES as u64;
        for _ in 0..100 {
            log.send(usize::try_from(reserved).unwrap() / 100 - 2 * BLOCK_BYTES);
        }
        log.until(|log| log.progress.stored() == log.sent).await;
        assert!(log.progress.is_full());
        log.check_safe();
        log.disk.faults.borrow_mut().clear();
        log.until(|log| !log.progress.is_full()).await;
    });
}
