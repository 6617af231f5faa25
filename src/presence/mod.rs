//! Last words: what sessions leave with the server to be written when they end.
//!
//! A [`Ledger`] holds those of one session. The surprising half is [`Stamps`]: the last words of a
//! session that ended in silence are *late*. They count as spoken when the session was last heard, so
//! whatever somebody else has written to the same place since then is newer and stays. To know that,
//! a shard remembers when a place was last written, but only for places that some last word is
//! waiting for.
//!
//! Costs: an empty ledger is one word, one last word a block of 128 bytes beside what its path and
//! value have on the heap; registering and cancelling are O(places). A stamp is 37 to 74 bytes of table
//! for each place that is waited for and for each place above; a write costs one lookup for each place
//! that it touches.

mod ledger;
mod stamps;

pub use ledger::{Beside, Full, Ledger, Load};
pub use stamps::Stamps;

use crate::data::{Draft, Location, Path};
use crate::op::Write;

/// Every place that `write` writes, absolute, in its order.
pub fn places(write: &Write) -> impl Iterator<Item = Location> {
    let none: &[(Location, Draft)] = &[];
    let (one, base, changes) = match write {
        Write::Set { path, .. } => (Some(Location { path: path.clone(), is_priority: false }), path, none),
        Write::SetPriority { path, .. } => (Some(Location { path: path.clone(), is_priority: true }), path, none),
        Write::Merge { path, changes } => (None, path, changes.as_slice()),
    };
    one.into_iter().chain(changes.iter().map(|(below, _)| absolute(base, below)))
}

/// How many places `write` writes.
#[must_use]
pub fn places_count(write: &Write) -> usize {
    match write {
        Write::Set { .. } | Write::SetPriority { .. } => 1,
        Write::Merge { changes, .. } => changes.len(),
    }
}

fn absolute(base: &Path, below: &Location) -> Location {
    Location { path: base.join(&below.path), is_priority: below.is_priority }
}

#[cfg(test)]
mod tests;
