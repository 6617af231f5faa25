//! Clients without sockets: an engine in this very process, driven by a tiny loop.
//!
//! The surprising idea: an engine needs no server. Its bytes go straight to the clients' readers, so a
//! million sessions fit on one machine, and what is measured is the engine alone. Its CPU time is that
//! of the calls to it, and a quarter of a microsecond a call for looking at the clock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use stillhere::auth::{AuthConfig, Verifier};
use stillhere::base::{ConnId, Instant, Millis, Now, ShardId, WallMillis};
use stillhere::engine::{Config, Effect, Engine, Hangup, Input, Output, Settings};
use stillhere::rules::Ruleset;

use crate::client::{Ending, Happening, Link};
use crate::clock::{self, Moment};
use crate::process::Process;

/// An engine, and what it has said that its clients have not yet heard.
pub struct Inside {
    engine: Engine,
    output: Output,
    heard: VecDeque<Heard>,
    /// By client: how far its connection is.
    links: Vec<Stage>,
    /// By client: how many connections it has had.
    connections: Vec<u32>,
    cpu_ns: u64,
    longest_ns: u64,
    /// Where the calendar stood when the run began.
    wall_start_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Absent,
    Open,
    /// Nothing gets through to the client any more.
    Frozen,
}

/// What a client is about to hear.
struct Heard {
    client: u32,
    /// Which connection of it: what an earlier one was to hear, the next one must not.
    connection: u32,
    what: Waiting,
}

enum Waiting {
    Opened,
    Bytes(Vec<u8>),
    Gone,
}

/// Anybody's: nothing here connects.
const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

impl Inside {
    /// An engine with open rules for `count` clients, whose sessions end after `session_timeout`.
    #[must_use]
    pub fn new(count: usize, session_timeout: Millis) -> Self {
        let wall_start_ms = clock::wall_ms();
        let heartbeat = Millis(session_timeout.0 * 4 / 9);
        let config = Config {
            shard: ShardId(0),
            shards: 1,
            seed: [7; 32],
            common_seed: [1, 2, 3, 4],
            settings: Arc::new(Settings { heartbeat, session_timeout, ..Settings::default() }),
            namespaces: BTreeMap::new(),
            is_restricted: false,
            rules: Arc::new(Ruleset::open()),
            verifier: Arc::new(Verifier::new(AuthConfig::default()).expect("nothing in it could be wrong")),
        };
        let engine = Engine::new(config, time(wall_start_ms, clock::now()));
        Self {
            engine,
            output: Output::default(),
            heard: VecDeque::new(),
            links: vec![Stage::Absent; count],
            connections: vec![0; count],
            cpu_ns: 0,
            longest_ns: 0,
            wall_start_ms,
        }
    }

    fn tell(&mut self, input: Input<'_>) {
        let now = time(self.wall_start_ms, clock::now());
        let begun_ns = clock::own_cpu_ns();
        self.engine.handle(now, input, &mut self.output);
        let spent_ns = clock::own_cpu_ns() - begun_ns;
        self.cpu_ns += spent_ns;
        self.longest_ns = self.longest_ns.max(spent_ns);
        self.perform();
    }

    fn say(&mut self, client: u32, what: Waiting) {
        self.heard.push_back(Heard { client, connection: self.connections[client as usize], what });
    }

    /// Does what the engine wants done.
    fn perform(&mut self) {
        let mut closed = Vec::new();
        for effect in self.output.effects.drain(..) {
            match effect {
                Effect::Send { conn, bytes } if self.links[conn.0 as usize] == Stage::Open => {
                    let what = Waiting::Bytes(self.output.bytes[bytes].to_vec());
                    let connection = self.connections[conn.0 as usize];
                    self.heard.push_back(Heard { client: conn.0, connection, what });
                }
                Effect::Close { conn } => closed.push(conn),
                _ => {}
            }
        }
        self.output.clear();
        for conn in closed {
            if self.links[conn.0 as usize] == Stage::Open {
                self.say(conn.0, Waiting::Gone);
            }
            if std::mem::replace(&mut self.links[conn.0 as usize], Stage::Absent) != Stage::Absent {
                self.tell(Input::Closed { conn, how: Hangup::Ours });
            }
        }
    }
}

/// The engine's time: of a run, with an origin that is not zero.
const fn time(wall_start_ms: u64, moment: Moment) -> Now {
    let ms = moment.0 / 1_000_000;
    Now { instant: Instant(1_000_000 + ms), wall: WallMillis(wall_start_ms + ms) }
}

impl Link for Inside {
    fn open(&mut self, client: u32) -> io::Result<()> {
        self.links[client as usize] = Stage::Open;
        self.connections[client as usize] += 1;
        self.tell(Input::Opened { conn: ConnId(client), peer: SocketAddr::from(PEER) });
        self.say(client, Waiting::Opened);
        Ok(())
    }

    fn send(&mut self, client: u32, bytes: &[u8]) {
        if self.links[client as usize] == Stage::Open {
            let mut bytes = bytes.to_vec();
            self.tell(Input::Bytes { conn: ConnId(client), bytes: &mut bytes });
        }
    }

    fn close(&mut self, client: u32, ending: Ending) {
        if std::mem::replace(&mut self.links[client as usize], Stage::Absent) != Stage::Absent {
            let how = if ending == Ending::Reset { Hangup::Broken } else { Hangup::Finished };
            self.tell(Input::Closed { conn: ConnId(client), how });
        }
    }

    fn freeze(&mut self, client: u32) {
        if self.links[client as usize] == Stage::Open {
            self.links[client as usize] = Stage::Frozen;
        }
    }

    fn next(&mut self, until: Moment, room: &mut Vec<u8>) -> io::Result<Option<(u32, Happening)>> {
        loop {
            if let Some(Heard { client, connection, what }) = self.heard.pop_front() {
                if connection != self.connections[client as usize] {
                    continue;
                }
                let happening = match what {
                    Waiting::Opened => Happening::Opened,
                    Waiting::Gone => Happening::Gone,
                    Waiting::Bytes(bytes) => {
                        room.clear();
                        room.extend_from_slice(&bytes);
                        Happening::Bytes(bytes.len())
                    }
                };
                return Ok(Some((client, happening)));
            }
            let now = clock::now();
            let due = self.engine.next_wake();
            if self.engine.is_busy() || due.is_some_and(|due| due <= time(0, now).instant) {
                self.tell(Input::Tick);
                continue;
            }
            if now >= until {
                return Ok(None);
            }
            // The engine's next deadline, or the scenario's, whichever is first; never long.
            std::thread::sleep(
                std::time::Duration::from_millis(1).min(std::time::Duration::from_nanos(until.since_ns(now))),
            );
        }
    }

    fn server_cpu_ns(&self) -> Option<u64> {
        Some(self.cpu_ns)
    }

    /// This process's own: the clients' side is made before a run and does not grow while they idle.
    fn server_bytes(&self) -> Option<u64> {
        Process::own().anonymous_bytes().ok()
    }

    fn take_longest_ns(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.longest_ns))
    }
}
