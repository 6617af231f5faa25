//! A server within another program: what it is told, in code instead of on a command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{self, Machine};
use super::health::Health;
use super::life::{Again, Beginning, Server};
use super::low::Low;
use super::place::{Origin, Problem, Typed};
use super::value::{Address, FilePath};
use super::{Stop, file};

/// What a server is told before it starts. See `docs/CONFIGURATION.md` for every setting; what is set in code beats
/// the file.
///
/// ```no_run
/// let server = stillhere::Server::builder().listen(([127, 0, 0, 1], 0).into()).data("data").start()?;
/// println!("clients connect to {}", server.addresses().tcp);
/// server.stop()?;
/// # Ok::<(), stillhere::server::Stop>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing happens until it is started"]
pub struct Builder {
    file: Option<PathBuf>,
    text: Option<String>,
    low: Low,
    has_internal: bool,
    is_without_sessions: bool,
}

impl Server {
    /// What is to be told to a server, and then to start it.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Settings from this file, TOML.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Settings as they would stand in a file. Beats the [file](Self::config_file).
    pub fn config_text(mut self, toml: impl Into<String>) -> Self {
        self.text = Some(toml.into());
        self
    }

    /// Where WebSocket, Engine.IO, REST and streaming clients come in; port 0 means any free one.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.low.listen = Some(in_code(Address(address)));
        self
    }

    /// Where CoAP clients come in.
    pub fn coap(mut self, address: SocketAddr) -> Self {
        self.low.coap = Some(in_code(Address(address)));
        self
    }

    /// Serves health and metrics there. Otherwise they are to be had from [`Server::health`] only.
    pub fn internal(mut self, address: SocketAddr) -> Self {
        self.low.internal = Some(in_code(Address(address)));
        self.has_internal = true;
        self
    }

    /// The data directory.
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.low.data = Some(in_code(FilePath(directory.into())));
        self
    }

    /// The file with the rules. Without one everything is denied, but for administrators.
    pub fn rules(mut self, path: impl Into<PathBuf>) -> Self {
        self.low.rules = Some(in_code(FilePath(path.into())));
        self
    }

    /// How many cores to use; all by default.
    pub fn shards(mut self, count: u16) -> Self {
        self.low.shards = Some(in_code(count));
        self
    }

    /// Believes everybody and, without rules, allows everything. Only on loopback addresses.
    pub fn dev(mut self) -> Self {
        self.low.dev = Some(in_code(true));
        self
    }

    /// There will be no [sessions of the program](Server::engine): spares a thread for each core.
    pub const fn without_sessions(mut self) -> Self {
        self.is_without_sessions = true;
        self
    }

    /// Starts the server. When this returns it serves. Blocks while the log is read.
    ///
    /// # Errors
    ///
    /// [`Stop::BadConfig`]: what it was told cannot be. [`Stop::Failed`]: it could not.
    pub fn start(self) -> Result<Server, Stop> {
        let bad = |problem: Problem| vec![problem];
        let Self { file, text, low, has_internal, is_without_sessions } = self;
        let read = move || {
            let below = file.as_deref().map(file::read).transpose().map_err(bad)?.unwrap_or_default();
            let text =
                text.as_deref().map(|text| file::parse(Path::new("config_text"), text)).transpose().map_err(bad)?;
            let low: Low = low.clone().over(text.unwrap_or_default()).over(below);
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            config::mean(&low, Machine { cores, is_terminal: false })
        };
        let meaning = read().map_err(Stop::BadConfig)?;
        // How much is logged is the subscriber's to say, and that is the program's.
        let again = Again { read: Box::new(read), set_log_level: Box::new(|_| {}) };
        let (health, has_guests) = (Arc::new(Health::default()), !is_without_sessions);
        Server::start(Beginning { meaning, health, has_internal, has_guests, again, passed: None })
    }
}

const fn in_code<T>(value: T) -> Typed<T> {
    Typed { value, origin: Origin::Code }
}
