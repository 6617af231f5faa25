//! A state as frames, and a tree as records, in slices.

use std::ops::Bound::{Excluded, Unbounded};

use super::frame::{FileId, begin_frame, seal_frame};
use super::record::{Record, encode_left, encode_written};
use super::state::{Database, State};
use crate::data::{Key, Node, Path};

/// Bytes of records from which on a frame is finished.
const FRAME_BYTES: usize = 1024 * 1024;
/// Nodes that are written in one record.
const NODES_MAX: usize = 1_024;

/// Gives `emit` the frames of a snapshot, sealed, in order.
///
/// # Errors
/// What `emit` ends with.
pub fn snapshot<E>(state: &State, file: FileId, emit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut writing = Writing { file, frame: Vec::new(), sequence: 0, records: 0, emit };
    writing.record(|out| Record::Begin { previous_frames: 0 }.encode(out))?;
    for (name, Database { root, rules, estates, parts }) in &state.databases {
        for (shard, part) in (0..).zip(parts).filter(|(_, part)| !part.is_empty()) {
            writing.record(|out| Record::Part { namespace: name.clone(), shard }.encode(out))?;
            for piece in TreeWalk::new(part.clone()) {
                writing.record(|out| piece.encode(out, name))?;
            }
        }
        if !parts.is_empty() {
            assert!(rules.is_none() && estates.is_empty(), "only what can be done apart is divided");
            continue;
        }
        writing.record(|out| Record::Database { namespace: name.clone() }.encode(out))?;
        if let Some(own) = rules {
            writing.record(|out| Record::Rules { namespace: name.clone(), own: Some(own.clone()) }.encode(out))?;
        }
        for piece in TreeWalk::new(root.clone()) {
            writing.record(|out| piece.encode(out, name))?;
        }
        let mut estates: Vec<_> = estates.values().collect();
        estates.sort_unstable_by_key(|estate| estate.order);
        for estate in estates {
            for (write, bytes, run) in estate.ledger.entries() {
                writing.record(|out| encode_left(out, name, &estate.id, &estate.identity, bytes, run, write))?;
            }
        }
    }
    for device in state.devices.values() {
        writing.record(|out| Record::Device(Box::new(device.clone())).encode(out))?;
    }
    let records = writing.records;
    writing.record(|out| Record::End { records }.encode(out))?;
    writing.finish()
}

/// A tree in pieces of bounded size, parents first; a priority follows what has it. Costs: the way down.
#[derive(Debug)]
pub struct TreeWalk {
    whole: Option<Node>,
    /// From the root to where we are: what stands there, and the child that was last.
    trail: Vec<(Path, Node, Option<Key>)>,
}

/// One piece of a tree.
#[derive(Debug)]
pub struct Piece {
    path: Path,
    node: Node,
    /// Only its priority: the rest was in earlier pieces.
    is_priority: bool,
}

impl Piece {
    /// Appends it as a record.
    pub fn encode(&self, out: &mut Vec<u8>, namespace: &str) {
        let saved = if self.is_priority { Err(self.node.priority()) } else { Ok(&self.node) };
        encode_written(out, namespace, [(&self.path, saved)].into_iter());
    }
}

impl TreeWalk {
    /// Through `root`, as it is now.
    #[must_use]
    pub fn new(root: Node) -> Self {
        Self { whole: Some(root), trail: Vec::new() }
    }

    fn visit(&mut self, path: Path, node: Node) -> Option<Piece> {
        if node.count(NODES_MAX) <= NODES_MAX {
            return Some(Piece { path, node, is_priority: false });
        }
        self.trail.push((path, node, None));
        None
    }
}

impl Iterator for TreeWalk {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if let Some(root) = self.whole.take().filter(|root| !root.is_empty())
            && let Some(piece) = self.visit(Path::ROOT, root)
        {
            return Some(piece);
        }
        loop {
            let (path, node, last) = self.trail.last_mut()?;
            let start = last.as_deref().map_or(Unbounded, Excluded);
            let next = node.children().from(start).next().map(|(key, child)| (key.clone(), child.clone()));
            if let Some((key, child)) = next {
                let path = path.child(&key);
                *last = Some(key);
                if let Some(piece) = self.visit(path, child) {
                    return Some(piece);
                }
            } else if let Some((path, node, _)) = self.trail.pop()
                && node.priority().is_some()
            {
                return Some(Piece { path, node, is_priority: true });
            }
        }
    }
}

struct Writing<F> {
    file: FileId,
    frame: Vec<u8>,
    sequence: u32,
    records: u64,
    emit: F,
}

impl<E, F: FnMut(&[u8]) -> Result<(), E>> Writing<F> {
    fn record(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), E> {
        if self.frame.is_empty() {
            begin_frame(&mut self.frame);
        }
        encode(&mut self.frame);
        self.records += 1;
        if self.frame.len() >= FRAME_BYTES { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), E> {
        if self.frame.is_empty() {
            return Ok(());
        }
        seal_frame(&mut self.frame, self.file, self.sequence, 0);
        self.sequence += 1;
        let done = (self.emit)(&self.frame);
        self.frame.clear();
        done
    }
}
