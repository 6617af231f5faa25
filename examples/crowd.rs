//! The second door with a crowd behind it: how many sessions of a gateway one process carries, and at what cost.
//!
//! `cargo run --release --example crowd -- 1000000` opens so many sessions, each leaves a last word, all say that
//! they are there, then all are dropped at once. A watcher must hear of each end, once, and tells when the last came.
//! Memory is that of the whole process: the server, the tree, and what this program holds of each session.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use stillhere::Server;
use stillhere::gateway::{Change, Engine, Json, Listen, Opening, Session};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Sessions that come at a time.
const AT_ONCE: usize = 1_024;
/// Sessions that one task opens, one after the other.
const BATCH: usize = 1_000;
/// Nobody here is to fall silent by itself.
const TIMEOUT: Duration = Duration::from_secs(3_600);

type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Done {
    let clients: usize = std::env::args().nth(1).map_or(Ok(2_000), |count| count.parse())?;
    let directory = tempfile::tempdir()?;
    let server =
        Server::builder().listen(([127, 0, 0, 1], 0).into()).data(directory.path().join("data")).dev().start()?;
    crowd(server.engine(), clients).await?;
    tokio::task::spawn_blocking(move || server.stop()).await??;
    Ok(())
}

async fn crowd(engine: Engine, clients: usize) -> Done {
    let watcher = engine.open(Opening::new("crowd").timeout(TIMEOUT)).await?;
    let gone = watcher.listen("/gone").await?;
    let watched = tokio::spawn(watch(gone, clients));

    let empty = memory_bytes()?;
    let began = Instant::now();
    let sessions = come(&engine, clients).await?;
    let per_session = |bytes: usize| bytes.saturating_sub(empty) / clients.max(1);
    println!("{clients} sessions came and left last words: {:.3} s", began.elapsed().as_secs_f64());
    println!("memory, all in all: {} bytes a session", per_session(memory_bytes()?));

    let began = Instant::now();
    sessions.iter().for_each(Session::heartbeat);
    // What was said before is heard before.
    watcher.get("/nobody").await?;
    println!("all said that they are there: {:.3} s", began.elapsed().as_secs_f64());

    let began = Instant::now();
    drop(sessions);
    let heard = watched.await??;
    println!("{heard} went, and each was heard of, once: {:.3} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Opens the sessions, many at a time.
async fn come(engine: &Engine, clients: usize) -> Done<Vec<Session>> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for first in (0..clients).step_by(BATCH) {
        let (engine, room) = (engine.clone(), Arc::clone(&room));
        tasks.spawn(async move {
            let mut sessions = Vec::with_capacity(BATCH);
            for number in first..clients.min(first + BATCH) {
                let _place = room.acquire().await?;
                let session = engine.open(Opening::new("crowd").timeout(TIMEOUT)).await?;
                // Whoever spoke it twice would leave a two.
                let once = Json::text(r#"{".sv": {"increment": 1}}"#);
                session.on_disconnect(&format!("/gone/{number}"))?.set(once).await?;
                sessions.push(session);
            }
            Done::Ok(sessions)
        });
    }
    let mut all = Vec::with_capacity(clients);
    while let Some(sessions) = tasks.join_next().await {
        all.extend(sessions??);
    }
    Ok(all)
}

/// Hears everybody go, and fails if it hears of somebody twice.
async fn watch(mut gone: Listen, clients: usize) -> Done<usize> {
    let mut is_gone = vec![false; clients];
    let mut heard = 0;
    let mut hear = |path: &str, value: &str| -> Done {
        let number: usize = path.trim_matches('/').parse()?;
        if value != "1" || std::mem::replace(&mut is_gone[number], true) {
            return Err(format!("{number} went again: {value}").into());
        }
        heard += 1;
        Ok(())
    };
    let mut left = clients;
    while left > 0 {
        let before = left;
        match gone.next().await.ok_or("the listen is over")?? {
            Change::Value { path, value } if !value.is_null() => {
                hear(path.trim_start_matches("/gone"), &value.json())?;
                left -= 1;
            }
            Change::Merge { changes, .. } => {
                for (below, value) in changes {
                    hear(&below, &value.json())?;
                    left -= 1;
                }
            }
            _ => assert_eq!(before, left, "nothing was there before"),
        }
    }
    Ok(heard)
}

/// What this process holds of the machine's memory.
#[expect(clippy::disallowed_methods, reason = "it measures itself, outside the server")]
fn memory_bytes() -> Done<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<usize>()? * 1_024)
}
