//! A client of a history: what it asked, what it was told, and what it believes.

use std::collections::VecDeque;

use serde_json::Value as Json;

use super::reference::{Who, Words, Write};
use super::tree::{Tree, Want, below, join};
use super::world::Client;
use crate::base::SessionRef;
use crate::op::End;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Write {
        write: Write,
        if_hash: Option<String>,
    },
    LastWord(Write),
    Cancel(String),
    Listen {
        path: String,
        want: Want,
        tag: Option<u64>,
        hash: String,
    },
    Unlisten {
        path: String,
        tag: Option<u64>,
    },
    Get {
        path: String,
        want: Want,
    },
    /// Answered by its home, with this status.
    Home(&'static str),
}

impl Op {
    /// Whether its owner must hear of it.
    pub(super) const fn is_for_owner(&self) -> bool {
        !matches!(self, Self::Home(_))
    }
}

/// What the answer must be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expected {
    Status(&'static str),
    Value(Tree),
    /// Listening, and whether the client has what there is to see.
    Listening {
        is_known: bool,
    },
    /// The same, put together from parts: nobody knows when each was taken.
    Gathering,
    /// A value that was put together: each part of it stood there at some time from then on.
    Gathered(usize),
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) number: i64,
    pub(super) op: Op,
    pub(super) who: Who,
    pub(super) expected: Option<Expected>,
    /// What the client must see when it is answered: each listen by path and tag.
    pub(super) seen: Vec<(String, Option<u64>, Tree)>,
    pub(super) is_done: bool,
    /// How many states its database had had when it was asked.
    pub(super) since: usize,
}

/// What a client sees of a place.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) path: String,
    pub(super) want: Want,
    pub(super) tag: Option<u64>,
    pub(super) tree: Tree,
    /// The listen is not answered.
    pub(super) is_pending: bool,
    /// What it was told of the place meanwhile: if of anything, then last of the first value.
    pub(super) first: Option<Tree>,
    /// The client has asked for its end.
    pub(super) is_closing: bool,
}

/// A client of a history.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) client: Client,
    pub(super) database: usize,
    pub(super) shard: usize,
    /// Hears everything, and is never sent away.
    pub(super) is_watcher: bool,
    pub(super) session: Option<SessionRef>,
    pub(super) id: Option<String>,
    /// The session that it replaces.
    pub(super) replaces: Option<usize>,
    /// Whether it has named a session, be it one that nobody knows: what it asks waits until that is found out.
    pub(super) has_named: bool,
    pub(super) who: Who,
    /// Everybody that it ever was.
    pub(super) whos: Vec<Who>,
    pub(super) next_number: i64,
    /// What it was sent and has not heard.
    pub(super) inbox: VecDeque<String>,
    /// What is not answered.
    pub(super) asked: VecDeque<Asked>,
    pub(super) views: Vec<View>,
    /// What it saw of places that it no longer listens to.
    pub(super) memories: Vec<(String, Want, Tree)>,
    pub(super) words: Words,
    /// How it may end, but for silence.
    pub(super) ends: Vec<End>,
    pub(super) has_said_goodbye: bool,
    pub(super) is_unplugged: bool,
    pub(super) is_frozen: bool,
    /// Some of its owners know of its end.
    pub(super) is_leaving: bool,
    /// Its last words are performed.
    pub(super) is_over: bool,
}

impl Actor {
    pub(super) fn new(client: Client, database: usize, shard: usize) -> Self {
        Self {
            client,
            database,
            shard,
            is_watcher: false,
            session: None,
            id: None,
            replaces: None,
            has_named: false,
            who: Who::Nobody,
            whos: vec![Who::Nobody],
            next_number: 1,
            inbox: VecDeque::new(),
            asked: VecDeque::new(),
            views: Vec::new(),
            memories: Vec::new(),
            words: Words::default(),
            ends: Vec::new(),
            has_said_goodbye: false,
            is_unplugged: false,
            is_frozen: false,
            is_leaving: false,
            is_over: false,
        }
    }

    /// Whether it can ask for something.
    pub(super) const fn is_here(&self) -> bool {
        !self.is_over && !self.has_said_goodbye && !self.is_unplugged && !self.is_frozen
    }

    /// Whether its answers must come.
    pub(super) const fn is_served(&self) -> bool {
        !self.is_over && !self.is_unplugged && !self.is_frozen
    }

    /// What stands at `path` is now `tree`: says whether somebody wanted to know.
    pub(super) fn show(&mut self, path: &str, tree: &Tree, tag: Option<u64>) -> bool {
        let mut is_wanted = false;
        for view in self.views.iter_mut().filter(|view| view.tag == tag) {
            if view.is_pending {
                // What is told to another listen says nothing of this one.
                if view.path == path {
                    view.first = Some(tree.clone());
                    is_wanted = true;
                }
            } else if let Some(place) = below(&view.path, path) {
                view.tree.set(&place, tree.clone());
                is_wanted = true;
            } else if let Some(place) = below(path, &view.path) {
                view.tree = tree.at(&place);
                is_wanted = true;
            }
        }
        is_wanted
    }

    /// Several places below `path` are now these.
    pub(super) fn show_places(&mut self, path: &str, places: &serde_json::Map<String, Json>, tag: Option<u64>) -> bool {
        let mut is_wanted = places.is_empty();
        // A parent that is emptied on the way would lose its priority.
        let mut places: Vec<_> = places.iter().collect();
        places.sort_by_key(|(_, json)| json.is_null());
        for (place, json) in places {
            is_wanted |= self.show(&join(path, place), &Tree::read(json), tag);
        }
        is_wanted
    }
}
