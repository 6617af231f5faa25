//! The command `stillhere-load`: presence traffic of real clients, measured and checked.
//!
//! ```text
//! plan      the command line
//! scenario  which plays, in which order, and what is measured between them
//! plays     what clients do in each phase
//! client    the protocol's other side, for many clients at once
//! sockets   how bytes travel to a server
//! devices   clients that speak CoAP: what they do, and how it travels
//! inside    how bytes travel to an engine in this process
//! rest      the same without a socket's protocol: requests and streams over HTTP
//! mqtt      another protocol's other side, of the brokers that are measured beside us
//! pace      when the next thing is due
//! check     what must be seen, and what was
//! against   the same against other servers in turn
//! raw       the least of these: it only answers
//! report    what a run has found
//! picture   its latencies, drawn
//! ```
//!
//! The surprising idea: whatever is written is the number of a change to its place, so one look at a
//! value tells whether it is lost, early, double or wrong.

#![allow(clippy::disallowed_methods, reason = "a load generator stands at the edge: clock, files of the kernel")]
#![allow(unreachable_pub, reason = "a program's modules have no outside; `pub` says what they offer each other")]

mod against;
mod check;
mod client;
mod clock;
mod devices;
mod inside;
mod mqtt;
mod pace;
mod picture;
mod plan;
mod plays;
mod process;
mod raw;
mod report;
mod rest;
mod scenario;
mod sockets;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use stillhere::base::Millis;

use client::{Link, Swarm, Tongue};
use clock::Moment;
use inside::Inside;
use mqtt::Mqtt;
use plan::{Driver, Plan, Scenario};
use process::Process;
use report::Report;
use rest::Rest;
use scenario::Run;
use sockets::Sockets;

/// The server's, so that an engine in this process does what it does there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Files that are open beside the clients' sockets.
const FILES_RESERVED: u64 = 32;

fn main() -> ExitCode {
    let plan = Plan::parse();
    let _begun = clock::now();
    if let Err(why) = plan.check() {
        let _best_effort = writeln!(io::stderr(), "stillhere-load: {why}");
        return ExitCode::from(2);
    }
    if !plan.against.is_empty() {
        return compare(&plan);
    }
    if plan.scenario == Scenario::Raw {
        let Err(error) = raw::serve(plan.address) else { return ExitCode::SUCCESS };
        let _best_effort = writeln!(io::stderr(), "stillhere-load: {error}");
        return ExitCode::FAILURE;
    }
    match run(&plan).and_then(|report| tell(&plan, &report).map(|()| report.is_good() || !is_strict(&plan, &report))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _best_effort = writeln!(io::stderr(), "stillhere-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(plan: &Plan) -> ExitCode {
    let is_shown = !plan.quiet && io::stderr().is_terminal();
    let mut show = |progress: &str| {
        if is_shown {
            let _best_effort = write!(io::stderr(), "\r\x1b[K{progress}");
        }
    };
    let told = against::run(plan, &mut show).and_then(|(told, is_good)| {
        show("");
        write!(io::stdout().lock(), "{told}").map(|()| is_good)
    });
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _best_effort = writeln!(io::stderr(), "stillhere-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what is not good fails the run: a failure always, findings only when they were asked for.
fn is_strict(plan: &Plan, report: &Report) -> bool {
    plan.check || report.failure.is_some()
}

fn run(plan: &Plan) -> io::Result<Report> {
    // Through one further connection clients of REST speak who have a stream.
    let porters = usize::from(plan.driver == Driver::Rest);
    let clients = plan.sessions() as usize + plan.others() as usize + porters;
    let host = plan.address.to_string();
    match plan.driver {
        Driver::Firebase | Driver::Wilddog | Driver::Rest | Driver::Mqtt => {
            let files = process::raise_file_limit();
            if clients as u64 + FILES_RESERVED > files {
                let why = format!("{clients} clients need as many open files; this process may have {files}");
                return Err(io::Error::other(why));
            }
            let tongue = match plan.driver {
                Driver::Mqtt => Tongue::Mqtt(Mqtt::new(clients, plan.keep_alive_s())),
                Driver::Wilddog => Tongue::Wilddog(vec![None; clients]),
                Driver::Rest => Tongue::Rest(Box::new(Rest::new(clients, &host, &plan.ns))),
                Driver::Firebase | Driver::Coap | Driver::Engine => Tongue::Firebase,
            };
            let sockets = Sockets::new(plan.address, clients, plan.server_pid.map(Process::new))?;
            play(plan, Swarm::new(sockets, clients, &host, &plan.ns, tongue), false)
        }
        // The devices share a socket; the watcher has its own.
        Driver::Coap => {
            let server = plan.server_pid.map(Process::new);
            let swarm = Swarm::new(Sockets::new(plan.address, 1, server)?, 1, &host, &plan.ns, Tongue::Firebase);
            play(plan, swarm, false)
        }
        Driver::Engine => {
            let timeout = Millis(u64::try_from(plan.session_timeout.as_millis()).unwrap_or(u64::MAX));
            play(plan, Swarm::new(Inside::new(clients, timeout), clients, &host, &plan.ns, Tongue::Firebase), true)
        }
    }
}

fn play<L: Link>(plan: &Plan, swarm: Swarm<L>, is_inside: bool) -> io::Result<Report> {
    let is_shown = !plan.quiet && io::stderr().is_terminal();
    let show = |now: Moment, progress: &str| {
        if is_shown {
            let _best_effort = write!(io::stderr(), "\r\x1b[K{:6.1} s  {progress}", now.since_s(Moment::START));
        }
    };
    let report = Run::new(plan, swarm, is_inside, show).run();
    if is_shown {
        let _best_effort = write!(io::stderr(), "\r\x1b[K");
    }
    report
}

fn tell(plan: &Plan, report: &Report) -> io::Result<()> {
    if let Some(path) = &plan.picture {
        match report.to_picture() {
            Some(picture) => std::fs::write(path, picture)?,
            None => return Err(io::Error::other("this scenario has no latencies to be drawn")),
        }
    }
    let mut out = io::stdout().lock();
    if plan.json { writeln!(out, "{:#}", report.to_json()) } else { write!(out, "{}", report.to_table()) }
}
