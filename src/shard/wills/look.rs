//! What sessions leave, for operators: always a bounded part of it.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use crate::base::{SessionId, SessionRef};
use crate::data::Path;
use crate::op::{Identity, Who, WordMark, WordPage, WordRow};
use crate::presence::{Ledger, places};
use crate::shard::Shard;

/// Sessions that one question about a path looks at.
const LOOKED_AT_MAX: usize = 4_096;

impl Shard {
    /// How many last words a session has left, a merge being one.
    #[must_use]
    pub fn words_count(&self, session: SessionRef) -> usize {
        self.wills.living.get(session).map_or(0, |will| will.ledger.writes().count())
    }

    /// How many sessions have left last words.
    #[must_use]
    pub fn leaving_count(&self) -> usize {
        self.wills.living.len()
    }

    /// How many locations somebody listens to. O(1). Those above the parts are counted by the one that `is_keeper`.
    #[must_use]
    pub fn listened_count(&self, is_keeper: bool) -> usize {
        self.listens.places_count(is_keeper || !self.is_part)
    }

    /// Whose an estate is: the session, as operators name it, and who that was.
    #[must_use]
    pub fn owed_by(&self, order: u64) -> Option<(SessionRef, Arc<Identity>)> {
        let estate = self.wills.estates.get(&order)?;
        Some((number_of(&estate.id), estate.identity.clone()))
    }

    /// Some last words. A page ends when it has `rows_max`, but those of one session stay together.
    #[must_use]
    pub fn words_page(&self, after: WordMark, rows_max: usize) -> WordPage {
        let mut page = WordPage::default();
        if after == WordMark::Begin {
            // Their order is that of secrets, which no mark may tell: so only some are shown.
            let away = self.wills.away.values().take(rows_max / 2);
            page.rows
                .extend(away.flat_map(|estate| rows(number_of(&estate.id), &estate.identity, &estate.ledger, true)));
        }
        let owed = match after {
            WordMark::Begin => Some(self.wills.estates.range(..)),
            WordMark::Owed(order) => Some(self.wills.estates.range((Excluded(order), Unbounded))),
            WordMark::Living(_) => None,
        };
        for (order, estate) in owed.into_iter().flatten() {
            if page.rows.len() >= rows_max {
                return page;
            }
            let session = number_of(&estate.id);
            page.rows.extend(rows(session, &estate.identity, &estate.ledger, true));
            page.next = Some(WordMark::Owed(*order));
        }
        let after = match after {
            WordMark::Living(session) => Some(session),
            WordMark::Begin | WordMark::Owed(_) => None,
        };
        for (session, will) in self.wills.living.iter_after(after) {
            if page.rows.len() >= rows_max {
                return page;
            }
            page.rows.extend(rows(session, &will.identity, &will.ledger, false));
            page.next = Some(WordMark::Living(session));
        }
        page.next = None;
        page
    }

    /// Last words that would write at a path, above or below it, at most so many; and how many sessions
    /// were not looked at.
    #[must_use]
    pub fn words_about(&self, path: &Path, rows_max: usize) -> (Vec<WordRow>, usize) {
        let estates = self.wills.estates.values().chain(self.wills.away.values()).map(|estate| {
            let session = number_of(&estate.id);
            (session, &estate.identity, &estate.ledger, true)
        });
        let living = self.wills.living.iter_after(None);
        let living = living.map(|(session, will)| (session, &will.identity, &will.ledger, false));
        let mut found = Vec::new();
        let mut left = self.wills.estates.len() + self.wills.away.len() + self.wills.living.len();
        for (session, identity, ledger, is_owed) in estates.chain(living).take(LOOKED_AT_MAX) {
            if found.len() >= rows_max {
                break;
            }
            left -= 1;
            found.extend(
                rows(session, identity, ledger, is_owed).filter(|row| {
                    places(&row.write).any(|place| place.path.contains(path) || path.contains(&place.path))
                }),
            );
        }
        found.truncate(rows_max);
        (found, left)
    }
}

/// A session as operators name it: where it lives, without its secret.
const fn number_of(id: &SessionId) -> SessionRef {
    SessionRef { home: id.home, slot: id.slot, generation: id.generation }
}

fn rows(session: SessionRef, identity: &Identity, ledger: &Ledger, is_owed: bool) -> impl Iterator<Item = WordRow> {
    let who = Who::of(identity);
    ledger.writes().map(move |write| WordRow { session, who: who.clone(), is_owed, write: write.clone() })
}
