//! Where this room touches the others: everything that `server` asks of `rules`, `engine` and `runtime`
//! is asked here, so that a change over there is an edit in this file.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;

use super::archive::Recovered;
use super::config::{Config, Namespace, Namespaces};
use super::health::Health;
use super::logs::NoticeLog;
use super::value::{Durability, LateLastWords, RulesDialect};
use crate::auth::Verifier;
use crate::base::{Millis, ShardId};
use crate::engine;
use crate::gateway;
use crate::log::State;
use crate::rules::{Dialect, Ruleset, casefile};
use crate::runtime;

/// Rules that were found sound, ready to be given to the shards.
#[derive(Clone, Debug)]
pub struct Rules {
    /// As they were written.
    pub text: Arc<str>,
    /// Compiled.
    pub compiled: Arc<Ruleset>,
    /// What is accepted and probably not meant.
    pub warnings: Vec<Remark>,
}

/// What there is to say about a place of a rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// For people.
    pub text: String,
}

/// Reads rules.
///
/// # Errors
///
/// The first place where the text is wrong.
pub fn compile_rules(text: &str, dialect: RulesDialect) -> Result<Rules, Remark> {
    let remark = |line: u32, column: u32, text: &str| Remark {
        line: line as usize,
        column: column as usize,
        text: text.to_owned(),
    };
    let compiled =
        Ruleset::parse(text, self::dialect(dialect)).map_err(|bad| remark(bad.line, bad.column, &bad.text))?;
    let warnings =
        compiled.warnings().iter().map(|warning| remark(warning.line, warning.column, &warning.text)).collect();
    Ok(Rules { text: text.into(), compiled: Arc::new(compiled), warnings })
}

const fn dialect(word: RulesDialect) -> Dialect {
    match word {
        RulesDialect::Firebase => Dialect::Firebase,
        RulesDialect::Wilddog => Dialect::Wilddog,
        RulesDialect::Both => Dialect::Both,
    }
}

/// What came of cases for rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that came out as they should.
    pub passed_count: usize,
    /// Cases that did not.
    pub failed_count: usize,
}

/// Runs the cases of `files` and writes each mismatch to `output`.
///
/// # Errors
///
/// A file cannot be read or is none of cases, or `output` cannot be written.
pub fn test_rules(files: &[PathBuf], output: &mut dyn io::Write) -> io::Result<Tally> {
    let mut tally = Tally::default();
    for file in files {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        let report = casefile::run(&std::fs::read_to_string(file).map_err(named)?);
        for mismatch in &report.mismatches {
            writeln!(output, "{}:{mismatch}", file.display())?;
        }
        tally.passed_count += report.passed;
        tally.failed_count += report.mismatches.len();
    }
    Ok(tally)
}

/// How much there may be of what clients can make.
#[must_use]
pub fn limits(config: &Config) -> Arc<engine::Limits> {
    let quota = |namespace: &Namespace| engine::Quota {
        sessions_max: namespace.sessions_max,
        last_words_max: namespace.last_words_max,
        writes_per_second: namespace.writes_per_second,
    };
    let named = config.namespaces.named.iter().map(|(name, namespace)| (name.clone(), quota(namespace)));
    Arc::new(engine::Limits {
        everywhere: quota(&config.namespaces.everywhere),
        named: named.collect(),
        connections_per_address: config.connections_per_address,
        drain_spread: config.drain_spread,
    })
}

/// What one engine is told at the start: `seed` is its own, `common_seed` that of all.
#[must_use]
pub fn engine_config(
    config: &Config,
    rules: &Rules,
    verifier: &Arc<Verifier>,
    shard: u8,
    seed: [u8; 32],
    common_seed: [u64; 4],
) -> engine::Config {
    let settings = |namespace: &Namespace| {
        Arc::new(engine::Settings {
            heartbeat: namespace.heartbeat,
            session_timeout: namespace.session_timeout,
            coap_session_timeout: namespace.coap_session_timeout,
            late_last_words: match namespace.late_last_words {
                LateLastWords::Yield => engine::LateLastWords::Yield,
                LateLastWords::Always => engine::LateLastWords::Always,
            },
            durability: match namespace.durability {
                Durability::None => engine::Durability::None,
                Durability::Os => engine::Durability::Os,
                Durability::Fsync => engine::Durability::Fsync,
            },
            restart_grace: namespace.restart_grace,
        })
    };
    let Namespaces { allowed, everywhere, named } = &config.namespaces;
    let everywhere = settings(everywhere);
    let mut namespaces: BTreeMap<String, Arc<engine::Settings>> =
        named.iter().map(|(name, namespace)| (name.clone(), settings(namespace))).collect();
    for name in allowed.iter().flatten() {
        namespaces.entry(name.clone()).or_insert_with(|| everywhere.clone());
    }
    engine::Config {
        shard: ShardId(shard),
        shards: config.shards,
        seed,
        common_seed,
        settings: everywhere,
        namespaces,
        is_restricted: allowed.is_some(),
        rules: Arc::clone(&rules.compiled),
        dialect: dialect(config.rules_dialect),
        verifier: Arc::clone(verifier),
    }
}

/// Decides, now, what becomes of what the last server left.
pub fn settle(config: &engine::Config, state: &mut State) -> engine::Settled {
    config.settle(runtime::clock::read(), state)
}

/// Everything that running a server takes.
#[derive(Debug)]
pub struct Plan {
    /// Where TCP clients come in; port 0 means any free one.
    pub listen: SocketAddr,
    /// Where CoAP clients come in, if they do.
    pub coap: Option<SocketAddr>,
    /// Where CoAP clients come in over DTLS, and with what, if they do.
    pub coaps: Option<(SocketAddr, runtime::DtlsKeys)>,
    /// One for each shard, in their order.
    pub engines: Vec<engine::Config>,
    /// One for each shard, in their order.
    pub notices: Vec<NoticeLog>,
    /// What the last server left, and where this one writes; `None`: nothing is kept.
    pub archive: Option<Recovered>,
    /// From how many bytes of log on a shard takes a snapshot.
    pub snapshot_bytes: u64,
    /// How many bytes of memory may be in use before nothing new is taken in.
    pub memory_max: Option<u64>,
    /// What is allowed.
    pub rules: Rules,
    /// What connections that begin with a TLS handshake are served with, if they are.
    pub tls: Option<Arc<ServerConfig>>,
    /// Where the shards may count.
    pub health: Arc<Health>,
    /// Whether this program opens sessions of its own.
    pub has_guests: bool,
    /// How much there may be.
    pub limits: Arc<engine::Limits>,
    /// A seed for where usage is counted: nobody's to know.
    pub usage_seed: [u64; 4],
    /// How long a stop may take.
    pub drain_max: Millis,
    /// A socket that listens already: then `listen` says nothing.
    pub passed: Option<OwnedFd>,
}

/// A server that runs.
pub struct Running {
    /// Where TCP clients come in.
    pub tcp: SocketAddr,
    /// Where CoAP clients come in.
    pub coap: Option<SocketAddr>,
    /// Where CoAP clients come in over DTLS.
    pub coaps: Option<SocketAddr>,
    /// Asks all shards to end their sessions and stop. Returns at once.
    pub request_drain: Box<dyn Fn() + Send + Sync>,
    /// Gives all shards new rules. Returns at once.
    pub set_rules: Box<dyn Fn(Rules) + Send + Sync>,
    /// Gives all shards other limits. Returns at once.
    pub set_limits: Box<dyn Fn(Arc<engine::Limits>) + Send + Sync>,
    /// Tells all shards whom to believe. Returns at once.
    pub set_verifier: Box<dyn Fn(Arc<Verifier>) + Send>,
    /// Serves new TLS connections with this. Only for servers that were started with TLS. Returns at once.
    pub certify: Box<dyn Fn(Arc<ServerConfig>) + Send + Sync>,
    /// The same for new DTLS peers, of servers that were started with DTLS.
    pub certify_coaps: Box<dyn Fn(runtime::DtlsKeys) + Send + Sync>,
    /// For sessions of this program, if it wanted any.
    pub gateway: Option<gateway::Engine>,
    /// Whether every shard answers. Waits for them five seconds at most.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
    /// Waits until all shards have stopped; an error is why one did without being asked.
    pub join: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

/// Starts the shards.
///
/// # Errors
///
/// The address cannot be listened on, or a shard cannot be started.
pub fn start(plan: Plan) -> io::Result<Running> {
    let Plan { has_guests, limits, usage_seed, drain_max, passed, coaps, .. } = plan;
    let Plan { listen, coap, engines, notices, archive, snapshot_bytes, memory_max, tls, health, .. } = plan;
    let shards = u8::try_from(engines.len()).expect("an engine for each shard");
    let mut kernel_plan = runtime::Plan::new(shards, listen);
    kernel_plan.tls = tls;
    kernel_plan.memory_max = memory_max;
    kernel_plan.datagrams = coap;
    kernel_plan.has_guests = has_guests;
    kernel_plan.drain_max = drain_max;
    kernel_plan.passed = passed.map(Arc::new);
    kernel_plan.sealed_datagrams = coaps;
    let timeouts = engines.iter().flat_map(|engine| engine.namespaces.values().chain([&engine.settings]));
    let timeouts = timeouts.map(|settings| settings.session_timeout);
    kernel_plan.unanswered_max = timeouts.max().expect("an engine for each shard");
    // Each shard's notices come from its own thread; the lock is there for the types and never waits.
    let notices: Vec<Mutex<NoticeLog>> = notices.into_iter().map(Mutex::new).collect();
    kernel_plan.notify = Arc::new(move |shard, notice| {
        let mut log = notices[shard.index()].lock().unwrap_or_else(PoisonError::into_inner);
        log.note(runtime::clock::read().instant, notice);
    });
    let mut inherited = Vec::new();
    if let Some(Recovered { directory, epoch, state, speeches }) = archive {
        kernel_plan.disk = Some(runtime::Disk { directory, epoch, snapshot_bytes });
        inherited = engines[0].deal(state, speeches);
    }
    inherited.resize_with(engines.len(), engine::Inherited::default);
    let engines: Arc<[engine::Config]> = engines.into();
    let usage = Arc::new(engine::Usage::new(usage_seed));
    let inherited: Arc<[Mutex<_>]> = inherited.into_iter().map(Mutex::new).collect();
    let running = runtime::start(kernel_plan, move |shard| {
        let now = runtime::clock::read();
        let engine = engine::Engine::new(engines[shard.index()].clone(), now);
        // What goes on from before is counted, and not turned away.
        let mut engine = engine.limited(Arc::default(), Arc::clone(&usage));
        let mut own = inherited[shard.index()].lock().unwrap_or_else(PoisonError::into_inner);
        engine.inherit(now, std::mem::take(&mut *own));
        engine.limited(Arc::clone(&limits), Arc::clone(&usage))
    })?;
    let (draining, reloading, believing) = (running.remote(), running.remote(), running.remote());
    let (certifying, measuring, limiting) = (running.remote(), running.remote(), running.remote());
    let (asking, certifying_coaps) = (running.remote(), running.remote());
    health.set_source(move || measuring.measure());
    Ok(Running {
        tcp: running.local_addr(),
        coap: running.datagrams_addr(),
        coaps: running.sealed_datagrams_addr(),
        is_alive: Box::new(move || asking.measure().len() == asking.shards()),
        gateway: has_guests.then(|| gateway::Engine::new(running.doors())),
        request_drain: Box::new(move || draining.request_drain()),
        set_rules: Box::new(move |rules| reloading.tell_all(|| engine::Input::Rules(Arc::clone(&rules.compiled)))),
        set_limits: Box::new(move |limits| limiting.tell_all(|| engine::Input::Limits(Arc::clone(&limits)))),
        set_verifier: Box::new(move |verifier| believing.tell_all(|| engine::Input::Verifier(Arc::clone(&verifier)))),
        certify: Box::new(move |config| certifying.certify(&config)),
        certify_coaps: Box::new(move |keys| certifying_coaps.certify_datagrams(&keys)),
        join: Box::new(move || {
            running.join();
            Ok(())
        }),
    })
}
