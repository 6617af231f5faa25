//! How the server is, shared by whoever changes it and whoever asks: atomics only, so asking never
//! makes a shard wait.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use super::archive::Stage;
use crate::engine::Notice;
use crate::op::End;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet serving.
    Starting,
    /// Serving.
    Ready,
    /// About to stop: send new clients elsewhere.
    Draining,
}

/// What a [`Notice`] is about, without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// [`Notice::Violation`].
    Violation,
    /// [`Notice::Ended`].
    Ended,
    /// [`Notice::LastWords`].
    LastWords,
    /// [`Notice::Unspoken`].
    Unspoken,
}

impl NoticeKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Violation, Self::Ended, Self::LastWords, Self::Unspoken];

    /// The kind of a notice.
    #[must_use]
    pub const fn of(notice: &Notice) -> Self {
        match notice {
            Notice::Violation { .. } => Self::Violation,
            Notice::Ended { .. } => Self::Ended,
            Notice::LastWords { .. } => Self::LastWords,
            Notice::Unspoken { .. } => Self::Unspoken,
        }
    }

    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Violation => "violation",
            Self::Ended => "session_ended",
            Self::LastWords => "last_words",
            Self::Unspoken => "last_word_unspoken",
        }
    }

    /// As an index into tables of [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How the server is.
#[derive(Debug)]
pub struct Health {
    state: AtomicU8,
    /// What a start has come to: the stage in hundreds, and percent; zero if there is nothing to tell.
    recovering: AtomicU16,
    started: Instant,
    shards: AtomicU8,
    rules_reloaded: AtomicU64,
    rules_refused: AtomicU64,
    auth_reloaded: AtomicU64,
    auth_refused: AtomicU64,
    tls_reloaded: AtomicU64,
    tls_refused: AtomicU64,
    keys_fetched: AtomicU64,
    keys_missed: AtomicU64,
    log_lines_lost: AtomicU64,
    notices: [AtomicU64; NoticeKind::ALL.len()],
    ended: [AtomicU64; ENDS.len()],
    spoken: AtomicU64,
    yielded: AtomicU64,
    denied: AtomicU64,
}

/// Every way in which a session ends.
const ENDS: [End; 6] = [End::Closed, End::Dropped, End::TimedOut, End::Superseded, End::Killed, End::ServerStopped];

impl Default for Health {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(State::Starting as u8),
            recovering: AtomicU16::new(0),
            started: Instant::now(),
            shards: AtomicU8::new(0),
            rules_reloaded: AtomicU64::new(0),
            rules_refused: AtomicU64::new(0),
            auth_reloaded: AtomicU64::new(0),
            auth_refused: AtomicU64::new(0),
            tls_reloaded: AtomicU64::new(0),
            tls_refused: AtomicU64::new(0),
            keys_fetched: AtomicU64::new(0),
            keys_missed: AtomicU64::new(0),
            log_lines_lost: AtomicU64::new(0),
            notices: Default::default(),
            ended: Default::default(),
            spoken: AtomicU64::new(0),
            yielded: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        }
    }
}

impl Health {
    /// Where the process is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            state if state == State::Starting as u8 => State::Starting,
            state if state == State::Ready as u8 => State::Ready,
            _ => State::Draining,
        }
    }

    /// It reads or writes what is kept, and has come to so many of a hundred.
    pub fn set_recovering(&self, stage: Stage, percent: u8) {
        let stage = match stage {
            Stage::Reading => 100,
            Stage::Writing => 200,
        };
        self.recovering.store(stage + u16::from(percent), Ordering::Relaxed);
    }

    /// What there is to say of a start, for people.
    #[must_use]
    pub fn starting(&self) -> String {
        match self.recovering.load(Ordering::Relaxed) {
            0..100 => "starting".into(),
            read @ 100..200 => format!("starting: {} % of the log is read", read - 100),
            written => format!("starting: {} % of the snapshot is written", written - 200),
        }
    }

    /// It serves now, on this many shards.
    pub fn set_ready(&self, shards: u8) {
        self.shards.store(shards, Ordering::Relaxed);
        self.state.store(State::Ready as u8, Ordering::Relaxed);
    }

    /// It is about to stop.
    pub fn set_draining(&self) {
        self.state.store(State::Draining as u8, Ordering::Relaxed);
    }

    /// New rules are in force.
    pub fn count_rules_reloaded(&self) {
        self.rules_reloaded.fetch_add(1, Ordering::Relaxed);
    }

    /// New rules were wrong; the old ones hold.
    pub fn count_rules_refused(&self) {
        self.rules_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The files of credentials were read again; wrong ones change nothing.
    pub fn count_auth_reload(&self, is_ok: bool) {
        let counter = if is_ok { &self.auth_reloaded } else { &self.auth_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The certificate was read again; a wrong one changes nothing.
    pub fn count_tls_reload(&self, is_ok: bool) {
        let counter = if is_ok { &self.tls_reloaded } else { &self.tls_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// An issuer's keys were fetched, or could not be.
    pub fn count_key_fetch(&self, is_ok: bool) {
        let counter = if is_ok { &self.keys_fetched } else { &self.keys_missed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A line of the log was lost, because nobody reads it.
    pub fn count_log_line_lost(&self) {
        self.log_lines_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// A shard noticed something.
    pub fn count_notice(&self, notice: &Notice) {
        let add = |counter: &AtomicU64, count: usize| {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        };
        add(&self.notices[NoticeKind::of(notice).index()], 1);
        match notice {
            Notice::Ended { end, .. } => {
                let index = ENDS.iter().position(|known| known == end).expect("all ends are in the table");
                add(&self.ended[index], 1);
            }
            Notice::LastWords { spoken, yielded, denied, .. } => {
                add(&self.spoken, *spoken);
                add(&self.yielded, *yielded);
                add(&self.denied, *denied);
            }
            Notice::Violation { .. } | Notice::Unspoken { .. } => {}
        }
    }

    /// Everything in the text format of Prometheus (version 0.0.4).
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            let _ = writeln!(text, "# HELP stillhere_{name} {help}\n# TYPE stillhere_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "stillhere_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| [(String::new(), value)];
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let build = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        let is_ready = u64::from(self.state() == State::Ready);
        let shards = u64::from(self.shards.load(Ordering::Relaxed));
        family("build_info", "gauge", "Which version this is.", &[(build, 1)]);
        family("uptime_seconds", "gauge", "Time since the process began.", &plain(self.started.elapsed().as_secs()));
        family("ready", "gauge", "Whether new clients are welcome.", &plain(is_ready));
        family("shards", "gauge", "Cores in use.", &plain(shards));
        let results = |ok: &AtomicU64, other: &str, failed: &AtomicU64| {
            [("{result=\"ok\"}".into(), count(ok)), (format!("{{result=\"{other}\"}}"), count(failed))]
        };
        let reloads = results(&self.rules_reloaded, "refused", &self.rules_refused);
        family("rules_reloads_total", "counter", "Times that the rules were read again.", &reloads);
        let reloads = results(&self.auth_reloaded, "refused", &self.auth_refused);
        family("auth_reloads_total", "counter", "Times that credentials were read again.", &reloads);
        let reloads = results(&self.tls_reloaded, "refused", &self.tls_refused);
        family("tls_reloads_total", "counter", "Times that the certificate was read again.", &reloads);
        let fetches = results(&self.keys_fetched, "failed", &self.keys_missed);
        family("key_fetches_total", "counter", "Times that an issuer's keys were asked for.", &fetches);
        let lost = count(&self.log_lines_lost);
        family("log_lines_lost_total", "counter", "Log lines lost because nobody read the log.", &plain(lost));
        let notices =
            NoticeKind::ALL.map(|kind| (format!("{{kind=\"{}\"}}", kind.as_str()), count(&self.notices[kind.index()])));
        family("notices_total", "counter", "What the shards had to say about their clients, logged or not.", &notices);
        let label = |name: &str, word: &str| format!("{{{name}=\"{word}\"}}");
        let mut ended = Vec::new();
        for (end, counter) in ENDS.iter().zip(&self.ended) {
            ended.push((label("end", end.as_str()), count(counter)));
        }
        family("sessions_ended_total", "counter", "Sessions that are over, and why.", &ended);
        let words = [("spoken", &self.spoken), ("yielded", &self.yielded), ("denied", &self.denied)]
            .map(|(fate, counter)| (label("fate", fate), count(counter)));
        family("last_words_total", "counter", "Last words that came to be spoken, and what came of them.", &words);
        text
    }
}
