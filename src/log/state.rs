//! What records amount to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::device::KeptDevice;
use super::record::{OwnRules, Place, Record, Saved};
use crate::base::{SessionId, ShardId};
use crate::data::Node;
use crate::op::Identity;
use crate::presence::Ledger;

/// What there was when the last record was written.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// By name.
    pub databases: BTreeMap<String, Database>,
    /// By their secrets: sessions of devices that were not over. They go on: a device does not notice that a
    /// server has started anew.
    pub devices: BTreeMap<u128, KeptDevice>,
    /// Sessions that have left something, ever: their order.
    arrivals: u64,
}

/// One database.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Its data.
    pub root: Node,
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

    /// Takes in one record. In the order in which they were written.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Begin { .. } | Record::End { .. } => {}
            Record::Database { namespace } => {
                self.databases.insert(namespace, Database::default());
            }
            Record::Written { namespace, places } => {
                let root = &mut self.databases.entry(namespace).or_default().root;
                for Place { path, saved } in places {
                    match saved {
                        Saved::Value(node) => drop(root.set(path.as_str(), node)),
                        Saved::Priority(priority) => root.set_priority(path.as_str(), priority),
                    }
                }
            }
            Record::Left { namespace, id, identity, bytes, write } => {
                let database = self.databases.entry(namespace).or_default();
                let estate = database.estates.entry(id.secret).or_insert_with(|| {
                    self.arrivals += 1;
                    Estate {
                        id,
                        identity: Arc::new(Identity::NOBODY),
                        ledger: Ledger::EMPTY,
                        order: self.arrivals,
                        is_alive: false,
                    }
                });
                estate.identity = Arc::new(identity);
                estate.ledger.restore(write, bytes as usize);
            }
            Record::Cancelled { namespace, secret, path } => {
                if let Some(estate) = self.estate(&namespace, secret) {
                    estate.ledger.cancel(&path);
                }
            }
            Record::Identified { namespace, secret, identity } => {
                if let Some(estate) = self.estate(&namespace, secret) {
                    estate.identity = Arc::new(identity);
                }
            }
            Record::Over { namespace, secret } => {
                if let Some(database) = self.databases.get_mut(&namespace) {
                    database.estates.remove(&secret);
                }
            }
            Record::Device(device) => drop(self.devices.insert(device.secret, *device)),
            Record::DeviceOver { secret } => drop(self.devices.remove(&secret)),
            Record::Devices { home } => self.devices.retain(|_, device| device.home != home),
            Record::Rules { namespace, own } => self.databases.entry(namespace).or_default().rules = own,
        }
    }

    fn estate(&mut self, namespace: &str, secret: u128) -> Option<&mut Estate> {
        self.databases.get_mut(namespace)?.estates.get_mut(&secret)
    }
}
