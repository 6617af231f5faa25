//! The one way in which data changes.

use smallvec::SmallVec;

use super::listens::Doubt;
use super::{Asker, Shard, Told};
use crate::base::Now;
use crate::data::{Draft, Location, Node, Path, Priority};
use crate::log::encode_written;
use crate::op::{Query, Refusal, Write};
use crate::rules::{Ask, Change, Denial, Verdict, What};

/// One place of a write, server values filled in.
pub(super) struct Resolved {
    pub(super) path: Path,
    pub(super) what: ResolvedWhat,
}

pub(super) enum ResolvedWhat {
    Value(Node),
    Priority(Option<Priority>),
}

/// Why a write was not made.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    /// Which rules said no: for operators.
    pub(super) denial: Option<Box<Denial>>,
}

impl Refused {
    const fn because(refusal: Refusal) -> Self {
        Self { refusal, denial: None }
    }

    const fn denied(denial: Box<Denial>) -> Self {
        Self { refusal: Refusal::Denied, denial: Some(denial) }
    }
}

/// Most writes touch one place.
pub(super) type Changes = SmallVec<[Resolved; 1]>;

impl Shard {
    /// Changes data, or refuses and changes nothing. Everything that can say no stands before the
    /// first change; after it nothing fails.
    pub(super) fn write(
        &mut self,
        now: Now,
        asker: &Asker,
        write: &Write,
        if_hash: Option<&str>,
        told: &mut Vec<Told>,
    ) -> Result<(), Refused> {
        let changes = self.resolve(now, write);
        let is_stale = if_hash.is_some_and(|hash| hash != self.root.at(write.path().as_str()).hash());
        if let Verdict::Denied(denial) = self.judge(now, asker, write.path(), &changes) {
            // A transaction on old data may look forbidden only because it is old. Who may read the
            // data is told so and tries again; nobody else learns anything from the hash.
            let may_know = is_stale && self.may_read(now, &asker.identity, write.path(), &Query::ALL);
            return Err(if may_know { Refused::because(Refusal::Stale) } else { Refused::denied(denial) });
        }
        if is_stale {
            return Err(Refused::because(Refusal::Stale));
        }
        self.write_judged(now, asker, write, &changes, told);
        Ok(())
    }

    /// Changes data as it may be changed.
    pub(super) fn write_judged(
        &mut self,
        now: Now,
        asker: &Asker,
        write: &Write,
        changes: &Changes,
        told: &mut Vec<Told>,
    ) {
        self.stamps.note(write, asker.session, asker.heard);
        let doubts = self.commit(write.path(), changes, told);
        self.decide(now, doubts, told);
    }

    /// Whether the write would be allowed now. Changes nothing.
    pub(super) fn may_write(&self, now: Now, asker: &Asker, write: &Write) -> Result<(), Refusal> {
        let changes = self.resolve(now, write);
        let verdict = self.judge(now, asker, write.path(), &changes);
        if verdict.is_allowed() { Ok(()) } else { Err(Refusal::Denied) }
    }

    fn judge(&self, now: Now, asker: &Asker, base: &Path, changes: &Changes) -> Verdict {
        if asker.identity.is_admin {
            return Verdict::Allowed;
        }
        let ask = Ask { root: &self.root, identity: &asker.identity, now: now.wall };
        if changes.is_empty() {
            return self.rules.may_write_at(&ask, base);
        }
        let changes: SmallVec<[Change<'_>; 1]> = changes.iter().map(Resolved::as_change).collect();
        self.rules.may_write(&ask, &changes)
    }

    /// Fills in server values.
    pub(super) fn resolve(&self, now: Now, write: &Write) -> Changes {
        let mut changes = Changes::new();
        let standing = |path: &Path| self.root.at(path.as_str());
        match write {
            Write::Set { path, value } => {
                let node = resolve(value, || standing(path), now);
                changes.push(Resolved { path: path.clone(), what: ResolvedWhat::Value(node) });
            }
            Write::SetPriority { path, priority } => {
                let priority = priority.resolve(standing(path), now.wall);
                changes.push(Resolved { path: path.clone(), what: ResolvedWhat::Priority(priority) });
            }
            Write::Merge { path, changes: places } => {
                for (Location { path: place, is_priority }, draft) in places {
                    let path = path.join(place);
                    let what = if *is_priority {
                        let priority = draft.as_priority().map(|p| p.resolve(standing(&path), now.wall));
                        ResolvedWhat::Priority(priority.flatten())
                    } else {
                        ResolvedWhat::Value(resolve(draft, || standing(&path), now))
                    };
                    changes.push(Resolved { path, what });
                }
            }
        }
        changes
    }

    /// Nothing in here can fail.
    fn commit(&mut self, base: &Path, changes: &Changes, told: &mut Vec<Told>) -> Vec<Doubt> {
        let noticing = self.listens.before(base, changes, &self.root);
        // In the order that rules judge: a parent that is emptied on the way would lose its priority.
        for stage in 0..=2 {
            for Resolved { path, what } in changes.iter().filter(|change| change.stage() == stage) {
                match what {
                    ResolvedWhat::Value(node) => self.fallen.push(self.root.set(path.as_str(), node.clone())),
                    ResolvedWhat::Priority(priority) => self.root.set_priority(path.as_str(), priority.clone()),
                }
            }
        }
        if self.recording.is_on() && !changes.is_empty() {
            let mut ordered: SmallVec<[&Resolved; 1]> = changes.iter().collect();
            ordered.sort_by_key(|change| change.stage());
            let places = ordered.into_iter().map(Resolved::as_saved);
            let namespace = &self.namespace;
            self.recording.note(|records| encode_written(records, namespace, places));
        }
        self.listens.after(noticing, base, changes, &self.root, told)
    }
}

/// Most values hold no hole: then nobody looks up what stands there, which costs as much as the write.
fn resolve<'n>(draft: &Draft, standing: impl FnOnce() -> &'n Node, now: Now) -> Node {
    let nothing = Node::Empty;
    draft.resolve(if draft.is_fixed() { &nothing } else { standing() }, now.wall)
}

impl Resolved {
    /// As records hold it.
    fn as_saved(&self) -> (&Path, Result<&Node, Option<&Priority>>) {
        let saved = match &self.what {
            ResolvedWhat::Value(node) => Ok(node),
            ResolvedWhat::Priority(priority) => Err(priority.as_ref()),
        };
        (&self.path, saved)
    }

    /// When it is committed: values, then removals, then priorities.
    fn stage(&self) -> u8 {
        match &self.what {
            ResolvedWhat::Value(node) => u8::from(node.is_empty()),
            ResolvedWhat::Priority(_) => 2,
        }
    }

    pub(super) fn as_change(&self) -> Change<'_> {
        let what = match &self.what {
            ResolvedWhat::Value(node) => What::Value(node),
            ResolvedWhat::Priority(priority) => What::Priority(priority.as_ref()),
        };
        Change { path: &self.path, what }
    }
}
