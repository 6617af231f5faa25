//! A state as frames.

use super::frame::{FileId, begin_frame, seal_frame};
use super::record::{Record, encode_left, encode_written};
use super::state::{Database, State};
use crate::data::{Node, Path};

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
    for (name, Database { root, estates }) in &state.databases {
        writing.record(|out| Record::Database { namespace: name.clone() }.encode(out))?;
        writing.tree(name, &Path::ROOT, root)?;
        let mut estates: Vec<_> = estates.values().collect();
        estates.sort_unstable_by_key(|estate| estate.order);
        for estate in estates {
            for (write, bytes) in estate.ledger.entries() {
                writing.record(|out| encode_left(out, name, &estate.id, &estate.identity, bytes, write))?;
            }
        }
    }
    let records = writing.records;
    writing.record(|out| Record::End { records }.encode(out))?;
    writing.finish()
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

    /// A tree in pieces, parents first; a priority follows what has it.
    fn tree(&mut self, name: &str, path: &Path, node: &Node) -> Result<(), E> {
        if node.is_empty() {
            return Ok(());
        }
        if node.count(NODES_MAX) <= NODES_MAX {
            return self.record(|out| encode_written(out, name, [(path, Ok(node))].into_iter()));
        }
        for (key, child) in node.children().iter() {
            self.tree(name, &path.child(key), child)?;
        }
        match node.priority() {
            None => Ok(()),
            Some(priority) => self.record(|out| encode_written(out, name, [(path, Err(Some(priority)))].into_iter())),
        }
    }

    fn finish(&mut self) -> Result<(), E> {
        if self.frame.is_empty() {
            return Ok(());
        }
        seal_frame(&mut self.frame, self.file, self.sequence);
        self.sequence += 1;
        let done = (self.emit)(&self.frame);
        self.frame.clear();
        done
    }
}
