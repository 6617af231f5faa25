//! The second door: a protocol of our own, lines over TCP, on tokio; and a crowd that speaks it.
//!
//! ```text
//! client                       gateway
//! HELLO joe                    OK joe
//! SET /status/joe "online"     OK
//! LAST /status/joe "offline"   OK            what the server writes when joe goes, however he goes
//! WATCH /status                OK            then EVENT lines
//! PING                         PONG          any line is a sign of life
//! QUIT                         BYE
//! ```
//!
//! Each client is one [`Session`], whose handle and listens live in the task of its connection. Back-pressure
//! comes by itself: the task does not read the next line before the server has answered the last one.
//!
//! `cargo run --release --example line_gateway -- 10000` runs the load test with so many clients: each comes,
//! leaves last words, says that it is there, and its connection breaks; a watcher must see each come and go,
//! once.
//!
//! What a gateway for strangers has to add: a bound on the length of a line, which tokio's `Lines` does not have.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use stillhere::Server;
use stillhere::gateway::{self, Change, Engine, Json, Listen, Opening, Session};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Clients of the load test that come or go at a time.
const AT_ONCE: usize = 256;

type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Done {
    let clients: usize = std::env::args().nth(1).map_or(Ok(200), |count| count.parse())?;
    let directory = tempfile::tempdir()?;
    let server =
        Server::builder().listen(([127, 0, 0, 1], 0).into()).data(directory.path().join("data")).dev().start()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(accept(listener, server.engine()));
    println!("{address}: HELLO name, SET path json, LAST path json, WATCH path, PING, QUIT");
    load(address, clients).await?;
    tokio::task::spawn_blocking(move || server.stop()).await??;
    Ok(())
}

async fn accept(listener: TcpListener, engine: Engine) {
    while let Ok((stream, _)) = listener.accept().await {
        let engine = engine.clone();
        tokio::spawn(async move {
            // However it ends, the session ends with it, and its last words are spoken.
            let _ = serve(stream, &engine).await;
        });
    }
}

/// One connection, from its first line to its last.
async fn serve(stream: TcpStream, engine: &Engine) -> Done {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let Some(hello) = lines.next_line().await? else { return Ok(()) };
    let Some(name) = hello.strip_prefix("HELLO ") else {
        write.write_all(b"ERROR say HELLO\n").await?;
        return Ok(());
    };
    let session = engine.open(Opening::new("lines").timeout(Duration::from_secs(60))).await?;
    write.write_all(format!("OK {name}\n").as_bytes()).await?;
    let mut watched: Option<Listen> = None;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                session.heartbeat();
                if line == "QUIT" {
                    session.end().await;
                    write.write_all(b"BYE\n").await?;
                    return Ok(());
                }
                let answer = match act(&session, &line, &mut watched).await {
                    Ok(answer) => answer.to_owned(),
                    Err(error) => format!("ERROR {error}"),
                };
                write.write_all(format!("{answer}\n").as_bytes()).await?;
            }
            Some(change) = next_change(&mut watched) => tell(&mut write, change?).await?,
            why = session.ended() => {
                write.write_all(format!("BYE {why}\n").as_bytes()).await?;
                return Ok(());
            }
        }
    }
}

/// The next change of what is watched; never, where nothing is.
async fn next_change(watched: &mut Option<Listen>) -> Option<Result<Change, gateway::Error>> {
    match watched {
        Some(listen) => listen.next().await,
        None => std::future::pending().await,
    }
}

async fn act(session: &Session, line: &str, watched: &mut Option<Listen>) -> Result<&'static str, gateway::Error> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (path, json) = rest.split_once(' ').unwrap_or((rest, "null"));
    match verb {
        "PING" => return Ok("PONG"),
        "SET" => session.set(path, Json::text(json)).await?,
        "LAST" => session.on_disconnect(path)?.set(Json::text(json)).await?,
        "WATCH" => *watched = Some(session.listen(path).await?),
        _ => return Ok("ERROR unknown verb"),
    }
    Ok("OK")
}

async fn tell(write: &mut OwnedWriteHalf, change: Change) -> Done {
    let mut text = String::new();
    match change {
        Change::Value { path, value } => text = format!("EVENT {path} {}\n", value.json()),
        Change::Merge { path, changes } => {
            for (below, value) in changes {
                text.push_str("EVENT ");
                text.extend([
                    path.as_str(),
                    &below,
                    " ",
                    &value.json(),
                    "
",
                ]);
            }
        }
        _ => {}
    }
    Ok(write.write_all(text.as_bytes()).await?)
}

/// One client of the load test.
struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Client {
    async fn hello(address: std::net::SocketAddr, name: &str) -> Done<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut client = Self { lines: BufReader::new(read).lines(), write };
        client.ask(&format!("HELLO {name}"), "OK").await?;
        Ok(client)
    }

    async fn ask(&mut self, line: &str, expected: &str) -> Done {
        self.write.write_all(format!("{line}\n").as_bytes()).await?;
        loop {
            let answer = self.lines.next_line().await?.ok_or("the gateway hung up")?;
            if answer.starts_with("EVENT ") {
                continue;
            }
            return if answer.starts_with(expected) { Ok(()) } else { Err(format!("{line}: {answer}").into()) };
        }
    }
}

/// A crowd comes, and its connections break; a watcher must see each come once and go once.
async fn load(address: std::net::SocketAddr, clients: usize) -> Done {
    let mut watcher = Client::hello(address, "watcher").await?;
    watcher.ask("WATCH /status", "OK").await?;
    let seen = tokio::spawn(async move { watch(&mut watcher, clients).await });

    let room = Arc::new(Semaphore::new(AT_ONCE));
    let began = Instant::now();
    let mut coming = Vec::new();
    for number in 0..clients {
        let permit = Arc::clone(&room).acquire_owned().await?;
        coming.push(tokio::spawn(async move {
            let _permit = permit;
            let mut client = Client::hello(address, &format!("c{number}")).await?;
            client.ask(&format!("LAST /status/c{number} \"offline\""), "OK").await?;
            client.ask(&format!("SET /status/c{number} \"online\""), "OK").await?;
            Done::Ok(client)
        }));
    }
    let mut crowd = Vec::new();
    for client in coming {
        crowd.push(client.await??);
    }
    let came = began.elapsed();
    println!("{clients} clients came, left last words and wrote: {:.3} s", came.as_secs_f64());
    let began = Instant::now();
    drop(crowd);
    let flips = seen.await??;
    let went = began.elapsed();
    assert_eq!(flips.len(), clients, "everybody was seen");
    for (name, states) in &flips {
        assert_eq!(states, &["\"online\"", "\"offline\""], "{name}");
    }
    println!("{clients} connections broke, and each was seen to go, once: {:.3} s", went.as_secs_f64());
    Ok(())
}

/// What a watcher sees until everybody has gone.
async fn watch(watcher: &mut Client, clients: usize) -> Done<BTreeMap<String, Vec<String>>> {
    let mut flips: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut gone = 0;
    while gone < clients {
        let line = watcher.lines.next_line().await?.ok_or("the gateway hung up")?;
        let Some((path, state)) = line.strip_prefix("EVENT /status").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let Some(name) = path.strip_prefix('/') else { continue };
        gone += usize::from(state == "\"offline\"");
        flips.entry(name.to_owned()).or_default().push(state.to_owned());
    }
    Ok(flips)
}
