//! The log: structured lines on standard error, for people on a terminal, else JSON.
//!
//! The surprising idea: a thread of its own writes them, behind a bounded queue. Standard error may be
//! a pipe that nobody reads; a shard that wrote to it directly would stop serving when it is full.
//! Lines that do not fit are counted and lost. Clients can cause lines, so those are rationed by kind.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use super::health::{Health, NoticeKind};
use super::value::{LogFormat, LogLevel};
use crate::base::{Instant, Millis, ShardId, limits};
use crate::engine::Notice;

/// What goes to the thread that writes.
pub(super) enum Line {
    Text(Vec<u8>),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
}

/// The running log. Dropping it waits until what was logged is written, though not forever.
#[derive(Debug)]
pub struct Logs {
    lines: SyncSender<Line>,
    filter: reload::Handle<Targets, Registry>,
}

/// Changes how much is logged from now on.
pub type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

impl Logs {
    /// What changes how much is logged.
    #[must_use]
    pub fn level_setter(&self) -> SetLevel {
        let filter = self.filter.clone();
        // It fails only where there is no log any more.
        Box::new(move |level| drop(filter.reload(targets(level))))
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries speak when something is wrong, and in `trace`.
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    // The executor asks each disk whether it can be polled, and calls the usual no an error.
    let executor = if level == LevelFilter::TRACE { level } else { LevelFilter::OFF };
    Targets::new().with_target("stillhere", level).with_target("glommio::reactor", executor).with_default(others)
}

/// Starts the log of this process.
///
/// # Errors
///
/// The thread cannot be started, or the process has a log already.
pub fn start(format: LogFormat, level: LogLevel, is_terminal: bool, health: &Arc<Health>) -> io::Result<Logs> {
    let (lines, queue) = mpsc::sync_channel(limits::LOG_LINES_MAX);
    std::thread::Builder::new().name("log".into()).spawn(move || write(&queue))?;
    let (filter, handle) = reload::Layer::new(targets(level));
    let writer = Writer { lines: lines.clone(), health: Arc::clone(health) };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let is_colourful = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = match format {
        LogFormat::Human => layer.with_ansi(is_colourful).with_target(false).boxed(),
        LogFormat::Json => layer.with_ansi(false).json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().map_err(io::Error::other)?;
    Ok(Logs { lines, filter: handle })
}

fn write(queue: &Receiver<Line>) {
    let mut output = io::stderr();
    while let Ok(line) = queue.recv() {
        match line {
            // Nobody can be told that the log cannot be written.
            Line::Text(text) => drop(output.write_all(&text)),
            Line::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        const FLUSH_MAX: Duration = Duration::from_secs(1);
        let (done, is_done) = mpsc::sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_MAX);
        }
    }
}

/// Hands lines to the thread that writes, and never waits for it.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) lines: SyncSender<Line>,
    pub(super) health: Arc<Health>,
}

impl io::Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.health.count_log_line_lost();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Turns one shard's notices into lines. Each shard has its own, so there is nothing to lock.
#[derive(Debug)]
pub struct NoticeLog {
    shard: ShardId,
    health: Arc<Health>,
    rations: [Ration; NoticeKind::ALL.len()],
}

impl NoticeLog {
    /// For the notices of `shard`.
    #[must_use]
    pub fn new(shard: ShardId, health: Arc<Health>) -> Self {
        Self { shard, health, rations: Default::default() }
    }

    /// Counts a notice and logs it, unless there were too many of its kind.
    pub fn note(&mut self, now: Instant, notice: &Notice) {
        let kind = NoticeKind::of(notice);
        self.health.count_notice(notice);
        let Some(unsaid) = self.rations[kind.index()].take(now) else { return };
        let (shard, kind) = (self.shard.0, kind.as_str());
        match notice {
            Notice::Violation { conn, what } => {
                tracing::info!(kind, shard, conn = conn.0, what, unsaid, "a client broke the protocol");
            }
            Notice::Ended { end, silent } => {
                let (end, silent_ms) = (end.as_str(), silent.0);
                tracing::debug!(kind, shard, end, silent_ms, unsaid, "a session is over");
            }
            Notice::LastWords { end, spoken, yielded, denied } => {
                let end = end.as_str();
                tracing::debug!(kind, shard, end, spoken, yielded, denied, unsaid, "last words were performed");
            }
            Notice::Unspoken { namespace, path, fate, end } => {
                let denial = fate.denial().map(ToString::to_string).unwrap_or_default();
                let (end, fate) = (end.as_str(), fate.as_str());
                tracing::info!(kind, shard, namespace = &**namespace, %path, fate, denial, end, unsaid, "a last word was not written");
            }
        }
    }
}

/// How many lines of one kind may still be said: [`limits::NOTICES_MAX`] in each
/// [`limits::NOTICE_WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Ration {
    window_start: Instant,
    said_count: u32,
    unsaid_count: u64,
}

impl Ration {
    /// Whether one more may be said; if so, how many were not since the last one.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        let window: Millis = limits::NOTICE_WINDOW;
        if now.since(self.window_start) >= window {
            self.window_start = now;
            self.said_count = 0;
        }
        if self.said_count == limits::NOTICES_MAX {
            self.unsaid_count += 1;
            return None;
        }
        self.said_count += 1;
        Some(std::mem::take(&mut self.unsaid_count))
    }
}
