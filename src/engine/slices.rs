//! Snapshots, taken in slices while clients are served.
//!
//! The surprising idea: only the trees are of one moment, which costs nothing: a clone of each root. What
//! sessions leave is read as late as its slice comes, and so may tell things that the log tells again
//! after the snapshot. That does no harm: to leave, to cancel or to end what was left, ended or cancelled
//! already comes to the same. Of a part that goes home meanwhile, it is noted before.

use super::fence::Before;
use super::{Durability, Engine};
use crate::data::Node;
use crate::log::{Record, TreeWalk};
use crate::op::Namespace;
use crate::shard::WillMark;

/// Bytes of records from which on a slice is enough.
const SLICE_BYTES: usize = 256 * 1024;
/// Sessions whose words are written in one go.
const WILLS_MAX: usize = 64;

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Taking {
    waiting: Vec<Tree>,
    /// What sessions had left with parts that have gone home since, as records.
    noted: Vec<(Namespace, Vec<u8>)>,
    current: Option<(Namespace, TreeWalk, WillMark)>,
    /// What is told of that at the end.
    open: Vec<u8>,
    /// From which slot on sessions of devices are yet to be told; `None`: it was not said that they follow.
    devices: Option<u32>,
}

/// A database as it was when the snapshot began.
#[derive(Debug)]
struct Tree {
    namespace: Namespace,
    root: Node,
    is_part: bool,
    /// See [`Shard::last_joint`](crate::shard::Shard::last_joint).
    last_joint: u64,
    /// Its part of an update that may not be done: records.
    open: Vec<u8>,
}

impl Engine {
    /// Whether a snapshot can begin: not while what was here is on its way to where it will be, and is written down
    /// nowhere else.
    #[must_use]
    pub fn may_snapshot(&self) -> bool {
        self.spread.is_settled()
    }

    /// Begins a snapshot of everything that is written down here, as it is now.
    ///
    /// # Panics
    /// If it [must not](Self::may_snapshot).
    pub fn begin_snapshot(&mut self) {
        assert!(self.may_snapshot(), "what is on its way would be written down nowhere");
        let is_kept = |namespace: &Namespace| self.config.settings_of(namespace).durability != Durability::None;
        let kept = self.shards.iter().filter(|(namespace, _)| is_kept(namespace));
        let waiting = kept.map(|(namespace, shard)| {
            let (namespace, is_part) = (namespace.clone(), shard.is_part());
            match self.fences.before(&namespace) {
                None => {
                    let (root, last_joint) = (shard.root().clone(), shard.last_joint());
                    Tree { namespace, root, is_part, last_joint, open: Vec::new() }
                }
                Some(Before { root, last_joint, records }) => {
                    let (root, last_joint, open) = (root.clone(), *last_joint, records.clone());
                    Tree { namespace, root, is_part, last_joint, open }
                }
            }
        });
        self.taking = Some(Taking {
            waiting: waiting.collect(),
            noted: Vec::new(),
            current: None,
            open: Vec::new(),
            devices: None,
        });
    }

    /// A part is about to go home: a snapshot that is under way notes what was left with it.
    pub(super) fn note_for_snapshot(&mut self, namespace: &Namespace) {
        let Some(Taking { waiting, noted, current, .. }) = &mut self.taking else { return };
        let mark = match current {
            Some((current, _, mark)) if current == namespace => *mark,
            _ if waiting.iter().any(|tree| tree.namespace == *namespace) => WillMark::Begin,
            _ => return,
        };
        if let Some(shard) = self.shards.get(namespace) {
            let mut records = Vec::new();
            shard.record_wills_after(mark, &mut records);
            noted.push((namespace.clone(), records));
        }
    }

    /// Appends the next records of the snapshot that was begun. Says whether there are more.
    pub fn snapshot_slice(&mut self, records: &mut Vec<u8>) -> bool {
        let Some(mut taking) = self.taking.take() else { return false };
        while records.len() < SLICE_BYTES {
            let Some((namespace, walk, mark)) = &mut taking.current else {
                records.append(&mut taking.open);
                let Some(Tree { namespace, root, is_part, last_joint, open }) = taking.waiting.pop() else {
                    let slot = taking.devices.unwrap_or_else(|| {
                        Record::Devices { home: self.config.shard.0 }.encode(records);
                        0
                    });
                    taking.devices = self.record_devices(slot, records);
                    if taking.devices.is_none() {
                        return false;
                    }
                    continue;
                };
                let (name, shard) = (namespace.to_string(), self.config.shard.0);
                if is_part {
                    Record::Part { namespace: name.clone(), shard }.encode(records);
                    if last_joint > 0 {
                        Record::Joint { namespace: name, number: last_joint, owners: 0 }.encode(records);
                    }
                } else {
                    Record::Database { namespace: name }.encode(records);
                }
                if !is_part && let Some(own) = self.own_rules(&namespace) {
                    Record::Rules { namespace: namespace.to_string(), own: Some(own) }.encode(records);
                }
                taking.open = open;
                taking.current = Some((namespace, TreeWalk::new(root), WillMark::Begin));
                continue;
            };
            if let Some(piece) = walk.next() {
                piece.encode(records, namespace);
                continue;
            }
            if let Some((_, noted)) = taking.noted.iter_mut().find(|(noted, _)| noted == namespace) {
                records.append(noted);
                taking.current = None;
                continue;
            }
            let shard = self.shards.get(namespace);
            match shard.and_then(|shard| shard.record_wills(*mark, WILLS_MAX, records)) {
                Some(next) => *mark = next,
                None => taking.current = None,
            }
        }
        self.taking = Some(taking);
        true
    }
}
