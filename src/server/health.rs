//! How the server is, shared by whoever changes it and whoever asks: no shard ever waits for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::archive::Stage;
use super::metrics::{Sheet, whole};
use crate::base::ShardId;
use crate::engine::Notice;
use crate::op::End;
use crate::runtime::Reading;

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
    config_reloaded: AtomicU64,
    config_refused: AtomicU64,
    keys_fetched: AtomicU64,
    keys_missed: AtomicU64,
    log_lines_lost: AtomicU64,
    notices: [AtomicU64; NoticeKind::ALL.len()],
    ended: [AtomicU64; End::ALL.len()],
    /// By why the session was over: spoken, yielded, denied.
    words: [[AtomicU64; 3]; End::ALL.len()],
    source: Source,
    /// What each core said last.
    last: Mutex<BTreeMap<ShardId, Reading>>,
}

/// From where the cores' counts are to be had.
#[derive(Default)]
struct Source(OnceLock<Box<dyn Fn() -> Vec<Reading> + Send + Sync>>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", if self.0.get().is_some() { "set" } else { "none" })
    }
}

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
            config_reloaded: AtomicU64::new(0),
            config_refused: AtomicU64::new(0),
            keys_fetched: AtomicU64::new(0),
            keys_missed: AtomicU64::new(0),
            log_lines_lost: AtomicU64::new(0),
            notices: Default::default(),
            ended: Default::default(),
            words: Default::default(),
            source: Source::default(),
            last: Mutex::default(),
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

    /// The configuration was read again; a wrong one changes nothing.
    pub fn count_config_reload(&self, is_ok: bool) {
        let counter = if is_ok { &self.config_reloaded } else { &self.config_refused };
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
                add(&self.ended[end.index()], 1);
            }
            Notice::LastWords { end, spoken, yielded, denied } => {
                let counts = [spoken, yielded, denied];
                self.words[end.index()].iter().zip(counts).for_each(|(counter, count)| add(counter, *count));
            }
            Notice::Violation { .. } | Notice::Unspoken { .. } => {}
        }
    }

    /// From where the cores' counts are to be had, from now on.
    pub fn set_source(&self, source: impl Fn() -> Vec<Reading> + Send + Sync + 'static) {
        // A server starts once.
        let _ = self.source.0.set(Box::new(source));
    }

    /// What the cores have counted: now, or when they last said.
    fn readings(&self) -> Vec<Reading> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for reading in self.source.0.get().map(|source| source()).unwrap_or_default() {
            last.insert(reading.shard, reading);
        }
        last.values().cloned().collect()
    }

    /// Everything, in the text format of OpenMetrics. Asks the cores, and waits for them five seconds at most.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut sheet = Sheet::default();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let build = vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)];
        let is_ready = if self.state() == State::Ready { 1.0 } else { 0.0 };
        sheet.gauges("stillhere_build_info", "Which version this is.", build);
        let uptime = self.started.elapsed().as_secs_f64();
        sheet.gauge("stillhere_uptime_seconds", "Time since the process began.", uptime);
        sheet.gauge("stillhere_ready", "Whether new clients are welcome.", is_ready);
        sheet.gauge("stillhere_shards", "Cores in use.", self.shards.load(Ordering::Relaxed).into());
        let mut results = |name, help, ok: &AtomicU64, other, failed: &AtomicU64| {
            sheet.by(name, help, "result", [("ok", count(ok)), (other, count(failed))]);
        };
        let help = "Times that the rules were read again.";
        results("stillhere_rules_reloads", help, &self.rules_reloaded, "refused", &self.rules_refused);
        let help = "Times that credentials were read again.";
        results("stillhere_auth_reloads", help, &self.auth_reloaded, "refused", &self.auth_refused);
        let help = "Times that the certificate was read again.";
        results("stillhere_tls_reloads", help, &self.tls_reloaded, "refused", &self.tls_refused);
        let help = "Times that the configuration was read again.";
        results("stillhere_config_reloads", help, &self.config_reloaded, "refused", &self.config_refused);
        let help = "Times that an issuer's keys were asked for.";
        results("stillhere_key_fetches", help, &self.keys_fetched, "failed", &self.keys_missed);
        let lost = count(&self.log_lines_lost);
        sheet.count("stillhere_log_lines_lost", "Log lines lost because nobody read the log.", lost);
        let notices = NoticeKind::ALL.map(|kind| (kind.as_str(), count(&self.notices[kind.index()])));
        let help = "What the shards had to say about their clients, logged or not.";
        sheet.by("stillhere_notices", help, "kind", notices);
        let ended = End::ALL.map(|end| (end.as_str(), count(&self.ended[end.index()])));
        sheet.by("stillhere_sessions_ended", "Sessions that are over, and why.", "end", ended);
        let mut words = Vec::new();
        for end in End::ALL {
            for (fate, counter) in ["spoken", "yielded", "denied"].into_iter().zip(&self.words[end.index()]) {
                words.push((vec![("fate", fate.to_owned()), ("end", end.as_str().to_owned())], count(counter)));
            }
        }
        let help = "Last words that came to be spoken, what came of them, and why their sessions were over.";
        sheet.counter("stillhere_last_words", help, words);
        sheet.cores(&self.readings());
        process(&mut sheet);
        sheet.text()
    }
}

/// What the kernel knows of this process, under the names that everybody uses.
fn process(sheet: &mut Sheet) {
    let of = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let status = of("/proc/self/status");
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    if let Some(kib) = field("VmRSS:") {
        sheet.gauge("process_resident_memory_bytes", "Memory that the process has.", whole(kib * 1024));
    }
    // Behind the name, which may hold anything, from the third field on (proc_pid_stat(5)).
    let stat = of("/proc/self/stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let ticks = |index: usize| fields.get(index - 3).and_then(|field| field.parse::<u64>().ok());
    if let (Some(user), Some(system)) = (ticks(14), ticks(15)) {
        // A hundred a second on every Linux, whatever its kernel counts in.
        let help = "Time that processors have worked for the process.";
        sheet.seconds("process_cpu_seconds", help, whole(user + system) / 100.0);
    }
}
