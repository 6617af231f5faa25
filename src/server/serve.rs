//! `stillhere serve`: one [`Server`], and the signals that steer it.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Stop;
use super::config::Meaning;
use super::health::{Health, State};
use super::life::{Addresses, Again, Beginning, Server, failed};
use super::service::{self, Service};

/// What can happen to a server.
enum Happening {
    /// SIGTERM or SIGINT.
    DrainAsked,
    /// SIGHUP.
    ReloadAsked,
    /// All shards have stopped.
    Ended(Result<(), Stop>),
}

/// Serves until asked to stop, and stops in order.
///
/// # Errors
///
/// It cannot start, or a shard failed.
pub fn serve(meaning: Meaning, again: Again, health: &Arc<Health>) -> Result<(), Stop> {
    // First, so that whoever asks during the start is heard once it is over.
    let (happened, happenings) = mpsc::channel();
    watch_signals(happened.clone()).map_err(|error| failed("signals cannot be watched", &error))?;
    let service = Arc::new(Service::find());
    let passed = service::passed_listener().map(|(socket, others)| {
        if others > 0 {
            tracing::warn!(others, "more sockets were passed than are used: only the first is");
        }
        socket
    });
    let health = Arc::clone(health);
    let server =
        Arc::new(Server::start(Beginning { meaning, health, has_internal: true, has_guests: false, again, passed })?);
    let joining = std::thread::Builder::new().name("join".into());
    let join = server.take_join();
    joining
        .spawn(move || {
            // Whoever would listen is gone only when the process is.
            let _ = happened.send(Happening::Ended(join()));
        })
        .map_err(|error| failed("a thread cannot be started", &error))?;
    say_ready(&server);
    service.say_ready(&format!("serving at {}", server.addresses().tcp));
    feed_watchdog(&service, &server).map_err(|error| failed("a thread cannot be started", &error))?;
    loop {
        match happenings.recv().expect("the thread that joins sends before it goes") {
            Happening::DrainAsked => {
                service.say_stopping(Duration::from_millis(server.drain_max().0));
                server.drain();
            }
            Happening::ReloadAsked => server.reload(),
            Happening::Ended(Ok(())) => {
                tracing::info!("stopped");
                return Ok(());
            }
            Happening::Ended(Err(stop)) => return Err(stop),
        }
    }
}

/// Tells whoever watches that every core answers, as often as it wants to hear it.
fn feed_watchdog(service: &Arc<Service>, server: &Arc<Server>) -> io::Result<()> {
    let Some(pause) = service.watchdog_pause() else { return Ok(()) };
    let (service, server) = (Arc::clone(service), Arc::clone(server));
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        loop {
            // Cores that have stopped in order are well.
            if server.health().state() == State::Draining || server.is_alive() {
                service.say_alive();
            }
            std::thread::sleep(pause);
        }
    })?;
    Ok(())
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

/// The line that scripts wait for.
fn say_ready(server: &Server) {
    let Addresses { tcp, coap, coaps, internal } = server.addresses();
    let shards = server.shards();
    let or_dash =
        |address: Option<std::net::SocketAddr>| address.map_or_else(|| "-".into(), |address| address.to_string());
    let (coap, coaps, internal) = (or_dash(coap), or_dash(coaps), or_dash(internal));
    let line = format!("ready tcp={tcp} coap={coap} coaps={coaps} internal={internal} shards={shards}");
    tracing::info!(%tcp, coap, coaps, internal, shards, "ready");
    let mut output = io::stdout();
    if let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush()) {
        tracing::warn!(%error, "the ready line cannot be printed");
    }
}
