//! What is written down so that it outlives the process: records, the frames that carry them, and what
//! they amount to when they are read again.
//!
//! The surprising idea: a turn of a core is one frame, and a frame is whole or it is nothing. So there is
//! no such thing as half an update, half an end of a session, or a last word that was spoken and is still
//! owed: what one turn decided together is found together or not at all. A snapshot is a log in which
//! nothing is superseded: the same frames, the same records, the same reader.
//!
//! Costs: a record is its texts and some ten bytes; a frame rounds up to [`BLOCK_BYTES`]. The format is
//! drawn byte by byte in `docs/DURABILITY.md`.

mod codec;
mod device;
mod frame;
mod record;
mod snapshot;
mod state;

pub use device::{KeptCandidate, KeptDevice, KeptName, KeptWatch};
pub use frame::{
    ALL_SHARDS, BLOCK_BYTES, Damage, FileId, Kind, Scan, Source, Tail, VERSION, begin_frame, scan, scan_until,
    seal_frame,
};
pub use record::{Bad, OwnRules, Place, Record, Saved, encode_left, encode_written};
pub use snapshot::{TreeWalk, snapshot};
pub use state::{Database, Estate, State};

#[cfg(test)]
mod tests;
