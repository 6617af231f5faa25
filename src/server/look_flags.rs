//! The command line of those who look at a server: `sessions`, `ondisconnect`, `explain`, `top` and `demo`.

use clap::{Args, Subcommand};

use super::flags::ServerFlags;
use super::value::Address;

/// The flags of `demo`.
#[derive(Args, Debug)]
pub struct DemoFlags {
    /// Serve here [default: 127.0.0.1:9000, or any free port].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,
    /// How many people there are.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub people: u16,
}

/// Which running server, and how it is told.
#[derive(Args, Debug)]
pub struct LookFlags {
    /// Which server.
    #[command(flatten)]
    pub server: ServerFlags,
    /// Print JSON, a row a line.
    #[arg(long)]
    pub json: bool,
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List them: where each lives, how its client speaks, who it is, and what it leaves.
    ///
    /// Exit codes: 0 listed, 1 failure, 2 usage.
    Ls(ListFlags),
    /// End some: their last words are spoken at once, and their clients are sent away. Most come back.
    ///
    /// Exit codes: 0 all ended, 1 failure or no such session, 2 usage.
    Kill(KillFlags),
}

/// What to do with last words.
#[derive(Debug, Subcommand)]
pub enum OnDisconnectCommand {
    /// List those that wait, by session, in the order in which they will be spoken.
    ///
    /// Exit codes: 0 listed, 1 failure, 2 usage.
    Ls(ListFlags),
}

/// The flags of lists.
#[derive(Args, Debug)]
pub struct ListFlags {
    /// Of which server.
    #[command(flatten)]
    pub look: LookFlags,
    /// How many rows, at most [default: all].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// The flags of `sessions kill`.
#[derive(Args, Debug)]
pub struct KillFlags {
    /// Of which server.
    #[command(flatten)]
    pub look: LookFlags,
    /// Which, as `sessions ls` names them.
    #[arg(required = true, value_name = "SESSION")]
    pub sessions: Vec<String>,
}

/// The flags of `explain`.
#[derive(Args, Debug)]
pub struct ExplainFlags {
    /// Of which server.
    #[command(flatten)]
    pub look: LookFlags,
    /// Which path.
    #[arg(value_name = "PATH")]
    pub path: String,
}

/// The flags of `top`.
#[derive(Args, Debug)]
pub struct TopFlags {
    /// Of which server.
    #[command(flatten)]
    pub look: LookFlags,
    /// End after so many looks.
    #[arg(long, value_name = "N")]
    pub count: Option<u32>,
}
