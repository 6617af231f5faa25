//! What every room needs: time, identifiers, limits.
//!
//! Nothing here knows what a presence engine is. The one surprising idea: time and randomness are
//! *values* handed in from outside ([`Now`], seeds), so everything built on them can be replayed.

pub mod few;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod meter;
pub mod time;

pub use few::Few;
pub use hash::{Hashing, Map};
pub use ids::{ConnId, GuestId, SessionId, SessionRef, ShardId};
pub use time::{Instant, Millis, Now, WallMillis};
