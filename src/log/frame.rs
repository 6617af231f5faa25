//! Frames: records of one turn, with a checksum; and the reader of a file of them.
//!
//! What is torn and what is damaged look alike, so the writer helps: it writes a frame only when the one
//! before is safe. A bad frame with a good one behind it was good once, and is damage. A bad frame with
//! nothing behind it was never acknowledged, and is cut off.

use super::record::{Bad, Record};

/// The version that this code writes. It reads this one and all before it.
pub const VERSION: u16 = 3;
/// Frames begin at multiples of this, so that writing one never touches the sectors of another.
pub const BLOCK_BYTES: usize = 4_096;

const MAGIC: [u8; 8] = *b"STILLLOG";
/// Bytes of a frame before its records.
const HEAD_BYTES: usize = 48;
/// Payload that is believed: more than a turn can bring, so that damage does not exhaust the memory.
const PAYLOAD_BYTES_MAX: u64 = 1 << 32;
/// Blocks that are looked at in one piece for a good frame behind a bad one.
const SEARCH_BLOCKS: usize = 256;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What has happened.
    Log = 1,
    /// What there was.
    Snapshot = 2,
}

/// Which file: each frame says so, so that no frame is taken for one of another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// Counts the starts of the server.
    pub epoch: u32,
    /// Whose.
    pub shard: u8,
    /// Counts the shard's files in this epoch.
    pub number: u32,
    /// What it holds.
    pub kind: Kind,
}

/// The shard of snapshots that hold what all have.
pub const ALL_SHARDS: u8 = u8::MAX;

impl FileId {
    /// What the file is called.
    #[must_use]
    pub fn name(&self) -> String {
        let Self { epoch, shard, number, kind } = self;
        let kind = match kind {
            Kind::Log => "log",
            Kind::Snapshot => "snapshot",
        };
        format!("{epoch:08}-{shard:03}-{number:08}.{kind}")
    }

    /// The file that is called so. `None`: it is none of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, kind) = name.split_once('.')?;
        let kind = match kind {
            "log" => Kind::Log,
            "snapshot" => Kind::Snapshot,
            _ => return None,
        };
        let mut numbers = stem.split('-');
        let file = Self {
            epoch: numbers.next()?.parse().ok()?,
            shard: numbers.next()?.parse().ok()?,
            number: numbers.next()?.parse().ok()?,
            kind,
        };
        (file.name() == name).then_some(file)
    }
}

/// Begins a frame in an empty buffer: records are appended to it, then it is [sealed](seal_frame).
pub fn begin_frame(frame: &mut Vec<u8>) {
    assert!(frame.is_empty(), "a frame begins with its head");
    frame.resize(HEAD_BYTES, 0);
}

/// Finishes a frame: the `sequence`th of its file. `stamp`: when, by a clock that all logs of this start have in common,
/// in nanoseconds; 0: it is in no other log's way.
pub fn seal_frame(frame: &mut Vec<u8>, file: FileId, sequence: u32, stamp: u64) {
    let payload_bytes = (frame.len() - HEAD_BYTES) as u64;
    let payload_sum = crc32fast::hash(&frame[HEAD_BYTES..]);
    frame[..8].copy_from_slice(&MAGIC);
    frame[12..16].copy_from_slice(&payload_sum.to_le_bytes());
    frame[16..24].copy_from_slice(&payload_bytes.to_le_bytes());
    frame[24..28].copy_from_slice(&file.epoch.to_le_bytes());
    frame[28..32].copy_from_slice(&file.number.to_le_bytes());
    frame[32..36].copy_from_slice(&sequence.to_le_bytes());
    frame[36] = file.shard;
    frame[37] = file.kind as u8;
    frame[38..40].copy_from_slice(&VERSION.to_le_bytes());
    frame[40..48].copy_from_slice(&stamp.to_le_bytes());
    let head_sum = crc32fast::hash(&frame[12..HEAD_BYTES]);
    frame[8..12].copy_from_slice(&head_sum.to_le_bytes());
    frame.resize(frame.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// A file as bytes. Reading beyond its end gives fewer.
pub trait Source {
    /// What goes wrong.
    type Error;

    /// Reads `count` bytes at `offset` into `buffer`, which is emptied first.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&mut self, offset: u64, count: usize, buffer: &mut Vec<u8>) -> Result<(), Self::Error>;
}

/// A file in memory.
impl Source for &[u8] {
    type Error = std::convert::Infallible;

    fn read(&mut self, offset: u64, count: usize, buffer: &mut Vec<u8>) -> Result<(), Self::Error> {
        buffer.clear();
        let from = usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len()));
        buffer.extend_from_slice(&self[from..self.len().min(from.saturating_add(count))]);
        Ok(())
    }
}

/// What a file turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Whole frames.
    pub frames: u32,
    /// Records in them.
    pub records: u64,
    /// Where the last whole frame ends.
    pub end: u64,
    /// The latest of their [stamps](seal_frame).
    pub stamp: u64,
    /// What is behind it.
    pub tail: Tail,
}

/// What is behind the last whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// The beginning of a frame that never was acknowledged.
    Torn,
    /// A frame that was whole once, or one that this version cannot read.
    Damaged(Damage),
}

/// What is wrong with a frame that was whole once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its bytes are not what was written.
    Sum,
    /// Its checksum is right, and still its records make no sense.
    Record(Bad),
    /// A newer version has written it.
    Version(u16),
    /// It belongs to another file.
    Stranger,
}

struct Head {
    payload_bytes: u64,
    payload_sum: u32,
    sequence: u32,
    version: u16,
    stamp: u64,
    is_ours: bool,
}

impl Head {
    /// A head whose checksum is right.
    fn parse(bytes: &[u8], file: FileId) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..8] != MAGIC || u32_at(8) != crc32fast::hash(&bytes[12..]) {
            return None;
        }
        let payload_bytes = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        let is_ours = u32_at(24) == file.epoch
            && u32_at(28) == file.number
            && bytes[36] == file.shard
            && bytes[37] == file.kind as u8;
        (payload_bytes <= PAYLOAD_BYTES_MAX).then_some(Self {
            payload_bytes,
            payload_sum: u32_at(12),
            sequence: u32_at(32),
            version: u16::from_le_bytes([bytes[38], bytes[39]]),
            stamp: u64::from(u32_at(40)) | u64::from(u32_at(44)) << 32,
            is_ours,
        })
    }
}

/// Reads a file from its begin, and gives `each` the records of each whole frame.
///
/// # Errors
/// What reading the file ends with.
pub fn scan<S: Source>(source: &mut S, file: FileId, each: impl FnMut(Record)) -> Result<Scan, S::Error> {
    scan_until(source, file, u64::MAX, each)
}

/// The same, as if nothing had been written after a stamp.
///
/// # Errors
/// What reading the file ends with.
pub fn scan_until<S: Source>(
    source: &mut S,
    file: FileId,
    last_stamp: u64,
    mut each: impl FnMut(Record),
) -> Result<Scan, S::Error> {
    let mut scan = Scan { frames: 0, records: 0, end: 0, stamp: 0, tail: Tail::Clean };
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    loop {
        source.read(scan.end, BLOCK_BYTES, &mut first)?;
        if first.is_empty() {
            return Ok(scan);
        }
        let Some(head) = Head::parse(&first, file) else {
            let is_blank = first.iter().all(|byte| *byte == 0);
            scan.tail = if seek(source, file, scan.end, scan.frames)? {
                Tail::Damaged(Damage::Sum)
            } else if is_blank {
                Tail::Clean
            } else {
                Tail::Torn
            };
            return Ok(scan);
        };
        if !head.is_ours || head.sequence != scan.frames {
            scan.tail = Tail::Damaged(Damage::Stranger);
            return Ok(scan);
        }
        let payload_bytes = usize::try_from(head.payload_bytes).expect("a payload fits in memory");
        let mut payload = first.get(HEAD_BYTES..).unwrap_or_default();
        if payload.len() < payload_bytes {
            source.read(scan.end + HEAD_BYTES as u64, payload_bytes, &mut rest)?;
            payload = &rest;
        }
        let payload = &payload[..payload_bytes.min(payload.len())];
        if payload.len() < payload_bytes || crc32fast::hash(payload) != head.payload_sum {
            let is_followed = seek(source, file, scan.end, scan.frames)?;
            scan.tail = if is_followed { Tail::Damaged(Damage::Sum) } else { Tail::Torn };
            return Ok(scan);
        }
        if head.stamp > last_stamp {
            return Ok(scan);
        }
        if head.version > VERSION {
            scan.tail = Tail::Damaged(Damage::Version(head.version));
            return Ok(scan);
        }
        match decode_all(payload) {
            Ok(records) => {
                scan.records += records.len() as u64;
                records.into_iter().for_each(&mut each);
            }
            Err(bad) => {
                scan.tail = Tail::Damaged(Damage::Record(bad));
                return Ok(scan);
            }
        }
        scan.frames += 1;
        scan.stamp = scan.stamp.max(head.stamp);
        scan.end += (HEAD_BYTES + payload_bytes).next_multiple_of(BLOCK_BYTES) as u64;
    }
}

fn decode_all(mut payload: &[u8]) -> Result<Vec<Record>, Bad> {
    let mut records = Vec::new();
    while !payload.is_empty() {
        records.push(Record::decode(&mut payload)?);
    }
    Ok(records)
}

/// Whether some frame that was written after the `sequence`th stands behind `offset`.
fn seek<S: Source>(source: &mut S, file: FileId, offset: u64, sequence: u32) -> Result<bool, S::Error> {
    let mut offset = offset + BLOCK_BYTES as u64;
    let mut blocks = Vec::new();
    loop {
        source.read(offset, SEARCH_BLOCKS * BLOCK_BYTES, &mut blocks)?;
        if blocks.is_empty() {
            return Ok(false);
        }
        let is_later =
            |block: &[u8]| Head::parse(block, file).is_some_and(|head| head.is_ours && head.sequence > sequence);
        if blocks.chunks(BLOCK_BYTES).any(is_later) {
            return Ok(true);
        }
        offset += blocks.len() as u64;
    }
}
