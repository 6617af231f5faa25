//! The tree as one would first write it: what the real one is measured by. Slow and obvious.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::base::WallMillis;
use crate::data::{Draft, Node};
use crate::json;

/// A node. Empty: no value, no children, and then no priority either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) value: Option<Json>,
    pub(super) priority: Option<Json>,
    pub(super) children: BTreeMap<String, Self>,
}

/// The keys of a path.
pub(super) fn keys(path: &str) -> Vec<&str> {
    path.split('/').filter(|key| !key.is_empty()).collect()
}

/// Two paths in one.
pub(super) fn join(above: &str, below: &str) -> String {
    keys(above).into_iter().chain(keys(below)).collect::<Vec<_>>().join("/")
}

/// What of `path` is below `above`; `None` if it is not there.
pub(super) fn below(above: &str, path: &str) -> Option<String> {
    let (above, path) = (keys(above), keys(path));
    path.starts_with(&above).then(|| path[above.len()..].join("/"))
}

impl Tree {
    pub(super) fn is_empty(&self) -> bool {
        self.value.is_none() && self.children.is_empty()
    }

    /// What a client wants to be stored where `standing` stands.
    pub(super) fn resolve(draft: &Json, standing: &Self, wall: WallMillis) -> Self {
        let mut tree = Self::default();
        match draft {
            Json::Null => {}
            Json::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    tree.put(&index.to_string(), value, standing, wall);
                }
            }
            Json::Object(members) if members.contains_key(".sv") => {
                tree.value = Some(server_value(&members[".sv"], standing.value.as_ref(), wall));
            }
            Json::Object(members) => {
                for (name, value) in members {
                    match name.as_str() {
                        ".value" => tree.value = Some(value.clone()).filter(|value| !value.is_null()),
                        ".priority" => {
                            tree.priority = priority(value, standing.priority.as_ref(), wall);
                        }
                        name => tree.put(name, value, standing, wall),
                    }
                }
                if tree.is_empty() {
                    tree.priority = None;
                }
            }
            leaf => tree.value = Some(leaf.clone()),
        }
        tree
    }

    fn put(&mut self, key: &str, draft: &Json, standing: &Self, wall: WallMillis) {
        let child = Self::resolve(draft, &standing.at(key), wall);
        if !child.is_empty() {
            self.children.insert(key.to_owned(), child);
        }
    }

    /// What an engine said.
    pub(super) fn read(json: &Json) -> Self {
        Self::resolve(json, &Self::default(), WallMillis(0))
    }

    pub(super) fn at(&self, path: &str) -> Self {
        let mut node = self;
        for key in keys(path) {
            let Some(child) = node.children.get(key) else { return Self::default() };
            node = child;
        }
        node.clone()
    }

    pub(super) fn set(&mut self, path: &str, new: Self) {
        self.set_at(&keys(path), new);
    }

    fn set_at(&mut self, keys: &[&str], new: Self) {
        let [first, rest @ ..] = keys else {
            *self = new;
            return;
        };
        if new.is_empty() {
            let Some(child) = self.children.get_mut(*first) else { return };
            child.set_at(rest, new);
            if child.is_empty() {
                self.children.remove(*first);
            }
            if self.is_empty() {
                self.priority = None;
            }
        } else {
            self.value = None;
            self.children.entry((*first).to_owned()).or_default().set_at(rest, new);
        }
    }

    pub(super) fn set_priority(&mut self, path: &str, priority: Option<Json>) {
        let mut node = self.at(path);
        if !node.is_empty() {
            node.priority = priority;
            self.set(path, node);
        }
    }

    /// The export form.
    pub(super) fn to_json(&self) -> Json {
        let mut members: Map<String, Json> =
            self.children.iter().map(|(key, child)| (key.clone(), child.to_json())).collect();
        match (&self.value, &self.priority) {
            (None, None) if members.is_empty() => return Json::Null,
            (Some(value), None) => return value.clone(),
            (Some(value), Some(_)) => drop(members.insert(".value".to_owned(), value.clone())),
            (None, _) => {}
        }
        if let Some(priority) = &self.priority {
            members.insert(".priority".to_owned(), priority.clone());
        }
        Json::Object(members)
    }

    /// The hash of the protocol, which is proven elsewhere.
    pub(super) fn hash(&self) -> String {
        let mut text = self.to_json().to_string().into_bytes();
        let draft = json::Reader::default().read(&mut text, |item| Draft::from_json(item, 0));
        let draft = draft.expect("it is JSON").expect("a tree can be stored");
        draft.resolve(&Node::Empty, WallMillis(0)).hash()
    }

    /// What a query shows of this.
    pub(super) fn select(&self, want: &Want) -> Self {
        if want.is_all() {
            return self.clone();
        }
        let mut wanted: Vec<(Post, &String, &Self)> =
            self.children.iter().map(|(key, child)| (want.index.post(key, child), key, child)).collect();
        wanted.retain(|(post, ..)| want.contains(post));
        wanted.sort_by(|(a, ..), (b, ..)| a.order(b));
        if let Some((count, is_first)) = want.limit {
            if is_first {
                wanted.truncate(count);
            } else {
                wanted.drain(..wanted.len().saturating_sub(count));
            }
        }
        let children = wanted.into_iter().map(|(_, key, child)| (key.clone(), child.clone())).collect();
        Self { value: None, priority: None, children }
    }
}

fn server_value(what: &Json, standing: Option<&Json>, wall: WallMillis) -> Json {
    match what {
        Json::Object(increment) => {
            let delta = increment["increment"].as_i64().expect("histories count in integers");
            json!(standing.and_then(Json::as_i64).unwrap_or(0) + delta)
        }
        _ => json!(wall.0),
    }
}

pub(super) fn priority(draft: &Json, standing: Option<&Json>, wall: WallMillis) -> Option<Json> {
    match draft {
        Json::Null => None,
        Json::Object(members) => Some(server_value(&members[".sv"], standing, wall)),
        leaf => Some(leaf.clone()),
    }
}

/// What a query wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) index: By,
    pub(super) start: Option<Edge>,
    pub(super) end: Option<Edge>,
    /// How many, and whether from the front.
    pub(super) limit: Option<(usize, bool)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    #[default]
    Priority,
    Key,
    Value,
    Child(String),
}

/// One end of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) value: Json,
    pub(super) key: Option<String>,
    pub(super) is_inclusive: bool,
}

/// Where a child stands.
#[derive(Clone, Debug)]
struct Post {
    /// What it is ordered by.
    rank: (u8, i64, String),
    key: String,
}

impl By {
    fn post(&self, key: &str, child: &Tree) -> Post {
        let rank = match self {
            Self::Key => (0, 0, String::new()),
            Self::Priority => rank(child.priority.as_ref()),
            Self::Value => child.rank(),
            Self::Child(path) => child.at(path).rank(),
        };
        Post { rank, key: key.to_owned() }
    }
}

impl Tree {
    fn rank(&self) -> (u8, i64, String) {
        if self.children.is_empty() { rank(self.value.as_ref()) } else { (5, 0, String::new()) }
    }
}

fn rank(value: Option<&Json>) -> (u8, i64, String) {
    match value {
        None | Some(Json::Null) => (0, 0, String::new()),
        Some(Json::Bool(false)) => (1, 0, String::new()),
        Some(Json::Bool(true)) => (2, 0, String::new()),
        Some(Json::Number(number)) => (3, number.as_i64().expect("histories count in integers"), String::new()),
        Some(Json::String(text)) => (4, 0, text.clone()),
        Some(other) => panic!("{other} is no leaf"),
    }
}

/// Integers first, by value; then texts.
fn order_of_keys(a: &str, b: &str) -> Ordering {
    match (a.parse::<i32>(), b.parse::<i32>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

impl Post {
    fn order(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank).then_with(|| order_of_keys(&self.key, &other.key))
    }
}

impl Want {
    pub(super) fn is_all(&self) -> bool {
        self.start.is_none() && self.end.is_none() && self.limit.is_none()
    }

    /// How it is written by clients.
    pub(super) fn to_json(&self) -> Json {
        let mut query = Map::new();
        match &self.index {
            By::Priority => None,
            By::Key => query.insert("i".to_owned(), json!(".key")),
            By::Value => query.insert("i".to_owned(), json!(".value")),
            By::Child(path) => query.insert("i".to_owned(), json!(path)),
        };
        for (edge, value, key, flag) in [(&self.start, "sp", "sn", "sin"), (&self.end, "ep", "en", "ein")] {
            let Some(edge) = edge else { continue };
            query.insert(value.to_owned(), edge.value.clone());
            query.insert(flag.to_owned(), json!(edge.is_inclusive));
            if let Some(text) = &edge.key {
                query.insert(key.to_owned(), json!(text));
            }
        }
        if let Some((count, is_first)) = self.limit {
            query.insert("l".to_owned(), json!(count));
            query.insert("vf".to_owned(), json!(if is_first { "l" } else { "r" }));
        }
        Json::Object(query)
    }

    fn contains(&self, post: &Post) -> bool {
        let is_after = self.start.as_ref().is_none_or(|edge| match self.order(post, edge, Ordering::Greater) {
            Ordering::Greater => true,
            Ordering::Equal => edge.is_inclusive,
            Ordering::Less => false,
        });
        let is_before = self.end.as_ref().is_none_or(|edge| match self.order(post, edge, Ordering::Less) {
            Ordering::Less => true,
            Ordering::Equal => edge.is_inclusive,
            Ordering::Greater => false,
        });
        is_after && is_before
    }

    /// How a child stands to an edge; where the edge names no key, every key is on the `open` side.
    fn order(&self, post: &Post, edge: &Edge, open: Ordering) -> Ordering {
        if self.index == By::Key {
            return order_of_keys(&post.key, edge.value.as_str().expect("the edge of keys is a key"));
        }
        let by_key = |key: &String| order_of_keys(&post.key, key);
        post.rank.cmp(&rank(Some(&edge.value))).then_with(|| edge.key.as_ref().map_or(open, by_key))
    }
}
