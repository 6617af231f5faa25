//! Stand-in until the language lands: everything or nothing.
use crate::base::WallMillis;
use crate::data::{Node, Path, Priority};
use crate::op::{Identity, Query};

#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub root: &'a Node,
    pub identity: &'a Identity,
    pub now: WallMillis,
}

#[derive(Debug)]
pub struct Change<'a> {
    pub path: &'a Path,
    pub what: What<'a>,
}
#[derive(Debug)]
pub enum What<'a> {
    Value(&'a Node),
    Priority(Option<&'a Priority>),
}

#[derive(Debug)]
pub struct Ruleset {
    open: bool,
}
impl Ruleset {
    pub fn open() -> Self {
        Self { open: true }
    }
    pub fn closed() -> Self {
        Self { open: false }
    }
    pub fn may_read(&self, _ask: &Ask<'_>, _path: &Path, _query: &Query) -> bool {
        self.open
    }
    pub fn may_write(&self, _ask: &Ask<'_>, _changes: &[Change<'_>]) -> bool {
        self.open
    }
}
