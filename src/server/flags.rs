//! The command line, as it was typed. A flag that cannot be read is a mistake of usage: clap says so and
//! the exit code is 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::look_flags::{DemoFlags, ExplainFlags, OnDisconnectCommand, SessionsCommand, TopFlags};
use super::low::Low;
use super::papers::Shell;
use super::place::{Origin, Typed};
use super::value::{Address, FilePath, LogFormat, LogLevel};

/// A self-hosted presence engine: clients come, go and leave last words that the server speaks for them.
#[derive(Debug, Parser)]
#[command(name = "stillhere", version, subcommand_required = true, arg_required_else_help = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to log.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server until SIGTERM or SIGINT.
    ///
    /// Each flag can be given in the environment too (`--log-level` as STILLHERE_LOG, the others as
    /// STILLHERE_ and their name in capitals) or in the file. Flags beat the environment, the environment
    /// beats the file. SIGHUP reads the rules, the certificate, credentials, limits and the log level again.
    ///
    /// Exit codes: 0 stopped as asked, 1 failure, 2 usage, 78 bad configuration.
    Serve(ServeFlags),
    /// Check the configuration, the rules and the machine, and show what would be in force.
    ///
    /// Exit codes: 0 fit to serve, 2 usage, 78 not, with the place and the reason.
    Check(CheckFlags),
    /// Write the data of a running server to a file: JSON, with priorities.
    ///
    /// The file appears when it is whole. Exit codes: 0 written, 1 failure, 2 usage.
    Export(ExportFlags),
    /// Read data from a file into a running server.
    ///
    /// A file of up to a megabyte is written at once; a longer one in many updates, which other clients can
    /// see happen. Exit codes: 0 all written, 1 failure, 2 usage.
    Import(ImportFlags),
    /// See who is connected to a running server, and end sessions.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// See the last words (onDisconnect) that wait in a running server.
    #[command(subcommand)]
    Ondisconnect(OnDisconnectCommand),
    /// Tell why a path of a running server is as it is: who changed it last, and what waits to change it.
    ///
    /// Exit codes: 0 told, 1 failure, 2 usage.
    Explain(ExplainFlags),
    /// Show how a running server is, once a second.
    ///
    /// On a terminal the screen is written over; elsewhere each look is printed after the other. Exit codes:
    /// 0 shown as often as asked, 1 failure, 2 usage.
    Top(TopFlags),
    /// Run a server with a crowd that comes and goes, to look at: on loopback, open to everybody on this
    /// machine, with data that is gone at the end. Ctrl-C ends it.
    ///
    /// Exit codes: 0 stopped as asked, 1 failure, 2 usage.
    Demo(DemoFlags),
    /// Read the log in a data directory as a start would, and say whether it is whole.
    ///
    /// No server may be running on it. Exit codes: 0 whole or repaired, 1 damaged or failure, 2 usage.
    Verify(VerifyFlags),
    /// Copy the log of a data directory; a server may be running on it.
    ///
    /// The copy is what a start would find had the power failed. Exit codes: 0 copied, 1 failure, 2 usage.
    Backup(BackupFlags),
    /// Put a backup into a data directory without a log.
    ///
    /// Exit codes: 0 in place, 1 failure, 2 usage.
    Restore(RestoreFlags),
    /// Work with rules.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Tell about the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a script that completes this command line in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page (roff).
    Man,
}

/// What to tell about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its names, its default, its meaning and its limits (Markdown).
    Reference,
}

/// Which running server, and as whom.
#[derive(Args, Debug)]
pub struct ServerFlags {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000", env = "STILLHERE_URL")]
    pub url: String,
    /// The database.
    #[arg(long, value_name = "NAME")]
    pub namespace: String,
    /// The credential of an administrator: a database secret, or `owner` for a server with --dev.
    #[arg(long, value_name = "CREDENTIAL", env = "STILLHERE_AUTH", hide_env_values = true)]
    pub auth: Option<String>,
}

/// Which data of which server.
#[derive(Args, Debug)]
pub struct SourceFlags {
    /// Which server.
    #[command(flatten)]
    pub server: ServerFlags,
    /// The location within the database.
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub path: String,
}

/// The flags of `export`.
#[derive(Args, Debug)]
pub struct ExportFlags {
    /// Which data.
    #[command(flatten)]
    pub source: SourceFlags,
    /// The file to be written [default: standard output].
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// The flags of `import`.
#[derive(Args, Debug)]
pub struct ImportFlags {
    /// Where it goes.
    #[command(flatten)]
    pub source: SourceFlags,
    /// The file to be read; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Remove what is there first. Without this and without --merge, there must be nothing.
    #[arg(long, conflicts_with = "merge")]
    pub replace: bool,
    /// Leave what is there and not in the file.
    #[arg(long)]
    pub merge: bool,
}

/// The flags of `verify`.
#[derive(Args, Debug)]
pub struct VerifyFlags {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "stillhere-data", env = "STILLHERE_DATA")]
    pub data: PathBuf,
    /// It is not a data directory but a backup.
    #[arg(long)]
    pub backup: bool,
    /// Cut damaged files off before the damage. What is behind it is lost.
    #[arg(long)]
    pub repair: bool,
}

/// The flags of `backup`.
#[derive(Args, Debug)]
pub struct BackupFlags {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "stillhere-data", env = "STILLHERE_DATA")]
    pub data: PathBuf,
    /// Where the copy goes: a directory that is missing or empty.
    #[arg(value_name = "TO")]
    pub to: PathBuf,
}

/// The flags of `restore`.
#[derive(Args, Debug)]
pub struct RestoreFlags {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "stillhere-data", env = "STILLHERE_DATA")]
    pub data: PathBuf,
    /// The backup.
    #[arg(value_name = "FROM")]
    pub from: PathBuf,
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Run files of rules cases; print each mismatch and, last, `N passed, M failed`.
    ///
    /// Exit codes: 0 all passed, 1 any failed, 2 usage.
    Test {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// The flags of `serve`.
#[derive(Args, Debug, Default)]
pub struct ServeFlags {
    /// Read this configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<FilePath>,
    /// Serve WebSocket, Engine.IO, REST and streaming here [default: 127.0.0.1:9000].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,
    /// Serve CoAP (UDP) here.
    #[arg(long, value_name = "ADDR")]
    pub coap: Option<Address>,
    /// Serve CoAP over DTLS (UDP) here.
    #[arg(long, value_name = "ADDR")]
    pub coaps: Option<Address>,
    /// Serve /healthz, /readyz and /metrics here [default: 127.0.0.1:9001].
    #[arg(long, value_name = "ADDR")]
    pub internal: Option<Address>,
    /// Keep data in this directory [default: ./stillhere-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<FilePath>,
    /// Use the rules of this file; without one, everything is denied.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<FilePath>,
    /// Use this many cores [default: all].
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Accept `Bearer owner` and unsigned tokens, and open the rules when there are none. Only on loopback.
    #[arg(long)]
    pub dev: bool,
}

/// The flags of `check`.
#[derive(Args, Debug, Default)]
pub struct CheckFlags {
    /// Check this configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<FilePath>,
    /// Check the rules of this file.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<FilePath>,
}

/// The flags that every command has.
#[derive(Args, Debug, Default)]
pub struct LogFlags {
    /// Write the log as `human` or `json` [default: human on a terminal, else json].
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
    /// Log this and what is graver: error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<LogLevel>,
}

impl ServeFlags {
    /// What was typed.
    #[must_use]
    pub fn low(self, log: LogFlags) -> Low {
        Low {
            listen: typed("--listen", self.listen),
            coap: typed("--coap", self.coap),
            coaps: typed("--coaps", self.coaps),
            internal: typed("--internal", self.internal),
            data: typed("--data", self.data),
            rules: typed("--rules", self.rules),
            shards: typed("--shards", self.shards),
            dev: typed("--dev", self.dev.then_some(true)),
            ..log.low()
        }
    }
}

impl CheckFlags {
    /// What was typed.
    #[must_use]
    pub fn low(self, log: LogFlags) -> Low {
        Low { rules: typed("--rules", self.rules), ..log.low() }
    }
}

impl LogFlags {
    pub(super) fn low(self) -> Low {
        Low {
            log_format: typed("--log-format", self.log_format),
            log_level: typed("--log-level", self.log_level),
            ..Low::default()
        }
    }
}

fn typed<T>(flag: &'static str, value: Option<T>) -> Option<Typed<T>> {
    value.map(|value| Typed { value, origin: Origin::Flag(flag) })
}
