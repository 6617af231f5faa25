//! The process: command line, configuration, logs, health, signals, and the life of one server.
//!
//! The surprising idea: settings have two types. [`low`] is exactly what was typed and where;
//! [`config`] is what it means. Only this room knows flags; whatever it hands down is plain values.
//!
//! Costs: three threads that sleep (signals, log, internal address), and on the path of a client's
//! message nothing.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this room is the process: it reads files and the environment, and starts the threads that serve no client"
)]

pub mod absent;
pub mod archive;
pub mod archive_commands;
pub mod auth;
pub mod builder;
pub mod check;
pub mod config;
pub mod data_dir;
pub mod demo;
pub mod environment;
pub mod file;
pub mod flags;
pub mod health;
pub mod internal;
pub mod kernel;
pub mod keys;
pub mod life;
pub mod logs;
pub mod look_flags;
pub mod low;
pub mod metrics;
pub mod operate;
pub mod papers;
pub mod place;
pub mod reference;
pub mod rules;
pub mod seam;
pub mod serve;
pub mod service;
pub mod tls;
pub mod transfer;
pub mod value;

pub use crate::runtime::Counted;
pub use builder::Builder;
pub use health::Health;
pub use life::{Addresses, Server};

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use config::{Machine, Meaning};
use flags::{Command, CommandLine, ConfigCommand, RulesCommand};
use life::Again;
use low::Low;
use place::Problem;
use seam::Tally;
use value::FilePath;

/// Something went wrong that the configuration is not to blame for.
pub const EXIT_FAILURE: u8 = 1;
/// The configuration cannot be served (`EX_CONFIG` of sysexits.h). Mistakes of usage exit with 2: that is
/// clap's own.
pub const EXIT_BAD_CONFIG: u8 = 78;

/// Why a server, or the process, ends without having done what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stop {
    /// It was told something that cannot be: at least one problem.
    BadConfig(Vec<Problem>),
    /// It could not, for this reason.
    Failed(String),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadConfig(problems) => {
                let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("; "))
            }
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Stop {}

/// The whole program: does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let CommandLine { command, log } = CommandLine::parse();
    match command {
        Command::Serve(mut flags) => {
            let file = flags.config.take();
            run_serve(file, &flags.low(log))
        }
        Command::Config(ConfigCommand::Reference) => end(print(&reference::reference()), complain),
        Command::Completions { shell } => end(print(&papers::completions(shell)), complain),
        Command::Man => end(print(&papers::manual()), complain),
        Command::Check(mut flags) => {
            let file = flags.config.take();
            end(run_check(file, flags.low(log)), complain)
        }
        Command::Export(flags) => end(transfer::export(&flags), complain),
        Command::Import(flags) => end(transfer::import(&flags), complain),
        Command::Verify(flags) => end(archive_commands::verify(&flags), complain),
        Command::Backup(flags) => end(archive_commands::backup(&flags), complain),
        Command::Restore(flags) => end(archive_commands::restore(&flags), complain),
        Command::Rules(RulesCommand::Test { files }) => run_rules_test(&files),
        Command::Sessions(command) => end(operate::sessions(&command), complain),
        Command::Ondisconnect(command) => end(operate::ondisconnect(&command), complain),
        Command::Explain(flags) => end(operate::explain(&flags), complain),
        Command::Top(flags) => end(operate::top(&flags), complain),
        Command::Demo(flags) => end(demo::demo(&flags, log), complain),
    }
}

/// The exit code that goes with `result`; `tell` gets each line of what went wrong.
fn end(result: Result<(), Stop>, tell: impl Fn(&str)) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::BadConfig(problems)) => {
            problems.iter().for_each(|problem| tell(&problem.to_string()));
            ExitCode::from(EXIT_BAD_CONFIG)
        }
        Err(Stop::Failed(reason)) => {
            tell(&reason);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn print(text: &str) -> Result<(), Stop> {
    let done = io::stdout().lock().write_all(text.as_bytes());
    done.map_err(|error| Stop::Failed(format!("it cannot be printed: {error}")))
}

fn run_serve(file: Option<FilePath>, flags: &Low) -> ExitCode {
    let meaning = match read(file.clone(), flags.clone()) {
        Ok(meaning) => meaning,
        Err(problems) => return end(Err(Stop::BadConfig(problems)), complain),
    };
    let health = Arc::new(Health::default());
    let config = &meaning.config;
    let logs = match logs::start(config.log_format, config.log_level, io::stderr().is_terminal(), &health) {
        Ok(logs) => logs,
        Err(error) => return end(Err(Stop::Failed(format!("the log cannot be started: {error}"))), complain),
    };
    // From here on, whoever reads the log finds everything in it.
    let again = Again {
        read: Box::new({
            let flags = flags.clone();
            move || read(file.clone(), flags.clone())
        }),
        set_log_level: logs.level_setter(),
    };
    end(serve::serve(meaning, again, &health), |line| tracing::error!("{line}"))
}

fn run_check(file: Option<FilePath>, flags: Low) -> Result<(), Stop> {
    let meaning = read(file, flags).map_err(Stop::BadConfig)?;
    let rules_warnings = check::check(&meaning).map_err(Stop::BadConfig)?;
    check::summarize(&meaning, &rules_warnings, &mut io::stdout().lock())
        .map_err(|error| Stop::Failed(format!("the summary cannot be printed: {error}")))
}

fn run_rules_test(files: &[PathBuf]) -> ExitCode {
    let mut output = io::stdout().lock();
    let tally = seam::test_rules(files, &mut output).and_then(|tally| {
        writeln!(output, "{} passed, {} failed", tally.passed_count, tally.failed_count)?;
        Ok(tally)
    });
    match tally {
        Ok(Tally { failed_count: 0, .. }) => ExitCode::SUCCESS,
        // Each mismatch is told already.
        Ok(_) => ExitCode::from(EXIT_FAILURE),
        Err(error) => end(Err(Stop::Failed(error.to_string())), complain),
    }
}

/// Lays flags over environment over file, and says what it all means.
fn read(file: Option<FilePath>, flags: Low) -> Result<Meaning, Vec<Problem>> {
    let environment = environment::read(std::env::vars_os());
    let mut problems = environment.problems;
    let below = match file.or(environment.config) {
        Some(file) => file::read(&file.0).map_err(|problem| problems.push(problem)),
        None => Ok(Low::default()),
    };
    let machine = Machine {
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        is_terminal: io::stderr().is_terminal(),
    };
    // A file that cannot be read is problem enough: what its absence leads to is not its author's mistake.
    let meaning = below.map(|below| config::mean(&flags.over(environment.low).over(below), machine));
    match meaning {
        Ok(Ok(mut meaning)) if problems.is_empty() => {
            meaning.warnings.splice(..0, environment.warnings);
            Ok(meaning)
        }
        Ok(Err(more)) => {
            problems.extend(more);
            Err(problems)
        }
        _ => Err(problems),
    }
}

fn complain(line: &str) {
    // Nobody can be told that nobody can be told.
    let _ = writeln!(io::stderr(), "stillhere: {line}");
}
