// What was acknowledged, and what was promised, outlives the server: killed, stopped, moved, damaged.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, openSync, readFileSync, readSync, readdirSync, rmSync, writeFileSync, writeSync, closeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { Raw } from "./lib/raw.mjs";
import { BIN, Program, Server } from "./lib/server.mjs";
import { client } from "./lib/watch.mjs";

const ROUNDS = Number(process.env.STILLHERE_ROUNDS ?? 8);
const BLOCK = 4096;

function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "stillhere-e2e-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Ends a server as the loss of its process does. */
async function kill(server) {
  server.program.process.kill("SIGKILL");
  await server.program.ended();
}

async function start(t, data, options = {}) {
  const server = await Server.start({ data, ...options });
  t.after(() => server.program.process.kill("SIGKILL"));
  t.after(() => rmSync(server.folder, { recursive: true, force: true }));
  return server;
}

async function run(...args) {
  const program = new Program(BIN, args);
  const { code } = await program.ended();
  return { code, out: program.lines.seen.filter((line) => !/^exit /.test(line)).join("\n"), logs: program.logs };
}

const put = (raw, path, value) => raw.ask("p", { p: path, d: value });
const leave = (raw, path, value) => raw.ask("o", { p: path, d: value });

async function read(t, server, namespace, path = "/") {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}.json?ns=${namespace}&format=export`);
  return response.json();
}

/** Waits until what is read there is as it should be. */
async function until(t, server, namespace, path, wanted) {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const value = await read(t, server, namespace, path);
    try {
      assert.deepEqual(value, wanted);
      return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const ADD_ONE = { ".sv": { increment: 1 } };

describe("a server that is killed", { concurrency: 2 }, () => {
  test("has what an SDK was told is done", async (t) => {
    const data = join(folder(t), "data");
    let server = await start(t, data);
    const app = await client(t, server, "app");
    await app.ref("plain").set({ text: "käthe", number: 1.5, yes: true });
    await app.ref("ranked").setWithPriority("r", 7);
    await app.ref("plain/number").set(null);
    await app.ref("many").update({ "a/b": 1, c: [1, 2] });
    await app.ref("count").transaction((old) => (old ?? 0) + 1);
    await app.ref("raised").setWithPriority({ x: 1 }, "first");
    await app.ref("raised").setPriority("second");
    const before = await read(t, server, "app");
    for (let times = 0; times < 3; times += 1) {
      await kill(server);
      server = await start(t, data, { shards: ["1", "2", "3"][times] });
      assert.deepEqual(await read(t, server, "app"), before);
      assert.equal(before.raised[".priority"], "second");
      const again = await Raw.open(t, server, "app");
      await put(again, "after", times);
      before.after = times;
      again.socket.terminate();
    }
    await server.stop();
  });

  test("speaks what was left, once, and nothing that was cancelled", async (t) => {
    const data = join(folder(t), "data");
    let server = await start(t, data);
    const app = await client(t, server, "app");
    await app.ref("status").set("online");
    await app.ref("status").onDisconnect().set("offline");
    await app.ref("spoken").onDisconnect().set({ ".sv": { increment: 1 } });
    await app.ref("never").onDisconnect().set("said");
    await app.ref("never").onDisconnect().cancel();
    await kill(server);
    for (let times = 0; times < 3; times += 1) {
      server = await start(t, data);
      await until(t, server, "app", "/", { status: "offline", spoken: 1 });
      if (times < 2) await kill(server);
    }
    await server.stop();
  });

  test("goes on with what it was speaking", async (t) => {
    const data = join(folder(t), "data");
    const WORDS = 400;
    let server = await start(t, data);
    const sessions = await Promise.all(Array.from({ length: WORDS }, () => Raw.open(t, server, "mass")));
    await Promise.all(sessions.map((raw, n) => Promise.all([leave(raw, `a/${n}`, ADD_ONE), leave(raw, `b/${n}`, ADD_ONE)])));
    await kill(server);
    for (let times = 0; times < 4; times += 1) {
      server = await start(t, data);
      await new Promise((resolve) => setTimeout(resolve, times));
      await kill(server);
    }
    server = await start(t, data);
    const all = Object.fromEntries(Array.from({ length: WORDS }, (_, n) => [n, 1]));
    for (const place of ["/a", "/b"]) {
      const deadline = Date.now() + 60_000;
      let value;
      do value = { ...(await read(t, server, "mass", place)) };
      while (Object.keys(value).length < WORDS && Date.now() < deadline);
      assert.deepEqual(value, all);
    }
    await server.stop();
  });

  test("answers a crowd that writes without a pause, to the last write", async (t) => {
    const server = await start(t, join(folder(t), "data"));
    const raws = await Promise.all(Array.from({ length: 60 }, () => Raw.open(t, server, "crowd")));
    await Promise.all(
      raws.map(async (raw, n) => {
        for (let round = 0; round < 300; round += 1) await put(raw, `c/${n}`, round);
      }),
    );
    const left = await read(t, server, "crowd", "/c");
    assert.deepEqual(Object.values(left), Array(60).fill(299));
    await server.stop();
  });

  test("has lost nothing and doubled nothing, however often it is killed", async (t) => {
    const data = join(folder(t), "data");
    const CLIENTS = 12;
    const writers = Array.from({ length: CLIENTS }, () => ({ sent: 0, done: 0, sums: 0, sumsDone: 0 }));
    const wills = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const server = await start(t, data, { shards: String(1 + (round % 2)), config: "snapshot_mib = 1\n" });
      const raws = await Promise.all(writers.map((_, n) => Raw.open(t, server, `load${n % 3}`)));
      for (const [n, writer] of writers.entries()) {
        const namespace = `load${n % 3}`;
        const { pair, sum } = { pair: {}, sum: 0, ...(await read(t, server, namespace, `/w/${n}`)) };
        assert.equal(pair?.a ?? 0, pair?.b ?? 0, "both places of an update or none");
        assert.ok((pair?.a ?? 0) >= writer.done && (pair?.a ?? 0) <= writer.sent, `${writer.done} <= ${pair?.a} <= ${writer.sent}`);
        assert.ok(sum >= writer.sumsDone && sum <= writer.sums, `${writer.sumsDone} <= ${sum} <= ${writer.sums}`);
        // What was in doubt is settled now.
        writer.done = pair?.a ?? 0;
        writer.sums = writer.sumsDone = sum;
        for (const one of wills.filter((one) => one.n === n)) {
          // A write to the same place waits for it, so what is owed is spoken when this is answered.
          await put(raws[n], `w/${n}/will/${one.round}/touch`, true);
          const spoken = (await read(t, server, namespace, `/w/${n}/will/${one.round}/spoken`)) ?? 0;
          assert.ok(spoken <= 1 && spoken >= one.left, `${JSON.stringify(one)} was spoken ${spoken} times`);
        }
      }
      let goes = true;
      const work = writers.map(async (writer, n) => {
        const raw = raws[n];
        const one = { n, round, left: 0 };
        wills.push(one);
        leave(raw, `w/${n}/will/${round}`, { spoken: ADD_ONE }).then(() => (one.left = 1), () => {});
        while (goes) {
          const number = ++writer.sent;
          const sum = ++writer.sums;
          const both = raw.ask("m", { p: `w/${n}`, d: { "pair/a": number, "pair/b": number } });
          const added = put(raw, `w/${n}/sum`, ADD_ONE);
          const answers = await Promise.all([both, added]).catch(() => null);
          if (!answers) return;
          assert.deepEqual(answers.map(({ s }) => s), ["ok", "ok"]);
          [writer.done, writer.sumsDone] = [number, sum];
        }
      });
      await new Promise((resolve) => setTimeout(resolve, 30 + 37 * (round % 7)));
      await kill(server);
      goes = false;
      await Promise.all(work);
    }
  });
});

describe("a server that serves for long", { concurrency: 2 }, () => {
  test("takes snapshots meanwhile, and needs nothing from before", async (t) => {
    const data = join(folder(t), "data");
    let server = await start(t, data, { config: "snapshot_mib = 1\n", shards: "1" });
    const [raw, leaver] = await Promise.all([Raw.open(t, server, "app"), Raw.open(t, server, "app")]);
    const big = Object.fromEntries(Array.from({ length: 3000 }, (_, n) => [`k${n}`, { n, text: `text ${n}` }]));
    await put(raw, "big", big);
    await leave(leaver, "left", ADD_ONE);
    const log = join(data, "log");
    const segments = () => readdirSync(log).filter((name) => name.endsWith(".log"));
    const [first] = segments();
    let n = 0;
    while (segments().includes(first)) await put(raw, "n", ++n);
    const snapshots = readdirSync(log).filter((name) => name.endsWith(".snapshot"));
    assert.equal(snapshots.length, 1, String(snapshots));
    await put(raw, "big/k7", null);
    await kill(server);
    assert.equal((await run("verify", "--data", data)).code, 0);
    server = await start(t, data);
    delete big.k7;
    await until(t, server, "app", "/", { big, left: 1, n });
    await server.stop();
  });
});

describe("a server that comes back", { concurrency: 2 }, () => {
  test("after a drain owes nothing", async (t) => {
    const data = join(folder(t), "data");
    let server = await start(t, data);
    const raw = await Raw.open(t, server, "app");
    await leave(raw, "spoken", ADD_ONE);
    server.program.process.kill("SIGTERM");
    assert.equal((await server.program.ended()).code, 0);
    const verified = await run("verify", "--data", data);
    assert.equal(verified.code, 0, verified.out + verified.logs);
    server = await start(t, data);
    assert.equal(await read(t, server, "app", "/spoken"), 1);
    await server.stop();
  });

  test("lets last words wait, but not for writes of the same place", async (t) => {
    const data = join(folder(t), "data");
    const config = 'restart_grace = "1h"\n';
    let server = await start(t, data, { config });
    const [stays, returns, silent] = await Promise.all(["a", "b", "c"].map(() => Raw.open(t, server, "app")));
    await leave(stays, "a", { state: "gone" });
    await leave(returns, "b", "gone");
    await leave(silent, "c", "gone");
    const id = returns.handshake.s;
    await kill(server);
    server = await start(t, data, { config });
    assert.equal(await read(t, server, "app"), null, "everything waits");
    const other = await Raw.open(t, server, "app");
    await put(other, "a/x", 1);
    assert.deepEqual(await read(t, server, "app"), { a: { state: "gone", x: 1 } });
    const back = await Raw.open(t, server, "app", { query: `&ls=${id}` });
    await put(back, "d", 1);
    assert.deepEqual(await read(t, server, "app"), { a: { state: "gone", x: 1 }, b: "gone", d: 1 });
    // The next start has another configuration.
    await server.stop();
    server = await start(t, data);
    // Reads wait for nobody: the first may come before what is owed is spoken.
    await until(t, server, "app", "/", { a: { state: "gone", x: 1 }, b: "gone", c: "gone", d: 1 });
    await server.stop();
  });
});

describe("what an operator can do with a log", { concurrency: 2 }, () => {
  test("a copy taken while it is written is whole, and can be put in place", async (t) => {
    const home = folder(t);
    const [data, copy, place] = ["data", "copy", "place"].map((name) => join(home, name));
    const server = await start(t, data);
    const raw = await Raw.open(t, server, "app");
    await put(raw, "before", 1);
    let goes = true;
    const work = (async () => {
      for (let n = 0; goes; n += 1) await raw.ask("m", { p: "/", d: { a: n, b: n } });
    })();
    const copied = await run("backup", "--data", data, copy);
    goes = false;
    await work;
    assert.equal(copied.code, 0, copied.logs);
    assert.equal((await run("backup", "--data", data, copy)).code, 1, "a backup is not overwritten");
    assert.equal((await run("verify", "--backup", "--data", copy)).code, 0);
    assert.equal((await run("verify", "--data", data)).code, 1, "a server is running there");
    await kill(server);
    assert.equal((await run("restore", "--data", place, copy)).code, 0);
    assert.equal((await run("restore", "--data", place, copy)).code, 1, "a log is not overwritten");
    const restored = await start(t, place);
    const { a, b, before } = await read(t, restored, "app");
    assert.equal(before, 1);
    assert.equal(a, b);
    await restored.stop();
  });

  test("damage is found, named, and can be cut off", async (t) => {
    const home = folder(t);
    const data = join(home, "data");
    // One shard, so that there is one log.
    const server = await start(t, data, { shards: "1" });
    const raw = await Raw.open(t, server, "app");
    for (let n = 0; n < 4; n += 1) await put(raw, `n${n}`, n);
    await kill(server);
    const [log] = readdirSync(join(data, "log")).filter((name) => name.endsWith(".log"));
    const file = join(data, "log", log);
    const flip = (at) => {
      const handle = openSync(file, "r+");
      const byte = Buffer.alloc(1);
      readSync(handle, byte, 0, 1, at);
      byte[0] ^= 4;
      writeSync(handle, byte, 0, 1, at);
      closeSync(handle);
    };
    cpSync(data, join(home, "torn"), { recursive: true });
    // The third write's frame: the first frame begins the file.
    flip(3 * BLOCK + 60);
    const refused = new Program(BIN, ["serve", "--dev", "--listen", "127.0.0.1:0", "--shards", "1", "--data", data]);
    assert.equal((await refused.ended()).code, 1);
    assert.match(refused.logs, new RegExp(`${log} at byte ${3 * BLOCK}: .*verify --repair`, "s"));
    const found = await run("verify", "--data", data);
    assert.equal(found.code, 1);
    assert.match(found.out, new RegExp(`${log} at byte ${3 * BLOCK}`));
    assert.equal((await run("verify", "--data", data, "--repair")).code, 0);
    assert.ok(readdirSync(join(data, "log")).includes(`${log}.damaged`));
    const repaired = await start(t, data);
    assert.deepEqual(await read(t, repaired, "app"), { n0: 0, n1: 1 });
    await repaired.stop();
    // The last frame, as a write that the power cut short leaves it.
    const torn = join(home, "torn", "log", log);
    const bytes = readFileSync(torn);
    bytes.fill(0, 4 * BLOCK + 50, 5 * BLOCK);
    writeFileSync(torn, bytes);
    const cut = await start(t, join(home, "torn"));
    assert.deepEqual(await read(t, cut, "app"), { n0: 0, n1: 1, n2: 2 });
    await cut.logged(/cut off/);
    await cut.stop();
  });
});
