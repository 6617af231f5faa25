//! Stillhere and other servers in one run, round by round, and how they compare.
//!
//! The surprising idea: what a rate or a latency is on a shared machine changes from minute to minute, so
//! each round plays the same scenario against everybody in turn, and what is told is the ratio of medians.
//! Every server has the first core to itself, the generator the second.

#![allow(clippy::disallowed_types, reason = "asks the kernel for a free port, and whether a peer listens")]

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock;
use crate::plan::{Peer, Plan, Scenario};
use crate::report::figure;

/// How long a server may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long ended servers are given to be gone.
const REST: Duration = Duration::from_millis(300);
/// Options that are ours, with their values; the rounds get the others.
const OWN_OPTIONS: [&str; 8] =
    ["--against", "--rounds", "--stillhere", "--floor", "--firebase-server", "--address", "--server-pid", "--picture"];
/// Quantiles of latencies that are compared.
const QUANTILES: [&str; 2] = ["p50", "p99"];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    Stillhere,
    Peer(Peer),
}

impl Contestant {
    const fn name(self) -> &'static str {
        match self {
            Self::Stillhere => "stillhere",
            Self::Peer(Peer::Floor) => "floor",
            Self::Peer(Peer::Raw) => "raw",
            Self::Peer(Peer::Mosquitto) => "mosquitto",
            Self::Peer(Peer::FirebaseServer) => "firebase-server",
        }
    }

    const fn driver(self) -> &'static str {
        match self {
            Self::Stillhere | Self::Peer(Peer::Floor | Peer::Raw | Peer::FirebaseServer) => "firebase",
            Self::Peer(Peer::Mosquitto) => "mqtt",
        }
    }

    /// How much of a scenario it can do.
    const fn part(self, scenario: Scenario) -> Part {
        if !matches!(self, Self::Peer(Peer::FirebaseServer)) {
            return Part::Whole;
        }
        // It answers neither what is to be done at a disconnect (actions `o`, `om`, `oc`) nor single reads (`g`).
        match scenario {
            Scenario::Idle | Scenario::Storm => Part::Wordless,
            Scenario::FanOut => Part::Whole,
            Scenario::Writes => Part::Unchecked,
            Scenario::MassDisconnect | Scenario::SilentDeath | Scenario::Flap | Scenario::Raw | Scenario::Mixed => {
                Part::Nothing
            }
        }
    }
}

/// How much of a scenario a server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// Its sessions leave no last words.
    Wordless,
    /// What it has acknowledged cannot be read back.
    Unchecked,
    Nothing,
}

impl Part {
    /// What is to be known about its column.
    const fn remark(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Wordless => Some("it has no last words: its sessions only connect"),
            Self::Unchecked => Some("it answers no single reads: what it has acknowledged is not read back"),
            Self::Nothing => Some("it has no last words: not played"),
        }
    }

    /// The options of the command line as they are for it.
    fn options(self, all: impl Iterator<Item = OsString>) -> Vec<OsString> {
        match self {
            Self::Whole | Self::Nothing => without(all, &[], &[]),
            Self::Wordless => [without(all, &["--words"], &[]), vec!["--words=0".into()]].concat(),
            Self::Unchecked => without(all, &[], &["--check"]),
        }
    }
}

/// A server of a round, ended when it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
        let _best_effort = fs::remove_dir_all(&self.folder);
        sleep(REST);
    }
}

/// Plays all rounds. Returns what was found and whether Stillhere did all as it should.
///
/// # Errors
/// When a server or the generator cannot be started.
pub fn run(plan: &Plan, show: &mut impl FnMut(&str)) -> io::Result<(String, bool)> {
    let mut contestants = vec![Contestant::Stillhere];
    contestants.extend(plan.against.iter().copied().map(Contestant::Peer));
    let mut results: Vec<Vec<Value>> = vec![Vec::new(); contestants.len()];
    for round in 1..=plan.rounds {
        for (contestant, results) in contestants.iter().zip(&mut results) {
            if contestant.part(plan.scenario) != Part::Nothing {
                show(&format!("round {round} of {}: {}", plan.rounds, contestant.name()));
                results.push(play(plan, *contestant)?);
            }
        }
    }
    let is_good = results[0].iter().all(|report| report["is_good"] == true);
    let mut comparison = Comparison::new(&contestants, &results);
    comparison.remarks.extend(contestants.iter().filter_map(|contestant| {
        let remark = contestant.part(plan.scenario).remark()?;
        Some(format!("{}: {remark}", contestant.name()))
    }));
    Ok((if plan.json { comparison.to_json() } else { comparison.to_table() }, is_good))
}

/// One scenario against one server.
fn play(plan: &Plan, contestant: Contestant) -> io::Result<Value> {
    let server = start(plan, contestant)?;
    let output = pinned(1, &env::current_exe()?)
        .args(contestant.part(plan.scenario).options(env::args_os().skip(1)))
        .args(["--json", "--quiet", "--driver", contestant.driver()])
        .arg(format!("--address={}", server.address))
        .arg(format!("--server-pid={}", server.child.id()))
        .stderr(Stdio::inherit())
        .output()?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| io::Error::other(format!("no report about {}: {error}", contestant.name())))
}

/// The options of the command line that are not ours, without some that have values and some that have none.
fn without(all: impl Iterator<Item = OsString>, named: &[&str], bare: &[&str]) -> Vec<OsString> {
    let mut passed = Vec::new();
    let mut is_value = false;
    for option in all {
        let text = option.to_string_lossy().into_owned();
        let name = text.split('=').next().unwrap_or_default();
        let is_left_out = OWN_OPTIONS.contains(&name) || named.contains(&name);
        let is_bare = ["--json", "--quiet"].contains(&name) || bare.contains(&name);
        if !is_value && !is_left_out && !is_bare {
            passed.push(option);
        }
        is_value = is_left_out && !text.contains('=');
    }
    passed
}

/// A program on one core.
fn pinned(core: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

fn start(plan: &Plan, contestant: Contestant) -> io::Result<Server> {
    let folder = env::temp_dir().join(format!("stillhere-load-{}-{}", std::process::id(), clock::wall_ms()));
    fs::create_dir_all(&folder)?;
    let timeout_s = plan.session_timeout.as_secs();
    let mut command = match contestant {
        Contestant::Stillhere => {
            let mut command = pinned(0, &server_program(plan)?);
            command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--shards", "1", "--log-level", "error"]);
            command.arg("--data").arg(folder.join("data"));
            command.env("STILLHERE_DURABILITY", "none");
            command.env("STILLHERE_SESSION_TIMEOUT", format!("{timeout_s}s"));
            command.env("STILLHERE_HEARTBEAT", format!("{}ms", timeout_s * 1_000 / 3));
            command
        }
        Contestant::Peer(Peer::Floor) => {
            let mut command = pinned(0, Path::new("node"));
            command.arg(&plan.floor).arg(free_address()?.to_string()).arg(timeout_s.to_string());
            command
        }
        Contestant::Peer(Peer::FirebaseServer) => {
            let mut command = pinned(0, Path::new("node"));
            command.arg(&plan.firebase_server).arg(free_address()?.to_string());
            command
        }
        Contestant::Peer(Peer::Raw) => {
            let mut command = pinned(0, &env::current_exe()?);
            command.args(["raw", "--address", "127.0.0.1:0"]);
            command
        }
        Contestant::Peer(Peer::Mosquitto) => {
            let address = free_address()?;
            let config = folder.join("mosquitto.conf");
            let listener = format!("listener {} {}", address.port(), address.ip());
            let rest = "allow_anonymous true\npersistence false\nmax_queued_messages 0\nset_tcp_nodelay true\n";
            fs::write(&config, format!("{listener}\n{rest}"))?;
            // Debian puts it where only administrators look for programs.
            let usual = Path::new("/usr/sbin/mosquitto");
            let mut command = pinned(0, if usual.exists() { usual } else { Path::new("mosquitto") });
            command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
            return await_port(command.spawn().map_err(|error| cannot(contestant, &error))?, address, folder);
        }
    };
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| cannot(contestant, &error))?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("tcp=")?.parse().ok());
    // From here on it is ended, whatever happens.
    let none = SocketAddr::from(([0, 0, 0, 0], 0));
    let server = Server { child, address: address.unwrap_or(none), folder };
    if address.is_none() {
        let hint = match contestant {
            Contestant::Peer(Peer::Floor) => "; `npm ci --prefix loadgen/floor` installs it",
            Contestant::Peer(Peer::FirebaseServer) => "; `npm ci --prefix loadgen/firebase-server` installs it",
            Contestant::Stillhere | Contestant::Peer(Peer::Raw | Peer::Mosquitto) => "",
        };
        return Err(io::Error::other(format!("{} is not ready; it said: {line:?}{hint}", contestant.name())));
    }
    Ok(server)
}

fn cannot(contestant: Contestant, error: &io::Error) -> io::Error {
    io::Error::other(format!("{} cannot be started by `taskset` (of util-linux): {error}", contestant.name()))
}

/// The server's program: as it was named, or beside this one.
fn server_program(plan: &Plan) -> io::Result<PathBuf> {
    match &plan.stillhere {
        Some(path) => Ok(path.clone()),
        None => Ok(env::current_exe()?.with_file_name("stillhere")),
    }
}

/// An address at which nobody listens now.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn await_port(child: Child, address: SocketAddr, folder: PathBuf) -> io::Result<Server> {
    let server = Server { child, address, folder };
    let until = clock::now() + READY_MAX;
    while TcpStream::connect(address).is_err() {
        if clock::now() >= until {
            return Err(io::Error::other(format!("nobody listens at {address}")));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// What everybody's rounds have found.
struct Comparison {
    names: Vec<&'static str>,
    /// A figure's name and unit, and everybody's median of it, if they have it.
    rows: Vec<(String, String, Vec<Option<f64>>)>,
    /// What did not go as it should.
    remarks: Vec<String>,
}

impl Comparison {
    fn new(contestants: &[Contestant], results: &[Vec<Value>]) -> Self {
        let names: Vec<_> = contestants.iter().map(|contestant| contestant.name()).collect();
        let mut figures: Vec<(String, String)> = Vec::new();
        for figure in results.iter().flatten().flat_map(named_figures) {
            if !figures.iter().any(|(name, _)| *name == figure.0) {
                figures.push((figure.0, figure.1));
            }
        }
        let median_of = |reports: &[Value], name: &str| {
            let all = reports.iter().flat_map(named_figures).filter(|(other, ..)| other == name);
            median(all.map(|(.., value)| value).collect())
        };
        let rows = figures.into_iter().map(|(name, unit)| {
            let medians = results.iter().map(|reports| median_of(reports, &name)).collect();
            (name, unit, medians)
        });
        let mut remarks = Vec::new();
        for (name, report) in names.iter().zip(results).flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
            let warnings = report["warnings"].as_array().into_iter().flatten();
            remarks.extend(
                warnings.chain([&report["failure"]]).filter_map(Value::as_str).map(|why| format!("{name}: {why}")),
            );
            if report["is_good"] != true {
                remarks.push(format!("{name}: not all was as it should be: {}", report["check"]));
            }
        }
        remarks.dedup();
        Self { names, rows: rows.collect(), remarks }
    }

    /// As a table: everybody's medians, then ours as multiples of each peer's.
    fn to_table(&self) -> String {
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let column = self.names.iter().map(|name| name.len() + 2).max().unwrap_or(0).max(14);
        let mut out = format!("{:width$}", "");
        out.extend(self.names.iter().map(|name| format!(" {name:>column$}")));
        out.extend(self.names.iter().skip(1).map(|name| format!(" {:>column$}", format!("x {name}"))));
        out.push('\n');
        for (name, unit, medians) in &self.rows {
            let _infallible = write!(out, "{name:width$}");
            for median in medians {
                let _infallible = write!(out, " {:>column$}", median.map_or_else(|| "-".to_owned(), figure));
            }
            for peer in medians.iter().skip(1) {
                let ratio = medians[0].zip(*peer).filter(|(_, peer)| *peer != 0.0);
                let told = ratio.map_or_else(|| "-".to_owned(), |(own, peer)| format!("{:.2}", own / peer));
                let _infallible = write!(out, " {told:>column$}");
            }
            let _infallible = writeln!(out, " {unit}");
        }
        out.extend(self.remarks.iter().map(|remark| format!("\n  {remark}\n")));
        out
    }

    fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|(name, unit, medians)| {
            let medians: Map<_, _> =
                self.names.iter().zip(medians).map(|(name, median)| ((*name).to_owned(), json!(median))).collect();
            (name.clone(), json!({"unit": unit, "medians": medians}))
        });
        format!("{:#}\n", json!({"figures": rows.collect::<Map<_, _>>(), "remarks": self.remarks}))
    }
}

/// Name, unit and value of all figures of a report.
fn named_figures(report: &Value) -> Vec<(String, String, f64)> {
    let figures = report["figures"].as_object().into_iter().flatten();
    let figures = figures.filter_map(|(name, figure)| {
        Some((name.clone(), figure["unit"].as_str()?.to_owned(), figure["value"].as_f64()?))
    });
    let latencies = report["latencies_ms"].as_object().into_iter().flatten();
    let latencies = latencies.flat_map(|(name, told)| {
        QUANTILES.iter().filter_map(move |at| Some((format!("{name}, {at}"), "ms".to_owned(), told[*at].as_f64()?)))
    });
    figures.chain(latencies).collect()
}

/// The middle one; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle)) {
        (_, None) => None,
        (1, Some(value)) => Some(*value),
        (_, Some(value)) => Some(f64::midpoint(values[middle - 1], *value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_get_what_is_not_ours() {
        #[track_caller]
        fn check(part: Part, expected: &[&str]) {
            let all = "idle --against floor --rounds=2 --for 3s --json --words 2 --address 1.2.3.4:5 --check";
            assert_eq!(part.options(all.split(' ').map(OsString::from)), expected, "{part:?}");
        }
        check(Part::Whole, &["idle", "--for", "3s", "--words", "2", "--check"]);
        check(Part::Wordless, &["idle", "--for", "3s", "--check", "--words=0"]);
        check(Part::Unchecked, &["idle", "--for", "3s", "--words", "2"]);
    }

    #[test]
    fn everybody_plays_what_they_can() {
        use clap::ValueEnum as _;
        for scenario in Scenario::value_variants() {
            for whole in [Contestant::Stillhere, Contestant::Peer(Peer::Mosquitto), Contestant::Peer(Peer::Floor)] {
                assert_eq!(whole.part(*scenario), Part::Whole);
            }
        }
        let part = |scenario| Contestant::Peer(Peer::FirebaseServer).part(scenario);
        assert_eq!(part(Scenario::Storm), Part::Wordless);
        assert_eq!(part(Scenario::FanOut), Part::Whole);
        assert_eq!(part(Scenario::Writes), Part::Unchecked);
        assert_eq!(part(Scenario::MassDisconnect), Part::Nothing);
        assert!(part(Scenario::MassDisconnect).remark().is_some_and(|why| why.contains("no last words")));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0, 7.0]), Some(6.0));
    }

    #[test]
    fn ours_are_multiples_of_theirs() {
        let report = |us: f64, is_good: bool| {
            json!({
                "is_good": is_good,
                "figures": {"server CPU per write": {"value": us, "unit": "us"}},
                "latencies_ms": {"write": {"p50": us / 2.0, "p99": us}},
                "check": null, "warnings": [], "failure": null,
            })
        };
        let contestants = [Contestant::Stillhere, Contestant::Peer(Peer::Floor)];
        let results = [vec![report(3.0, true), report(5.0, true)], vec![report(8.0, true), report(8.0, false)]];
        let comparison = Comparison::new(&contestants, &results);
        let table = comparison.to_table();
        let row = table.lines().find(|line| line.starts_with("server CPU per write")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>()[4..], ["4", "8", "0.50", "us"]);
        assert!(table.contains("write, p99"), "{table}");
        assert_eq!(comparison.remarks, ["floor: not all was as it should be: null"]);
        let told: Value = serde_json::from_str(&comparison.to_json()).unwrap();
        assert_eq!(told["figures"]["write, p50"]["medians"]["floor"], 4.0);
    }
}
