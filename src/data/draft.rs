//! What a client wants to be stored, before the server has filled in its own values.

use smallvec::SmallVec;

use super::children::Children;
use super::key::{InvalidKey, Key, KeyStr};
use super::leaf::{Leaf, Number, Priority};
use super::node::Node;
use super::path::Path;
use crate::base::WallMillis;
use crate::base::limits::{DEPTH_MAX, TEXT_BYTES_MAX};
use crate::json::Item;

/// A value that may still hold server values (`{".sv": …}`).
///
/// Each hole's place in `node` is taken by a stand-in, so that nothing around it is pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    node: Node,
    holes: Vec<Hole>,
}

/// One place that the server fills when the write takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    path: Path,
    is_priority: bool,
    value: ServerValue,
}

impl Hole {
    /// The priority of what stands at `path`.
    pub(super) const fn of_priority(path: Path, value: ServerValue) -> Self {
        Self { path, is_priority: true, value }
    }

    /// The same, seen from above: what it was seen from stands at `base`.
    pub(super) fn below(self, base: &Path) -> Self {
        Self { path: base.join(&self.path), ..self }
    }
}

/// What the server is asked to fill in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerValue {
    /// The time at which the write takes effect, in milliseconds since 1970.
    Timestamp,
    /// The number that stands there, plus this one; this one where no number stands.
    Increment(Number),
}

/// Why JSON cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A member's name is no key.
    Key(InvalidKey),
    /// A name that begins with a dot is none of `.value`, `.priority`, `.sv`.
    Reserved,
    /// The same member stands twice.
    Duplicate,
    /// `.value` stands beside children, or is no leaf.
    Value,
    /// `.priority` is neither a string nor a number nor `null`.
    Priority,
    /// `.sv` is neither `"timestamp"` nor `{"increment": number}`, or stands beside other members.
    ServerValue,
    /// More than [`DEPTH_MAX`] levels.
    TooDeep,
    /// A string of more than [`TEXT_BYTES_MAX`] bytes.
    TextTooLong,
}

impl Draft {
    /// Nothing: what a removal stores.
    pub const EMPTY: Self = Self { node: Node::Empty, holes: Vec::new() };

    /// A value without server values.
    #[must_use]
    pub const fn of(node: Node) -> Self {
        Self { node, holes: Vec::new() }
    }

    /// A value with holes: where each is (below `node`, and whether it is the priority there), and what
    /// fills it. `node` has something to stand in at each.
    #[must_use]
    pub fn from_parts(node: Node, holes: impl IntoIterator<Item = (Path, bool, ServerValue)>) -> Self {
        let holes = holes.into_iter().map(|(path, is_priority, value)| Hole { path, is_priority, value });
        Self { node, holes: holes.collect() }
    }

    /// The value, something standing in for each hole.
    #[must_use]
    pub const fn stand_in(&self) -> &Node {
        &self.node
    }

    /// The holes, as [`from_parts`](Self::from_parts) takes them.
    #[must_use]
    pub fn holes(&self) -> impl ExactSizeIterator<Item = (&Path, bool, ServerValue)> {
        self.holes.iter().map(|hole| (&hole.path, hole.is_priority, hole.value))
    }

    pub(super) const fn with_holes(node: Node, holes: Vec<Hole>) -> Self {
        Self { node, holes }
    }

    pub(super) fn into_parts(self) -> (Node, Vec<Hole>) {
        (self.node, self.holes)
    }

    /// The server's time.
    #[must_use]
    pub fn timestamp() -> Self {
        let hole = Hole { path: Path::ROOT, is_priority: false, value: ServerValue::Timestamp };
        Self { node: Node::Leaf(Leaf::Bool(false)), holes: vec![hole] }
    }

    /// Reads JSON that is to be stored `depth` levels below the root.
    pub fn from_json(item: Item<'_>, depth: usize) -> Result<Self, Invalid> {
        let mut reading = Reading { trail: SmallVec::new(), holes: Vec::new(), depth };
        let node = reading.node(item)?;
        // A last word keeps its draft for as long as its session lives.
        reading.holes.shrink_to_fit();
        Ok(Self { node, holes: reading.holes })
    }

    /// Reads JSON that is to be a priority.
    pub fn priority_from_json(item: Item<'_>) -> Result<PriorityDraft, Invalid> {
        priority(item)
    }

    /// The same, where it is to be a priority; `None` if it cannot be one.
    #[must_use]
    pub fn as_priority(&self) -> Option<PriorityDraft> {
        if let [hole] = &self.holes[..] {
            return hole.path.is_root().then_some(PriorityDraft::Server(hole.value));
        }
        match &self.node {
            Node::Empty => Some(PriorityDraft::Fixed(None)),
            Node::Leaf(Leaf::Number(number)) => Some(PriorityDraft::Fixed(Some(Priority::Number(*number)))),
            Node::Leaf(Leaf::Text(text)) => Some(PriorityDraft::Fixed(Some(Priority::Text(text.clone())))),
            Node::Leaf(Leaf::Bool(_)) | Node::Ranked(_) | Node::Branch(_) => None,
        }
    }

    /// Whether this stores nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.node.is_empty()
    }

    /// Whether it is what it is, whatever stands where it will be written.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.holes.is_empty()
    }

    /// The value with every hole filled: `current` stands where this will be written, `wall` is when.
    #[must_use]
    pub fn resolve(&self, current: &Node, wall: WallMillis) -> Node {
        let mut node = self.node.clone();
        for hole in &self.holes {
            let place = current.at(hole.path.as_str());
            let standing = match (hole.is_priority, place.as_leaf(), place.priority()) {
                (true, _, Some(Priority::Number(number))) | (false, Some(Leaf::Number(number)), _) => Some(*number),
                _ => None,
            };
            let number = hole.value.resolve(standing, wall);
            if hole.is_priority {
                node.set_priority(hole.path.as_str(), Some(Priority::Number(number)));
            } else {
                node.change(hole.path.as_str(), |stand_in| {
                    let priority = stand_in.priority().cloned();
                    *stand_in = Node::Leaf(Leaf::Number(number)).with_priority(priority);
                });
            }
        }
        node
    }
}

impl ServerValue {
    /// The number that this becomes where `standing` stands.
    #[must_use]
    pub fn resolve(self, standing: Option<Number>, wall: WallMillis) -> Number {
        match (self, standing) {
            (Self::Timestamp, _) => Number::Int(i64::try_from(wall.0).expect("the clock is within 290 million years")),
            (Self::Increment(delta), None) => delta,
            (Self::Increment(delta), Some(number)) => number.increment(delta),
        }
    }
}

/// A priority that may be a server value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriorityDraft {
    /// No priority, or this one.
    Fixed(Option<Priority>),
    /// One that the server fills in.
    Server(ServerValue),
}

impl PriorityDraft {
    /// The priority, where `standing` is the node that gets it.
    #[must_use]
    pub fn resolve(&self, standing: &Node, wall: WallMillis) -> Option<Priority> {
        match self {
            Self::Fixed(priority) => priority.clone(),
            Self::Server(value) => {
                let number =
                    if let Some(Priority::Number(number)) = standing.priority() { Some(*number) } else { None };
                Some(Priority::Number(value.resolve(number, wall)))
            }
        }
    }
}

/// The state of reading one draft.
struct Reading<'t> {
    /// The keys from the draft's root to where we are.
    trail: SmallVec<[Step<'t>; 8]>,
    holes: Vec<Hole>,
    /// Levels above the draft's root.
    depth: usize,
}

/// The members of an object that is being read.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) priority: PriorityDraft,
    pub(super) value: Option<Node>,
    children: Children,
    /// Children that are something.
    count: usize,
}

impl Default for Members {
    fn default() -> Self {
        Self { priority: PriorityDraft::Fixed(None), value: None, children: Children::new(), count: 0 }
    }
}

impl Members {
    /// One more child.
    pub(super) fn put(&mut self, key: Key, node: Node) -> Result<(), Invalid> {
        if self.children.get(&key).is_some() {
            return Err(Invalid::Duplicate);
        }
        self.count += usize::from(!node.is_empty());
        self.children.insert(key, node);
        Ok(())
    }

    /// What the object is. `keep` takes the server value that is to be its priority.
    pub(super) fn finish(mut self, keep: impl FnOnce(ServerValue)) -> Result<Node, Invalid> {
        self.children.shrink();
        let node = match self.value {
            None => Node::branch(self.children),
            Some(_) if self.count > 0 => return Err(Invalid::Value),
            Some(Node::Branch(_)) => return Err(Invalid::Value),
            Some(leaf) => leaf,
        };
        if node.is_empty() {
            return Ok(node);
        }
        Ok(match self.priority {
            PriorityDraft::Fixed(priority) => node.with_priority(priority),
            PriorityDraft::Server(value) => {
                keep(value);
                node.with_priority(Some(Priority::Number(Number::Int(0))))
            }
        })
    }
}

/// One level down: into a member or into an array's element.
#[derive(Clone, Copy)]
enum Step<'t> {
    Member(&'t str),
    Element(usize),
}

impl<'t> Reading<'t> {
    fn node(&mut self, item: Item<'t>) -> Result<Node, Invalid> {
        let leaf = match item {
            Item::Null => return Ok(Node::Empty),
            Item::Bool(value) => Leaf::Bool(value),
            Item::Int(value) => Leaf::Number(Number::Int(value)),
            Item::Double(value) => Leaf::Number(Number::from_double(value)),
            Item::Text(text) if text.len() > TEXT_BYTES_MAX => return Err(Invalid::TextTooLong),
            Item::Text(text) => Leaf::Text(text.into()),
            Item::Array(values) => return self.array(values),
            Item::Object(members) => return self.object(members),
        };
        if self.depth + self.trail.len() > DEPTH_MAX { Err(Invalid::TooDeep) } else { Ok(Node::Leaf(leaf)) }
    }

    fn array(&mut self, values: crate::json::Values<'t>) -> Result<Node, Invalid> {
        let mut children = Children::new();
        for (index, value) in values.enumerate() {
            self.trail.push(Step::Element(index));
            let node = self.node(value)?;
            self.trail.pop();
            children.insert(Key::from_index(index), node);
        }
        children.shrink();
        Ok(Node::branch(children))
    }

    fn object(&mut self, members: crate::json::Members<'t>) -> Result<Node, Invalid> {
        if members.len() == 1
            && let Some((".sv", value)) = members.clone().next()
        {
            return self.server_value(value);
        }
        let mut object = Members::default();
        for (name, item) in members {
            match name {
                ".priority" => object.priority = priority(item)?,
                ".value" if object.value.is_some() => return Err(Invalid::Duplicate),
                ".value" if matches!(item, Item::Array(_)) => return Err(Invalid::Value),
                ".value" => object.value = Some(self.node(item)?),
                ".sv" => return Err(Invalid::ServerValue),
                _ if name.starts_with('.') => return Err(Invalid::Reserved),
                _ => {
                    let key = Key::parse(name).map_err(Invalid::Key)?;
                    self.trail.push(Step::Member(name));
                    let node = self.node(item)?;
                    self.trail.pop();
                    object.put(key, node)?;
                }
            }
        }
        let mut own_priority = None;
        let node = object.finish(|value| own_priority = Some(value))?;
        if let Some(value) = own_priority {
            self.holes.push(Hole { path: self.here(), is_priority: true, value });
        }
        Ok(node)
    }

    fn server_value(&mut self, item: Item<'t>) -> Result<Node, Invalid> {
        if self.depth + self.trail.len() > DEPTH_MAX {
            return Err(Invalid::TooDeep);
        }
        let value = server_value(item)?;
        self.holes.push(Hole { path: self.here(), is_priority: false, value });
        Ok(Node::Leaf(Leaf::Bool(false)))
    }

    fn here(&self) -> Path {
        self.trail.iter().fold(Path::ROOT, |path, step| match step {
            Step::Member(name) => path.child(KeyStr::new(name)),
            Step::Element(index) => path.child(&Key::from_index(*index)),
        })
    }
}

fn priority(item: Item<'_>) -> Result<PriorityDraft, Invalid> {
    Ok(PriorityDraft::Fixed(match item {
        Item::Null => None,
        Item::Int(value) => Some(Priority::Number(Number::Int(value))),
        Item::Double(value) => Some(Priority::Number(Number::from_double(value))),
        Item::Text(text) if text.len() > TEXT_BYTES_MAX => return Err(Invalid::TextTooLong),
        Item::Text(text) => Some(Priority::Text(text.into())),
        Item::Object(members) => {
            let mut members = members;
            return match (members.next(), members.next()) {
                (Some((".sv", value)), None) => Ok(PriorityDraft::Server(server_value(value)?)),
                _ => Err(Invalid::Priority),
            };
        }
        Item::Bool(_) | Item::Array(_) => return Err(Invalid::Priority),
    }))
}

fn server_value(item: Item<'_>) -> Result<ServerValue, Invalid> {
    match item {
        Item::Text("timestamp") => Ok(ServerValue::Timestamp),
        Item::Object(mut members) => match (members.next(), members.next()) {
            (Some(("increment", Item::Int(delta))), None) => Ok(ServerValue::Increment(Number::Int(delta))),
            (Some(("increment", Item::Double(delta))), None) => Ok(ServerValue::Increment(Number::from_double(delta))),
            _ => Err(Invalid::ServerValue),
        },
        _ => Err(Invalid::ServerValue),
    }
}
