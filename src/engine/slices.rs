//! Snapshots, taken in slices while clients are served.
//!
//! The surprising idea: only the trees are of one moment, which costs nothing: a clone of each root. What
//! sessions leave is read as late as its slice comes, and so may tell things that the log tells again
//! after the snapshot. That does no harm: to leave, to cancel or to end what was left, ended or cancelled
//! already comes to the same.

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
    waiting: Vec<(Namespace, Node)>,
    current: Option<(Namespace, TreeWalk, WillMark)>,
    /// From which slot on sessions of devices are yet to be told; `None`: it was not said that they follow.
    devices: Option<u32>,
}

impl Engine {
    /// Begins a snapshot of everything that is written down here, as it is now.
    pub fn begin_snapshot(&mut self) {
        let is_kept = |namespace: &Namespace| self.config.settings_of(namespace).durability != Durability::None;
        let kept = self.shards.iter().filter(|(namespace, _)| is_kept(namespace));
        let waiting = kept.map(|(namespace, shard)| (namespace.clone(), shard.root().clone())).collect();
        self.taking = Some(Taking { waiting, current: None, devices: None });
    }

    /// Appends the next records of the snapshot that was begun. Says whether there are more.
    pub fn snapshot_slice(&mut self, records: &mut Vec<u8>) -> bool {
        let Some(mut taking) = self.taking.take() else { return false };
        while records.len() < SLICE_BYTES {
            let Some((namespace, walk, mark)) = &mut taking.current else {
                let Some((namespace, root)) = taking.waiting.pop() else {
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
                Record::Database { namespace: namespace.to_string() }.encode(records);
                if let Some(own) = self.own_rules(&namespace) {
                    Record::Rules { namespace: namespace.to_string(), own: Some(own) }.encode(records);
                }
                taking.current = Some((namespace, TreeWalk::new(root), WillMark::Begin));
                continue;
            };
            if let Some(piece) = walk.next() {
                piece.encode(records, namespace);
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
