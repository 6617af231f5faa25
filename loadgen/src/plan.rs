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
    /// The database
    #[arg(long, value_name = "NAME", default_value = "load")]
    pub ns: String,
    /// Sessions to play; the default depends on the scenario
    #[arg(long, value_name = "N")]
    sessions: Option<u32>,
    /// Last words that each session leaves
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub words: u32,
    /// Requests that a session has in flight (writes)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub depth: u32,
    /// Sessions that are being connected at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Open loop: so many connects (storm) or writes (writes, fan-out) a second, whether the server keeps
    /// up or not; latencies count from when each was due. Without it, each waits for the one before
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// Not measured before
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span)]
    pub warm_up: Duration,
    /// Measured for so long (idle, writes, fan-out, flap)
    #[arg(long = "for", value_name = "SPAN", default_value = "5s", value_parser = span)]
    pub measured: Duration,
    /// Everything must be over after so long
    #[arg(long, value_name = "SPAN", default_value = "120s", value_parser = span)]
    pub limit: Duration,
    /// The server's session timeout (silent-death); with `--driver engine` it is set to this
    #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = span)]
    pub session_timeout: Duration,
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
}

/// Who is measured beside Stillhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// The least that does the job, in a few lines over uWebSockets; needs Node
    Floor,
    /// Eclipse Mosquitto, whose wills are last words; its program must be installed
    Mosquitto,
}

/// How the server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// WebSocket, Firebase protocol version 5
    Firebase,
    /// WebSocket, packets of Engine.IO, Wilddog's protocol
    Wilddog,
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

impl Plan {
    /// Sessions to play.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        let default = match self.scenario {
            Scenario::Idle | Scenario::Storm | Scenario::MassDisconnect | Scenario::SilentDeath => 5_000,
            Scenario::FanOut => 1_000,
            Scenario::Writes => 100,
            Scenario::Flap => 64,
        };
        self.sessions.unwrap_or(default)
    }

    /// For how long an MQTT broker may hear nothing of a client: it believes it half as long again.
    #[must_use]
    pub fn keep_alive_s(&self) -> u16 {
        let is_silent = self.scenario == Scenario::SilentDeath;
        // Elsewhere clients are believed for ever, as they say nothing unasked.
        if is_silent { u16::try_from(self.session_timeout.as_secs() * 2 / 3).unwrap_or(u16::MAX) } else { 0 }
    }

    /// What cannot be played with that driver, in words.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check(&self) -> Result<(), &'static str> {
        let is_mqtt = self.driver == Driver::Mqtt;
        if is_mqtt && self.words > 1 {
            return Err("MQTT has one will a session: --words 1");
        }
        if is_mqtt && self.ending == EndingName::Goodbye {
            return Err("a broker forgets the will of who says goodbye: --ending close or reset");
        }
        if is_mqtt && self.scenario == Scenario::SilentDeath && !self.session_timeout.as_millis().is_multiple_of(1_500)
        {
            return Err("MQTT believes clients for one and a half times whole seconds: --session-timeout 45s");
        }
        Ok(())
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
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Plan::command().debug_assert();
    }
}
