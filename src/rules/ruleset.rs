//! A set of rules, and the questions that it answers.
//!
//! The surprising idea: a check walks the path once, and every rule is evaluated where the walk stands;
//! the trees are looked into only where a rule asks, nothing twice, and nothing is copied. Several
//! paths of one update share the part of the walk that they have in common.
//! Costs: a presence write with one `.write` and three `.validate` takes about 200 ns.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use smallvec::SmallVec;

use super::code::{Survey, Test};
use super::error::{RulesError, Warning};
use super::eval::{Asking, Fail, Scene, Stop, millis, new_at, spend};
use super::file;
use super::limits::{STEPS_BASE, STEPS_PER_NODE};
use super::view::{self, Change, Cursor, What};
use crate::base::WallMillis;
use crate::data::{KeyStr, Node, Path};
use crate::op::{Identity, Index, Query};

/// Which dialect a rules file may use. The dialects differ in names only, never in what an operator
/// does (rules specification, section 1.13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Firebase's, exactly.
    #[default]
    Firebase,
    /// Wilddog's too: `startsWith`, `length()`, `exist()`, text patterns for `matches`.
    Wilddog,
    /// Whatever either allows.
    Both,
}

impl Dialect {
    pub(super) const fn has_wilddog(self) -> bool {
        matches!(self, Self::Wilddog | Self::Both)
    }
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `.read`
    Read,
    /// `.write`
    Write,
    /// `.validate`
    Validate,
}

impl Verb {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => ".read",
            Self::Write => ".write",
            Self::Validate => ".validate",
        }
    }
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub verb: Verb,
    pub test: Test,
    pub survey: Survey,
    pub source: Box<str>,
    pub line: u32,
    pub column: u32,
}

impl Rule {
    pub(super) fn constant(verb: Verb, value: bool, line: u32, column: u32) -> Self {
        let source = if value { "true" } else { "false" };
        let survey = Survey { cost: 1, ..Survey::default() };
        Self { verb, test: Test::Const(value), survey, source: source.into(), line, column }
    }
}

/// A node of the rules.
#[derive(Debug, Default)]
pub(super) struct Branch {
    pub read: Option<Rule>,
    pub write: Option<Rule>,
    pub validate: Option<Rule>,
    pub indexes: Vec<Index>,
    /// Sorted by key.
    literals: Vec<(Box<str>, Self)>,
    /// The `$` child and its name.
    pub wildcard: Option<(String, Box<Self>)>,
    /// Whether a `.validate` stands here or below.
    validates: bool,
    /// The smallest level of the tree that a `.validate` here or below looks into.
    validate_reach: Option<u8>,
}

impl Branch {
    /// Once everything in it is read; `literals` are the children without a `$`.
    pub(super) fn settle(&mut self, literals: BTreeMap<Box<str>, Self>) {
        self.literals = literals.into_iter().collect();
        let mut reach = self.validate.as_ref().and_then(|rule| rule.survey.reach);
        let mut validates = self.validate.is_some();
        for child in self.children() {
            validates |= child.validates;
            reach = nearer(reach, child.validate_reach);
        }
        self.validates = validates;
        self.validate_reach = reach;
    }

    /// `here` is its own level.
    fn is_local_to(&self, level: u8, here: u8) -> bool {
        let rules = [&self.read, &self.write, &self.validate].into_iter().flatten();
        let is_local = if here < level {
            // Above, whether something exists is known to nobody alone: then its `.validate` counts, or does not.
            self.validate.is_none() && rules.into_iter().all(|rule| rule.survey.reach.is_none())
        } else {
            rules.into_iter().all(|rule| rule.survey.reach.is_none_or(|reach| reach >= level))
        };
        is_local && self.children().all(|child| child.is_local_to(level, here.saturating_add(1)))
    }

    fn children(&self) -> impl Iterator<Item = &Self> {
        let wildcard = self.wildcard.as_ref().map(|(_, child)| &**child);
        self.literals.iter().map(|(_, child)| child).chain(wildcard)
    }

    fn literal(&self, key: &str) -> Option<&Self> {
        let index = self.literals.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&self.literals[index].1)
    }

    /// The rules for the child with this key: its own, else those of the `$` child.
    fn child(&self, key: &str) -> Option<&Self> {
        self.literal(key).or_else(|| self.wildcard.as_ref().map(|(_, child)| &**child))
    }
}

/// The smaller of two levels, of which either may not exist.
fn nearer(a: Option<u8>, b: Option<u8>) -> Option<u8> {
    a.into_iter().chain(b).min()
}

/// Who asks, of which tree, when.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The tree as it is.
    pub root: &'a Node,
    /// Who asks. Rules do not apply to administrators: every answer to them is yes.
    pub identity: &'a Identity,
    /// The rules' `now`: for a write the very time that its server values were filled with.
    pub now: WallMillis,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// No, and why; for logs and tools, never for clients.
    Denied(Box<Denial>),
}

impl Verdict {
    /// Whether it is yes.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed)
    }
}

/// Why the answer is no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The path whose permission was missing, or the node that was not valid.
    pub path: String,
    /// What was missing.
    pub verb: Verb,
    /// The rules that were evaluated and were not true: for a missing permission all on the path from
    /// the root, else the one that failed.
    pub rules: Vec<Refused>,
    /// The request used up its steps: the last rule may never have been decided.
    pub is_out_of_steps: bool,
}

/// A rule that was not true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it was evaluated.
    pub path: String,
    /// Its line in the rules file, from 1.
    pub line: u32,
    /// The character of that line where its value begins, from 1.
    pub column: u32,
    /// Its expression.
    pub source: String,
    /// Why it could not be evaluated, if that is why.
    pub fail: Option<Fail>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} refused at /{}", self.verb.as_str(), self.path)?;
        if self.rules.is_empty() {
            write!(f, ": no rule grants it")?;
        }
        for rule in &self.rules {
            write!(f, "; {}:{} at /{}: {}", rule.line, rule.column, rule.path, rule.source)?;
            if let Some(fail) = rule.fail {
                write!(f, " ({})", fail.as_str())?;
            }
        }
        Ok(())
    }
}

/// Rules, compiled once, asked often. Shared by all engines.
#[derive(Debug)]
pub struct Ruleset {
    source: Box<str>,
    root: Branch,
    warnings: Vec<Warning>,
}

impl Ruleset {
    /// Reads a rules file.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, RulesError> {
        let (root, warnings) = file::read(text, dialect)?;
        Ok(Self { source: text.into(), root, warnings })
    }

    /// Everybody may read and write everything.
    #[must_use]
    pub fn open() -> Self {
        let text = r#"{"rules": {".read": true, ".write": true}}"#;
        Self::parse(text, Dialect::Firebase).expect("these rules are right")
    }

    /// Nobody may read or write anything, administrators excepted.
    #[must_use]
    pub fn closed() -> Self {
        let text = r#"{"rules": {".read": false, ".write": false}}"#;
        Self::parse(text, Dialect::Firebase).expect("these rules are right")
    }

    /// The text, byte for byte.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What is accepted and probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// May this be read, once or for as long as somebody listens?
    #[must_use]
    pub fn may_read(&self, ask: &Ask<'_>, path: &Path, query: &Query) -> Verdict {
        if ask.identity.is_admin {
            return Verdict::Allowed;
        }
        self.may_read_asking(ask, path, &Asking::of(query))
    }

    pub(super) fn may_read_asking(&self, ask: &Ask<'_>, path: &Path, asking: &Asking<'_>) -> Verdict {
        Check::new(self, ask, asking, &[], Verb::Read).permission(path)
    }

    /// May all of these changes be made? They are those of one write: they take effect together.
    ///
    /// Server values are filled in already. No value's place is above or at another change's place.
    /// Without changes the answer is yes: see [`may_write_at`](Self::may_write_at).
    #[must_use]
    pub fn may_write(&self, ask: &Ask<'_>, changes: &[Change<'_>]) -> Verdict {
        if ask.identity.is_admin {
            return Verdict::Allowed;
        }
        if let [only] = changes {
            return self.judge(ask, std::slice::from_ref(only));
        }
        let mut sorted = changes.to_vec();
        view::sort(&mut sorted);
        self.judge(ask, &sorted)
    }

    /// Checks sorted changes one after the other.
    fn judge(&self, ask: &Ask<'_>, changes: &[Change<'_>]) -> Verdict {
        let mut check = Check::new(self, ask, &Asking::NOTHING, changes, Verb::Write);
        let mut refused = Refusals::new();
        for change in changes {
            if let Err(stopped) = check.change(change, &mut refused) {
                return check.denied(stopped, change.path, &refused);
            }
        }
        Verdict::Allowed
    }

    /// Does some `.write` grant the place, when nothing changes? For an update without members.
    #[must_use]
    pub fn may_write_at(&self, ask: &Ask<'_>, path: &Path) -> Verdict {
        if ask.identity.is_admin {
            return Verdict::Allowed;
        }
        Check::new(self, ask, &Asking::NOTHING, &[], Verb::Write).permission(path)
    }

    /// Whether the rules at `path` index this order (`.indexOn`). Keys and priorities always are.
    #[must_use]
    pub fn is_indexed(&self, path: &Path, index: &Index) -> bool {
        if matches!(index, Index::Key | Index::Priority) {
            return true;
        }
        let mut branch = Some(&self.root);
        for key in path.keys() {
            branch = branch.and_then(|branch| branch.child(key.as_str()));
        }
        branch.is_some_and(|branch| branch.indexes.contains(index))
    }

    /// Whether a `.read` on the way to `path` looks at data: then a listener's permission can change
    /// when data does.
    #[must_use]
    pub fn read_depends_on_data(&self, path: &Path) -> bool {
        self.read_reach(path).is_some()
    }

    /// The smallest level of the tree (0: the root) that deciding a read of `path` looks into; `None`
    /// if it looks at no data. Above a partition's own level, the answer needs other partitions.
    #[must_use]
    pub fn read_reach(&self, path: &Path) -> Option<usize> {
        let rules = self.matched(path).filter_map(|branch| branch.read.as_ref());
        rules.filter_map(|rule| rule.survey.reach).min().map(usize::from)
    }

    /// The same for a write at `path`. Whether a node with a `.validate` exists counts as looking.
    #[must_use]
    pub fn write_reach(&self, path: &Path) -> Option<usize> {
        let mut reach = None;
        let mut last = None;
        for (level, branch) in (0_u8..).zip(self.matched(path)) {
            reach = nearer(reach, branch.write.as_ref().and_then(|rule| rule.survey.reach));
            if let Some(rule) = &branch.validate {
                reach = nearer(reach, nearer(rule.survey.reach, Some(level)));
            }
            last = Some((usize::from(level), branch));
        }
        if let Some((level, branch)) = last
            && level == path.depth()
        {
            reach = nearer(reach, branch.validate_reach);
        }
        reach.map(usize::from)
    }

    /// Whether every question about places at or below one of `level` keys can be answered by looking only at
    /// what has the same `level` first keys; and every question whether something above may be read, without
    /// looking at data.
    #[must_use]
    pub fn is_local_to(&self, level: u8) -> bool {
        self.root.is_local_to(level, 0)
    }

    /// The nodes of the rules on the way to `path`, from the root.
    fn matched(&self, path: &Path) -> impl Iterator<Item = &Branch> {
        let mut keys = path.keys();
        std::iter::successors(Some(&self.root), move |branch| branch.child(keys.next()?.as_str()))
    }
}

/// Rules that were not true, by level and cause; told in words only when somebody is refused.
type Refusals<'r> = SmallVec<[(u8, &'r Rule, Option<Fail>); 4]>;

/// The rules for a place on the walk, and what is known of them already.
#[derive(Clone, Copy)]
struct Level<'a> {
    branch: Option<&'a Branch>,
    permission: Permission,
    /// Whether its own `.validate` has been evaluated, and was true.
    is_valid: bool,
}

/// What the permission rules from the root down to a place say.
#[derive(Clone, Copy)]
enum Permission {
    /// Not asked yet.
    Unknown,
    /// One of them is true.
    Granted,
    /// None is; the one of this very place could not be evaluated, if there is a reason.
    Refused(Option<Fail>),
}

/// A walk down a path, with everything that rules can look at.
struct Check<'a> {
    ask: &'a Ask<'a>,
    asking: &'a Asking<'a>,
    verb: Verb,
    now: f64,
    budget: Cell<u64>,
    /// Where we are: the root, and the places below it.
    trail: SmallVec<[Stop<'a>; 12]>,
    levels: SmallVec<[Level<'a>; 12]>,
    /// Set when a refusal came from the budget.
    is_out_of_steps: bool,
}

impl<'a> Check<'a> {
    fn new(
        rules: &'a Ruleset,
        ask: &'a Ask<'a>,
        asking: &'a Asking<'a>,
        changes: &'a [Change<'a>],
        verb: Verb,
    ) -> Self {
        let mut check = Self {
            ask,
            asking,
            verb,
            now: millis(ask.now),
            budget: Cell::new(STEPS_BASE),
            trail: SmallVec::new(),
            levels: SmallVec::new(),
            is_out_of_steps: false,
        };
        check.trail.push(Stop::root(ask.root, Cursor::root(ask.root, changes)));
        check.levels.push(Level { branch: Some(&rules.root), permission: Permission::Unknown, is_valid: false });
        check
    }

    /// Goes one key down. Says whether there are rules for that place.
    fn step(&mut self, key: &'a KeyStr) -> bool {
        let above = self.levels[self.levels.len() - 1].branch;
        let branch = above.and_then(|branch| branch.child(key.as_str()));
        self.trail.push(Stop::below(key.as_str()));
        self.levels.push(Level { branch, permission: Permission::Unknown, is_valid: false });
        branch.is_some()
    }

    /// Walks down to `path` until a permission rule is true.
    fn permission(&mut self, path: &'a Path) -> Verdict {
        let mut refused = Refusals::new();
        let mut keys = path.keys();
        loop {
            if self.grants(self.levels.len() - 1, &mut refused) {
                return Verdict::Allowed;
            }
            match keys.next() {
                Some(key) if self.step(key) => {}
                _ => return self.denied(self.verb, path, &refused),
            }
        }
    }

    /// Checks one change of a write: permission, then its ancestors, itself and what is below it.
    fn change(&mut self, change: &Change<'a>, refused: &mut Refusals<'a>) -> Result<(), Verb> {
        refused.clear();
        self.budget.set(self.budget.get().saturating_add(STEPS_PER_NODE));
        let mut keys = change.path.keys();
        let mut next = keys.next();
        // What this change has in common with the one before is walked already, and asked.
        let mut level = 0;
        while let (Some(stop), Some(key)) = (self.trail.get(level + 1), next)
            && key.as_str() == stop.key
        {
            level += 1;
            next = keys.next();
        }
        self.trail.truncate(level + 1);
        self.levels.truncate(level + 1);
        while let Some(key) = next
            && self.step(key)
        {
            next = keys.next();
        }
        let is_at_end = next.is_none();
        if let (What::Value(new), true) = (change.what, is_at_end) {
            self.trail[self.levels.len() - 1].will_be(new);
        }
        self.grant(refused)?;
        for level in 0..self.levels.len() {
            self.validate_at(level, refused)?;
        }
        match change.what {
            What::Value(new) if is_at_end => self.validate_below(new, refused),
            // A priority has nothing below it; where the rules end there is nothing to validate.
            What::Value(_) | What::Priority(_) => Ok(()),
        }
    }

    /// Finds a `.write` that is true, from the root down to where the walk stands.
    fn grant(&mut self, refused: &mut Refusals<'a>) -> Result<(), Verb> {
        let is_granted = (0..self.levels.len()).any(|index| self.grants(index, refused));
        if is_granted { Ok(()) } else { Err(Verb::Write) }
    }

    /// Whether the permission rule of a place on the walk is true. Asks each rule once.
    fn grants(&mut self, index: usize, refused: &mut Refusals<'a>) -> bool {
        let level = self.levels[index];
        let Some(branch) = level.branch else { return false };
        let rule = if self.verb == Verb::Read { &branch.read } else { &branch.write };
        let Some(rule) = rule else { return false };
        match level.permission {
            Permission::Granted => return true,
            Permission::Refused(fail) => {
                refused.push((level_number(index), rule, fail));
                return false;
            }
            Permission::Unknown => {}
        }
        let is_granted = self.holds(rule, index, refused);
        self.levels[index].permission = match refused.last() {
            _ if is_granted => Permission::Granted,
            Some((_, _, fail)) => Permission::Refused(*fail),
            None => unreachable!("a rule that does not hold is among the refused"),
        };
        is_granted
    }

    /// Evaluates the `.validate` of a place on the walk, if something would stand there.
    fn validate_at(&mut self, index: usize, refused: &mut Refusals<'a>) -> Result<(), Verb> {
        let level = self.levels[index];
        let Some(rule) = level.branch.and_then(|branch| branch.validate.as_ref()) else { return Ok(()) };
        if level.is_valid || !new_at(&self.trail, index).exists() {
            return Ok(());
        }
        refused.clear();
        if !self.holds(rule, index, refused) {
            return Err(Verb::Validate);
        }
        self.levels[index].is_valid = true;
        Ok(())
    }

    /// Evaluates every `.validate` below the place where the walk stands, for what `new` holds there.
    fn validate_below(&mut self, new: &'a Node, refused: &mut Refusals<'a>) -> Result<(), Verb> {
        let Some(branch) = self.levels[self.levels.len() - 1].branch else { return Ok(()) };
        if !branch.validates || !matches!(new, Node::Branch(_)) {
            return Ok(());
        }
        let wildcard_validates = branch.wildcard.as_ref().is_some_and(|(_, child)| child.validates);
        if wildcard_validates || branch.literals.len() > new.children().len() {
            for (key, child) in new.children().iter() {
                self.validate_child(key, child, refused)?;
            }
        } else {
            for (key, rules) in &branch.literals {
                if rules.validates
                    && let Some(child) = new.children().get(KeyStr::new(key))
                {
                    self.validate_child(KeyStr::new(key), child, refused)?;
                }
            }
        }
        Ok(())
    }

    fn validate_child(&mut self, key: &'a KeyStr, child: &'a Node, refused: &mut Refusals<'a>) -> Result<(), Verb> {
        self.budget.set(self.budget.get().saturating_add(STEPS_PER_NODE));
        let Some(branch) = self.levels[self.levels.len() - 1].branch.and_then(|branch| branch.child(key.as_str()))
        else {
            return Ok(());
        };
        if !branch.validates {
            return Ok(());
        }
        let stop = Stop::below(key.as_str());
        stop.will_be(child);
        self.trail.push(stop);
        self.levels.push(Level { branch: Some(branch), permission: Permission::Granted, is_valid: false });
        self.validate_at(self.levels.len() - 1, refused)?;
        self.validate_below(child, refused)?;
        self.trail.pop();
        self.levels.pop();
        Ok(())
    }

    /// Whether a rule is true at a place of the walk. What cannot be evaluated is not.
    fn holds(&mut self, rule: &'a Rule, index: usize, refused: &mut Refusals<'a>) -> bool {
        let scene = Scene {
            auth: &self.ask.identity.auth,
            now: self.now,
            query: self.asking,
            trail: &self.trail[..=index],
            budget: &self.budget,
        };
        let outcome = spend(&self.budget, rule.survey.cost.into()).and_then(|()| scene.test(&rule.test));
        let fail = match outcome {
            Ok(true) => return true,
            Ok(false) => None,
            Err(fail) => Some(fail),
        };
        self.is_out_of_steps |= fail == Some(Fail::OutOfSteps);
        refused.push((level_number(index), rule, fail));
        false
    }

    /// Puts a refusal into words.
    #[cold]
    fn denied(&self, verb: Verb, path: &Path, refused: &Refusals<'_>) -> Verdict {
        let path_at = |level: usize| {
            let keys: Vec<&str> = self.trail.iter().skip(1).take(level).map(|stop| stop.key).collect();
            keys.join("/")
        };
        let rules: Vec<Refused> = refused
            .iter()
            .filter(|(_, rule, _)| rule.verb == verb)
            .map(|&(level, rule, fail)| Refused {
                path: path_at(level.into()),
                line: rule.line,
                column: rule.column,
                source: rule.source.to_string(),
                fail,
            })
            .collect();
        let path = match (verb, rules.last()) {
            (Verb::Validate, Some(rule)) => rule.path.clone(),
            _ => path.as_str().to_owned(),
        };
        Verdict::Denied(Box::new(Denial { path, verb, rules, is_out_of_steps: self.is_out_of_steps }))
    }
}

fn level_number(index: usize) -> u8 {
    u8::try_from(index).expect("rules have fewer levels")
}
