// What operators rely on: stopping and starting again, reloading, quotas, metrics, services, and a log that keeps
// secrets.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { Raw } from "./lib/raw.mjs";
import { BIN, Program, Server } from "./lib/server.mjs";
import { ADMIN_TOKEN, SECRET, secretToken } from "./lib/tokens.mjs";
import { soon } from "./lib/until.mjs";
import { client, watch } from "./lib/watch.mjs";

const ask = (server, path, options = {}) => fetch(`http://127.0.0.1:${server.port}${path}`, options);
const internal = (server, path) => fetch(`http://${server.ready.internal}${path}`);

/** A folder that outlives one server. */
function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "stillhere-e2e-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

describe("a server that is stopped", { concurrency: 3 }, () => {
  for (const family of ["modular", "v8"]) {
    test(`${family}: clients come back to the next one, and their last words were spoken once`, async (t) => {
      const data = join(folder(t), "data");
      const first = await Server.start({ data });
      const joe = await client(t, first, "drain", family);
      const connected = await watch(joe.ref(".info/connected"));
      await connected.untilLast(true);
      const spoken = { ".sv": { increment: 1 } };
      await joe.ref("left").onDisconnect().set(spoken);
      await joe.ref("state").onDisconnect().set("offline");
      await joe.ref("state").set("online");
      await first.stop();
      await connected.untilLast(false);
      const next = await Server.start({ data, listen: `127.0.0.1:${first.port}` });
      t.after(() => next.stop());
      await connected.untilLast(true);
      const state = await (await ask(next, "/.json?ns=drain")).json();
      assert.deepEqual(state, { left: 1, state: "offline" }, "once, and not again by the next server");
      await soon("a write after the return", joe.ref("state").set("online"));
      assert.equal(await next.metric("last_words_total", 'fate="spoken"'), 0);
    });
  }

  test("sends its clients a reset to where they came from", async (t) => {
    const server = await Server.start();
    const raw = await Raw.open(t, server, "reset", { options: { headers: { Host: "db.example.com:81" } } });
    assert.equal(raw.handshake.h, "db.example.com:81");
    server.program.process.kill("SIGTERM");
    await soon("the end of the connection", raw.closed);
    assert.deepEqual(raw.messages.seen.at(-1), { t: "c", d: { t: "r", d: "db.example.com:81" } });
    assert.equal((await server.program.ended()).code, 0);
  });

  test("is not ready while it waits, and a second signal ends it at once", async (t) => {
    // It waits for a reader who does not read.
    const server = await Server.start({ config: 'drain_spread = "0s"\ndrain_max = "1h"\n' });
    await ask(server, "/big.json?ns=slow", { method: "PUT", body: JSON.stringify("x".repeat(9_000_000)) });
    const sockets = Array.from({ length: 4 }, () => {
      const socket = connect(server.port, "127.0.0.1");
      socket.on("error", () => {});
      t.after(() => socket.destroy());
      socket.pause();
      socket.write("GET /big.json?ns=slow HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
      return socket;
    });
    const streams = async () => (await server.metric("sessions", 'protocol="stream"')) >= sockets.length;
    while (!(await streams())) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal((await internal(server, "/readyz")).status, 200);
    server.program.process.kill("SIGTERM");
    for (;;) {
      const answer = await internal(server, "/readyz");
      if (answer.status === 503) {
        assert.equal(await answer.text(), "draining\n");
        break;
      }
    }
    server.program.process.kill("SIGTERM");
    assert.deepEqual(await server.program.ended(), { code: 1, signal: null });
  });

  test("lets many go one after the other, and all last words are spoken", async (t) => {
    const data = join(folder(t), "data");
    const server = await Server.start({ data, config: 'drain_spread = "2s"\ndurability = "os"\n' });
    const raws = await Promise.all(Array.from({ length: 100 }, () => Raw.open(t, server, "many")));
    await Promise.all(raws.map((raw) => raw.ask("o", { p: "/count", d: { ".sv": { increment: 1 } } })));
    await server.stop();
    const next = await Server.start({ data, config: 'durability = "os"\n' });
    assert.equal(await (await ask(next, "/count.json?ns=many")).json(), 100);
    await next.stop();
  });
});

describe("quotas", { concurrency: 3 }, () => {
  test("of sessions: one too many is told so; SIGHUP makes room", async (t) => {
    const config = (max) => `[namespace.small]\nsessions_max = ${max}\n`;
    const server = await Server.start({ config: config(2) });
    t.after(() => server.stop());
    await Raw.open(t, server, "small");
    const second = await Raw.open(t, server, "small");
    const refused = () =>
      new Promise((resolve) => {
        const third = Raw.dial(t, `ws://127.0.0.1:${server.port}/.ws?v=5&ns=small`);
        third.socket.on("unexpected-response", (_, response) => {
          let body = "";
          response.on("data", (part) => (body += part));
          response.on("end", () => resolve([response.statusCode, body]));
        });
        third.opened.then(() => resolve("let in"));
      });
    assert.deepEqual(await refused(), [503, '{"error":"too many sessions"}']);
    await Raw.open(t, server, "other");
    assert.equal(await server.metric("quota_refusals_total"), 1);
    // Who goes makes room.
    await second.close();
    let again = await refused();
    while (again !== "let in") again = await refused();
    server.write("stillhere.toml", config(3));
    await server.reload("config_reloads_total", "ok");
    await Raw.open(t, server, "small");
    assert.deepEqual(await refused(), [503, '{"error":"too many sessions"}']);
    server.write("stillhere.toml", "sessions_max = 0\n");
    await server.reload("config_reloads_total", "refused");
    await server.logged(/sessions_max = 0/);
  });

  test("of writes and last words: the SDK's promise is rejected, others' databases go on", async (t) => {
    const config = "[namespace.tight]\nwrites_per_second = 3\nlast_words_max = 2\n";
    const server = await Server.start({ config });
    t.after(() => server.stop());
    const joe = await client(t, server, "tight");
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, (_, n) => joe.ref(`n${n}`).set(n).then(() => "ok", (error) => String(error))),
    );
    assert.ok(outcomes.includes("ok"), "some are done");
    const refused = outcomes.filter((outcome) => outcome !== "ok");
    assert.ok(refused.length > 0, "not all are");
    for (const outcome of refused) assert.match(outcome, /too many writes per second/i);
    await joe.ref("a").onDisconnect().set(1);
    await joe.ref("b").onDisconnect().set(1);
    await assert.rejects(joe.ref("c").onDisconnect().set(1), /too many onDisconnect operations/i);
    await joe.ref("a").onDisconnect().cancel();
    await joe.ref("c").onDisconnect().set(1);
    const ann = await client(t, server, "loose");
    await Promise.all(Array.from({ length: 60 }, (_, n) => ann.ref(`n${n}`).set(n)));
    // An administrator is not counted.
    for (let n = 0; n < 10; n++) {
      const put = await ask(server, `/admin${n}.json?ns=tight`, { method: "PUT", body: "1", headers: { Authorization: "Bearer owner" } });
      assert.equal(put.status, 200);
    }
    assert.ok((await server.metric("requests_total", 'outcome="limited"')) > refused.length - 1);
  });

  test("of connections of one address: 429, until one goes", async (t) => {
    const server = await Server.start({ config: "connections_per_address = 3\n" });
    t.after(() => server.stop());
    const raws = [];
    for (let n = 0; n < 3; n++) raws.push(await Raw.open(t, server, "address"));
    const get = () => fetch(`http://127.0.0.1:${server.port}/x.json?ns=address`, { headers: { Connection: "close" } });
    const answer = await get();
    assert.equal(answer.status, 429);
    assert.deepEqual(await answer.json(), { error: "too many connections from your address" });
    await raws[0].close();
    let status = 429;
    while (status === 429) status = (await get()).status;
    assert.equal(status, 200);
  });
});

describe("metrics", () => {
  let server;
  before(async () => {
    server = await Server.start();
  });
  after(() => server?.stop());

  const text = async () => (await internal(server, "/metrics")).text();
  const until = async (what, is) => {
    const deadline = Date.now() + 60_000;
    while (!(await is())) if (Date.now() > deadline) assert.fail(`${what}\n${await text()}`);
  };

  test("are OpenMetrics", async () => {
    const answer = await internal(server, "/metrics");
    assert.match(answer.headers.get("content-type"), /^application\/openmetrics-text; version=1\.0\.0/);
    const lines = (await answer.text()).trimEnd().split("\n");
    assert.equal(lines.at(-1), "# EOF");
    const families = lines.filter((line) => line.startsWith("# TYPE ")).map((line) => line.split(" ")[2]);
    assert.equal(new Set(families).size, families.length, "each family stands once");
    for (const line of lines.slice(0, -1)) {
      if (line.startsWith("# ")) continue;
      assert.match(line, /^[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [-+0-9.e]+$/, line);
      assert.ok(families.some((family) => line.startsWith(family)), line);
    }
  });

  test("follow clients of every kind from their coming to their last words", async (t) => {
    const sessions = (protocol) => server.metric("sessions{", `protocol="${protocol}"`);
    const watcher = await client(t, server, "metered");
    const heard = await watch(watcher.ref("status"));
    const joe = await Raw.open(t, server, "metered");
    await until("two WebSockets", async () => (await sessions("firebase_websocket")) === 2);
    assert.ok((await server.metric("connections")) >= 2);
    const stream = new AbortController();
    const response = await ask(server, "/status.json?ns=metered", { headers: { Accept: "text/event-stream" }, signal: stream.signal });
    assert.equal(response.status, 200);
    await until("a stream", async () => (await sessions("stream")) === 1);
    await joe.ask("o", { p: "/status", d: "offline" });
    await until("a pending last word", async () => (await server.metric("last_words_pending")) === 1);
    await joe.ask("p", { p: "/status", d: "online" });
    await heard.untilLast("online");
    assert.ok((await server.metric("event_listeners_sum")) >= 2, "the watcher and the stream have heard");
    const silent = await server.metric("session_silence_seconds_count");
    joe.socket.terminate();
    await heard.untilLast("offline");
    await until("a spoken one", async () => (await server.metric("last_words_total", 'fate="spoken"')) >= 1);
    assert.equal(await server.metric("last_words_pending"), 0);
    assert.equal(await server.metric("session_silence_seconds_count"), silent + 1);
    assert.ok((await server.metric("last_words_delay_seconds_count")) >= 1);
    assert.ok((await server.metric("commit_seconds_count")) >= 1 && (await server.metric("sync_seconds_count")) >= 1);
    assert.ok((await server.metric("turn_seconds_count")) >= 1);
    stream.abort();
    await until("no stream", async () => (await sessions("stream")) === 0);
    await until("one WebSocket", async () => (await sessions("firebase_websocket")) === 1);
  });

  test("tell what was denied", async (t) => {
    const closed = await Server.start({ isDev: false });
    t.after(() => closed.stop());
    const joe = await client(t, closed, "denied");
    await assert.rejects(joe.ref("x").set(1));
    await assert.rejects(joe.ref("x").get());
    assert.equal(await closed.metric("requests_total", 'kind="write",outcome="denied"'), 1);
    assert.ok((await closed.metric("requests_total", 'kind="read",outcome="denied"')) >= 1);
  });
});

describe("as a service", { concurrency: 3 }, () => {
  test("serves at a socket that it was started with, from all cores", async (t) => {
    const path = folder(t);
    const listener = createServer();
    await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
    const { port } = listener.address();
    const server = new Server();
    server.folder = path;
    const args = ["serve", "--dev", "--data", join(path, "data"), "--shards", "2", "--internal", "127.0.0.1:0"];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("STILLHERE_")));
    server.program = new Program(BIN, args, {
      stdio: ["ignore", "pipe", "pipe", listener._handle.fd],
      env: { ...env, LISTEN_FDS: "1", LISTEN_FDNAMES: "stillhere.socket" },
    });
    await server.becomeReady();
    // From here on only the server has it.
    await new Promise((resolve) => listener.close(resolve));
    assert.equal(server.port, port);
    const clients = await Promise.all(Array.from({ length: 8 }, () => Raw.open(t, server, "passed")));
    await Promise.all(clients.map((raw, n) => raw.ask("p", { p: `/n${n}`, d: n })));
    const all = await (await ask(server, "/.json?ns=passed")).json();
    assert.deepEqual(Object.values(all).sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
    await server.stop();
  });

  test("tells whoever started it that it is ready, alive, and stopping", async (t) => {
    const path = folder(t);
    const socket = join(path, "notify");
    const script = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
while True:
    for line in s.recv(4096).decode().split("\\n"):
        print(line, flush=True)
`;
    const manager = new Program("python3", ["-c", script, socket]);
    t.after(() => manager.process.kill("SIGKILL"));
    await manager.lines.until((seen) => seen.includes("bound"));
    const server = await Server.start({ env: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "200000" } });
    const { lines } = manager;
    await lines.until((seen) => seen.includes("READY=1") && seen.includes(`STATUS=serving at ${server.ready.tcp}`));
    await lines.until((seen) => seen.filter((line) => line === "WATCHDOG=1").length >= 3);
    await server.stop();
    await lines.until((seen) => seen.includes("STOPPING=1") && seen.some((line) => /^EXTEND_TIMEOUT_USEC=10000000$/.test(line)));
  });

  test("SIGHUP changes how much is logged, and names what has to wait for a restart", async (t) => {
    const server = await Server.start({ config: 'log_level = "info"\n' });
    t.after(() => server.stop());
    const come = async () => (await Raw.open(t, server, "logged")).close();
    const ended = async () => (await server.metric("sessions_ended_total"));
    await come();
    assert.doesNotMatch(server.logs, /a session is over/);
    server.write("stillhere.toml", 'log_level = "debug"\nheartbeat = "7s"\n');
    await server.reload("config_reloads_total", "ok");
    const was = await ended();
    await come();
    await server.metricAfter(was, "sessions_ended_total");
    await server.logged(/a session is over/);
    const warned = server.logs.split("\n").filter((line) => /takes effect with the next start/.test(line));
    assert.equal(warned.length, 1, server.logs);
    assert.match(warned[0], /heartbeat/);
  });
});

describe("the log", () => {
  test("holds no secret and no data, whatever it was told and whatever went wrong", async (t) => {
    const server = await Server.start({
      isDev: false,
      config: [
        `rules = "rules.json"`,
        `heartbeat = "1s"\nsession_timeout = "4s"\n`,
        `[auth]\nsecrets_file = "secrets"\nadmin_tokens = ["${ADMIN_TOKEN}"]`,
        `[[auth.issuer]]\nissuer = "https://issuer.example"\naudiences = ["a"]\njwks = "keys.json"`,
      ].join("\n"),
      files: {
        "rules.json": '{"rules":{"ok":{".read":"auth!=null",".write":"auth!=null"}}}',
        secrets: `${SECRET}\n`,
        "keys.json": '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}',
      },
      args: ["--log-level", "trace"],
    });
    const good = secretToken({ d: { uid: "joe-the-secret-uid" }, v: 0 });
    const secrets = [SECRET, ADMIN_TOKEN, good, "hidden-value", "hidden-bad-token", "hidden-query"];
    const raw = await Raw.open(t, server, "audit");
    secrets.push(raw.handshake.s);
    for (const cred of [good, SECRET, "hidden-bad-token.hidden-bad-token.x"]) await raw.ask("auth", { cred });
    await raw.ask("auth", { cred: good });
    await raw.ask("p", { p: "/ok/a", d: "hidden-value" });
    await raw.ask("p", { p: "/denied", d: "hidden-value" });
    await raw.ask("o", { p: "/ok/b", d: "hidden-value" });
    await raw.ask("q", { p: "/ok", h: "" });
    // A last word that is refused when it is spoken, a protocol that is broken, a session that is replaced.
    const later = await Raw.open(t, server, "audit", { query: `&ls=${raw.handshake.s}` });
    secrets.push(later.handshake.s);
    await later.ask("gauth", { cred: "hidden-bad-token" });
    later.socket.send('{"hidden-value"');
    await soon("the end of the connection", later.closed);
    for (const [query, options] of [
      ["auth=hidden-bad-token", {}],
      [`auth=${SECRET}&x=hidden-query`, { method: "PUT", body: '"hidden-value"' }],
      ["print=hidden-query", { method: "PATCH", body: "{hidden-value" }],
      ["access_token=hidden-bad-token", { headers: { Accept: "text/event-stream" } }],
    ]) {
      await (await ask(server, `/ok.json?ns=audit&${query}`, { ...options })).text();
    }
    await ask(server, "/ok.json?ns=audit", { headers: { Authorization: `Bearer ${ADMIN_TOKEN}` } });
    // Wrong files of secrets are told without what stands in them.
    server.write("secrets", "hidden-value\n");
    await server.reload("auth_reloads_total", "refused");
    server.write("secrets", `${SECRET}\n`);
    await server.reload("auth_reloads_total", "ok");
    await server.stop();
    assert.match(server.logs, /"level":"DEBUG"|DEBUG/, "it was told to say everything");
    for (const secret of secrets) {
      const at = server.logs.indexOf(secret);
      assert.equal(at, -1, `the log holds ${secret}: ${server.logs.slice(Math.max(0, at - 300), at + 300)}`);
    }
  });
});
