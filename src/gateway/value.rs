//! Data in and out of a session.

use super::Error;
use crate::data::{Node, Path, plain};
use crate::json::{Item, Reader};

/// Data that is to be stored: JSON, in which `{".sv": "timestamp"}` and `{".sv": {"increment": 1}}` are filled in
/// by the server when it takes effect, and `.priority` may stand beside children.
///
/// From a [`serde_json::Value`] or anything that becomes one (texts, numbers, booleans, lists), or from
/// [text](Self::text) that is JSON already.
#[derive(Clone, Debug)]
pub struct Json(String);

impl Json {
    /// JSON as text. It is read when it is used.
    #[must_use]
    pub fn text(json: impl Into<String>) -> Self {
        Self(json.into())
    }

    /// The time at which it takes effect, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp() -> Self {
        Self(r#"{".sv":"timestamp"}"#.into())
    }

    /// What `read` makes of it, and how many bytes it is.
    pub(super) fn read<T>(self, read: impl FnOnce(Item<'_>) -> Result<T, Error>) -> Result<(T, usize), Error> {
        let bytes = self.0.len();
        let mut text = self.0.into_bytes();
        let value = Reader::default().read(&mut text, read).map_err(|_not_json| Error::NotJson)??;
        Ok((value, bytes))
    }
}

impl<T: Into<serde_json::Value>> From<T> for Json {
    fn from(value: T) -> Self {
        Self(value.into().to_string())
    }
}

/// Data as it stands in the tree: a snapshot that costs nothing to keep, and never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Value(pub(super) Node);

impl Value {
    /// As JSON, the way clients see it: without priorities, and maps that look like lists are lists.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = Vec::new();
        plain(&mut text, &self.0);
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    /// As a value of serde's.
    #[must_use]
    pub fn to_serde(&self) -> serde_json::Value {
        serde_json::from_str(&self.json()).expect("we print JSON")
    }

    /// Whether nothing stands there.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands at a path below it.
    ///
    /// # Errors
    /// [`Error::Refused`]: the path is none.
    pub fn at(&self, path: &str) -> Result<Self, Error> {
        Ok(Self(self.0.at(Path::parse(path)?.as_str()).clone()))
    }

    /// The tree itself.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.0
    }
}
