//! The sessions of one home shard.
//!
//! The surprising idea: a session's id says where it stands, so nothing is ever searched. A slot that
//! is given away again gets a new generation, so a late message for its earlier tenant finds nobody.
//!
//! Costs: every operation O(1) and none moves a session: slots come in blocks of `BLOCK_SLOTS` that
//! stay where they are, so a table that grows to a million never stops to copy itself. 32 bytes a
//! session beside its state.

use subtle::ConstantTimeEq as _;

use crate::base::limits::CONNECTIONS_MAX;
use crate::base::{SessionId, SessionRef, ShardId};

/// Slots that are made at once.
const BLOCK_SLOTS: usize = 1_024;
/// The bits of a generation that a [`SessionId`] carries.
const GENERATION_MASK: u32 = 0x00ff_ffff;
/// The end of the list of free slots.
const NO_SLOT: u32 = u32::MAX;

const _: () = assert!(BLOCK_SLOTS.is_power_of_two(), "a slot finds its block by shifting");
const _: () = assert!(CONNECTIONS_MAX < NO_SLOT, "no slot has the number that means none");

/// The sessions of one home shard, each with a state `S`.
///
/// A slot's generation grows by one whenever the slot is vacated, and wraps: a [`SessionRef`] names
/// another session again after 2^32 tenants of one slot, a [`SessionId`] after 2^24, but that also
/// holds a secret. References live no longer than messages between shards.
pub struct Table<S> {
    home: ShardId,
    /// Blocks of exactly [`BLOCK_SLOTS`] room each; all but the last are full.
    blocks: Vec<Vec<Slot<S>>>,
    /// The free slot that is given away next: the one vacated last, as it is still in the cache.
    free_head: u32,
    len: usize,
    sessions_max: u32,
}

/// There are as many sessions as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

struct Slot<S> {
    /// Of the tenant, or of the next one.
    generation: u32,
    tenant: Tenant<S>,
}

enum Tenant<S> {
    /// `next` is the free slot after this one.
    Nobody { next: u32 },
    /// The secret in bytes: a `u128` would make every slot 16 bytes aligned.
    Session { secret: [u8; 16], state: S },
}

impl<S> Table<S> {
    /// No sessions. The table of `home` never holds more than `sessions_max`, which is at most
    /// [`CONNECTIONS_MAX`].
    #[must_use]
    pub fn new(home: ShardId, sessions_max: u32) -> Self {
        assert!(sessions_max <= CONNECTIONS_MAX, "slots beyond the limit of connections have no use");
        Self { home, blocks: Vec::new(), free_head: NO_SLOT, len: 0, sessions_max }
    }

    /// How many sessions there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the highest slot that was ever in use: where [`iter_slots`](Self::iter_slots) may
    /// stop.
    #[must_use]
    pub fn slots_count(&self) -> u32 {
        let last = self.blocks.last().map_or(0, Vec::len);
        let full = self.blocks.len().saturating_sub(1) * BLOCK_SLOTS;
        u32::try_from(full + last).expect("there are no more slots than connections")
    }

    /// A new session, of which clients speak by `secret`.
    pub fn open(&mut self, secret: u128, state: S) -> Result<SessionRef, Full> {
        let tenant = Tenant::Session { secret: secret.to_le_bytes(), state };
        let slot_index = if self.free_head == NO_SLOT {
            let slot_index = self.slots_count();
            if slot_index >= self.sessions_max {
                return Err(Full);
            }
            if self.blocks.last().is_none_or(|block| block.len() == BLOCK_SLOTS) {
                self.blocks.push(Vec::with_capacity(BLOCK_SLOTS));
            }
            let block = self.blocks.last_mut().expect("a block was just made where none had room");
            block.push(Slot { generation: 0, tenant });
            slot_index
        } else {
            let slot_index = self.free_head;
            let slot = self.slot_mut(slot_index).expect("free slots are slots");
            let vacant = std::mem::replace(&mut slot.tenant, tenant);
            let Tenant::Nobody { next } = vacant else { panic!("the free slot {slot_index} has a tenant") };
            self.free_head = next;
            slot_index
        };
        self.len += 1;
        let generation = self.slot(slot_index).expect("it was just filled").generation;
        Ok(SessionRef { home: self.home, slot: slot_index, generation })
    }

    /// The session, if it is still there.
    #[must_use]
    pub fn get(&self, session: SessionRef) -> Option<&S> {
        match self.slot(session.slot)? {
            Slot { generation, tenant: Tenant::Session { state, .. } }
                if session.home == self.home && *generation == session.generation =>
            {
                Some(state)
            }
            _ => None,
        }
    }

    /// The session, if it is still there.
    pub fn get_mut(&mut self, session: SessionRef) -> Option<&mut S> {
        let home = self.home;
        match self.slot_mut(session.slot)? {
            Slot { generation, tenant: Tenant::Session { state, .. } }
                if session.home == home && *generation == session.generation =>
            {
                Some(state)
            }
            _ => None,
        }
    }

    /// The session that stands in a slot now, whatever its generation: for timers, which know slots.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<SessionRef> {
        let Slot { generation, tenant: Tenant::Session { .. } } = self.slot(slot)? else { return None };
        Some(SessionRef { home: self.home, slot, generation: *generation })
    }

    /// The session that a client named, if the client knows its secret. How long this takes tells
    /// nothing about the secret.
    #[must_use]
    pub fn find(&self, id: &SessionId) -> Option<SessionRef> {
        let Slot { generation, tenant: Tenant::Session { secret, .. } } = self.slot(id.slot)? else { return None };
        let is_same_place = id.home == self.home && id.generation == *generation & GENERATION_MASK;
        let is_same_secret: bool = secret.ct_eq(&id.secret.to_le_bytes()).into();
        let session = SessionRef { home: self.home, slot: id.slot, generation: *generation };
        (is_same_place && is_same_secret).then_some(session)
    }

    /// The name by which the session's client may speak of it.
    #[must_use]
    pub fn id(&self, session: SessionRef) -> Option<SessionId> {
        self.get(session)?;
        let Tenant::Session { secret, .. } = &self.slot(session.slot)?.tenant else { return None };
        Some(SessionId {
            home: session.home,
            slot: session.slot,
            generation: session.generation & GENERATION_MASK,
            secret: u128::from_le_bytes(*secret),
        })
    }

    /// Gives the session another secret: its client speaks of it by another name from now on.
    pub fn renew(&mut self, session: SessionRef, new: u128) {
        if self.get(session).is_none() {
            return;
        }
        if let Some(Slot { tenant: Tenant::Session { secret, .. }, .. }) = self.slot_mut(session.slot) {
            *secret = new.to_le_bytes();
        }
    }

    /// Removes the session and returns its state. `None` if it is gone already.
    pub fn close(&mut self, session: SessionRef) -> Option<S> {
        let state = self.vacate(session)?;
        self.give_away(session.slot);
        Some(state)
    }

    /// The same, but its slot is not [given away](Self::give_away) yet: somebody may not have heard that it is gone.
    pub fn vacate(&mut self, session: SessionRef) -> Option<S> {
        self.get(session)?;
        let next = NO_SLOT;
        let slot = self.slot_mut(session.slot)?;
        let left = std::mem::replace(&mut slot.tenant, Tenant::Nobody { next });
        slot.generation = slot.generation.wrapping_add(1);
        self.len -= 1;
        match left {
            Tenant::Session { state, .. } => Some(state),
            Tenant::Nobody { .. } => panic!("slot {} was found and is free", session.slot),
        }
    }

    /// A vacated slot is the next to be used. Once for each tenant.
    pub fn give_away(&mut self, slot_index: u32) {
        let head = self.free_head;
        let slot = self.slot_mut(slot_index).expect("a vacated slot is a slot");
        let Tenant::Nobody { next } = &mut slot.tenant else { panic!("the slot {slot_index} has a tenant") };
        *next = head;
        self.free_head = slot_index;
    }

    /// The sessions in these slots, in order of slots: a drain goes through all slots in slices, and
    /// remembers only where it is. O(slots), taken or not.
    pub fn iter_slots(&self, slots: std::ops::Range<u32>) -> impl Iterator<Item = (SessionRef, &S)> {
        (slots.start..slots.end.min(self.slots_count())).filter_map(|slot| match self.slot(slot)? {
            Slot { generation, tenant: Tenant::Session { state, .. } } => {
                Some((SessionRef { home: self.home, slot, generation: *generation }, state))
            }
            Slot { tenant: Tenant::Nobody { .. }, .. } => None,
        })
    }

    fn slot(&self, slot: u32) -> Option<&Slot<S>> {
        let slot = slot as usize;
        self.blocks.get(slot / BLOCK_SLOTS)?.get(slot % BLOCK_SLOTS)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<S>> {
        let slot = slot as usize;
        self.blocks.get_mut(slot / BLOCK_SLOTS)?.get_mut(slot % BLOCK_SLOTS)
    }
}

/// Only counts: states hold what clients said.
impl<S> std::fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} of {} sessions)", self.len, self.sessions_max)
    }
}

#[cfg(test)]
mod tests;
