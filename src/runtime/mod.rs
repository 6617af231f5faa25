//! Everything that touches the kernel: threads, executors, sockets, clocks, wake-ups.
//!
//! One thread for each shard, pinned to a core, with a glommio executor whose one task is the loop in
//! `core.rs`. The surprising idea: the executor only sleeps, places and (for other tasks) does files; the
//! network runs on a second io_uring of the same thread, because that is a third cheaper than the
//! executor's own sockets, and an idle connection costs 32 bytes instead of a kilobyte.
//!
//! Connections that begin with a TLS handshake are unwrapped in `tls.rs`, datagrams that come by DTLS in `dtls.rs`:
//! the engine sees what was in them.
//!
//! This room decides nothing: delete it and no rule of the product is lost. It holds all of the
//! product's `unsafe` code.

#![expect(
    clippy::disallowed_methods,
    reason = "this room starts the threads of the cores: the others must not, which is what the ban is for"
)]

pub mod clock;
mod core;
mod datagrams;
mod dtls;
mod files;
mod guests;
mod memory;
mod mesh;
pub mod meters;
mod net;
mod ring;
mod shelf;
mod snapshots;
mod socket;
mod store;
mod tls;
mod wake;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use glommio::{CpuSet, LocalExecutorBuilder, Placement};
use rustls::ServerConfig;

pub use self::core::Core;
use self::core::{Command, Loop, Stage};
use self::dtls::Dtls;
pub use self::dtls::DtlsKeys;
use self::files::DirectFiles;
use self::guests::{Courier, Guests};
pub use self::guests::{Door, Ear, Place, Ticket};
use self::memory::Gauge;
pub use self::memory::{Counted, bytes_in_use};
use self::mesh::{Port, Seat};
use self::meters::Meters;
pub use self::meters::Reading;
use self::ring::{RingNet, Room};
use self::snapshots::Snapshots;
pub use self::socket::passed;
pub use self::store::Disk;
use self::store::{Store, Writer};
use self::tls::TlsNet;
use self::wake::{Bell, Sleep};
use crate::base::limits::SHARDS_MAX;
use crate::base::{Millis, ShardId};
use crate::engine::{Input, Message, Notice, Output};

/// Told what an operator may want to know. Called on the core's own thread: it must not block.
pub type Notify = Arc<dyn Fn(ShardId, &Notice) + Send + Sync>;

/// Memory that an executor's rings keep for direct files: what glommio needs at least. Each of its three
/// rings pins as much.
const EXECUTOR_MEMORY_BYTES: usize = 64 * 1024;
/// Requests of an executor's tasks that may be under way.
const EXECUTOR_RING_DEPTH: usize = 256;
/// How long the tasks of an executor may run before it looks after its own rings.
///
/// glommio's executor loses a wake-up when this time runs out between its look at the rings and its first
/// task: it then takes the tasks for done and sleeps over them. So it is longer than a busy machine keeps a
/// thread waiting, and [`EXECUTOR_PULSE`] ends such a sleep where it happens all the same.
const EXECUTOR_TURN: Duration = Duration::from_millis(250);
/// How often an executor wakes even if nobody rings: see [`EXECUTOR_TURN`].
const EXECUTOR_PULSE: Duration = Duration::from_secs(1);
/// Open files that are kept from clients: for the log, for snapshots, for the executors themselves.
const FILES_RESERVED: u64 = 256;

/// What is to be started.
#[derive(Clone)]
pub struct Plan {
    /// How many shards, at least one.
    pub shards: u8,
    /// Where to listen. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where to listen for datagrams.
    pub datagrams: Option<SocketAddr>,
    /// A socket that listens already: then `listen` says nothing.
    pub passed: Option<Arc<OwnedFd>>,
    /// Where to listen for datagrams that come by DTLS, and what to show there.
    pub sealed_datagrams: Option<(SocketAddr, DtlsKeys)>,
    /// How long what was sent to a peer may stay unacknowledged before its connection is broken.
    pub unanswered_max: Millis,
    /// How long a drain may take before what is left is dropped.
    pub drain_max: Millis,
    /// How many connections all shards together accept; fewer if the process may not open as many files, and they
    /// may not be `beyond_files`.
    pub connections_max: usize,
    /// Whether there may be more connections than the process may open files, a million at most, if the kernel is
    /// new enough for that.
    pub beyond_files: bool,
    /// How connections that begin with a TLS handshake are served; without it they are not understood.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who is told the engines' notices.
    pub notify: Notify,
    /// Where records are written down; `None`: nowhere, and the engines make none.
    pub disk: Option<Disk>,
    /// How many bytes the process may have [in use](bytes_in_use) before it takes nothing new in.
    pub memory_max: Option<u64>,
    /// Whether the program opens sessions of its own: see [`Running::doors`].
    pub has_guests: bool,
}

impl Plan {
    /// A plan with `shards` shards at `listen`, 45 seconds for an acknowledgement, ten for a drain,
    /// as many connections as the process may open files, or a million, no TLS, and notices to the log.
    #[must_use]
    pub fn new(shards: u8, listen: SocketAddr) -> Self {
        let notify = |shard: ShardId, notice: &Notice| tracing::info!(shard = shard.0, ?notice, "notice");
        Self {
            shards,
            listen,
            datagrams: None,
            passed: None,
            sealed_datagrams: None,
            unanswered_max: Millis::from_secs(45),
            drain_max: Millis::from_secs(10),
            connections_max: usize::MAX,
            beyond_files: true,
            tls: None,
            notify: Arc::new(notify),
            disk: None,
            memory_max: None,
            has_guests: false,
        }
    }
}

/// A started server: it serves until it is [drained](Remote::request_drain).
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
    datagrams_addr: Option<SocketAddr>,
    sealed_datagrams_addr: Option<SocketAddr>,
    remote: Remote,
    doors: Vec<Door>,
    threads: Vec<JoinHandle<()>>,
    couriers: Vec<Courier>,
}

impl Running {
    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it listens for datagrams, with the port that was chosen.
    #[must_use]
    pub fn datagrams_addr(&self) -> Option<SocketAddr> {
        self.datagrams_addr
    }

    /// Where it listens for datagrams that come by DTLS, with the port that was chosen.
    #[must_use]
    pub fn sealed_datagrams_addr(&self) -> Option<SocketAddr> {
        self.sealed_datagrams_addr
    }

    /// A handle for other threads.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// The ways in for sessions of the program, one for each shard; none if they were not
    /// [planned](Plan::has_guests).
    #[must_use]
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// See [`Remote::request_drain`].
    pub fn request_drain(&self) {
        self.remote.request_drain();
    }

    /// Waits until every shard has ended.
    pub fn join(self) {
        for thread in self.threads {
            thread.join().expect("a shard that panics ends the process");
        }
        for thread in self.couriers.into_iter().filter_map(|courier| courier.0) {
            thread.join().expect("a courier that panics ends the process");
        }
    }
}

/// Speaks to a server's shards from any thread.
#[derive(Clone, Debug)]
pub struct Remote {
    seats: Arc<[Seat]>,
    commands: Vec<Sender<Command>>,
}

impl Remote {
    /// Ends the server: it accepts no more, each engine is told [`Input::Drain`], and when all have said
    /// `Drained` and everything is sent, or patience is over, the threads end. More than once is as once.
    pub fn request_drain(&self) {
        for shard in 0..self.commands.len() {
            self.tell_index(shard, Command::Handle(Input::Drain));
        }
    }

    /// Gives a shard's engine something to handle. What is told to one shard arrives in order. A shard
    /// that has ended takes no notice.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn tell(&self, shard: ShardId, input: Input<'static>) {
        self.tell_index(shard.index(), Command::Handle(input));
    }

    /// Gives every shard's engine something to handle, and waits until each has: what comes to a shard after this
    /// returns comes after it. Waits five seconds at most for a shard that does not answer.
    pub fn tell_all(&self, input: impl Fn() -> Input<'static>) {
        for shard in 0..self.commands.len() {
            self.tell_index(shard, Command::Handle(input()));
        }
        // Commands are handled in their order: who has measured itself has handled what came before.
        let _readings = self.measure();
    }

    /// Serves new TLS connections with this from here on. Those that there are stay as they are.
    ///
    /// # Panics
    /// In the shards, if the server was started without TLS.
    pub fn certify(&self, config: &Arc<ServerConfig>) {
        for shard in 0..self.commands.len() {
            self.tell_index(shard, Command::Certify(Arc::clone(config)));
        }
    }

    /// What the shards have counted, those that say so in time.
    #[must_use]
    pub fn measure(&self) -> Vec<Reading> {
        let (asker, readings) = channel();
        for shard in 0..self.commands.len() {
            self.tell_index(shard, Command::Measure(asker.clone()));
        }
        drop(asker);
        let until = Instant::now() + meters::PATIENCE;
        let left = || until.saturating_duration_since(Instant::now());
        let mut all = Vec::new();
        // Whoever has ended has dropped its end: nobody waits for it.
        while let Ok(reading) = readings.recv_timeout(left()) {
            all.push(reading);
        }
        all
    }

    /// Serves new DTLS peers with this from here on. Those that there are stay as they are.
    ///
    /// # Panics
    /// In the shards, if the server was started without DTLS.
    pub fn certify_datagrams(&self, keys: &DtlsKeys) {
        for shard in 0..self.commands.len() {
            self.tell_index(shard, Command::CertifyDatagrams(keys.clone()));
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.commands.len()
    }

    fn tell_index(&self, shard: usize, command: Command) {
        let _sent_or_ended = self.commands[shard].send(command);
        self.seats[shard].bell.ring();
    }
}

/// Starts a thread for each shard, with the core that `make_core` makes for it, on that thread. When this
/// returns all of them serve, or none does.
///
/// A panic in a core ends the process: half a server would be worse than none.
///
/// # Errors
/// When the plan is impossible, the address cannot be listened at, or io_uring is not available; the
/// message says what to do about it.
pub fn start<C, F>(plan: Plan, make_core: F) -> io::Result<Running>
where
    C: Core + 'static,
    F: Fn(ShardId) -> C + Clone + Send + 'static,
{
    let count = usize::from(plan.shards);
    if count == 0 || count > SHARDS_MAX {
        let text = format!("there can be 1 to {SHARDS_MAX} shards, not {count}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    ring::check_available()?;
    let files = socket::raise_open_files()?;
    let for_clients = usize::try_from(files - FILES_RESERVED.min(files / 4)).unwrap_or(usize::MAX);
    let gauge = Gauge::new(plan.memory_max);
    let Listening { listeners, local_addr, datagrams, sealed } = listen(&plan, count)?;
    let (datagrams, datagrams_addr) = datagrams;
    let (sealed, sealed_datagrams_addr) = sealed;
    let plan = Arc::new(plan);
    let seats: io::Result<Vec<Seat>> = (0..count).map(|_| Bell::new().map(Seat::new)).collect();
    let seats: Arc<[Seat]> = seats?.into();
    let room = Arc::new(if plan.beyond_files && shelf::is_available() {
        Room::with_shelf(plan.connections_max, for_clients, Arc::clone(&seats))
    } else {
        Room::new(plan.connections_max.min(for_clients))
    });
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| channel()).unzip();
    let ports = mesh::connect(&seats, mesh::RING_MESSAGES);
    let drained_count = Arc::new(AtomicUsize::new(0));
    let (report, reports) = channel();
    let (mut gates, mut threads) = (Vec::new(), Vec::new());
    let (mut doors, mut couriers) = (Vec::new(), Vec::new());
    let datagrams = datagrams.into_iter().zip(sealed);
    let parts = listeners.into_iter().zip(datagrams).zip(receivers).zip(ports).zip(placements(count));
    for (shard, ((((listener, datagrams), commands), port), placement)) in (0..plan.shards).zip(parts) {
        let (gate, go) = channel();
        gates.push(gate);
        let (guests, door, courier) = guests::connect(ShardId(shard), &seats, plan.has_guests)?;
        couriers.push(courier);
        if plan.has_guests {
            doors.push(door);
        }
        let shard_plan = ShardPlan {
            shard: ShardId(shard),
            listener,
            datagrams,
            commands,
            port,
            placement,
            plan: Arc::clone(&plan),
            seats: Arc::clone(&seats),
            room: Arc::clone(&room),
            gauge: gauge.clone(),
            drained_count: Arc::clone(&drained_count),
            guests,
        };
        let (make_core, report) = (make_core.clone(), report.clone());
        let thread = Builder::new().name(format!("shard-{shard}"));
        threads.push(thread.spawn(move || shard_plan.run(make_core, &report, &go))?);
    }
    drop(report);
    // A thread that fails reports and ends. Without its gate a thread that is ready ends, too.
    let outcome: io::Result<Vec<()>> = reports.iter().take(count).collect();
    if let Err(error) = outcome {
        drop(gates);
        for thread in threads {
            thread.join().expect("a shard that panics ends the process");
        }
        return Err(error);
    }
    for gate in gates {
        gate.send(()).expect("a thread that is ready waits at its gate");
    }
    let remote = Remote { seats, commands: senders };
    Ok(Running { local_addr, datagrams_addr, sealed_datagrams_addr, remote, doors, threads, couriers })
}

/// The sockets at which clients come in, one of each kind for each shard.
struct Listening {
    listeners: Vec<OwnedFd>,
    local_addr: SocketAddr,
    datagrams: DatagramSockets,
    /// The same for DTLS.
    sealed: DatagramSockets,
}

/// One for each shard, and where they are; none where there are none.
type DatagramSockets = (Vec<Option<OwnedFd>>, Option<SocketAddr>);

fn listen(plan: &Plan, count: usize) -> io::Result<Listening> {
    let listeners = match &plan.passed {
        Some(socket) => socket::passed_listeners(socket, count, plan.unanswered_max),
        None => socket::listeners(plan.listen, count, plan.unanswered_max),
    };
    let (listeners, local_addr) = listeners
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {}: {error}", plan.listen)))?;
    let datagrams = datagram_sockets(plan.datagrams, count)?;
    let sealed = datagram_sockets(plan.sealed_datagrams.as_ref().map(|(address, _)| *address), count)?;
    Ok(Listening { listeners, local_addr, datagrams, sealed })
}

fn datagram_sockets(address: Option<SocketAddr>, count: usize) -> io::Result<DatagramSockets> {
    let Some(address) = address else { return Ok(((0..count).map(|_| None).collect(), None)) };
    let (sockets, address) = socket::datagram_sockets(address, count)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen for datagrams at {address}: {error}")))?;
    Ok((sockets.into_iter().map(Some).collect(), Some(address)))
}

/// One shard's thread, before it runs.
struct ShardPlan {
    shard: ShardId,
    listener: OwnedFd,
    /// Plain ones, and sealed ones.
    datagrams: (Option<OwnedFd>, Option<OwnedFd>),
    commands: Receiver<Command>,
    port: Port<Message>,
    placement: Placement,
    plan: Arc<Plan>,
    seats: Arc<[Seat]>,
    room: Arc<Room>,
    gauge: Gauge,
    drained_count: Arc<AtomicUsize>,
    guests: Guests,
}

impl ShardPlan {
    /// The whole life of a shard's thread.
    fn run<C: Core + 'static>(
        self,
        make_core: impl FnOnce(ShardId) -> C + 'static,
        report: &Sender<io::Result<()>>,
        go: &Receiver<()>,
    ) {
        let _watch = Watch(self.shard);
        let executor = LocalExecutorBuilder::new(self.placement)
            .name(&format!("shard-{}", self.shard.0))
            .io_memory(EXECUTOR_MEMORY_BYTES)
            .ring_depth(EXECUTOR_RING_DEPTH)
            .preempt_timer(EXECUTOR_TURN)
            .make();
        let executor = match executor {
            Ok(executor) => executor,
            Err(error) => {
                let text = format!("cannot start the executor of shard {}: {error}", self.shard.0);
                let _told_or_given_up = report.send(Err(io::Error::other(text)));
                return;
            }
        };
        executor.run(async {
            let bell = &self.seats[self.shard.index()].bell;
            let net = RingNet::new(self.listener, self.datagrams, bell, Arc::clone(&self.room));
            let (net, sleep) = match net.and_then(|net| Ok((net, Sleep::new(bell)?))) {
                Ok(both) => both,
                Err(error) => {
                    let _told_or_given_up = report.send(Err(error));
                    return;
                }
            };
            let store = match open_store(self.plan.disk.as_ref(), self.shard, &self.seats).await {
                Ok(store) => store,
                Err(error) => {
                    let _told_or_given_up = report.send(Err(error));
                    return;
                }
            };
            let _told_or_given_up = report.send(Ok(()));
            if go.recv().is_err() {
                return;
            }
            let sealed = self.plan.sealed_datagrams.as_ref();
            let dtls = sealed.map(|(_, keys)| Dtls::new(self.shard, keys));
            let shard_loop = Loop {
                shard: self.shard,
                core: make_core(self.shard),
                net: TlsNet::new(net, self.plan.tls.clone(), dtls),
                port: self.port,
                inbox: VecDeque::new(),
                seats: Arc::clone(&self.seats),
                commands: self.commands,
                notify: Arc::clone(&self.plan.notify),
                drain_max: self.plan.drain_max,
                drained_count: self.drained_count,
                stage: Stage::Serving,
                waiting_command: None,
                output: Output::default(),
                store,
                gauge: self.gauge,
                guests: self.guests,
                meters: Meters::default(),
            };
            glommio::spawn_local(async {
                loop {
                    glommio::timer::sleep(EXECUTOR_PULSE).await;
                }
            })
            .detach();
            if let Err(error) = shard_loop.run(sleep).await {
                panic!("shard {} cannot be woken any more: {error}", self.shard.0);
            }
        });
    }
}

/// The log of a shard, with a task that writes it.
async fn open_store(disk: Option<&Disk>, shard: ShardId, seats: &Arc<[Seat]>) -> io::Result<Option<Store>> {
    let Some(Disk { directory, epoch, snapshot_bytes }) = disk else { return Ok(None) };
    let files = DirectFiles { directory: directory.clone() };
    let writer = Writer::open(files, *epoch, shard.0).await.map_err(|error| {
        io::Error::new(error.kind(), format!("the log in {} cannot be begun: {error}", directory.display()))
    })?;
    let seats = Arc::clone(seats);
    let bell = move || seats[shard.index()].bell.ring();
    let snapshots = Snapshots::new(directory.clone(), *epoch, shard.0, Rc::new(bell.clone()));
    let (store, batches, progress) = Store::new(*snapshot_bytes, Some(snapshots));
    glommio::spawn_local(async move {
        if let Err(error) = writer.run(batches, progress, bell).await {
            panic!("the log of shard {} cannot be written: {error}", shard.0);
        }
    })
    .detach();
    Ok(Some(store))
}

/// Ends the process when the thread that holds it panics.
struct Watch(ShardId);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic's own message stands above this.
            eprintln!("stillhere: shard {} has failed; the server stops", self.0.0);
            std::process::abort();
        }
    }
}

/// Where the shards run: each on a core of its own if there are enough, else wherever there is time.
fn placements(count: usize) -> Vec<Placement> {
    let cores = socket::allowed_cores();
    // glommio asks again, and takes no for an answer.
    let is_known = CpuSet::online();
    if let Err(error) = &is_known {
        tracing::warn!(%error, "/sys does not tell which cores there are: shards run wherever there is time");
    }
    if count <= cores.len() && is_known.is_ok() {
        cores[..count].iter().map(|&core| Placement::Fixed(core)).collect()
    } else {
        vec![Placement::Unbound; count]
    }
}

#[cfg(test)]
mod tests;
