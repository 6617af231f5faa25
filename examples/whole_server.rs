//! The first door: the whole server within another program, with clients of its own protocols and sessions of
//! the program side by side.
//!
//! `cargo run --example whole_server`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use stillhere::Server;
use stillhere::gateway::{Change, Opening};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let server = Server::builder()
        .listen(([127, 0, 0, 1], 0).into())
        .internal(([127, 0, 0, 1], 0).into())
        .data(directory.path().join("data"))
        .config_text("[namespace.chat]\nsession_timeout = \"1m\"")
        .shards(1)
        .dev()
        .start()?;
    println!("clients connect to http://{}?ns=chat", server.addresses().tcp);

    // Any runtime will do; here, one thread that waits.
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let engine = server.engine();
        let joe = engine.open(Opening::new("chat")).await?;
        joe.on_disconnect("/status/joe")?.set("offline").await?;
        joe.set("/status/joe", "online").await?;

        let watcher = engine.open(Opening::new("chat")).await?;
        let mut changes = watcher.listen("/status/joe").await?;
        joe.end().await;
        let mut states = Vec::new();
        while states.last().is_none_or(|state| state != "\"offline\"") {
            let Some(Change::Value { value, .. }) = changes.next().await.transpose()? else { break };
            states.push(value.json());
        }
        println!("joe was {}", states.join(", then "));
        assert_eq!(states, ["\"online\"", "\"offline\""], "first what stands there, then what happens");
        Ok::<(), stillhere::gateway::Error>(())
    })?;
    server.stop()?;
    println!("stopped");
    Ok(())
}
