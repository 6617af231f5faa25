//! Records: what is written down, one thing each.

use super::codec::{Take, put_identity, put_node, put_priority, put_session, put_size, put_text, put_write};
use super::device::{self, KeptDevice};
use crate::base::SessionId;
use crate::data::{Node, Path, Priority};
use crate::op::{Identity, Write};

/// One thing that was written down. Sessions are named by their secrets: those are never used again.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// First in each file. How many frames the file before it has: then the loss of its last one is
    /// noticed.
    Begin {
        /// Of the same shard, with the number before this one; zero for the first.
        previous_frames: u32,
    },
    /// Data has changed, server values filled in. All places or none.
    Written {
        /// Which database.
        namespace: String,
        /// What stands where now, in the order in which it was put there.
        places: Vec<Place>,
    },
    /// A session has left a last word.
    Left {
        /// Which database.
        namespace: String,
        /// Who.
        id: SessionId,
        /// Under which identity it would be spoken now.
        identity: Identity,
        /// How long it was on the wire: what limits count.
        bytes: u32,
        /// Where it stands among those that it has left with other shards; 0 where one shard has all.
        run: u32,
        /// What it would write.
        write: Write,
    },
    /// A session has cancelled its last words at and below a path.
    Cancelled {
        /// Which database.
        namespace: String,
        /// Whose.
        secret: u128,
        /// Where.
        path: Path,
    },
    /// A session that has left last words is somebody else from here on.
    Identified {
        /// Which database.
        namespace: String,
        /// Which.
        secret: u128,
        /// Who it is now.
        identity: Identity,
    },
    /// A session is over, and its last words are spoken: what they wrote stands beside this.
    Over {
        /// Which database.
        namespace: String,
        /// Which.
        secret: u128,
        /// Those of runs up to this are; `u32::MAX`: all that were left here.
        run: u32,
    },
    /// Whatever was known of this database is superseded by what follows: from here on one shard has all of it.
    Database {
        /// Which.
        namespace: String,
    },
    /// Whatever was known of one shard's part of this database is superseded by what follows.
    Part {
        /// Which.
        namespace: String,
        /// Whose.
        shard: u8,
    },
    /// What is written next of this part belongs to an update of several shards' parts: it holds if all of them have
    /// written theirs. Whatever follows in this log says so; else their logs say.
    Joint {
        /// Which database.
        namespace: String,
        /// Numbered by the shard that led it, from 1 on.
        number: u64,
        /// Bit `s`: shard `s` has a part in it. None, in a snapshot: it is over, and this part had its share.
        owners: u64,
    },
    /// Last in each snapshot: it is whole.
    End {
        /// How many records stand before this one.
        records: u64,
    },
    /// A device's session, as it is from here on.
    Device(Box<KeptDevice>),
    /// A device's session is over.
    DeviceOver {
        /// Which.
        secret: u128,
    },
    /// Whatever was known of the devices at home at a shard is superseded by what follows.
    Devices {
        /// Which.
        home: u8,
    },
    /// A database has rules of its own from here on, or none any more.
    Rules {
        /// Which.
        namespace: String,
        /// Its own rules.
        own: Option<OwnRules>,
    },
}

/// Rules that were put in place for one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRules {
    /// As they were written.
    pub text: String,
    /// What names the rules of all databases at that time: a checksum of their text.
    pub over: u32,
}

impl OwnRules {
    /// What names rules of all databases.
    #[must_use]
    pub fn sum(text: &str) -> u32 {
        crc32fast::hash(text.as_bytes())
    }
}

/// What stands at a place now.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Where.
    pub path: Path,
    /// What.
    pub saved: Saved,
}

/// What was put somewhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// A node, in full; [`Node::Empty`] for a removal.
    Value(Node),
    /// A priority, the node staying as it is.
    Priority(Option<Priority>),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// They end too early.
    Short,
    /// Something in them cannot be.
    Value,
    /// There are more than there should be.
    Long,
    /// They are of a kind that this version does not know.
    Kind,
}

const BEGIN: u8 = 1;
const WRITTEN: u8 = 2;
const LEFT: u8 = 3;
const CANCELLED: u8 = 4;
const IDENTIFIED: u8 = 5;
const OVER: u8 = 6;
const DATABASE: u8 = 7;
const END: u8 = 8;
const DEVICE: u8 = 9;
const DEVICE_OVER: u8 = 10;
const DEVICES: u8 = 11;
const RULES: u8 = 12;
const PART: u8 = 13;
const LEFT_IN_RUN: u8 = 14;
const OVER_UNTIL: u8 = 15;
const JOINT: u8 = 16;

const VALUE: u8 = 0;
const PRIORITY: u8 = 1;

/// Bytes of a record's length and kind.
const HEAD_BYTES: usize = 5;

impl Record {
    /// Appends it: its length, its kind, its body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { previous_frames } => {
                put(out, BEGIN, |out| out.extend_from_slice(&previous_frames.to_le_bytes()));
            }
            Self::Written { namespace, places } => {
                let places = places.iter().map(|Place { path, saved }| match saved {
                    Saved::Value(node) => (path, Ok(node)),
                    Saved::Priority(priority) => (path, Err(priority.as_ref())),
                });
                encode_written(out, namespace, places);
            }
            Self::Left { namespace, id, identity, bytes, run, write } => {
                encode_left(out, namespace, id, identity, *bytes, *run, write);
            }
            Self::Cancelled { namespace, secret, path } => put(out, CANCELLED, |out| {
                put_text(out, namespace);
                out.extend_from_slice(&secret.to_le_bytes());
                put_text(out, path.as_str());
            }),
            Self::Identified { namespace, secret, identity } => put(out, IDENTIFIED, |out| {
                put_text(out, namespace);
                out.extend_from_slice(&secret.to_le_bytes());
                put_identity(out, identity);
            }),
            Self::Over { namespace, secret, run } => {
                put(out, if *run == u32::MAX { OVER } else { OVER_UNTIL }, |out| {
                    put_text(out, namespace);
                    out.extend_from_slice(&secret.to_le_bytes());
                    if *run != u32::MAX {
                        out.extend_from_slice(&run.to_le_bytes());
                    }
                });
            }
            Self::Database { namespace } => put(out, DATABASE, |out| put_text(out, namespace)),
            Self::Part { namespace, shard } => put(out, PART, |out| {
                put_text(out, namespace);
                out.push(*shard);
            }),
            Self::Joint { namespace, number, owners } => put(out, JOINT, |out| {
                put_text(out, namespace);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&owners.to_le_bytes());
            }),
            Self::End { records } => put(out, END, |out| out.extend_from_slice(&records.to_le_bytes())),
            Self::Device(device) => put(out, DEVICE, |out| device::put(out, device)),
            Self::DeviceOver { secret } => put(out, DEVICE_OVER, |out| out.extend_from_slice(&secret.to_le_bytes())),
            Self::Devices { home } => put(out, DEVICES, |out| out.push(*home)),
            Self::Rules { namespace, own } => put(out, RULES, |out| {
                put_text(out, namespace);
                out.push(u8::from(own.is_some()));
                if let Some(OwnRules { text, over }) = own {
                    put_text(out, text);
                    out.extend_from_slice(&over.to_le_bytes());
                }
            }),
        }
    }

    /// Takes one record from the front of `bytes`, which holds at least one byte.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Bad> {
        let mut take = Take(bytes);
        let length = take.u32()? as usize;
        let kind = take.byte()?;
        let mut body = Take(take.bytes(length)?);
        *bytes = take.0;
        let record = Self::decode_body(kind, &mut body)?;
        if body.0.is_empty() { Ok(record) } else { Err(Bad::Long) }
    }

    /// Passes over one record without reading it.
    pub fn skip(bytes: &mut &[u8]) -> Result<(), Bad> {
        let mut take = Take(bytes);
        let length = take.u32()? as usize;
        take.byte()?;
        take.bytes(length)?;
        *bytes = take.0;
        Ok(())
    }

    fn decode_body(kind: u8, body: &mut Take<'_>) -> Result<Self, Bad> {
        Ok(match kind {
            BEGIN => Self::Begin { previous_frames: body.u32()? },
            WRITTEN => {
                let namespace = body.text()?.to_owned();
                let mut places = Vec::new();
                for _ in 0..body.size()? {
                    let path = body.path()?;
                    let saved = match body.byte()? {
                        VALUE => Saved::Value(body.node()?),
                        PRIORITY => Saved::Priority(body.priority()?),
                        _ => return Err(Bad::Value),
                    };
                    places.push(Place { path, saved });
                }
                Self::Written { namespace, places }
            }
            LEFT | LEFT_IN_RUN => Self::Left {
                namespace: body.text()?.to_owned(),
                id: body.session()?,
                identity: body.identity()?,
                bytes: body.u32()?,
                run: if kind == LEFT_IN_RUN { body.u32()? } else { 0 },
                write: body.write()?,
            },
            CANCELLED => {
                Self::Cancelled { namespace: body.text()?.to_owned(), secret: body.u128()?, path: body.path()? }
            }
            IDENTIFIED => Self::Identified {
                namespace: body.text()?.to_owned(),
                secret: body.u128()?,
                identity: body.identity()?,
            },
            OVER | OVER_UNTIL => Self::Over {
                namespace: body.text()?.to_owned(),
                secret: body.u128()?,
                run: if kind == OVER_UNTIL { body.u32()? } else { u32::MAX },
            },
            DATABASE => Self::Database { namespace: body.text()?.to_owned() },
            PART => Self::Part { namespace: body.text()?.to_owned(), shard: body.byte()? },
            JOINT => Self::Joint { namespace: body.text()?.to_owned(), number: body.u64()?, owners: body.u64()? },
            END => Self::End { records: body.u64()? },
            DEVICE => Self::Device(Box::new(device::take(body)?)),
            DEVICE_OVER => Self::DeviceOver { secret: body.u128()? },
            DEVICES => Self::Devices { home: body.byte()? },
            RULES => Self::Rules {
                namespace: body.text()?.to_owned(),
                own: if body.flag()? {
                    Some(OwnRules { text: body.text()?.to_owned(), over: body.u32()? })
                } else {
                    None
                },
            },
            _ => return Err(Bad::Kind),
        })
    }
}

/// Appends a [`Record::Written`] of borrowed places: a node, or (`Err`) a priority. No copies: this is on
/// the path of every write.
pub fn encode_written<'p>(
    out: &mut Vec<u8>,
    namespace: &str,
    places: impl ExactSizeIterator<Item = (&'p Path, Result<&'p Node, Option<&'p Priority>>)>,
) {
    put(out, WRITTEN, |out| {
        put_text(out, namespace);
        put_size(out, places.len());
        for (path, saved) in places {
            put_text(out, path.as_str());
            match saved {
                Ok(node) => {
                    out.push(VALUE);
                    put_node(out, node);
                }
                Err(priority) => {
                    out.push(PRIORITY);
                    put_priority(out, priority);
                }
            }
        }
    });
}

/// Appends a [`Record::Left`] of borrowed parts.
pub fn encode_left(
    out: &mut Vec<u8>,
    namespace: &str,
    id: &SessionId,
    identity: &Identity,
    bytes: u32,
    run: u32,
    write: &Write,
) {
    put(out, if run == 0 { LEFT } else { LEFT_IN_RUN }, |out| {
        put_text(out, namespace);
        put_session(out, id);
        put_identity(out, identity);
        out.extend_from_slice(&bytes.to_le_bytes());
        if run > 0 {
            out.extend_from_slice(&run.to_le_bytes());
        }
        put_write(out, write);
    });
}

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    body(out);
    let length = u32::try_from(out.len() - start - HEAD_BYTES).expect("what one request brings is below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
