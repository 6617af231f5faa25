//! `demo`: a server of the kind that `serve --dev` starts, and a crowd that comes and goes.
//!
//! The surprising idea: the crowd is made of real clients over real sockets, so what the console shows is
//! nothing else than what a deployment shows. Costs: one thread, some twenty connections.

mod crowd;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::config::{self, Machine};
use super::flags::LogFlags;
use super::health::{Health, State};
use super::life::Again;
use super::look_flags::DemoFlags;
use super::low::{Low, NamespaceLow};
use super::place::{Origin, Typed};
use super::value::{self, Address, FilePath, LogLevel};
use super::{Stop, logs, serve};
use crate::base::Millis;

/// The database of the crowd.
const NAMESPACE: &str = "demo";
const RULES: &str = include_str!("demo/rules.json");
/// So short that those who fall silent are missed while somebody watches.
const HEARTBEAT: Millis = Millis::from_secs(4);
const SESSION_TIMEOUT: Millis = Millis::from_secs(10);

/// Serves and plays until it is asked to stop. Leaves nothing behind.
///
/// # Errors
///
/// The server cannot start, or failed.
pub fn demo(flags: &DemoFlags, log: LogFlags) -> Result<(), Stop> {
    let folder = Folder::make().map_err(|error| Stop::Failed(format!("no folder for the demo's data: {error}")))?;
    let rules = folder.0.join("rules.json");
    std::fs::write(&rules, RULES).map_err(|error| Stop::Failed(format!("{}: {error}", rules.display())))?;
    let listen = flags.listen.as_ref().map(|Address(address)| *address);
    let listen = free_address(listen).map_err(|error| Stop::Failed(format!("no address to listen on: {error}")))?;
    let chosen = |flag: &'static str| Origin::Flag(flag);
    let everywhere = NamespaceLow {
        heartbeat: Some(typed(value::Duration(HEARTBEAT), chosen("demo"))),
        session_timeout: Some(typed(value::Duration(SESSION_TIMEOUT), chosen("demo"))),
        ..NamespaceLow::default()
    };
    let low = ServeAs { listen, folder: &folder, rules }.low(everywhere);
    let low = log.low().over(low);
    let machine =
        Machine { cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get), is_terminal: false };
    let meaning = config::mean(&low, machine).map_err(Stop::BadConfig)?;
    let health = Arc::new(Health::default());
    let config = &meaning.config;
    let logs = logs::start(config.log_format, config.log_level, io::stderr().is_terminal(), &health)
        .map_err(|error| Stop::Failed(format!("the log cannot be started: {error}")))?;
    let (people, watched) = (flags.people, Arc::clone(&health));
    let crowd = std::thread::Builder::new().name("crowd".into()).spawn(move || play(listen, people, &watched));
    let crowd = crowd.map_err(|error| Stop::Failed(format!("a thread cannot be started: {error}")))?;
    let again = Again { read: Box::new(move || config::mean(&low, machine)), set_log_level: logs.level_setter() };
    let served = serve::serve(meaning, again, &health);
    health.set_draining();
    // It looks at that many times a second; a panic of its own has been told.
    let _ = crowd.join();
    served
}

/// Waits for the server, tells where to look, and plays.
fn play(address: SocketAddr, people: u16, health: &Health) {
    const PAUSE: Duration = Duration::from_millis(20);
    while health.state() == State::Starting {
        std::thread::sleep(PAUSE);
    }
    let mut output = io::stdout();
    // Whoever cannot be told where it is may still know.
    let _ =
        writeln!(output, "console http://{address}/?ns={NAMESPACE}\nEnd with Ctrl-C.").and_then(|()| output.flush());
    crowd::play(address, NAMESPACE, people, || health.state() == State::Ready);
}

/// What `serve` would be told.
struct ServeAs<'f> {
    listen: SocketAddr,
    folder: &'f Folder,
    rules: PathBuf,
}

impl ServeAs<'_> {
    fn low(self, everywhere: NamespaceLow) -> Low {
        let chosen = Origin::Flag("demo");
        Low {
            listen: Some(typed(Address(self.listen), chosen.clone())),
            data: Some(typed(FilePath(self.folder.0.join("data")), chosen.clone())),
            rules: Some(typed(FilePath(self.rules), chosen.clone())),
            dev: Some(typed(true, chosen)),
            log_level: Some(typed(LogLevel::Error, Origin::Default)),
            everywhere,
            ..Low::default()
        }
    }
}

const fn typed<T>(value: T, origin: Origin) -> Typed<T> {
    Typed { value, origin }
}

/// The address that was chosen, or the usual one, or any free one beside it.
fn free_address(chosen: Option<SocketAddr>) -> io::Result<SocketAddr> {
    let usual = SocketAddr::from(([127, 0, 0, 1], 9000));
    let listener = match chosen {
        Some(address) => TcpListener::bind(address)?,
        None => TcpListener::bind(usual).or_else(|_| TcpListener::bind(SocketAddr::new(usual.ip(), 0)))?,
    };
    listener.local_addr()
}

/// A folder that goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        let name = format!("stillhere-demo-{:016x}", getrandom::u64().map_err(io::Error::other)?);
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the temporary folder's business.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
