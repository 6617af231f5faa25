//! Numbers, texts, nodes and writes as bytes.
//!
//! Numbers are little-endian; lengths and counts are of variable size, seven bits a byte, the lowest
//! first, as in LEB128.

use super::record::Bad;
use crate::base::{SessionId, ShardId};
use crate::data::{Children, Draft, Key, Leaf, Location, Node, Number, Path, Priority, PriorityDraft, ServerValue};
use crate::op::{Identity, Write};

const EMPTY: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const DOUBLE: u8 = 4;
const TEXT: u8 = 5;
const BRANCH: u8 = 6;
/// Set on the tag of a node that has a priority: the priority follows the tag.
const RANKED: u8 = 0x80;

const SET: u8 = 0;
const SET_PRIORITY: u8 = 1;
const MERGE: u8 = 2;

const FIXED: u8 = 0;
const TIMESTAMP: u8 = 1;
const INCREMENT: u8 = 2;

/// Branches within branches that are read: more than a tree can have, so that damage does not exhaust the
/// stack.
const DEPTH_READ_MAX: usize = 64;

pub(super) fn put_size(out: &mut Vec<u8>, size: usize) {
    let mut rest = size as u64;
    while rest >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are wanted")]
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "what is left is below 128")]
    out.push(rest as u8);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_size(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_session(out: &mut Vec<u8>, id: &SessionId) {
    out.push(id.home.0);
    out.extend_from_slice(&id.slot.to_le_bytes());
    out.extend_from_slice(&id.generation.to_le_bytes());
    out.extend_from_slice(&id.secret.to_le_bytes());
}

pub(super) fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.push(u8::from(identity.is_admin));
    match identity.expires_s {
        None => out.push(0),
        Some(expires_s) => {
            out.push(1);
            out.extend_from_slice(&expires_s.to_le_bytes());
        }
    }
    put_text(out, &identity.auth.to_string());
}

fn put_number(out: &mut Vec<u8>, number: Number) {
    match number {
        Number::Int(value) => {
            out.push(INT);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Number::Double(value) => {
            out.push(DOUBLE);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

pub(super) fn put_priority(out: &mut Vec<u8>, priority: Option<&Priority>) {
    match priority {
        None => out.push(EMPTY),
        Some(Priority::Number(number)) => put_number(out, *number),
        Some(Priority::Text(text)) => {
            out.push(TEXT);
            put_text(out, text);
        }
    }
}

pub(super) fn put_node(out: &mut Vec<u8>, node: &Node) {
    if let Some(priority) = node.priority() {
        out.push(RANKED);
        put_priority(out, Some(priority));
    }
    match node.as_leaf() {
        Some(Leaf::Bool(value)) => out.push(if *value { TRUE } else { FALSE }),
        Some(Leaf::Number(number)) => put_number(out, *number),
        Some(Leaf::Text(text)) => {
            out.push(TEXT);
            put_text(out, text);
        }
        None if node.is_empty() => out.push(EMPTY),
        None => {
            out.push(BRANCH);
            put_size(out, node.children().len());
            for (key, child) in node.children().iter() {
                put_text(out, key.as_str());
                put_node(out, child);
            }
        }
    }
}

fn put_server_value(out: &mut Vec<u8>, value: ServerValue) {
    match value {
        ServerValue::Timestamp => out.push(TIMESTAMP),
        ServerValue::Increment(delta) => {
            out.push(INCREMENT);
            put_number(out, delta);
        }
    }
}

fn put_draft(out: &mut Vec<u8>, draft: &Draft) {
    put_node(out, draft.stand_in());
    put_size(out, draft.holes().len());
    for (path, is_priority, value) in draft.holes() {
        put_text(out, path.as_str());
        out.push(u8::from(is_priority));
        put_server_value(out, value);
    }
}

pub(super) fn put_write(out: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Set { path, value } => {
            out.push(SET);
            put_text(out, path.as_str());
            put_draft(out, value);
        }
        Write::SetPriority { path, priority } => {
            out.push(SET_PRIORITY);
            put_text(out, path.as_str());
            match priority {
                PriorityDraft::Fixed(priority) => {
                    out.push(FIXED);
                    put_priority(out, priority.as_ref());
                }
                PriorityDraft::Server(value) => put_server_value(out, *value),
            }
        }
        Write::Merge { path, changes } => {
            out.push(MERGE);
            put_text(out, path.as_str());
            put_size(out, changes.len());
            for (Location { path, is_priority }, draft) in changes {
                put_text(out, path.as_str());
                out.push(u8::from(*is_priority));
                put_draft(out, draft);
            }
        }
    }
}

/// Bytes that are taken from the front. Whatever is wrong with them is [`Bad`], never a panic: a checksum
/// tells damage, not malice.
pub(super) struct Take<'b>(pub(super) &'b [u8]);

impl<'b> Take<'b> {
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'b [u8], Bad> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Bad::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        self.bytes(N)?.try_into().map_err(|_| Bad::Short)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Bad> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool, Bad> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Bad::Value),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Bad> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Bad> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128, Bad> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub(super) fn size(&mut self) -> Result<usize, Bad> {
        let mut size = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            size |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(size).map_err(|_| Bad::Value);
            }
        }
        Err(Bad::Value)
    }

    pub(super) fn text(&mut self) -> Result<&'b str, Bad> {
        let count = self.size()?;
        std::str::from_utf8(self.bytes(count)?).map_err(|_| Bad::Value)
    }

    pub(super) fn path(&mut self) -> Result<Path, Bad> {
        Path::parse(self.text()?).map_err(|_| Bad::Value)
    }

    pub(super) fn session(&mut self) -> Result<SessionId, Bad> {
        Ok(SessionId { home: ShardId(self.byte()?), slot: self.u32()?, generation: self.u32()?, secret: self.u128()? })
    }

    pub(super) fn identity(&mut self) -> Result<Identity, Bad> {
        let is_admin = self.flag()?;
        let expires_s = if self.flag()? { Some(self.u64()?) } else { None };
        let auth = serde_json::from_str(self.text()?).map_err(|_| Bad::Value)?;
        Ok(Identity { is_admin, auth, expires_s })
    }

    fn number(&mut self, tag: u8) -> Result<Number, Bad> {
        match tag {
            INT => Ok(Number::Int(i64::from_le_bytes(self.array()?))),
            DOUBLE => {
                let value = f64::from_bits(self.u64()?);
                if value.is_finite() { Ok(Number::from_double(value)) } else { Err(Bad::Value) }
            }
            _ => Err(Bad::Value),
        }
    }

    pub(super) fn priority(&mut self) -> Result<Option<Priority>, Bad> {
        match self.byte()? {
            EMPTY => Ok(None),
            TEXT => Ok(Some(Priority::Text(self.text()?.into()))),
            tag => Ok(Some(Priority::Number(self.number(tag)?))),
        }
    }

    pub(super) fn node(&mut self) -> Result<Node, Bad> {
        self.node_within(DEPTH_READ_MAX)
    }

    fn node_within(&mut self, depth_left: usize) -> Result<Node, Bad> {
        let mut tag = self.byte()?;
        let mut priority = None;
        if tag == RANKED {
            priority = self.priority()?;
            tag = self.byte()?;
        }
        let node = match tag {
            EMPTY => Node::Empty,
            FALSE => Node::Leaf(Leaf::Bool(false)),
            TRUE => Node::Leaf(Leaf::Bool(true)),
            TEXT => Node::text(self.text()?),
            BRANCH => {
                let depth_left = depth_left.checked_sub(1).ok_or(Bad::Value)?;
                let mut children = Children::new();
                for _ in 0..self.size()? {
                    let key = Key::parse(self.text()?).map_err(|_| Bad::Value)?;
                    children.insert(key, self.node_within(depth_left)?);
                }
                Node::branch(children)
            }
            tag => Node::Leaf(Leaf::Number(self.number(tag)?)),
        };
        Ok(node.with_priority(priority))
    }

    fn server_value(&mut self, tag: u8) -> Result<ServerValue, Bad> {
        match tag {
            TIMESTAMP => Ok(ServerValue::Timestamp),
            INCREMENT => {
                let tag = self.byte()?;
                Ok(ServerValue::Increment(self.number(tag)?))
            }
            _ => Err(Bad::Value),
        }
    }

    fn draft(&mut self) -> Result<Draft, Bad> {
        let node = self.node()?;
        let mut holes = Vec::new();
        for _ in 0..self.size()? {
            let (path, is_priority, tag) = (self.path()?, self.flag()?, self.byte()?);
            holes.push((path, is_priority, self.server_value(tag)?));
        }
        Ok(Draft::from_parts(node, holes))
    }

    pub(super) fn write(&mut self) -> Result<Write, Bad> {
        let kind = self.byte()?;
        let path = self.path()?;
        match kind {
            SET => Ok(Write::Set { path, value: self.draft()? }),
            SET_PRIORITY => {
                let priority = match self.byte()? {
                    FIXED => PriorityDraft::Fixed(self.priority()?),
                    tag => PriorityDraft::Server(self.server_value(tag)?),
                };
                Ok(Write::SetPriority { path, priority })
            }
            MERGE => {
                let mut changes = Vec::new();
                for _ in 0..self.size()? {
                    let place = Location { path: self.path()?, is_priority: self.flag()? };
                    changes.push((place, self.draft()?));
                }
                Ok(Write::Merge { path, changes })
            }
            _ => Err(Bad::Value),
        }
    }
}
