//! The life of one server: start, ready, reload, drain, stop. For the command, and for programs that run a
//! server within themselves.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;

use super::archive::{self, Broken, Progress, Recovered};
use super::config::{Config, Line, Meaning, TlsFiles};
use super::data_dir::{DataDir, Unusable};
use super::health::Health;
use super::internal::{self, Internal};
use super::keys::Keeper;
use super::logs::{NoticeLog, SetLevel};
use super::place::Problem;
use super::seam::{self, Plan, Rules, Running};
use super::value::Durability;
use super::{Stop, kernel, rules, tls};
use crate::auth::Verifier;
use crate::base::{Millis, ShardId};
use crate::log::State;
use crate::runtime::DtlsKeys;
use crate::{engine, gateway};

/// What a server begins with.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) meaning: Meaning,
    pub(super) health: Arc<Health>,
    /// Whether the internal address is served.
    pub(super) has_internal: bool,
    /// Whether this program opens sessions of its own.
    pub(super) has_guests: bool,
    pub(super) again: Again,
    /// A socket that listens already.
    pub(super) passed: Option<OwnedFd>,
}

/// How what may change while a server runs is read again.
pub struct Again {
    /// Reads the configuration.
    pub read: Box<dyn Fn() -> Result<Meaning, Vec<Problem>> + Send + Sync>,
    /// Changes how much is logged.
    pub set_log_level: SetLevel,
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Again")
    }
}

/// Settings that a reload puts in force; others need a restart.
const RELOADED: [&str; 6] =
    ["log_level", "sessions_max", "last_words_max", "writes_per_second", "connections_per_address", "drain_spread"];

/// Where a server listens, with the ports that were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// WebSocket, Engine.IO, REST and streaming.
    pub tcp: SocketAddr,
    /// CoAP.
    pub coap: Option<SocketAddr>,
    /// CoAP over DTLS.
    pub coaps: Option<SocketAddr>,
    /// Health and metrics.
    pub internal: Option<SocketAddr>,
}

type Join = Box<dyn FnOnce() -> Result<(), Stop> + Send>;

/// A whole server, running within this program.
///
/// [`builder`](Self::builder) makes one. Dropping it asks it to drain and does not wait.
///
/// Its shards are threads, each pinned to a core where there are enough; it logs through [`tracing`], and
/// handles no signals: that is the program's.
pub struct Server {
    addresses: Addresses,
    config: Config,
    health: Arc<Health>,
    gateway: Option<gateway::Engine>,
    request_drain: Box<dyn Fn() + Send + Sync>,
    set_rules: Box<dyn Fn(Rules) + Send + Sync>,
    certify: Box<dyn Fn(Arc<ServerConfig>) + Send + Sync>,
    certify_coaps: Box<dyn Fn(DtlsKeys) + Send + Sync>,
    reload_keys: Mutex<Sender<()>>,
    join: Mutex<Option<Join>>,
    again: Again,
    /// The settings that it was started with.
    lines: Vec<Line>,
    set_limits: Box<dyn Fn(Arc<engine::Limits>) + Send + Sync>,
    is_alive: Box<dyn Fn() -> bool + Send + Sync>,
    _internal: Option<Internal>,
}

impl Server {
    /// Starts one. When this returns it serves.
    ///
    /// # Errors
    ///
    /// It cannot start; nothing is left behind.
    pub(super) fn start(beginning: Beginning) -> Result<Self, Stop> {
        let Beginning { meaning, health, has_internal, has_guests, again, passed } = beginning;
        let Meaning { config, warnings, lines } = meaning;
        announce(&config, &warnings);
        kernel::check_io_uring().map_err(Stop::Failed)?;
        let rules = rules::load(&config).map_err(|problem| Stop::BadConfig(vec![problem]))?;
        warn(&rules::warnings(&config, &rules));
        let mut keeper = Keeper::new(&config.auth, config.is_dev, &health).map_err(Stop::BadConfig)?;
        keeper.fetch();
        let data = DataDir::open(&config.data).map_err(|unusable| match unusable {
            Unusable::Bad(reason) => Stop::BadConfig(vec![Problem::new("data", reason)]),
            Unusable::Held(reason) => Stop::Failed(reason),
        })?;
        let tls = config.tls.as_ref().map(tls::load).transpose().map_err(|problem| Stop::BadConfig(vec![problem]))?;
        let coaps = load_coaps(&config)?;
        // Whoever asks whether it is ready is answered while the log is read.
        let internal = if has_internal { Some(start_internal(&config, &health)?) } else { None };
        let engines = engines(&config, &rules, &keeper.verifier())?;
        let archive = open_archive(&config, &data, &engines[0], &health)?;
        let plan = Plan {
            archive,
            snapshot_bytes: u64::from(config.snapshot_mib) * 1024 * 1024,
            memory_max: config.memory_max,
            listen: config.listen,
            coap: config.coap,
            coaps,
            engines,
            notices: (0..config.shards).map(|shard| NoticeLog::new(ShardId(shard), Arc::clone(&health))).collect(),
            rules,
            tls,
            health: Arc::clone(&health),
            has_guests,
            limits: seam::limits(&config),
            usage_seed: [random_word()?, random_word()?, random_word()?, random_word()?],
            drain_max: config.drain_max,
            passed,
        };
        let running =
            seam::start(plan).map_err(|error| failed(&format!("cannot serve at {}", config.listen), &error))?;
        let Running { tcp, coap, coaps, request_drain, set_rules, set_limits, set_verifier, .. } = running;
        let Running { certify, certify_coaps, gateway, is_alive, join, .. } = running;
        let reload_keys = keeper.start(set_verifier).map_err(|error| failed("a thread cannot be started", &error))?;
        health.set_ready(config.shards);
        let internal_address = internal.as_ref().map(Internal::address);
        // The directory is held until the shards have ended.
        let join = Box::new(move || {
            let _data = data;
            let ended = panic::catch_unwind(AssertUnwindSafe(join));
            let ended = ended.unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            ended.map_err(|error| failed("a shard failed", &error))
        });
        Ok(Self {
            addresses: Addresses { tcp, coap, coaps, internal: internal_address },
            config,
            health,
            gateway,
            request_drain,
            set_rules,
            certify,
            certify_coaps,
            reload_keys: Mutex::new(reload_keys),
            join: Mutex::new(Some(join)),
            again,
            lines,
            set_limits,
            is_alive,
            _internal: internal,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// How many cores serve.
    #[must_use]
    pub const fn shards(&self) -> u8 {
        self.config.shards
    }

    /// How it is.
    #[must_use]
    pub const fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// A handle for sessions of this program: protocols of your own.
    ///
    /// # Panics
    ///
    /// If the server was built [without](super::Builder::without_sessions) them.
    #[must_use]
    pub fn engine(&self) -> gateway::Engine {
        self.gateway.clone().expect("the server was built for sessions of this program")
    }

    /// Whether every core answers. Waits for them five seconds at most.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        (self.is_alive)()
    }

    /// How long it may take to stop.
    #[must_use]
    pub const fn drain_max(&self) -> Millis {
        self.config.drain_max
    }

    /// Reads the configuration and the files of rules, certificates and keys again. Limits and the log level apply
    /// from now on. What is wrong in one of them changes nothing of it and is logged.
    pub fn reload(&self) {
        self.reload_config();
        reload(&self.config, &self.health, &self.set_rules);
        reload_certificates(&self.config, &self.health, &self.certify, &self.certify_coaps);
        // That thread goes only with the server.
        let _ = self.reload_keys.lock().unwrap_or_else(PoisonError::into_inner).send(());
    }

    fn reload_config(&self) {
        let meaning = match (self.again.read)() {
            Ok(meaning) => meaning,
            Err(problems) => {
                for Problem { place, reason } in problems {
                    tracing::error!(place, reason, "the configuration is wrong: the one in force stays");
                }
                return self.health.count_config_reload(false);
            }
        };
        (self.again.set_log_level)(meaning.config.log_level);
        (self.set_limits)(seam::limits(&meaning.config));
        warn(&meaning.warnings);
        let is_reloaded = |name: &str| RELOADED.contains(&name.rsplit('.').next().unwrap_or(name));
        let is_same = |line: &&Line| self.lines.iter().any(|old| (&old.name, &old.value) == (&line.name, &line.value));
        for line in meaning.lines.iter().filter(|line| !is_reloaded(&line.name) && !is_same(line)) {
            tracing::warn!(setting = line.name, "takes effect with the next start");
        }
        tracing::info!("configuration reloaded");
        self.health.count_config_reload(true);
    }

    /// Begins to stop: no new clients, those that are here are sent away, what they leave is written. Does not wait.
    pub fn drain(&self) {
        drain(&self.health, &self.request_drain);
    }

    /// Waits until it has stopped, because it was [drained](Self::drain), or because it failed.
    ///
    /// # Errors
    ///
    /// A shard failed.
    pub fn wait(self) -> Result<(), Stop> {
        self.take_join()()
    }

    /// Drains it and waits until it has stopped.
    ///
    /// # Errors
    ///
    /// A shard failed.
    pub fn stop(self) -> Result<(), Stop> {
        self.drain();
        self.wait()
    }

    /// What waits for the end, for another thread to call.
    pub(super) fn take_join(&self) -> Join {
        let join = self.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        join.expect("the end is waited for once")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        (self.request_drain)();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Says what is about to start.
fn announce(config: &Config, warnings: &[Problem]) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        shards = config.shards,
        data = %config.data.display(),
        rules = rules::describe(config),
        "starting"
    );
    warn(warnings);
    if config.is_dev {
        tracing::warn!("dev: anybody who reaches this server may do anything");
    }
}

/// Where to serve DTLS, and with what, if at all.
fn load_coaps(config: &Config) -> Result<Option<(SocketAddr, DtlsKeys)>, Stop> {
    let Some((address, files)) = &config.coaps else { return Ok(None) };
    let keys = tls::load_for_datagrams(files).map_err(|problem| Stop::BadConfig(vec![problem]))?;
    Ok(Some((*address, keys)))
}

/// What the last server left, if anything is to be kept at all.
fn open_archive(
    config: &Config,
    data: &DataDir,
    engine: &engine::Config,
    health: &Health,
) -> Result<Option<Recovered>, Stop> {
    let namespaces = config.namespaces.named.values().chain([&config.namespaces.everywhere]);
    if namespaces.into_iter().all(|namespace| namespace.durability == Durability::None) {
        tracing::warn!("durability = \"none\": data is kept in memory only and does not survive a restart");
        return Ok(None);
    }
    let settle = |state: &mut State| {
        let settled = seam::settle(engine, state);
        for database in &settled.ruleless {
            tracing::warn!(
                database,
                "the rules that were put in place for this database are dropped: those of all have changed"
            );
        }
        settled
    };
    archive::recover(&data.path, &Progress::new(health), settle).map(Some).map_err(|broken| match broken {
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

/// Serves new TLS connections and DTLS peers with the certificates as their files are now. A bad one changes nothing.
fn reload_certificates(
    config: &Config,
    health: &Health,
    certify: &dyn Fn(Arc<ServerConfig>),
    certify_coaps: &dyn Fn(DtlsKeys),
) {
    if let Some(files) = &config.tls {
        tell_reloaded(files, health, tls::load(files).map(certify));
    }
    if let Some((_, files)) = &config.coaps {
        tell_reloaded(files, health, tls::load_for_datagrams(files).map(certify_coaps));
    }
}

fn tell_reloaded(files: &TlsFiles, health: &Health, reloaded: Result<(), Problem>) {
    health.count_tls_reload(reloaded.is_ok());
    match reloaded {
        Ok(()) => tracing::info!(cert = %files.cert.display(), "certificate reloaded"),
        Err(Problem { place, reason }) => {
            tracing::error!(place, reason, "the certificate is wrong: the one in use stays");
        }
    }
}

fn warn(warnings: &[Problem]) {
    for Problem { place, reason } in warnings {
        tracing::warn!(place, "{reason}");
    }
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Stop {
    Stop::Failed(format!("{what}: {error}"))
}

/// The address that somebody chose must be had; the default gives way to any free port, so that a second
/// server on the machine starts without being told everything.
fn start_internal(config: &Config, health: &Arc<Health>) -> Result<Internal, Stop> {
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
