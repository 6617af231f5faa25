//! What the rules would say, for people who write them. Nothing is changed.

use super::Shard;
use crate::base::Now;
use crate::data::Path;
use crate::op::{Identity, Query, Tried, Write};
use crate::rules::{Ask, Change, Ruleset, Verdict};

/// What is tried.
#[derive(Clone, Debug, PartialEq)]
pub enum Trial {
    /// To read a place.
    Read(Path),
    /// To write.
    Write(Write),
}

impl Shard {
    /// Whether somebody may do that now, under the rules in force or under others.
    #[must_use]
    pub fn try_rules(&self, now: Now, identity: &Identity, rules: Option<&Ruleset>, trial: &Trial) -> Tried {
        let rules = rules.unwrap_or(&self.rules);
        let ask = Ask { root: &self.root, identity, now: now.wall };
        let verdict = match trial {
            Trial::Read(path) => rules.may_read(&ask, path, &Query::ALL),
            Trial::Write(write) => {
                let changes = self.resolve(now, write);
                let changes: Vec<Change<'_>> = changes.iter().map(super::apply::Resolved::as_change).collect();
                if changes.is_empty() {
                    rules.may_write_at(&ask, write.path())
                } else {
                    rules.may_write(&ask, &changes)
                }
            }
        };
        match verdict {
            Verdict::Allowed => Tried { is_allowed: true, why: None, places: Vec::new() },
            Verdict::Denied(denial) => Tried {
                is_allowed: false,
                why: Some(denial.to_string()),
                places: denial.rules.iter().map(|rule| (rule.line, rule.column)).collect(),
            },
        }
    }
}
