//! Sessions of devices outlive the server: a device cannot notice that it has started anew.
//!
//! What a session is, and everything that changes in it, is written down by its home, before the device
//! learns of it. The surprising idea: after a start its owner does not know it, and its home says nothing of
//! it to anybody before it has said that it is there again. So a million sessions come back without a crowd:
//! each when its device is heard, or a few in each turn.
//!
//! Costs: some 150 bytes of log when a session opens, when its device changes its address, signs in or
//! observes something, and once for 64 notifications.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::home::Channel;
use super::super::io::Peer;
use super::super::{Durability, Engine, Message, Output};
use super::watch::Watch;
use super::{Candidate, Device, OLD_NAME_FOR};
use crate::base::{Now, SessionRef, ShardId};
use crate::log::{KeptCandidate, KeptDevice, KeptName, KeptWatch, Record};
use crate::op::{Outcome, Query, Request};
use crate::wire::coap::{Form, Name, Secret, Token, refused};

/// Sessions that one turn says are there again.
const RESUMED_MAX: usize = 256;
/// Slots that one slice of a snapshot goes through at most.
const SLOTS_MAX: u32 = 1_024;

const IS_PROVEN: u8 = 1;
const WAS_PROVEN: u8 = 2;
const IS_NAME_HERE: u8 = 4;
const IS_LEGACY: u8 = 8;
/// It is met sealed: after a start in another tunnel, and still never in the clear.
const IS_SEALED: u8 = 16;
const IS_CANDIDATE_SEALED: u8 = 32;

/// What an engine has yet to do about what is kept.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Sessions that have changed in this turn.
    changed: Vec<SessionRef>,
    /// The secrets of those that are over, and whether that must survive the loss of power.
    over: Vec<(u128, bool)>,
    /// Sessions of before the start of which their owners have not heard.
    away: VecDeque<SessionRef>,
}

/// What a session has to do with what is written down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// It is written down.
    is_kept: bool,
    /// It is on the list of those that have changed.
    is_changed: bool,
    /// It is of before the start, and its owner has not heard of it.
    is_away: bool,
}

const fn form_number(form: Form) -> u8 {
    match form {
        Form::Device => 0,
        Form::Cbor => 1,
        Form::Json => 2,
    }
}

const fn form_of(number: u8) -> Form {
    match number {
        1 => Form::Cbor,
        2 => Form::Json,
        _ => Form::Device,
    }
}

const fn kept_name(name: Name, secret: Secret) -> KeptName {
    KeptName { name: name.bits(), secret: u128::from_le_bytes(secret.0) }
}

fn named(kept: KeptName) -> Option<(Name, Secret)> {
    Some((Name::from_bits(kept.name)?, Secret(kept.secret.to_le_bytes())))
}

impl Device {
    /// Plain clients that neither listen nor leave anything are not missed.
    fn is_worth_keeping(&self) -> bool {
        self.name.is_some() || !self.watches.is_empty() || self.has_words
    }

    /// Whether its session goes on although the server stops.
    pub(in super::super) const fn is_kept(&self) -> bool {
        self.keeping.is_kept
    }

    fn flags(&self) -> u8 {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        bit(self.is_proven, IS_PROVEN)
            | bit(self.was_proven, WAS_PROVEN)
            | bit(self.is_name_here, IS_NAME_HERE)
            | bit(self.is_legacy, IS_LEGACY)
            | bit(self.peer.sealed_at.is_some(), IS_SEALED)
            | bit(self.candidate.as_ref().is_some_and(|new| new.peer.sealed_at.is_some()), IS_CANDIDATE_SEALED)
    }

    /// As it was before the start. What was under way is not: it is asked for again, or told again.
    fn of_kept(now: Now, kept: &KeptDevice, home: ShardId, shards: u8) -> Self {
        let (name, secret) = kept.name.and_then(named).unzip();
        let has = |bit: u8| kept.flags & bit != 0;
        let peer_at =
            |remote, is_sealed: u8| Peer { remote, local: kept.local, sealed_at: has(is_sealed).then_some(home) };
        let peer = peer_at(kept.remote, IS_SEALED);
        let mut device = Self::new(peer, name, secret.unwrap_or(Secret([0; 16])));
        // Names from when there were other shards may lead elsewhere.
        let leads_here = |other: Name| name.is_none_or(|name| name.home_among(shards) == other.home_among(shards));
        let old_name = kept.old_name.and_then(Name::from_bits).filter(|old| leads_here(*old));
        device.old_name = old_name.map(|old| Box::new((old, now.instant + OLD_NAME_FOR)));
        device.candidate = kept.candidate.as_ref().and_then(|candidate| {
            let (name, secret) = named(candidate.name).filter(|(name, _)| leads_here(*name))?;
            let KeptCandidate { identity, remote, is_reborn, .. } = (**candidate).clone();
            let peer = peer_at(remote, IS_CANDIDATE_SEALED);
            Some(Box::new(Candidate { name, secret, identity, peer, is_reborn }))
        });
        device.is_proven = has(IS_PROVEN);
        device.was_proven = has(WAS_PROVEN);
        device.is_name_here = has(IS_NAME_HERE);
        device.is_legacy = has(IS_LEGACY);
        device.has_moved_on = true;
        device.has_words = kept.has_words;
        device.pushes = kept.pushes.clone().into();
        device.watches = kept.watches.iter().map(|watch| Watch::of_kept(watch, now.instant)).collect();
        device.numbers = kept.watches.iter().map(|watch| watch.tag.cast_signed()).max().unwrap_or(0);
        device.keeping = Mark { is_kept: true, is_changed: false, is_away: true };
        device
    }
}

impl Watch {
    fn of_kept(kept: &KeptWatch, now: crate::base::Instant) -> Self {
        let token = Token::new(&kept.token);
        // No datagram has this hash: whatever asks for it again is answered.
        let mut watch = Self::new(kept.tag, token, kept.path.clone(), form_of(kept.form), 0, now);
        watch.sequence = kept.sequence_max;
        watch
    }
}

impl Engine {
    /// Has a session be written down as it is at the end of this turn.
    pub(super) fn keep(&mut self, session: SessionRef) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let Channel::Device(device) = &mut state.channel else { return };
        if !std::mem::replace(&mut device.keeping.is_changed, true) {
            self.devices.kept.changed.push(session);
        }
    }

    /// The client has begun anew: what follows is another session, so that what the last one has left is owed
    /// if the server ends now.
    pub(super) fn keep_as_another(&mut self, session: SessionRef) {
        self.forget_kept(session);
        let secret = u128::from_le_bytes(self.fresh_secret().0);
        self.sessions.renew(session, secret);
        self.keep(session);
    }

    /// The session is over: it is not to come back.
    pub(in super::super) fn forget_kept(&mut self, session: SessionRef) {
        let Some(id) = self.sessions.id(session) else { return };
        let Some(state) = self.sessions.get_mut(session) else { return };
        let Channel::Device(device) = &mut state.channel else { return };
        if std::mem::take(&mut device.keeping.is_kept) {
            let must_sync = self.config.settings_of(&state.namespace).durability == Durability::Fsync;
            self.devices.kept.over.push((id.secret, must_sync));
        }
    }

    /// Appends what has changed in this turn to what is written down.
    pub(in super::super) fn write_down_devices(&mut self, output: &mut Output) {
        for (secret, must_sync) in std::mem::take(&mut self.devices.kept.over) {
            Record::DeviceOver { secret }.encode(&mut output.records);
            output.must_sync |= must_sync;
        }
        for session in std::mem::take(&mut self.devices.kept.changed) {
            let Some(device) = self.device(session) else { continue };
            device.keeping.is_changed = false;
            if !device.is_worth_keeping() {
                self.forget_kept(session);
                continue;
            }
            let Some(kept) = self.kept_device(session) else { continue };
            output.must_sync |= self.config.settings_of(&kept.namespace).durability == Durability::Fsync;
            Record::Device(Box::new(kept)).encode(&mut output.records);
            if let Some(device) = self.device(session) {
                device.keeping.is_kept = true;
            }
        }
        for (secret, must_sync) in std::mem::take(&mut self.devices.kept.over) {
            Record::DeviceOver { secret }.encode(&mut output.records);
            output.must_sync |= must_sync;
        }
    }

    /// A session as it is written down. `None`: it is none of a device, or nothing of its database is kept.
    fn kept_device(&self, session: SessionRef) -> Option<KeptDevice> {
        let id = self.sessions.id(session)?;
        let state = self.sessions.get(session)?;
        let Channel::Device(device) = &state.channel else { return None };
        if self.config.settings_of(&state.namespace).durability == Durability::None {
            return None;
        }
        let candidate = device.candidate.as_ref().map(|candidate| {
            let Candidate { name, secret, identity, peer, is_reborn } = &**candidate;
            let (name, identity) = (kept_name(*name, *secret), identity.clone());
            Box::new(KeptCandidate { name, identity, remote: peer.remote, is_reborn: *is_reborn })
        });
        let watches = device.watches.iter().filter(|watch| watch.over.is_none()).map(|watch| KeptWatch {
            tag: watch.tag,
            token: watch.token.as_bytes().to_vec(),
            path: watch.path.clone(),
            form: form_number(watch.form),
            sequence_max: watch.sequence_max(),
        });
        Some(KeptDevice {
            secret: id.secret,
            home: self.config.shard.0,
            namespace: state.namespace.clone(),
            name: device.name.map(|name| kept_name(name, device.secret)),
            old_name: device.old_name.as_ref().map(|old| old.0.bits()),
            candidate,
            identity: (*state.identity).clone(),
            remote: device.peer.remote,
            local: device.peer.local,
            flags: device.flags(),
            pushes: device.pushes.to_vec(),
            watches: watches.collect(),
            has_words: device.has_words,
        })
    }

    /// Puts in place a session of a device that goes on: its deadline starts anew. Before anything else.
    ///
    /// # Panics
    /// If there are more of them than [`Config::inherit`](super::super::Config::inherit) has let through.
    pub(in super::super) fn restore_device(&mut self, now: Now, kept: &KeptDevice) {
        let device = Device::of_kept(now, kept, self.config.shard, self.config.shards);
        let names: Vec<Name> = device.names().collect();
        let peer = device.peer;
        let opened = self.open_session(now, Channel::Device(Box::new(device)), kept.namespace.clone());
        let (session, _) = opened.expect("no more sessions are carried on than there is room for");
        self.sessions.renew(session, kept.secret);
        for name in names {
            self.devices.names.insert(name, session.slot);
        }
        if let Some(device) = self.device(session) {
            device.slot = session.slot;
        }
        self.remember_peer(session, peer);
        self.carry_on(now, session, kept.identity.clone());
        self.devices.kept.away.push_back(session);
    }

    /// Whether there are sessions of before the start of which their owners have not heard.
    pub(in super::super) fn has_devices_away(&self) -> bool {
        !self.devices.kept.away.is_empty()
    }

    /// Says of some sessions that they are there again.
    pub(in super::super) fn resume_some_devices(&mut self, output: &mut Output) {
        for _ in 0..RESUMED_MAX {
            let Some(session) = self.devices.kept.away.pop_front() else { return };
            self.resume_device(session, output);
        }
    }

    /// Before anything of a session is said to its owner: that it is there again, with what it left, and what
    /// it observes.
    pub(in super::super) fn resume_device(&mut self, session: SessionRef, output: &mut Output) {
        let Some(id) = self.sessions.id(session) else { return };
        let Some(state) = self.sessions.get_mut(session) else { return };
        let Channel::Device(device) = &mut state.channel else { return };
        if !std::mem::take(&mut device.keeping.is_away) {
            return;
        }
        let (namespace, identity) = (state.namespace.clone(), Arc::clone(&state.identity));
        let watches: Vec<_> = device.watches.iter().map(|watch| (watch.tag, watch.path.clone())).collect();
        if device.has_words {
            let owner = self.owner(&namespace);
            self.send(owner, Message::Resume { session, id, namespace, identity }, output);
        }
        for (tag, path) in watches {
            let request = Request::Listen { path, query: Query::ALL, tag: Some(tag), hash: None };
            self.forward(session, tag.cast_signed(), request, output);
        }
    }

    /// The owner has answered what was said for a watch of before the start: its number is its tag.
    pub(super) fn observed_again(&mut self, session: SessionRef, number: i64, outcome: &Outcome) {
        let Some(watch) = self.watch(session, number.unsigned_abs()).filter(|watch| !watch.is_agreed) else { return };
        match outcome {
            Outcome::Refused(refusal) => watch.over = Some(refused(refusal)),
            // Nobody knows what the device has been told: it is told what stands there now.
            _ => watch.is_agreed = true,
        }
        watch.is_dirty = true;
        self.stir(session);
    }

    /// Appends records of the sessions in the next slots, from `slot` on; says where to go on, if there are
    /// more.
    pub(in super::super) fn record_devices(&self, slot: u32, records: &mut Vec<u8>) -> Option<u32> {
        let end = slot.saturating_add(SLOTS_MAX).min(self.sessions.slots_count());
        for (session, state) in self.sessions.iter_slots(slot..end) {
            let is_kept = matches!(&state.channel, Channel::Device(device) if device.is_kept());
            if let Some(kept) = is_kept.then(|| self.kept_device(session)).flatten() {
                Record::Device(Box::new(kept)).encode(records);
            }
        }
        (end < self.sessions.slots_count()).then_some(end)
    }
}
