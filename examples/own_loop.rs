//! The third door: the core alone, in a loop of our own. No executor, no threads, no clock but ours.
//!
//! The core is a value: it is told what happened and when, and answers what is to be done. This loop knows two
//! connections that are buffers in memory; a real one would ask its sockets. It needs none of the crate's
//! features: `cargo run --no-default-features --example own_loop`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::sync::Arc;

use stillhere::auth::{AuthConfig, Verifier};
use stillhere::base::{ConnId, Instant, Now, ShardId, WallMillis};
use stillhere::engine::{Config, Effect, Engine, Hangup, Input, Output, Settings};
use stillhere::rules::{Dialect, Ruleset};

/// One engine, the time, and what each connection was sent.
struct Loop {
    engine: Engine,
    now: Now,
    sent: BTreeMap<ConnId, Vec<u8>>,
    output: Output,
}

impl Loop {
    fn new() -> Self {
        let rules =
            Ruleset::parse(r#"{"rules":{".read":true,".write":true}}"#, Dialect::Both).expect("these are rules");
        let verifier = Verifier::new(AuthConfig::default()).expect("nobody is believed");
        let config = Config {
            shard: ShardId(0),
            shards: 1,
            // A server takes these from the operating system: session ids must not be guessed.
            seed: [7; 32],
            common_seed: [7; 4],
            settings: Arc::new(Settings::default()),
            namespaces: BTreeMap::new(),
            is_restricted: false,
            rules: Arc::new(rules),
            dialect: Dialect::Both,
            verifier: Arc::new(verifier),
        };
        let now = Now { instant: Instant(0), wall: WallMillis(1_700_000_000_000) };
        Self { engine: Engine::new(config, now), now, sent: BTreeMap::new(), output: Output::default() }
    }

    /// Tells the engine something and does what it wants done; then, whatever has come due.
    fn happen(&mut self, input: Input<'_>) {
        self.engine.handle(self.now, input, &mut self.output);
        self.perform();
        while self.engine.is_busy() || self.engine.next_wake().is_some_and(|due| due <= self.now.instant) {
            self.engine.handle(self.now, Input::Tick, &mut self.output);
            self.perform();
        }
    }

    fn perform(&mut self) {
        for effect in self.output.effects.drain(..) {
            match effect {
                Effect::Send { conn, bytes } => {
                    self.sent.entry(conn).or_default().extend_from_slice(&self.output.bytes[bytes]);
                }
                Effect::Close { conn } => println!("{conn:?} is to be closed"),
                Effect::Notice(notice) => println!("notice: {notice:?}"),
                _ => {}
            }
        }
        self.output.clear();
    }

    /// What a connection was sent since it was last asked.
    fn take(&mut self, conn: ConnId) -> String {
        String::from_utf8_lossy(&self.sent.remove(&conn).unwrap_or_default()).into_owned()
    }
}

fn main() {
    let mut world = Loop::new();
    let peer = ([127, 0, 0, 1], 50_000).into();
    let (watcher, writer) = (ConnId(0), ConnId(1));

    world.happen(Input::Opened { conn: watcher, peer });
    let mut request = *b"GET /status.json?ns=demo HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
    world.happen(Input::Bytes { conn: watcher, bytes: &mut request });
    println!("{}", world.take(watcher));

    world.happen(Input::Opened { conn: writer, peer });
    let mut request = *b"PUT /status/joe.json?ns=demo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n\"online\"";
    world.happen(Input::Bytes { conn: writer, bytes: &mut request });
    let (answer, event) = (world.take(writer), world.take(watcher));
    println!("{answer}\n{event}");
    assert!(answer.starts_with("HTTP/1.1 200"), "the write is answered");
    assert!(event.contains(r#"{"path":"/joe","data":"online"}"#), "the watcher hears of it");

    // Time is what we say it is.
    world.now.instant = Instant(3_600_000);
    world.happen(Input::Tick);
    world.happen(Input::Closed { conn: watcher, how: Hangup::Broken });
    println!("{} sessions left", world.engine.session_count());
}
