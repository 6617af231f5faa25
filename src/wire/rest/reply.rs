//! Outcomes to replies: statuses, texts, bodies (Firebase wire specification, sections 9.1, 9.3, 9.5).

use super::call::{Style, View};
use crate::data::{Form, Key, Location, Node, Printer};
use crate::json;
use crate::op::{BadCredential, Outcome, Query, Refusal};
use crate::wire::{firebase, http};

/// The ETag of a location with nothing in it.
pub(super) const EMPTY_ETAG: &str = "null_etag";

const METHODS: &str = "GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS";

/// What is answered, before its style.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub content: Content,
    /// The ETag of what is, or was, there.
    pub etag: Option<String>,
    /// Headers that only some replies have.
    pub headers: Vec<(&'static str, String)>,
}

/// A body.
#[derive(Debug)]
pub enum Content {
    /// JSON.
    Json(Vec<u8>),
    /// JSON that is yet to be printed: it may be long.
    Tree(Box<Printer>),
    /// A part of the console.
    Asset {
        /// Its media type.
        kind: &'static str,
        /// All of it.
        text: &'static str,
    },
    /// None at all.
    None,
}

/// How the outcome of a request is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answering {
    /// What was read.
    Get {
        /// How it is shown.
        view: View,
        /// In which order.
        query: Query,
    },
    /// What stands there after a write.
    Written,
    /// What stands at the places of a write, relative to its path.
    Merged {
        /// Those.
        places: Vec<Location>,
    },
    /// The name of the new child.
    Pushed {
        /// That.
        name: String,
    },
    /// That nothing is there any more.
    Removed,
    /// That it was done.
    Done,
}

impl Reply {
    /// To be replaced.
    pub const NOTHING: Self = Self { status: 500, content: Content::None, etag: None, headers: Vec::new() };

    /// JSON, as it is.
    #[must_use]
    pub fn json(status: u16, body: &[u8]) -> Self {
        Self { status, content: Content::Json(body.to_vec()), ..Self::NOTHING }
    }

    /// An error, and why.
    #[must_use]
    pub fn error(status: u16, text: &str) -> Self {
        let mut body = Vec::new();
        body.extend_from_slice(b"{\"error\":");
        json::text(&mut body, text);
        body.push(b'}');
        Self { status, content: Content::Json(body), ..Self::NOTHING }
    }

    /// The client's mistake.
    #[must_use]
    pub fn bad(text: &str) -> Self {
        Self::error(400, text)
    }

    /// That it was done.
    #[must_use]
    pub fn done() -> Self {
        Self::json(200, br#"{"status":"ok"}"#)
    }

    /// The text of the rules, as it is.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::json(200, text.as_bytes())
    }

    /// Names, each as an object's `name`.
    #[must_use]
    pub fn names<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let mut body = Vec::new();
        let mut separator = b'[';
        for name in names {
            body.push(separator);
            separator = b',';
            body.extend_from_slice(b"{\"name\":");
            json::text(&mut body, name);
            body.push(b'}');
        }
        if separator == b'[' {
            body.push(b'[');
        }
        body.push(b']');
        Self { status: 200, content: Content::Json(body), ..Self::NOTHING }
    }

    /// The refusal of a request, by its name here.
    #[must_use]
    pub fn refused(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::Denied | Refusal::Credential(_) => 401,
            Refusal::Stale => 412,
            Refusal::NoSession => 404,
            Refusal::Unavailable => 503,
            Refusal::Data(_)
            | Refusal::Path(_)
            | Refusal::Overlap
            | Refusal::Malformed(_)
            | Refusal::Limit(_)
            | Refusal::UnknownAction => 400,
        };
        match refusal {
            Refusal::Path(_) => Self::error(status, "Invalid path: Invalid token in path"),
            Refusal::Credential(BadCredential::Forbidden) => Self::error(status, "Unauthorized request."),
            _ => Self::error(status, &firebase::text(refusal)),
        }
    }

    /// Only some methods mean something there.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let headers = vec![("Allow", METHODS.to_owned())];
        Self { headers, ..Self::error(405, "method not allowed") }
    }

    /// What a browser asks before it sends a request of another site: everything is allowed, because
    /// nothing here hangs on where a page comes from.
    #[must_use]
    pub(super) fn preflight(head: &http::Head<'_>) -> Self {
        let mut headers = vec![
            ("Access-Control-Allow-Methods", METHODS.to_owned()),
            ("Access-Control-Max-Age", "3600".to_owned()),
            ("Allow", METHODS.to_owned()),
        ];
        if let Some(asked) = head.headers.text("access-control-request-headers") {
            headers.push(("Access-Control-Allow-Headers", asked.to_owned()));
        }
        Self { status: 200, headers, ..Self::NOTHING }
    }

    /// How `outcome` is told.
    #[must_use]
    pub fn of(answering: &Answering, outcome: &Outcome, style: &Style) -> Self {
        match (answering, outcome) {
            (_, Outcome::Refused(refusal)) => Self::refused(refusal),
            (_, Outcome::Mismatch(node)) => {
                Self { status: 412, etag: Some(etag(node)), ..Self::tree(node.clone(), Form::Plain) }
            }
            (Answering::Get { view, query }, Outcome::Value(node)) => Self::read(*view, query, node, style),
            (Answering::Written, Outcome::Value(node)) => {
                Self { etag: style.wants_etag.then(|| etag(node)), ..Self::tree(node.clone(), Form::Plain) }
            }
            (Answering::Merged { .. }, Outcome::Value(_)) if style.is_silent && !style.wants_etag => Self::done(),
            (Answering::Merged { places }, Outcome::Value(node)) => {
                Self { etag: style.wants_etag.then(|| etag(node)), ..Self::merged(places, node) }
            }
            (Answering::Removed, Outcome::Value(node)) => {
                Self { etag: style.wants_etag.then(|| etag(node)), ..Self::json(200, b"null") }
            }
            (Answering::Pushed { name }, _) => Self::pushed(name),
            _ => Self::done(),
        }
    }

    fn tree(node: Node, form: Form) -> Self {
        Self { status: 200, content: Content::Tree(Box::new(Printer::new(node, form))), ..Self::NOTHING }
    }

    fn read(view: View, query: &Query, node: &Node, style: &Style) -> Self {
        let etag = (style.wants_etag && query.is_all()).then(|| etag(node));
        if style.if_none_match.as_deref().is_some_and(|known| query.is_all() && known == node.hash()) {
            return Self { status: 304, etag, ..Self::NOTHING };
        }
        let reply = match view {
            View::Tree(form) => Self::tree(node.clone(), form),
            View::Priority => {
                let priority = node.priority().map_or(Node::Empty, |priority| Node::Leaf(priority.clone().into()));
                Self::tree(priority, Form::Plain)
            }
            View::Count => Self::json(200, node.children().len().to_string().as_bytes()),
        };
        Self { etag, ..reply }
    }

    /// The same with the children that a query wants in the query's order.
    #[must_use]
    pub fn in_order(mut self, members: Vec<(Key, Node)>) -> Self {
        self.content = match self.content {
            Content::Tree(printer) => Content::Tree(Box::new(printer.in_order(members))),
            content => content,
        };
        self
    }

    fn pushed(name: &str) -> Self {
        let mut body = b"{\"name\":".to_vec();
        json::text(&mut body, name);
        body.push(b'}');
        Self { status: 200, content: Content::Json(body), ..Self::NOTHING }
    }

    /// The places of an update, as they are now.
    fn merged(places: &[Location], node: &Node) -> Self {
        let mut body = vec![b'{'];
        for Location { path, is_priority } in places {
            if body.len() > 1 {
                body.push(b',');
            }
            let (name, standing) = if *is_priority {
                let priority = node.at(path.as_str()).priority();
                let separator = if path.is_root() { "" } else { "/" };
                let value = priority.map_or(Node::Empty, |priority| Node::Leaf(priority.clone().into()));
                (format!("{}{separator}.priority", path.as_str()), value)
            } else {
                (path.as_str().to_owned(), node.at(path.as_str()).clone())
            };
            json::text(&mut body, &name);
            body.push(b':');
            crate::data::plain(&mut body, &standing);
        }
        body.push(b'}');
        Self { status: 200, content: Content::Json(body), ..Self::NOTHING }
    }
}

/// The ETag of a location: its hash.
fn etag(node: &Node) -> String {
    if node.is_empty() { EMPTY_ETAG.to_owned() } else { node.hash() }
}
