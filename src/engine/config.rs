//! What an engine is told once, at the start: plain values, checked by whoever made them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::Verifier;
use crate::base::limits::{CONNECTIONS_MAX, SHARDS_MAX};
use crate::base::{Hashing, Millis, ShardId};
use crate::data::Path;
use crate::log::{KeptDevice, OwnRules, State};
use crate::rules::{Dialect, Ruleset};
use crate::shard::PART_KEYS;
use crate::wire::coap::Name;

/// What an engine is told once, at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which of the shards this is.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u8,
    /// 256 bits from which all its randomness comes; different for each engine and each start.
    pub seed: [u8; 32],
    /// 256 bits that all engines of one server share: who owns what hangs on them.
    pub common_seed: [u64; 4],
    /// How sessions of every namespace are treated that `namespaces` does not name.
    pub settings: Arc<Settings>,
    /// How sessions of some namespaces are treated.
    pub namespaces: BTreeMap<String, Arc<Settings>>,
    /// Whether only the namespaces named in `namespaces` exist.
    pub is_restricted: bool,
    /// The rules of every namespace.
    pub rules: Arc<Ruleset>,
    /// Whose names the rules may use that administrators send.
    pub dialect: Dialect,
    /// Who is believed.
    pub verifier: Arc<Verifier>,
}

impl Config {
    /// How a namespace is treated.
    #[must_use]
    pub fn settings_of(&self, namespace: &str) -> &Arc<Settings> {
        self.namespaces.get(namespace).unwrap_or(&self.settings)
    }

    /// Decides what of that which was written down still holds, before it is put in place: which sessions of
    /// devices go on, and where; and which databases keep rules of their own. Those rules hold only over the
    /// rules of all databases that they were put in place over. Returns the databases that lose theirs.
    pub fn inherit(&self, state: &mut State) -> Vec<String> {
        let mut homes = Homes { config: self, counts: [0; SHARDS_MAX] };
        state.carry_on(|device| homes.of(device));
        let over = OwnRules::sum(self.rules.source());
        let mut changed = Vec::new();
        for (name, database) in &mut state.databases {
            let is_valid = |own: &OwnRules| own.over == over && Ruleset::parse(&own.text, self.dialect).is_ok();
            if database.rules.as_ref().is_some_and(|own| !is_valid(own)) {
                database.rules = None;
                changed.push(name.clone());
            }
        }
        changed
    }

    /// The engine that owns a namespace. (The tree of one namespace stands on one engine; which part of
    /// it stands where is this function's secret.)
    #[must_use]
    pub fn owner(&self, namespace: &str) -> ShardId {
        owner(&Hashing::from_seed(self.common_seed), self.shards, namespace)
    }
}

/// Where sessions of devices go on after a start, of which there may be more than a shard has room for.
struct Homes<'c> {
    config: &'c Config,
    counts: [u32; SHARDS_MAX],
}

impl Homes<'_> {
    /// The home of a session from here on: where its name leads. `None`: it does not go on.
    fn of(&mut self, device: &KeptDevice) -> Option<ShardId> {
        let Config { shards, is_restricted, namespaces, .. } = self.config;
        let is_served = !is_restricted || namespaces.contains_key(&*device.namespace);
        let is_kept = self.config.settings_of(&device.namespace).durability != Durability::None;
        let home = match device.name {
            Some(kept) => Name::from_bits(kept.name)?.home_among(*shards),
            None => ShardId(device.home % shards),
        };
        let count = &mut self.counts[home.index()];
        let is_let = is_served && is_kept && *count < CONNECTIONS_MAX;
        *count += u32::from(is_let);
        is_let.then_some(home)
    }
}

/// See [`Engine::holder`](super::Engine::holder).
pub(super) fn holder(common: &Hashing, shards: u8, namespace: &str, path: &Path) -> Option<ShardId> {
    Some(shard_of(common.hash_one((namespace, path.first_keys(PART_KEYS)?)), shards))
}

pub(super) fn owner(common: &Hashing, shards: u8, namespace: &str) -> ShardId {
    shard_of(common.hash_one(namespace), shards)
}

fn shard_of(hash: u64, shards: u8) -> ShardId {
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the count of shards, a byte")]
    ShardId((hash % u64::from(shards)) as u8)
}

/// How the sessions of a namespace are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// After this much silence a connection is asked for a sign of life.
    pub heartbeat: Millis,
    /// After this much silence a session is over.
    pub session_timeout: Millis,
    /// After this much silence a device's session is over: no longer when it was asked, since it cannot be.
    pub coap_session_timeout: Millis,
    /// What becomes of the last words of a session that ended in silence.
    pub late_last_words: LateLastWords,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// How long after a start the last words of sessions of before wait for their clients to come back.
    pub restart_grace: Millis,
}

/// What an acknowledged write, or last word, survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: nothing is written down.
    None,
    /// The end of the process.
    Os,
    /// The loss of power.
    Fsync,
}

/// What becomes of last words that are spoken long after their session was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateLastWords {
    /// They count as spoken when the session was last heard: what others have written since stays.
    Yield,
    /// They are written like any others, as the original service does.
    Always,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Millis::from_secs(20),
            session_timeout: Millis::from_secs(45),
            coap_session_timeout: Millis::from_secs(180),
            late_last_words: LateLastWords::Yield,
            durability: Durability::None,
            restart_grace: Millis(0),
        }
    }
}
