//! A shard as one of several parts of a database's tree, each of which holds what begins with certain first
//! keys; and how they become one again.
//!
//! The surprising idea: a part is a whole. It does not know that there are others, and answers for what it
//! holds as if that were all; who asks it has made sure that nothing else matters. Only of a leaf that stands above
//! the parts it has what all have, and [says](Shard::is_below_leaf) so.

use std::sync::Arc;

use super::listens::{Listens, Wish};
use super::{Asker, Listener, Shard, Told, WillMark};
use crate::base::{Hashing, Now, SessionRef, ShardId};
use crate::data::{Children, Draft, Location, Node, Path};
use crate::log::{Record, TreeWalk};
use crate::op::{Identity, Query, Refusal, Tag, Write};
use crate::presence::Load;

/// How many keys say which part holds a place.
pub const PART_KEYS: usize = 2;

/// Sessions whose words are written in one go.
const WILLS_MAX: usize = 64;

/// The tag of a listen that lasts only until something is read: clients count theirs from one.
pub const READING: u64 = u64::MAX;

impl Shard {
    /// From now on it is one of several.
    #[must_use]
    pub const fn apart(mut self) -> Self {
        self.is_part = true;
        self
    }

    /// Whether it is one of several.
    #[must_use]
    pub const fn is_part(&self) -> bool {
        self.is_part
    }

    /// A session listens to a place of which every part holds some, and may. Returns what it sees of this one.
    pub fn join(&mut self, session: SessionRef, identity: &Arc<Identity>, wish: (&Path, &Query, Tag)) -> Node {
        let (path, query, tag) = wish;
        let listener = Listener::new(session, tag, Listener::width_at(path));
        let wish = Wish { path, query, listener, identity };
        self.listens.add_any(&wish, self.root.at(path.as_str()))
    }

    /// Ends such a listen.
    pub fn part_with(&mut self, session: SessionRef, path: &Path, tag: Tag) {
        self.listens.remove(session, path, tag);
    }

    /// Whether a part of an update that others have parts in may be written now. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn may_write_part(&self, now: Now, asker: &Asker, write: &Write) -> Result<(), Refusal> {
        self.may_write(now, asker, write)
    }

    /// Writes what [may be written](Self::may_write_part): nothing has happened here since. `joint`: the update's number,
    /// and a bit for each shard that has a part in it.
    pub fn write_part(&mut self, now: Now, asker: &Asker, write: &Write, joint: (u64, u64), told: &mut Vec<Told>) {
        let (number, owners) = joint;
        self.last_joint = number;
        let namespace = &self.namespace;
        self.recording.note(|records| {
            Record::Joint { namespace: namespace.to_string(), number, owners }.encode(records);
        });
        let changes = self.resolve(now, write);
        self.write_judged(now, asker, write, &changes, told);
    }

    /// The last update of several parts that this one had a part in; 0: none.
    #[must_use]
    pub const fn last_joint(&self) -> u64 {
        self.last_joint
    }

    /// Whether this writes something below a leaf, of which every part has its own: all would have to know.
    #[must_use]
    pub fn is_below_leaf(&self, write: &Write) -> bool {
        let is_covered =
            |path: &Path| path.keys().next().is_some_and(|first| self.root.child(first).as_leaf().is_some());
        match write {
            Write::Set { path, value } => !value.is_empty() && path.depth() >= PART_KEYS && is_covered(path),
            Write::SetPriority { .. } => false,
            Write::Merge { path, changes } => changes.iter().any(|(Location { path: below, is_priority }, value)| {
                let path = path.join(below);
                !is_priority && !value.is_empty() && path.depth() >= PART_KEYS && is_covered(&path)
            }),
        }
    }

    /// Whether one of a session's last words does.
    #[must_use]
    pub fn leaves_below_leaf(&self, session: SessionRef) -> bool {
        let ledger = self.wills.living.get(session).map(|will| &will.ledger);
        ledger.is_some_and(|ledger| ledger.entries().any(|(word, ..)| self.is_below_leaf(word)))
    }

    /// What counts of a session's last words here, and the first run of them.
    #[must_use]
    pub fn load_of(&self, session: SessionRef) -> (Load, Option<u32>) {
        let ledger = self.wills.living.get(session).map(|will| &will.ledger);
        ledger.map_or((Load::default(), None), |ledger| (ledger.load(), ledger.first_run()))
    }

    /// The session is over: it hears no more. Of what it leaves, what was registered in runs up to `run` is to be
    /// [spoken](Self::fire) at once.
    #[must_use = "last words that are taken and not written are lost"]
    pub fn leave_until(&mut self, session: SessionRef, run: u32) -> Vec<Write> {
        self.listens.remove_all(session);
        let Some(will) = self.wills.living.get_mut(session) else { return Vec::new() };
        let before = will.ledger.len();
        let words = will.ledger.take_until(run);
        self.wills.words_count -= before - will.ledger.len();
        let (secret, is_all) = (will.id.secret, will.ledger.is_empty());
        if is_all {
            self.wills.living.remove(session);
        }
        if !words.is_empty() {
            self.note_over(secret, if is_all { u32::MAX } else { run });
        }
        words
    }

    /// Takes in all that the other parts hold. From now on it is the whole, and if it is written down what happens here,
    /// it is to be [told](Self::record_all) what that is.
    pub fn unite(&mut self, others: Vec<Self>, hashing: &Hashing) {
        let mut listens = vec![std::mem::replace(&mut self.listens, Listens::new(hashing))];
        for mut other in others {
            assert!(other.profilers.is_empty(), "who records the operations needs the whole");
            assert!(!other.recording.has_news(), "what a part has done is written down where it has done it");
            self.root.take_in(&other.root);
            self.stamps.unite(other.stamps);
            self.wills.unite(other.wills);
            self.fallen.append(&mut other.fallen);
            listens.push(other.listens);
        }
        self.is_part = false;
        Listens::agree(&mut listens);
        for part in listens {
            self.listens.take_in(&part, &self.root);
        }
    }

    /// Appends records of everything, if what happens here is written down. Says whether it is.
    pub fn record_all(&self, records: &mut Vec<u8>) -> bool {
        if !self.is_recorded() {
            return false;
        }
        Record::Database { namespace: self.namespace.to_string() }.encode(records);
        for piece in TreeWalk::new(self.root.clone()) {
            piece.encode(records, &self.namespace);
        }
        self.record_wills_after(WillMark::Begin, records);
        true
    }

    /// Appends records of what all sessions after `mark` leave.
    pub fn record_wills_after(&self, mark: WillMark, records: &mut Vec<u8>) {
        let mut mark = Some(mark);
        while let Some(after) = mark {
            mark = self.record_wills(after, WILLS_MAX, records);
        }
    }
}

/// Whether what is to stand at `place`, above the parts, can be [cut](cut) into them: what has children has no priority
/// there, and at the root stands no leaf.
#[must_use]
pub fn may_be_cut(place: &Path, node: &Node) -> bool {
    let is_everybodys = |node: &Node| node.as_leaf().is_some() || node.priority().is_none();
    if !place.is_root() {
        return is_everybodys(node);
    }
    let is_plain = node.as_leaf().is_none() && node.priority().is_none();
    is_plain && node.children().iter().all(|(_, below)| is_everybodys(below))
}

/// What one part gets of something that [is to stand](may_be_cut) at `place`, above the parts: what stands at its own
/// places, and each leaf above them.
#[must_use]
pub fn cut(place: &Path, draft: &Draft, is_its: &impl Fn(&Path) -> bool) -> Draft {
    let node = cut_node(place, draft.stand_in(), is_its);
    let holes = draft.holes().filter(|(below, ..)| {
        let path = place.join(below);
        path.depth() < PART_KEYS || is_its(&path)
    });
    Draft::from_parts(node, holes.map(|(below, is_priority, value)| (below.clone(), is_priority, value)))
}

fn cut_node(place: &Path, node: &Node, is_its: &impl Fn(&Path) -> bool) -> Node {
    if place.depth() == PART_KEYS {
        return if is_its(place) { node.clone() } else { Node::Empty };
    }
    if node.as_leaf().is_some() {
        return node.clone();
    }
    let mut children = Children::new();
    for (key, child) in node.children().iter() {
        let own = cut_node(&place.child(key), child, is_its);
        if !own.is_empty() {
            children.insert(key.clone(), own);
        }
    }
    children.shrink();
    Node::branch(children)
}

/// Cuts a tree into the parts of so many shards. `None`: something stands above the parts that [cannot be](may_be_cut).
#[must_use]
pub fn divide(root: &Node, shards: u8, holder: impl Fn(&Path) -> ShardId) -> Option<Vec<Node>> {
    if !may_be_cut(&Path::ROOT, root) {
        return None;
    }
    let mut parts = vec![Node::Empty; usize::from(shards)];
    for (first, below) in root.children().iter() {
        if below.as_leaf().is_some() {
            parts.iter_mut().for_each(|part| drop(part.set(first.as_str(), below.clone())));
        }
        for (second, node) in below.children().iter() {
            let path = Path::ROOT.child(first).child(second);
            parts[holder(&path).index()].set(path.as_str(), node.clone());
        }
    }
    Some(parts)
}

/// Puts together again what parts hold of one place above: its own children, or theirs, or the leaf that is there.
pub fn gather(whole: &mut Node, place: &Path, part: &Node) {
    if place.is_root() {
        return whole.take_in(part);
    }
    assert!(place.depth() < PART_KEYS, "only what is above the parts is gathered");
    if part.as_leaf().is_some() {
        *whole = part.clone();
    }
    for (key, node) in part.children().iter() {
        whole.set(key.as_str(), node.clone());
    }
}

impl Listener {
    /// See [`width`](Self::width).
    pub(super) fn width_at(path: &Path) -> u8 {
        PART_KEYS.saturating_sub(path.depth()).try_into().expect("it is at most two")
    }
}
