//! The command line, and what it means for each scenario.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::client::Ending;

/// Plays presence clients against a Stillhere server, measures it, and checks that it does what it should.
///
/// Start a server (`stillhere serve --dev`), then for example:
///
///   stillhere-load writes --sessions 100 --for 10s --server-pid $(pidof stillhere)
///   stillhere-load mass-disconnect --sessions 15000 --check
///   stillhere-load silent-death --driver coap --sessions 1000000 --session-timeout 60s --limit 10m
///   stillhere-load mass-disconnect --driver engine --sessions 1000000 --words 2
///   stillhere-load mass-disconnect --sessions 15000 --against floor,mosquitto
///
/// All clients are played by one thread; it says when it, and not the server, was the limit. Quote the
/// server's CPU time per operation rather than rates: on a shared machine it is what stays the same.
///
/// Exit codes: 0 all good, 1 something lost, early, double, wrong or too late, 2 usage.
#[derive(Clone, Debug, Parser)]
#[command(name = "stillhere-load", version, verbatim_doc_comment)]
pub struct Plan {
    /// What to play
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// How to reach the server
    #[arg(long, value_enum, default_value_t = Driver::Firebase)]
    pub driver: Driver,
    /// The server's address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub address: SocketAddr,
    /// Where devices reach it (driver `coap`)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5683")]
    pub coap: SocketAddr,
    /// How often each device pings (driver `coap`), or each session says something (mixed)
    #[arg(long, value_name = "SPAN", default_value = "20s", value_parser = span)]
    pub heartbeat: Duration,
    /// The database
    #[arg(long, value_name = "NAME", default_value = "load")]
    pub ns: String,
    /// Sessions to play; the default depends on the scenario
    #[arg(long, value_name = "N")]
    sessions: Option<u32>,
    /// Last words that each session leaves; idle and storm can do without any
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub words: u32,
    /// Requests that a session has in flight (writes)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub depth: u32,
    /// Sessions that are being connected at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Open loop: so many connects (storm) or writes (writes, fan-out, mixed: 500) a second, whether the server
    /// keeps up or not; latencies count from when each was due. Without it, each waits for the one before
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// Sessions that go each second, and come again (mixed)
    #[arg(long, value_name = "PER_SECOND", default_value = "50", value_parser = positive)]
    pub churn: f64,
    /// Which shares of them close their connections, say goodbye, are reset, fall silent (mixed); by default
    /// 4,3,2,1, or what of it the driver can play
    #[arg(long, value_name = "N,N,N,N", value_parser = mix)]
    mix: Option<Mix>,
    /// Clients who watch everything (mixed)
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    watchers: u32,
    /// Not measured before
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span)]
    pub warm_up: Duration,
    /// Measured for so long (idle, writes, fan-out, flap, mixed)
    #[arg(long = "for", value_name = "SPAN", default_value = "5s", value_parser = span)]
    pub measured: Duration,
    /// Everything must be over after so long
    #[arg(long, value_name = "SPAN", default_value = "120s", value_parser = span)]
    pub limit: Duration,
    /// The server's session timeout (silent-death, mixed); with `--driver engine` it is set to this
    #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = span)]
    pub session_timeout: Duration,
    /// Sessions stay until so long after the beginning (mass-disconnect): so several generators, each with as many
    /// clients as it may open files, act as one
    #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = span)]
    pub stay: Duration,
    /// From when they go on, the watcher reads nothing for so long, below the server's session timeout
    /// (mass-disconnect): what it must see waits with the server meanwhile
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub watcher_pause: Option<Duration>,
    /// How sessions go (mass-disconnect, flap)
    #[arg(long, value_enum, default_value_t = EndingName::Reset)]
    ending: EndingName,
    /// Keep a model of what must be seen, report what is lost, early, double or wrong, and exit with 1 if
    /// anything is
    #[arg(long)]
    pub check: bool,
    /// The server's process, on this machine: its CPU time and memory are then reported
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Play against these, too, in turn with a Stillhere that is started for it, and print medians and ratios.
    /// `--address` and `--driver` are then not needed
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PEER")]
    pub against: Vec<Peer>,
    /// Rounds of a comparison
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// The program that a comparison starts; without it, `stillhere` beside this program
    #[arg(long, value_name = "FILE")]
    pub stillhere: Option<PathBuf>,
    /// Where the floor's program is, with its packages (`npm ci --prefix loadgen/floor`)
    #[arg(long, value_name = "FILE", default_value = "loadgen/floor/floor.cjs")]
    pub floor: PathBuf,
    /// Where the program is that starts firebase-server, with its packages (`npm ci --prefix loadgen/firebase-server`)
    #[arg(long, value_name = "FILE", default_value = "loadgen/firebase-server/serve.cjs")]
    pub firebase_server: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Draw the latencies, by percentile, into this file (SVG)
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Sessions connect, leave their last words and do nothing: memory of a session
    Idle,
    /// Sessions connect and leave their last words as fast as they can
    Storm,
    /// All sessions are gone at once; a watcher sees their last words
    MassDisconnect,
    /// All sessions fall silent with their connections open; a watcher sees their last words
    SilentDeath,
    /// One client writes, all sessions listen
    FanOut,
    /// Every session writes small values and waits for the answers
    Writes,
    /// Sessions connect, leave a last word, say that they are online, and are gone, again and again
    Flap,
    /// Nothing: the least server that answers writes and tells listeners, at --address, which `--against raw` starts
    Raw,
    /// An ordinary day: sessions come, write their status, give signs of life and go in all ways; some watch
    Mixed,
}

/// Who is measured beside Stillhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// The least that does the job, in a few lines over uWebSockets; needs Node
    Floor,
    /// The least server that answers at all, of this very program (writes, fan-out): what the kernel costs
    Raw,
    /// Eclipse Mosquitto, whose wills are last words; its program must be installed
    Mosquitto,
    /// firebase-server, the open server of the same protocol, which has no last words; needs Node
    FirebaseServer,
}

/// How the server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// WebSocket, Firebase protocol version 5
    Firebase,
    /// Datagrams: devices with Wilddog's C SDK, without DTLS (idle, storm, silent-death)
    Coap,
    /// WebSocket, packets of Engine.IO, Wilddog's protocol
    Wilddog,
    /// HTTP: requests on connections that stay, streams of events as sessions
    Rest,
    /// No server: an engine inside this process, without sockets
    Engine,
    /// MQTT 3.1.1, where a last word is the will: brokers, to be compared with
    Mqtt,
}

/// [`Ending`] as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EndingName {
    /// Connections are closed without a word, as when a process exits
    Close,
    /// Connections are reset, as when a process is killed
    Reset,
    /// Clients say goodbye
    Goodbye,
}

/// What share of departures is of which kind: connections are closed, goodbye is said, connections are reset,
/// sessions fall silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix(pub [u32; 4]);

impl Mix {
    /// The kinds that end a connection, by number.
    pub const ENDINGS: [Ending; 3] = [Ending::Close, Ending::Goodbye, Ending::Reset];
    /// The kind that does not.
    pub const SILENT: usize = 3;
    const GOODBYE: usize = 1;

    /// The kind of the departure with this number.
    #[must_use]
    pub fn kind(&self, number: usize) -> usize {
        let sum: u32 = self.0.iter().sum();
        let mut left = number % sum as usize;
        for (kind, share) in self.0.iter().enumerate() {
            match left.checked_sub(*share as usize) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        unreachable!("what is left of a sum is below one of its parts")
    }
}

impl Plan {
    /// Clients that a scenario needs beside its sessions: those who watch or write.
    #[must_use]
    pub const fn others(&self) -> u32 {
        match self.scenario {
            Scenario::Mixed => self.watchers,
            _ => 1,
        }
    }

    /// What share of departures is of which kind.
    #[must_use]
    pub fn mix(&self) -> Mix {
        self.mix.unwrap_or(match self.driver {
            Driver::Firebase | Driver::Wilddog | Driver::Coap | Driver::Engine => Mix([4, 3, 2, 1]),
            Driver::Rest | Driver::Mqtt => Mix([4, 0, 2, 0]),
        })
    }

    /// Sessions to play.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        let default = match self.scenario {
            Scenario::Idle | Scenario::Storm | Scenario::MassDisconnect | Scenario::SilentDeath => 5_000,
            Scenario::FanOut | Scenario::Mixed => 1_000,
            Scenario::Writes => 100,
            Scenario::Flap => 64,
            Scenario::Raw => 0,
        };
        self.sessions.unwrap_or(default)
    }

    /// For how long an MQTT broker may hear nothing of a client: it believes it half as long again.
    #[must_use]
    pub fn keep_alive_s(&self) -> u16 {
        let is_silent = match self.scenario {
            Scenario::SilentDeath => true,
            Scenario::Mixed => self.mix().0[Mix::SILENT] > 0,
            _ => false,
        };
        // Elsewhere clients are believed for ever, as they say nothing unasked.
        if is_silent { u16::try_from(self.session_timeout.as_secs() * 2 / 3).unwrap_or(u16::MAX) } else { 0 }
    }

    /// What cannot be played with that driver, in words.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check(&self) -> Result<(), &'static str> {
        let is_mixed = self.scenario == Scenario::Mixed;
        let is_goodbye = if is_mixed { self.mix().0[Mix::GOODBYE] > 0 } else { self.ending == EndingName::Goodbye };
        let is_silent = self.scenario == Scenario::SilentDeath || (is_mixed && self.mix().0[Mix::SILENT] > 0);
        let is_wordless = matches!(self.scenario, Scenario::Idle | Scenario::Storm) && self.driver == Driver::Firebase;
        match self.driver {
            _ if self.words == 0 && !is_wordless => {
                Err("without last words, the driver firebase plays idle and storm: --words 1")
            }
            Driver::Engine if self.watcher_pause.is_some() => {
                Err("a watcher that does not read needs a socket: another --driver")
            }
            Driver::Mqtt if self.words > 1 => Err("MQTT has one will a session: --words 1"),
            Driver::Mqtt if is_goodbye => {
                Err("a broker forgets the will of who says goodbye: --ending close or reset, --mix 4,0,2,1")
            }
            Driver::Mqtt if is_silent && !self.session_timeout.as_millis().is_multiple_of(1_500) => {
                Err("MQTT believes clients for one and a half times whole seconds: --session-timeout 45s")
            }
            Driver::Rest if is_goodbye => Err("HTTP has no goodbye: --ending close or reset, --mix 4,0,2,0"),
            Driver::Rest if is_silent => {
                Err("a stream's client says nothing, so nobody can tell when it has fallen silent: another --driver")
            }
            Driver::Coap if is_mixed => Err("the driver coap plays idle, storm and silent-death"),
            _ => Ok(()),
        }
    }

    /// How sessions go.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        match self.ending {
            EndingName::Close => Ending::Close,
            EndingName::Reset => Ending::Reset,
            EndingName::Goodbye => Ending::Goodbye,
        }
    }
}

/// `500ms`, `20s`, `2m`.
fn span(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number and ms, s or m, as in 5s".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("a number and ms, s or m, as in 5s".to_owned()),
    }
}

/// `4,3,2,1`.
fn mix(text: &str) -> Result<Mix, String> {
    let shares: Option<Vec<u32>> =
        text.split(',').map(|share| share.parse().ok().filter(|share| *share <= 1_000)).collect();
    match shares.as_deref() {
        Some(&[close, goodbye, reset, silent]) if close + goodbye + reset + silent > 0 => {
            Ok(Mix([close, goodbye, reset, silent]))
        }
        _ => Err("four numbers up to 1000, as in 4,3,2,1, not all of them 0".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("a number above 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(span("2m"), Ok(Duration::from_secs(120)));
        assert!(span("5").is_err());
        assert!(span("s").is_err());
        assert!(positive("0").is_err());
        assert!(positive("inf").is_err());
    }

    #[test]
    fn a_mix_gives_each_kind_its_share() {
        let shares = mix("4,0,2,1").unwrap();
        let mut counts = [0; 4];
        (0..70).for_each(|number| counts[shares.kind(number)] += 1);
        assert_eq!(counts, [40, 0, 20, 10]);
        for bad in ["0,0,0,0", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1001,0,0,0", ""] {
            assert!(mix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Plan::command().debug_assert();
    }
}
