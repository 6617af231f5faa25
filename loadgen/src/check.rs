//! What must be seen, and what was: the model behind `--check`.
//!
//! Every value that a run writes is the number of a change to its place: 1, 2, 3 … The surprising idea:
//! nothing more is needed to name each mistake. A number that nobody has caused yet is early, one that
//! was seen before is double, a gap is a loss, and what is no number is wrong. Costs: 12 bytes a track.

/// Mistakes that are told in words; the others are only counted.
const EXAMPLES_MAX: usize = 10;

/// One place as one watcher sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// Changes up to this one may be seen.
    caused: u32,
    /// The last one that was seen.
    seen: u32,
    /// The last one that must be seen.
    owed: u32,
}

/// What a watcher may see, must see and has seen.
#[derive(Debug)]
pub struct Model {
    tracks: Vec<Track>,
    findings: Findings,
}

/// What is not as it should be, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Changes that were seen when they should be.
    pub good: u64,
    /// Changes that never were seen.
    pub lost: u64,
    /// Changes that were seen before anything caused them.
    pub early: u64,
    /// Changes that were seen again, or after a later one.
    pub double: u64,
    /// Values that nobody wrote, or places that nobody wrote to.
    pub wrong: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Whether all is as it should be.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost == 0 && self.early == 0 && self.double == 0 && self.wrong == 0
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what());
        }
    }
}

impl Model {
    /// `count` tracks on which nothing has happened.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { tracks: vec![Track::default(); count], findings: Findings::default() }
    }

    /// From now on changes up to number `change` of `track` may be seen.
    pub fn may(&mut self, track: usize, change: u32) {
        let track = &mut self.tracks[track];
        track.caused = track.caused.max(change);
    }

    /// As [`may`](Self::may), and by the end they must have been.
    pub fn must(&mut self, track: usize, change: u32) {
        self.may(track, change);
        let track = &mut self.tracks[track];
        track.owed = track.owed.max(change);
    }

    /// Something was seen: `change` is `None` where it is no change's number. Says whether it is as it
    /// should be.
    pub fn see(&mut self, track: usize, change: Option<u32>) -> bool {
        let Some((change, state)) = change.filter(|change| *change > 0).zip(self.tracks.get_mut(track)) else {
            self.wrong(|| format!("track {track}: something that nobody wrote"));
            return false;
        };
        let Track { caused, seen, .. } = *state;
        let findings = &mut self.findings;
        if change > caused {
            findings.early += 1;
            findings.tell(|| format!("track {track}: change {change} is early, only {caused} were caused"));
            return false;
        }
        if change <= seen {
            findings.double += 1;
            findings.tell(|| format!("track {track}: change {change} after change {seen}"));
            return false;
        }
        if change > seen + 1 {
            findings.lost += u64::from(change - seen - 1);
            findings.tell(|| format!("track {track}: change {change} after change {seen}, none between"));
        }
        state.seen = change;
        findings.good += 1;
        true
    }

    /// Something was seen that belongs to no track.
    pub fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.findings.wrong += 1;
        self.findings.tell(what);
    }

    /// The end: what must have been seen by now and was not is lost.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        for (index, Track { seen, owed, .. }) in self.tracks.iter().enumerate() {
            if owed > seen {
                self.findings.lost += u64::from(owed - seen);
                self.findings.tell(|| format!("track {index}: change {owed} never came, the last was {seen}"));
            }
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Step {
        May(u32),
        Must(u32),
        See(u32),
        SeeNonsense,
    }
    use Step::{May, Must, See, SeeNonsense};

    /// What becomes of one track: good, lost, early, double, wrong.
    #[track_caller]
    fn check(steps: &[Step], expected: [u64; 5]) {
        let mut model = Model::new(1);
        for step in steps {
            match step {
                May(change) => model.may(0, *change),
                Must(change) => model.must(0, *change),
                See(change) => drop(model.see(0, Some(*change))),
                SeeNonsense => drop(model.see(0, None)),
            }
        }
        let Findings { good, lost, early, double, wrong, examples } = model.finish();
        assert_eq!([good, lost, early, double, wrong], expected, "{examples:?}");
        assert_eq!(examples.is_empty(), expected[1..] == [0; 4], "every mistake is told");
    }

    #[test]
    fn every_mistake_has_its_name() {
        check(&[], [0, 0, 0, 0, 0]);
        check(&[Must(1), See(1), Must(2), See(2)], [2, 0, 0, 0, 0]);
        check(&[Must(2), See(1)], [1, 1, 0, 0, 0]);
        check(&[Must(3), See(1), See(3)], [2, 1, 0, 0, 0]);
        check(&[May(1)], [0, 0, 0, 0, 0]);
        check(&[See(1)], [0, 0, 1, 0, 0]);
        check(&[Must(1), See(1), See(2)], [1, 0, 1, 0, 0]);
        check(&[Must(1), See(1), See(1)], [1, 0, 0, 1, 0]);
        check(&[Must(2), See(2), See(1)], [1, 1, 0, 1, 0]);
        check(&[Must(1), SeeNonsense, See(1)], [1, 0, 0, 0, 1]);
        check(&[Must(1), See(0), See(1)], [1, 0, 0, 0, 1]);
    }

    #[test]
    fn tracks_are_apart() {
        let mut model = Model::new(2);
        model.must(0, 1);
        assert!(!model.see(1, Some(1)), "nothing was caused there");
        assert!(!model.see(2, Some(1)), "there is no such track");
        assert!(model.see(0, Some(1)));
        let findings = model.finish();
        assert_eq!((findings.good, findings.early, findings.wrong), (1, 1, 1));
    }
}
