// Devices, web clients and REST in one tree; and CoAP's own tools.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { deleteApp, initializeApp } from "firebase/app";
import { getDatabase, onValue, ref, set } from "firebase/database";

import { CODE, Device, text } from "./lib/coap.mjs";
import { SHARDS, Server } from "./lib/server.mjs";
import { Record, soon } from "./lib/until.mjs";

/** Devices are believed for three seconds, and pinged in the tests as often as that takes. */
const CONFIG = `[coap]\nlisten = "127.0.0.1:0"\nsession_timeout = "3s"\n`;

let server;
before(async () => {
  server = await Server.start({ config: CONFIG });
});
after(async () => {
  await server.stop();
});

let apps = 0;
/** A web client of a database, gone after the test. */
function web(t, namespace) {
  const app = initializeApp({ databaseURL: server.url(namespace) }, `coap-${++apps}`);
  t.after(() => deleteApp(app));
  return getDatabase(app);
}

/** What a web client sees at a path. */
function seen(db, path) {
  const record = new Record(path);
  onValue(ref(db, path), (snapshot) => record.add(snapshot.val()));
  return record;
}

/** A device that pings as long as it has power. */
async function device(t, namespace, fate) {
  const device = new Device(server.ready.coap, `${namespace}.wilddogio.com`);
  if (fate) device.fate = fate;
  await device.begin();
  const beat = setInterval(() => device.ping().catch(() => {}), 700);
  const die = device.die.bind(device);
  device.die = async () => {
    clearInterval(beat);
    await die();
  };
  t.after(() => device.die().catch(() => {}));
  return device;
}

describe("devices", () => {
  test("a device's status flips in a web client when the device loses its power", async (t) => {
    const status = seen(web(t, "power"), "status/lamp");
    await status.untilLast(null);
    const lamp = await device(t, "power");
    await lamp.onDisconnectSet("/status/lamp", text("offline"));
    await lamp.set("/status/lamp", text("online"));
    await status.untilLast("online");
    // Longer than its timeout: pings keep it.
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    assert.deepEqual(status.seen.at(-1), "online");
    await lamp.die();
    await status.untilLast("offline");
    assert.deepEqual(status.seen, [null, "online", "offline"]);
  });

  test("goOffline flips it at once, and goOnline goes on", async (t) => {
    const status = seen(web(t, "off"), "status/lamp");
    const lamp = await device(t, "off");
    await lamp.onDisconnectSet("/status/lamp", text("offline"));
    await lamp.set("/status/lamp", text("online"));
    assert.equal((await lamp.off()).code, CODE.content);
    await status.untilLast("offline");
    await lamp.begin();
    await lamp.set("/status/lamp", text("online"));
    await status.untilLast("online");
  });

  test("devices, web clients and REST write into one tree, and hear of it", async (t) => {
    const db = web(t, "one");
    const wish = seen(db, "lamp");
    const lamp = await device(t, "one");
    const first = await lamp.observe("/lamp");
    assert.deepEqual([first.code, first.observe, first.payload.toString("hex")], [CODE.content, 1, "f6"]);
    await set(ref(db, "lamp"), { on: true });
    await lamp.values.untilLast("a1626f6ef5");
    const url = server.url("one").replace("?", "/lamp/level.json?");
    await fetch(url, { method: "PUT", body: "42" });
    await lamp.values.untilLast("a2656c6576656c182a626f6ef5");
    await lamp.set("/lamp/level", Buffer.from("182b", "hex"));
    await wish.untilLast({ level: 43, on: true });
    assert.equal(await (await fetch(url)).text(), "43");
  });

  test("a life with losses, copies and detours loses nothing", async (t) => {
    // Every third message is lost when it is sent first, every fifth comes twice; what is sent again
    // arrives. (Were retransmissions lost too, their growing pauses would leave the end to chance.)
    const met = new Set();
    const fate = (bytes) => {
      const message = bytes.toString("hex");
      if (met.has(message)) return 1;
      met.add(message);
      return met.size % 3 === 0 ? 0 : met.size % 5 === 0 ? 2 : 1;
    };
    const db = web(t, "lossy");
    const list = seen(db, "list");
    const lamp = await device(t, "lossy", fate);
    await lamp.observe("/told");
    for (let number = 0; number < 4; number += 1) {
      await lamp.request(CODE.post, "/list", { payload: Buffer.from([number]) });
      lamp.ping().catch(() => {});
    }
    await list.until((seen) => Object.keys(seen.at(-1) ?? {}).length === 4, "four entries");
    assert.deepEqual(Object.values(list.seen.at(-1)), [0, 1, 2, 3]);
    for (const value of [1, 2, 3]) await set(ref(db, "told"), value);
    await lamp.values.untilLast("03");
    // Another socket, as after a timeout: the session is the same.
    lamp.fate = () => 1;
    lamp.open();
    await lamp.onDisconnectSet("/status", text("offline"));
    const status = seen(db, "status");
    await set(ref(db, "told"), 4);
    await lamp.values.untilLast("04");
    await lamp.die();
    await status.untilLast("offline");
  });

  test("an unknown name is 4.01, and a forbidden path is not", async () => {
    const rules = `{"rules":{".read":false,".write":false}}`;
    const strict = await Server.start({ config: CONFIG, args: ["--rules", "rules.json"], files: { "rules.json": rules }, isDev: false })
      .catch(() => null);
    const where = strict ?? server;
    const lamp = new Device(where.ready.coap);
    await lamp.begin();
    if (strict) assert.equal((await lamp.set("/x", text("y"))).code, CODE.forbidden);
    lamp.name = "01234567";
    assert.equal((await lamp.get("/x")).code, CODE.unauthorized);
    await lamp.die();
    await strict?.stop();
  });
});

/** Debian calls it after the library that it was built with. */
const CLIENT = ["/usr/bin/coap-client", "/usr/bin/coap-client-notls", "/usr/bin/coap-client-openssl"].find(existsSync);

describe("coap-client of libcoap", () => {
  before(() => assert.ok(CLIENT, "coap-client is not installed: tests/run does it"));

  const url = (path) => `coap://${server.ready.coap}/${path}?ns=tools`;
  const run = (...args) => {
    const { stdout, status } = spawnSync(CLIENT, ["-B", "5", ...args], { encoding: "utf8", timeout: 20_000 });
    assert.equal(status, 0, `${args}`);
    return stdout.trim();
  };

  test("writes, reads, pushes and removes", () => {
    run("-m", "put", "-e", '{"on":true}', url("lamp"));
    assert.equal(run("-m", "get", url("lamp")), '{"on":true}');
    run("-m", "post", "-e", "7", url("list"));
    assert.match(run("-m", "get", url("list")), /^\{"-[-_0-9A-Za-z]{19}":7\}$/);
    run("-m", "delete", url("lamp"));
    assert.equal(run("-m", "get", url("lamp")), "null");
    const long = JSON.stringify("x".repeat(1_000));
    run("-m", "put", "-e", long, url("long"));
    assert.equal(run("-m", "get", url("long")), long);
  });

  test("reads, writes and observes what does not fit one message", async (t) => {
    const long = (letter, length) => JSON.stringify(letter.repeat(length));
    const file = join(mkdtempSync(join(tmpdir(), "stillhere-coap-")), "body");
    t.after(() => rmSync(file));
    for (const [length, size] of [[1_300, "1024"], [100_000, "1024"], [100_000, "256"], [20_000, "16"]]) {
      writeFileSync(file, long("y", length));
      run("-b", size, "-m", "put", "-f", file, url("large"));
      assert.equal(await (await fetch(server.url("tools").replace("?", "/large.json?"))).text(), long("y", length));
      assert.equal(run("-b", size, "-m", "get", url("large")), long("y", length));
    }
    assert.equal(run("-m", "get", url("large")), long("y", 20_000), "also who asks for no blocks");
    const heard = new Record("coap-client");
    const client = spawn(CLIENT, ["-s", "60", "-B", "60", "-m", "get", url("large")]);
    t.after(() => client.kill());
    let all = "";
    client.stdout.on("data", (bytes) => heard.add((all += bytes)));
    await heard.until((seen) => seen.at(-1)?.trim() === long("y", 20_000), "the first value");
    all = "";
    await fetch(server.url("tools").replace("?", "/large.json?"), { method: "PUT", body: long("z", 50_000) });
    await heard.until((seen) => seen.at(-1).includes(long("z", 50_000)), "the second value");
  });

  test("is told what is too long", (t) => {
    const file = join(mkdtempSync(join(tmpdir(), "stillhere-coap-")), "body");
    t.after(() => rmSync(file));
    writeFileSync(file, JSON.stringify("x".repeat(1_100_000)));
    const { stdout, stderr } = spawnSync(CLIENT, ["-B", "20", "-m", "put", "-f", file, url("huge")], { encoding: "utf8" });
    assert.match(stdout + stderr, /4\.13/);
    assert.equal(run("-m", "get", url("huge")), "null");
  });

  test("observes", async (t) => {
    const heard = new Record("coap-client");
    const client = spawn(CLIENT, ["-s", "30", "-B", "30", "-m", "get", url("watched")]);
    t.after(() => client.kill());
    let all = "";
    client.stdout.on("data", (bytes) => heard.add((all += bytes)));
    await heard.until((seen) => seen.at(-1)?.startsWith("null"), "the first value");
    // Longer than a silent device is believed: it is asked, and answers.
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    run("-m", "put", "-e", '"on"', url("watched"));
    await heard.until((seen) => /"on"/.test(seen.at(-1)), "the second value");
  });
});

/** A folder with aiocoap may be named; else the system's is asked. */
const PYTHON = { ...process.env };
const HAS_AIOCOAP = spawnSync("python3", ["-c", "import aiocoap"], { env: PYTHON }).status === 0;

const python = async (program, ...args) => {
  const python = spawn("python3", ["-c", program, ...args], { env: PYTHON });
  let output = "";
  python.stdout.on("data", (bytes) => (output += bytes));
  python.stderr.on("data", (bytes) => (output += bytes));
  try {
    await soon(() => output, new Promise((resolve) => python.on("close", resolve)));
  } finally {
    python.kill("SIGKILL");
  }
  return output.trim().split("\n");
};

describe("aiocoap", () => {
  before(() => assert.ok(HAS_AIOCOAP, "aiocoap is not installed: tests/run does it"));

  test("writes, reads and observes", async () => {
    const program = `
import asyncio, sys
from aiocoap import Context, Message, GET, PUT

async def main():
    url = sys.argv[1]
    context = await Context.create_client_context()
    answer = await context.request(Message(code=PUT, uri=url, payload=b'{"level":1}')).response
    print(answer.code)
    answer = await context.request(Message(code=GET, uri=url)).response
    print(answer.code, answer.payload.decode())
    answer = await context.request(Message(code=GET, uri=url, accept=60)).response
    print(answer.payload.hex())
    request = context.request(Message(code=GET, uri=url, observe=0))
    print((await request.response).payload.decode())
    await context.request(Message(code=PUT, uri=url, payload=b'{"level":2}')).response
    async for told in request.observation:
        print(told.payload.decode())
        break
    await context.shutdown()

asyncio.run(main())
`;
    const url = `coap://${server.ready.coap}/aio?ns=tools`;
    assert.deepEqual(await python(program, url), [
      "2.04 Changed", '2.05 Content {"level":1}', "a1656c6576656c01", '{"level":1}', '{"level":2}',
    ]);
  });

  test("writes, reads and observes what does not fit one message", async () => {
    const program = `
import asyncio, json, sys
from aiocoap import Context, Message, GET, PUT

async def main():
    url = sys.argv[1]
    context = await Context.create_client_context()
    async def put(value):
        return (await context.request(Message(code=PUT, uri=url, payload=json.dumps(value).encode())).response).code
    print(await put("x" * 100_000))
    answer = await context.request(Message(code=GET, uri=url)).response
    print(answer.code, json.loads(answer.payload) == "x" * 100_000)
    request = context.request(Message(code=GET, uri=url, observe=0))
    print(json.loads((await request.response).payload) == "x" * 100_000)
    other = await Context.create_client_context()
    await other.request(Message(code=PUT, uri=url, payload=json.dumps("y" * 50_000).encode())).response
    async for told in request.observation:
        print(json.loads(told.payload) == "y" * 50_000)
        break
    await other.shutdown()
    await context.shutdown()

asyncio.run(main())
`;
    assert.deepEqual(await python(program, `coap://${server.ready.coap}/large-aio?ns=tools`), [
      "2.04 Changed", "2.05 Content True", "True", "True",
    ]);
  });
});

test("the ready line names the address", () => {
  assert.match(server.ready.coap, /^127\.0\.0\.1:[1-9]\d*$/);
  assert.ok(Number(SHARDS) >= 1);
});
