//! What becomes, before anybody is served, of what was written down: last words that are owed are spoken, and
//! databases are divided among the cores.
//!
//! The surprising idea: all of it is done to what was read, before that is written down as the snapshot with which
//! the start begins. A crash in the middle of it has changed nothing: the next start finds what this one has found.
//!
//! Costs: a hash of two keys for each place that has two, and what it takes to speak what is owed.

use std::sync::Arc;

use super::config::{holder, owner};
use super::look::Speaker;
use super::owed::Spoken;
use super::{Config, Engine, spread};
use crate::base::{Hashing, Now};
use crate::log::{Database, Estate, KeptDevice, State};
use crate::op::{End, Namespace, Who};
use crate::shard::{Shard, divide};

/// What an engine has of the last server.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Whole databases that it keeps, and its parts of those that are spread.
    databases: Vec<(String, Database)>,
    /// Databases that are whole, wherever they are.
    whole: Vec<Namespace>,
    devices: Vec<KeptDevice>,
    /// What was spoken before the start.
    speeches: Vec<Speech>,
}

/// What was decided about what was written down.
#[derive(Debug, Default)]
pub struct Settled {
    /// Databases that have lost their own rules: those of all have changed.
    pub ruleless: Vec<String>,
    /// Sessions that had left something and were over.
    pub owed_count: usize,
    /// What was spoken.
    pub speeches: Vec<Speech>,
}

/// The last words of a session, spoken before anybody was served: operators are yet to be told.
#[derive(Debug)]
pub struct Speech {
    pub(super) namespace: Namespace,
    pub(super) speaker: Speaker,
    pub(super) fates: Vec<Spoken>,
}

impl Speech {
    /// Where the words wrote, in their order.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.fates.iter().map(|spoken| spoken.word.path().as_str().to_owned()).collect()
    }
}

impl Config {
    /// Decides what of that which was written down still holds, and how it is put in place. The result is to be written
    /// down before anything else happens.
    pub fn settle(&self, now: Now, state: &mut State) -> Settled {
        let ruleless = self.inherit(state);
        let mut settled = Settled { ruleless, ..Settled::default() };
        let common = Hashing::from_seed(self.common_seed);
        for (name, database) in &mut state.databases {
            let owed_count = database.estates.values().filter(|estate| !estate.is_alive).count();
            settled.owed_count += owed_count;
            if !self.may_divide(name, database) {
                continue;
            }
            if owed_count > 0 {
                self.speak_at_once(now, name, database, &mut settled.speeches);
            }
            let parts = divide(&database.root, self.shards, |path| {
                holder(&common, self.shards, name, path).expect("a part begins below two keys")
            });
            if let Some(parts) = parts {
                *database = Database { parts, ..Database::default() };
            }
        }
        settled
    }

    /// Whether a database can be spread, as far as that does not hang on its data.
    fn may_divide(&self, name: &str, database: &Database) -> bool {
        let is_left = |estate: &Estate| !estate.ledger.is_empty();
        let mut left = database.estates.values().filter(|estate| is_left(estate));
        // What waits for its speaker waits where all is.
        let waits = |estate: &Estate| estate.is_alive || self.settings_of(name).restart_grace.0 > 0;
        self.shards > 1 && spread::is_local(&self.rules) && database.rules.is_none() && !left.any(waits)
    }

    /// Speaks all that is owed to a database.
    fn speak_at_once(&self, now: Now, name: &str, database: &mut Database, speeches: &mut Vec<Speech>) {
        let namespace: Namespace = name.into();
        let mut whole = Shard::new(namespace.clone(), Arc::clone(&self.rules), &Hashing::from_seed(self.common_seed));
        whole.restore(std::mem::take(database), None);
        while let Some(order) = whole.owed_first() {
            let by = whole.owed_by(order).map(|(session, who)| (session, Who::of(&who)));
            let (session, who) = by.unwrap_or_default();
            let fates = whole.speak_owed(now, order, &mut Vec::new()).into_iter();
            let fates = fates.map(|(word, fate)| Spoken { word, fate, written: None }).collect();
            let speaker = Speaker { session, who, is_owed: true, end: End::ServerStopped };
            speeches.push(Speech { namespace: namespace.clone(), speaker, fates });
        }
        database.root = whole.root().clone();
    }

    /// Deals out what was [settled](Self::settle): one for each engine, in their order.
    #[must_use]
    pub fn deal(&self, state: State, speeches: Vec<Speech>) -> Vec<Inherited> {
        let common = Hashing::from_seed(self.common_seed);
        let keeper = |name: &str| owner(&common, self.shards, name).index();
        let mut all: Vec<Inherited> = (0..self.shards).map(|_| Inherited::default()).collect();
        for (name, database) in state.databases {
            if database.parts.is_empty() {
                let namespace: Namespace = name.as_str().into();
                all.iter_mut().for_each(|engine| engine.whole.push(namespace.clone()));
                all[keeper(&name)].databases.push((name, database));
                continue;
            }
            for (engine, root) in all.iter_mut().zip(database.parts).filter(|(_, root)| !root.is_empty()) {
                engine.databases.push((name.clone(), Database { root, ..Database::default() }));
            }
        }
        for device in state.devices.into_values() {
            all[usize::from(device.home)].devices.push(device);
        }
        for speech in speeches {
            all[keeper(&speech.namespace)].speeches.push(speech);
        }
        all
    }
}

impl Engine {
    /// Puts in place what the last server has left here. Before anything else.
    pub fn inherit(&mut self, now: Now, inherited: Inherited) {
        let Inherited { databases, whole, devices, speeches } = inherited;
        whole.into_iter().for_each(|namespace| self.begin_whole(namespace));
        for (name, database) in databases {
            self.restore(now, &name, database);
        }
        devices.iter().for_each(|device| self.restore_device(now, device));
        self.tell_speeches(speeches);
    }
}
