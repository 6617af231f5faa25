//! The life of one server: start, ready, reload, drain, stop.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use rustls::ServerConfig;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::archive::{self, Broken, Recovered};
use super::config::{Config, Meaning, TlsFiles};
use super::data_dir::{DataDir, Unusable};
use super::health::Health;
use super::keys::Keeper;
use super::logs::NoticeLog;
use super::place::Problem;
use super::seam::{self, Plan, Rules, Running};
use super::value::Durability;
use super::{Stop, internal, kernel, rules, tls};
use crate::auth::Verifier;
use crate::base::ShardId;
use crate::engine;
use crate::log::State;

/// What can happen to a server.
enum Happening {
    /// SIGTERM or SIGINT.
    DrainAsked,
    /// SIGHUP.
    ReloadAsked,
    /// All shards have stopped.
    Ended(io::Result<()>),
}

/// Serves until asked to stop, and stops in order.
///
/// # Errors
///
/// It cannot start, or a shard failed.
pub fn serve(meaning: &Meaning, health: &Arc<Health>) -> Result<(), Stop> {
    let config = &meaning.config;
    // First, so that whoever asks during the start is heard once it is over.
    let (happened, happenings) = mpsc::channel();
    watch_signals(happened.clone()).map_err(|error| failed("signals cannot be watched", &error))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        shards = config.shards,
        data = %config.data.display(),
        rules = rules::describe(config),
        "starting"
    );
    warn(&meaning.warnings);
    if config.is_dev {
        tracing::warn!("dev: anybody who reaches this server may do anything");
    }
    kernel::check_io_uring().map_err(Stop::Failed)?;
    let rules = rules::load(config).map_err(|problem| Stop::BadConfig(vec![problem]))?;
    warn(&rules::warnings(config, &rules));
    let mut keeper = Keeper::new(&config.auth, config.is_dev, health).map_err(Stop::BadConfig)?;
    keeper.fetch();
    let data = DataDir::open(&config.data).map_err(|unusable| match unusable {
        Unusable::Bad(reason) => Stop::BadConfig(vec![Problem::new("data", reason)]),
        Unusable::Held(reason) => Stop::Failed(reason),
    })?;
    let tls = config.tls.as_ref().map(tls::load).transpose().map_err(|problem| Stop::BadConfig(vec![problem]))?;
    let engines = engines(config, &rules, &keeper.verifier())?;
    let archive = open_archive(config, &data, &engines[0])?;
    let internal = start_internal(config, health)?;
    let plan = Plan {
        archive,
        snapshot_bytes: u64::from(config.snapshot_mib) * 1024 * 1024,
        listen: config.listen,
        coap: config.coap,
        engines,
        notices: (0..config.shards).map(|shard| NoticeLog::new(ShardId(shard), Arc::clone(health))).collect(),
        rules,
        tls,
        health: Arc::clone(health),
    };
    let running = seam::start(plan).map_err(|error| failed(&format!("cannot serve at {}", config.listen), &error))?;
    let Running { tcp, coap, coaps, request_drain, set_rules, set_verifier, certify, join } = running;
    let reload_keys = keeper.start(set_verifier).map_err(|error| failed("a thread cannot be started", &error))?;
    let joining = std::thread::Builder::new().name("join".into());
    joining
        .spawn(move || {
            let ended = panic::catch_unwind(AssertUnwindSafe(join));
            let ended = ended.unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            // Whoever would listen is gone only when the process is.
            let _ = happened.send(Happening::Ended(ended));
        })
        .map_err(|error| failed("a thread cannot be started", &error))?;
    health.set_ready(config.shards);
    say_ready(tcp, coap, coaps, internal, config.shards);
    loop {
        match happenings.recv().expect("the thread that joins sends before it goes") {
            Happening::DrainAsked => drain(health, &request_drain),
            Happening::ReloadAsked => {
                reload(config, health, &set_rules);
                if let Some(files) = &config.tls {
                    reload_certificate(files, health, &certify);
                }
                // That thread goes only with the process.
                let _ = reload_keys.send(());
            }
            Happening::Ended(Ok(())) => {
                tracing::info!("stopped");
                return Ok(());
            }
            Happening::Ended(Err(error)) => return Err(failed("a shard failed", &error)),
        }
    }
}

/// What the last server left, if anything is to be kept at all.
fn open_archive(config: &Config, data: &DataDir, engine: &engine::Config) -> Result<Option<Recovered>, Stop> {
    let namespaces = config.namespaces.named.values().chain([&config.namespaces.everywhere]);
    if namespaces.into_iter().all(|namespace| namespace.durability == Durability::None) {
        tracing::warn!("durability = \"none\": data is kept in memory only and does not survive a restart");
        return Ok(None);
    }
    let settle = |state: &mut State| {
        for database in engine.inherit(state) {
            tracing::warn!(
                database,
                "the rules that were put in place for this database are dropped: those of all have changed"
            );
        }
    };
    archive::recover(&data.path, settle).map(Some).map_err(|broken| match broken {
        Broken::Failed(error) => failed(&format!("the log in {} cannot be read", data.path.display()), &error),
        Broken::Damaged(damaged) => Stop::Failed(format!(
            "the log in {} is damaged: {}. Restore a backup, or see `stillhere verify --repair --data {}`",
            data.path.display(),
            damaged.join("; "),
            data.path.display(),
        )),
    })
}

/// Sends new clients elsewhere, then lets those that are here go.
pub(super) fn drain(health: &Health, request_drain: &dyn Fn()) {
    tracing::info!("draining");
    health.set_draining();
    request_drain();
}

/// Puts the rules file in force as it is now. Bad rules change nothing.
fn reload(config: &Config, health: &Health, set_rules: &dyn Fn(Rules)) {
    match rules::load(config) {
        Ok(rules) => {
            warn(&rules::warnings(config, &rules));
            set_rules(rules);
            health.count_rules_reloaded();
            tracing::info!(rules = rules::describe(config), "rules reloaded");
        }
        Err(Problem { place, reason }) => {
            health.count_rules_refused();
            tracing::error!(place, reason, "the rules are wrong: those in force stay");
        }
    }
}

/// Serves new TLS connections with the certificate as its files are now. A bad one changes nothing.
fn reload_certificate(files: &TlsFiles, health: &Health, certify: &dyn Fn(Arc<ServerConfig>)) {
    match tls::load(files) {
        Ok(config) => {
            certify(config);
            health.count_tls_reload(true);
            tracing::info!(cert = %files.cert.display(), "certificate reloaded");
        }
        Err(Problem { place, reason }) => {
            health.count_tls_reload(false);
            tracing::error!(place, reason, "the certificate is wrong: the one in use stays");
        }
    }
}

fn warn(warnings: &[Problem]) {
    for Problem { place, reason } in warnings {
        tracing::warn!(place, "{reason}");
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> Stop {
    Stop::Failed(format!("{what}: {error}"))
}

/// The first SIGTERM or SIGINT asks for a drain, the second ends the process at once.
fn watch_signals(happened: Sender<Happening>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let watching = std::thread::Builder::new().name("signals".into());
    watching.spawn(move || {
        let mut is_drain_asked = false;
        for signal in signals.forever() {
            let happening = match signal {
                SIGHUP => Happening::ReloadAsked,
                _ if is_drain_asked => std::process::exit(super::EXIT_FAILURE.into()),
                _ => {
                    is_drain_asked = true;
                    Happening::DrainAsked
                }
            };
            // Nobody listens any more: the process is about to end anyway.
            let _ = happened.send(happening);
        }
    })?;
    Ok(())
}

/// The address that somebody chose must be had; the default gives way to any free port, so that a second
/// server on the machine starts without being told everything.
fn start_internal(config: &Config, health: &Arc<Health>) -> Result<SocketAddr, Stop> {
    let address = config.internal;
    let listener = match TcpListener::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !config.is_internal_chosen => {
            let any = SocketAddr::new(address.ip(), 0);
            tracing::warn!(%address, "the default internal address is in use, taking another");
            TcpListener::bind(any)
        }
        bound => bound,
    };
    let listener = listener.map_err(|error| failed(&format!("cannot serve internal requests at {address}"), &error))?;
    internal::start(listener, Arc::clone(health)).map_err(|error| failed("cannot serve internal requests", &error))
}

fn engines(config: &Config, rules: &Rules, verifier: &Arc<Verifier>) -> Result<Vec<engine::Config>, Stop> {
    let common_seed = [random_word()?, random_word()?, random_word()?, random_word()?];
    (0..config.shards)
        .map(|shard| {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| failed("no randomness", &error))?;
            Ok(seam::engine_config(config, rules, verifier, shard, seed, common_seed))
        })
        .collect()
}

fn random_word() -> Result<u64, Stop> {
    getrandom::u64().map_err(|error| failed("no randomness", &error))
}

/// The line that scripts wait for.
fn say_ready(tcp: SocketAddr, coap: Option<SocketAddr>, coaps: Option<SocketAddr>, internal: SocketAddr, shards: u8) {
    let or_dash = |address: Option<SocketAddr>| address.map_or_else(|| "-".into(), |address| address.to_string());
    let (coap, coaps) = (or_dash(coap), or_dash(coaps));
    let line = format!("ready tcp={tcp} coap={coap} coaps={coaps} internal={internal} shards={shards}");
    tracing::info!(%tcp, coap, coaps, %internal, shards, "ready");
    let mut output = io::stdout();
    if let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush()) {
        tracing::warn!(%error, "the ready line cannot be printed");
    }
}
