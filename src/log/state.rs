//! What records amount to.
//!
//! A database that is spread over shards has a part in the log of each, and what one log tells of it says nothing of
//! the others. The surprising idea: within one start it is spread first and whole afterwards, never the other way
//! round, and the shard that has all of it then begins with everything that there is. So it does not matter in which
//! order logs are read: what a shard tells of its part stands beside what others tell of theirs, and all of it counts
//! only as long as no shard says that it has the whole.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::device::KeptDevice;
use super::frame::ALL_SHARDS;
use super::record::{OwnRules, Place, Record, Saved};
use crate::base::{SessionId, ShardId};
use crate::data::Node;
use crate::op::Identity;
use crate::presence::Ledger;

/// What there was when the last record was written.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// By name. Complete when all is [put together](Self::put_together).
    pub databases: BTreeMap<String, Database>,
    /// By their secrets: sessions of devices that were not over. They go on: a device does not notice that a
    /// server has started anew.
    pub devices: BTreeMap<u128, KeptDevice>,
    /// What was read of databases, by name.
    found: BTreeMap<String, Found>,
    /// Shares in updates of several parts that not all parts had written: they are undone. Nobody had heard of them.
    pub undone_count: usize,
    /// Sessions that have left something, ever: their order.
    arrivals: u64,
}

/// What was read of one database.
#[derive(Clone, Debug, Default)]
struct Found {
    /// If it is whole: who has said so, and all of it. [`ALL_SHARDS`]: it was when this start began, and whoever tells
    /// of it since is the one that has it.
    whole: Option<(u8, Database)>,
    /// By shards, as long as it is not.
    parts: BTreeMap<u8, Part>,
    /// Of which part the snapshot of all shards is telling.
    telling: u8,
}

/// What one log tells of its part.
#[derive(Clone, Debug, Default)]
struct Part {
    database: Database,
    /// The last update of several parts that this one had a share in; 0: none.
    last_joint: u64,
    /// Its share in that, as long as nothing follows it.
    share: Option<Share>,
}

#[derive(Clone, Debug, Default)]
struct Share {
    /// Bit `s`: shard `s` has one, too.
    owners: u64,
    /// What it writes, once that is read.
    places: Option<Vec<Place>>,
}

/// One database.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Its data.
    pub root: Node,
    /// Where it is divided: by shards, the data of each. Then nothing stands in `root`, nothing is owed, and it has no
    /// rules of its own.
    pub parts: Vec<Node>,
    /// Its own rules, if it has any.
    pub rules: Option<OwnRules>,
    /// By their secrets: sessions whose last words are not spoken.
    pub estates: BTreeMap<u128, Estate>,
}

/// A session that was not over, and has left last words.
#[derive(Clone, Debug)]
pub struct Estate {
    /// As its client names it.
    pub id: SessionId,
    /// Who it was.
    pub identity: Arc<Identity>,
    /// What it left.
    pub ledger: Ledger,
    /// Before whom it left its first.
    pub order: u64,
    /// Whether it goes on: it is a device's, and nothing of it is spoken yet.
    pub is_alive: bool,
}

impl State {
    /// Says which sessions of devices go on, and where they are at home from now on. The others (`None`) are
    /// over, and what they have left is owed. Before a start.
    pub fn carry_on(&mut self, mut home_of: impl FnMut(&KeptDevice) -> Option<ShardId>) {
        self.devices.retain(|_, device| match home_of(device) {
            Some(home) => {
                device.home = home.0;
                true
            }
            None => false,
        });
        for (name, database) in &mut self.databases {
            for (secret, estate) in &mut database.estates {
                let device = self.devices.get_mut(secret).filter(|device| *device.namespace == **name);
                estate.is_alive = device.is_some();
                if let Some(device) = device {
                    device.has_words = true;
                }
            }
        }
    }

    /// Takes in one record of the log of a shard, or of the snapshot of [all](ALL_SHARDS). Those of one log in the
    /// order in which they were written; the snapshot of all before them.
    pub fn apply(&mut self, record: Record, from: u8) {
        match record {
            Record::Begin { .. } | Record::End { .. } => {}
            Record::Database { namespace } => {
                let found = self.found.entry(namespace).or_default();
                found.whole = Some((from, Database::default()));
            }
            Record::Part { namespace, shard } => {
                let found = self.found.entry(namespace).or_default();
                found.parts.insert(shard, Part::default());
                found.telling = shard;
            }
            Record::Joint { namespace, number, owners } => {
                let found = self.found.entry(namespace).or_default();
                if found.whole.is_none() {
                    let part = found.parts.entry(from).or_default();
                    part.settle();
                    part.last_joint = number;
                    part.share = (owners > 0).then_some(Share { owners, places: None });
                }
            }
            Record::Written { namespace, places } => {
                let part = self.found.get_mut(&namespace).and_then(|found| found.parts.get_mut(&from));
                match part.and_then(|part| part.share.as_mut()) {
                    Some(share) if share.places.is_none() => share.places = Some(places),
                    _ => {
                        if let Some(database) = self.database(namespace, from) {
                            database.write(places);
                        }
                    }
                }
            }
            Record::Left { namespace, id, identity, bytes, run, write } => {
                let order = self.arrivals + 1;
                let Some(database) = self.database(namespace, from) else { return };
                let estate = database.estates.entry(id.secret).or_insert_with(|| {
                    let identity = Arc::new(Identity::NOBODY);
                    Estate { id, identity, ledger: Ledger::EMPTY, order, is_alive: false }
                });
                estate.identity = Arc::new(identity);
                estate.ledger.restore(write, bytes as usize, run);
                self.arrivals = order;
            }
            Record::Cancelled { namespace, secret, path } => {
                if let Some(estate) = self.estate(namespace, from, secret) {
                    estate.ledger.cancel(&path);
                }
            }
            Record::Identified { namespace, secret, identity } => {
                if let Some(estate) = self.estate(namespace, from, secret) {
                    estate.identity = Arc::new(identity);
                }
            }
            Record::Over { namespace, secret, run } => {
                let Some(database) = self.database(namespace, from) else { return };
                let Some(estate) = database.estates.get_mut(&secret) else { return };
                drop(estate.ledger.take_until(run));
                if estate.ledger.is_empty() {
                    database.estates.remove(&secret);
                }
            }
            Record::Device(device) => drop(self.devices.insert(device.secret, *device)),
            Record::DeviceOver { secret } => drop(self.devices.remove(&secret)),
            Record::Devices { home } => self.devices.retain(|_, device| device.home != home),
            Record::Rules { namespace, own } => {
                if let Some(database) = self.database(namespace, from) {
                    database.rules = own;
                }
            }
        }
    }

    /// What was read of each database becomes one. After the last record.
    pub fn put_together(&mut self) {
        for (name, found) in std::mem::take(&mut self.found) {
            let database = found.put_together(&mut self.undone_count);
            self.databases.insert(name, database);
        }
    }

    /// What a record of this log is about: `None` if it is superseded.
    fn database(&mut self, namespace: String, from: u8) -> Option<&mut Database> {
        let Found { whole, parts, telling } = self.found.entry(namespace).or_default();
        match whole {
            Some((by, whole)) => (*by == from || *by == ALL_SHARDS).then_some(whole),
            None => {
                let part = parts.entry(if from == ALL_SHARDS { *telling } else { from }).or_default();
                part.settle();
                Some(&mut part.database)
            }
        }
    }

    fn estate(&mut self, namespace: String, from: u8, secret: u128) -> Option<&mut Estate> {
        self.database(namespace, from)?.estates.get_mut(&secret)
    }
}

impl Found {
    fn put_together(self, undone_count: &mut usize) -> Database {
        if let Some((_, whole)) = self.whole {
            return whole;
        }
        let last: BTreeMap<u8, u64> = self.parts.iter().map(|(shard, part)| (*shard, part.last_joint)).collect();
        let mut whole = Database::default();
        for mut part in self.parts.into_values() {
            let number = part.last_joint;
            let has_had = |shard: ShardId| last.get(&shard.0).is_some_and(|last| *last >= number);
            // Who was about to go on had heard that all of them had written theirs.
            let is_done = |share: &Share| ShardId::of_bits(share.owners).all(has_had);
            match &part.share {
                Some(share) if !is_done(share) => *undone_count += 1,
                _ => part.settle(),
            }
            whole.take_in(part.database);
        }
        whole
    }
}

impl Part {
    /// Its share in an update of several parts holds.
    fn settle(&mut self) {
        if let Some(places) = self.share.take().and_then(|share| share.places) {
            self.database.write(places);
        }
    }
}

impl Database {
    fn write(&mut self, places: Vec<Place>) {
        for Place { path, saved } in places {
            match saved {
                Saved::Value(node) => drop(self.root.set(path.as_str(), node)),
                Saved::Priority(priority) => self.root.set_priority(path.as_str(), priority),
            }
        }
    }

    /// Adds what another shard has of it.
    fn take_in(&mut self, part: Self) {
        if self.root.is_empty() {
            self.root = part.root;
        } else {
            self.root.take_in(&part.root);
        }
        self.rules = self.rules.take().or(part.rules);
        for (secret, estate) in part.estates {
            match self.estates.entry(secret) {
                Entry::Vacant(place) => drop(place.insert(estate)),
                Entry::Occupied(mut place) => place.get_mut().unite(estate),
            }
        }
    }
}

impl Estate {
    /// Adds what the session has left with another shard.
    fn unite(&mut self, other: Self) {
        // Who has the last words has most likely heard last who it is.
        let last_run = |ledger: &Ledger| ledger.entries().last().map(|(_, _, run)| run);
        if last_run(&other.ledger) > last_run(&self.ledger) {
            self.identity = other.identity;
        }
        self.order = self.order.min(other.order);
        self.ledger.unite(other.ledger);
    }
}
