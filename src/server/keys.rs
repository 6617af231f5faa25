//! The keeper of keys: a thread that reads key files again when asked, fetches key sets when they are
//! due, and tells the shards whom to believe from then on.
//!
//! A set that cannot be had, or is none, changes nothing: the last good one is kept. The server starts
//! without the sources being there; until their first set arrives, the tokens of those issuers are
//! refused.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::auth::{self, Auth};
use super::health::Health;
use super::place::Problem;
use super::value::KeySource;
use crate::auth::{AuthConfig, KeySet, Verifier};
use crate::base::limits;

/// Between two fetches of one set, whatever its source says.
const PAUSE_MIN: Duration = Duration::from_secs(5 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// When its source does not say.
const PAUSE: Duration = Duration::from_secs(60 * 60);
/// After a fetch that failed.
const PAUSE_FAILED: Duration = Duration::from_secs(60);
/// One fetch. A start waits for the first ones at most this long.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Who keeps the keys.
pub struct Keeper {
    auth: Auth,
    is_dev: bool,
    health: Arc<Health>,
    /// What is believed now.
    config: AuthConfig,
    /// For each issuer: its set as it was last fetched, and when it is due again.
    fetched: Vec<Fetched>,
}

/// What is known of a source.
#[derive(Clone, Default)]
struct Fetched {
    text: Option<String>,
    /// `None`: at once.
    due: Option<Instant>,
}

/// A key set as it came.
struct Delivery {
    text: String,
    keys: KeySet,
    pause: Duration,
}

/// What to do with those whom to believe from now on.
pub type Tell = Box<dyn Fn(Arc<Verifier>) + Send>;

impl Keeper {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn new(auth: &Auth, is_dev: bool, health: &Arc<Health>) -> Result<Self, Vec<Problem>> {
        let config = auth::load(auth, is_dev)?;
        let fetched = vec![Fetched::default(); auth.issuers.len()];
        Ok(Self { auth: auth.clone(), is_dev, health: Arc::clone(health), config, fetched })
    }

    /// Who is believed now.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::new(Verifier::new(self.config.clone()).expect("everything that it refuses was refused before"))
    }

    /// Fetches every set that is due. Says whether any key has changed.
    pub fn fetch(&mut self) -> bool {
        let now = Instant::now();
        let sources: Vec<(usize, String)> = (0..self.fetched.len())
            .filter(|&index| self.fetched[index].due.is_none_or(|due| due <= now))
            .filter_map(|index| match &self.auth.issuers[index].source {
                KeySource::Url(url) => Some((index, url.clone())),
                KeySource::File(_) => None,
            })
            .collect();
        if sources.is_empty() {
            return false;
        }
        // Side by side: one that hangs keeps none waiting.
        let deliveries: Vec<_> = std::thread::scope(|scope| {
            let fetching: Vec<_> = sources.iter().map(|(_, url)| scope.spawn(move || fetch(url))).collect();
            fetching.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".into()))).collect()
        });
        let mut has_changed = false;
        for ((index, url), delivery) in sources.into_iter().zip(deliveries) {
            has_changed |= self.take(index, &url, delivery);
        }
        has_changed
    }

    /// Puts a fetched set in place.
    fn take(&mut self, index: usize, url: &str, delivery: Result<Delivery, String>) -> bool {
        self.health.count_key_fetch(delivery.is_ok());
        let fetched = &mut self.fetched[index];
        let Delivery { text, keys, pause } = match delivery {
            Ok(delivery) => delivery,
            Err(reason) => {
                fetched.due = Some(Instant::now() + PAUSE_FAILED);
                tracing::warn!(url, reason, "keys cannot be fetched: those in force stay");
                return false;
            }
        };
        fetched.due = Some(Instant::now() + pause);
        if fetched.text.as_ref() == Some(&text) {
            return false;
        }
        tracing::info!(url, keys = keys.len(), next_s = pause.as_secs(), "keys fetched");
        fetched.text = Some(text);
        self.config.issuers[index].keys = keys;
        true
    }

    /// Reads all files again. Says whether they were right; wrong ones change nothing.
    pub fn reload(&mut self) -> bool {
        match auth::load(&self.auth, self.is_dev) {
            Ok(mut config) => {
                for (index, trusted) in self.auth.issuers.iter().enumerate() {
                    if matches!(trusted.source, KeySource::Url(_)) {
                        config.issuers[index].keys = std::mem::take(&mut self.config.issuers[index].keys);
                        self.fetched[index].due = None;
                    }
                }
                self.config = config;
                tracing::info!(auth = auth::describe(&self.auth, &self.config), "credentials reloaded");
                true
            }
            Err(problems) => {
                for Problem { place, reason } in problems {
                    tracing::error!(place, reason, "the credentials are wrong: those in force stay");
                }
                false
            }
        }
    }

    /// Goes on in a thread of its own as long as the process lives. What is sent to it makes it read and
    /// fetch everything again.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(mut self, tell: Tell) -> io::Result<Sender<()>> {
        let (reload, reloads) = mpsc::channel();
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            loop {
                let is_asked = match reloads.recv_timeout(self.pause()) {
                    Ok(()) => true,
                    Err(RecvTimeoutError::Timeout) => false,
                    // Nobody will ever ask again: the process is about to end.
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                let is_reloaded = is_asked && self.reload();
                if is_reloaded {
                    // What is here does not wait for what has to come.
                    tell(self.verifier());
                }
                if self.fetch() {
                    tell(self.verifier());
                }
                if is_asked {
                    self.health.count_auth_reload(is_reloaded);
                }
            }
        })?;
        Ok(reload)
    }

    /// Until something is due.
    fn pause(&self) -> Duration {
        let is_fetched = |index: &usize| matches!(self.auth.issuers[*index].source, KeySource::Url(_));
        let dues = (0..self.fetched.len()).filter(is_fetched).map(|index| self.fetched[index].due);
        let next = dues.map(|due| due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now())));
        next.min().unwrap_or(PAUSE_MAX)
    }
}

fn fetch(url: &str) -> Result<Delivery, String> {
    let agent = agent(url.starts_with("https://"));
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let cache_control = response.headers().get("cache-control").and_then(|value| value.to_str().ok());
    let pause = pause(cache_control.unwrap_or_default());
    let body = response.body_mut().with_config().limit(limits::KEYS_BYTES_MAX);
    let text = body.read_to_string().map_err(|error| error.to_string())?;
    let keys = auth::parse_keys(&text).map_err(|error| error.to_string())?;
    Ok(Delivery { text, keys, pause })
}

fn agent(is_secure: bool) -> Agent {
    // Read each time: the machine's trust may change while the server runs.
    let roots = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .https_only(is_secure)
        .max_redirects(if is_secure { 3 } else { 0 })
        .timeout_global(Some(FETCH_MAX))
        .user_agent(concat!("stillhere/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

/// How long a set may be kept (RFC 9111 section 5.2.2.1).
pub(super) fn pause(cache_control: &str) -> Duration {
    let directives = cache_control.split(',').filter_map(|directive| directive.trim().split_once('='));
    let mut ages = directives.filter(|(name, _)| name.eq_ignore_ascii_case("max-age"));
    let age_s = ages.next().and_then(|(_, age)| age.trim_matches('"').parse().ok());
    age_s.map_or(PAUSE, Duration::from_secs).clamp(PAUSE_MIN, PAUSE_MAX)
}
