// Bad input gets an answer, and hurts nobody: after every attack two honest clients are still served.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";

import { open } from "./lib/families.mjs";
import { Raw } from "./lib/raw.mjs";
import { IMPATIENT, Server } from "./lib/server.mjs";
import { soon } from "./lib/until.mjs";
import { watch } from "./lib/watch.mjs";

let server;
let honest;
before(async () => {
  server = await Server.start({ config: IMPATIENT });
  const url = server.url("honest");
  const [writer, reader] = [await open("modular", url), await open("v8", url)];
  honest = { writer, reader, seen: await watch(reader.ref("status")), count: 0 };
});
after(async () => {
  await honest?.writer.close();
  await honest?.reader.close();
  await server?.stop();
});

/** Two clients who have done nothing wrong. */
async function othersAreServed() {
  const value = ++honest.count;
  await soon("the honest writer's acknowledgement", honest.writer.ref("status").set(value), 20_000);
  await honest.seen.until((seen) => seen.includes(value), `${value}`, 20_000);
}

/** A bare connection. */
async function dial(t) {
  const socket = connect({ port: server.port, host: "127.0.0.1" });
  socket.on("error", () => {});
  const bare = { socket, text: "", ended: new Promise((resolve) => socket.on("close", resolve)) };
  socket.on("data", (bytes) => (bare.text += bytes.toString("latin1")));
  t.after(() => socket.destroy());
  await once(socket, "connect");
  return bare;
}

const UPGRADE =
  "GET /.ws?v=5&ns=bad HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

describe("HTTP", { concurrency: 2 }, () => {
  const REFUSED = {
    "bytes of no protocol": "\u0000\u0001\u0002\u0003\r\n\r\n",
    "another protocol": "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a request line without an end": `GET /${"a".repeat(200_000)}`,
    "a header without an end": `GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${"a".repeat(200_000)}`,
    "a thousand headers": `GET /.ws HTTP/1.1\r\nHost: x\r\n${"X-A: 1\r\n".repeat(1_000)}\r\n`,
    "another version of HTTP": "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "an upgrade without a key": "GET /.ws?v=5&ns=x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "an upgrade to an old version": `${UPGRADE.replace("Version: 13", "Version: 7")}\r\n`,
    "an upgrade by POST": `${UPGRADE.replace("GET", "POST")}Content-Length: 0\r\n\r\n`,
  };
  for (const [name, bytes] of Object.entries(REFUSED)) {
    test(`${name} is refused`, async (t) => {
      const bare = await dial(t);
      bare.socket.write(bytes, "latin1");
      await soon(() => `an end; got ${bare.text}`, bare.ended);
      assert.ok(!bare.text.includes("101 Switching"), bare.text);
      assert.match(bare.text, /^(HTTP\/1\.1 [45]|$)/);
      await othersAreServed();
    });
  }

  test("half a handshake is waited for, but not for ever", async (t) => {
    const [silent, half, slow] = [await dial(t), await dial(t), await dial(t)];
    half.socket.write(UPGRADE);
    const dripping = setInterval(() => slow.socket.write("X-Drip: 1\r\n"), 500);
    t.after(() => clearInterval(dripping));
    slow.socket.write(UPGRADE);
    await othersAreServed();
    await soon("the end of all three", Promise.all([silent.ended, half.ended, slow.ended]));
  });

  test("a handshake in single bytes is one", async (t) => {
    const bare = await dial(t);
    bare.socket.setNoDelay(true);
    for (const letter of `${UPGRADE}\r\n`) bare.socket.write(letter);
    await soon(() => bare.text, new Promise((resolve) => bare.socket.on("data", () => bare.text.includes('"t":"h"') && resolve())));
    assert.match(bare.text, /^HTTP\/1\.1 101 /);
    assert.match(bare.text, /s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/);
  });

  test("three hundred connections that say nothing", async (t) => {
    const idle = await Promise.all(Array.from({ length: 300 }, () => dial(t)));
    await othersAreServed();
    await soon("the end of all", Promise.all(idle.map((bare) => bare.ended)));
  });
});

/** A frame as a client sends it; the mask is zero. */
function frame(first, payload, { length = payload.length, isMasked = true } = {}) {
  const mask = isMasked ? 0x80 : 0;
  const head = [first];
  if (length < 126) head.push(mask | length);
  else if (length < 65_536) head.push(mask | 126, length >> 8, length & 255);
  else {
    const wide = Buffer.alloc(8);
    wide.writeBigUInt64BE(BigInt(length));
    head.push(mask | 127, ...wide);
  }
  return Buffer.concat([Buffer.from(head), isMasked ? Buffer.alloc(4) : Buffer.alloc(0), Buffer.from(payload)]);
}

const FINAL = 0x80;
const [TEXT, CLOSE, PING] = [1, 8, 9];

describe("WebSocket", { concurrency: 2 }, () => {
  const BROKEN = {
    "a frame without a mask": frame(FINAL | TEXT, "{}", { isMasked: false }),
    "a reserved bit": frame(FINAL | 0x40 | TEXT, "{}"),
    "an unknown opcode": frame(FINAL | 3, "{}"),
    "an unknown control opcode": frame(FINAL | 11, "{}"),
    "a long control frame": frame(FINAL | PING, "x".repeat(126)),
    "a control frame in pieces": frame(PING, "x"),
    "a continuation of nothing": frame(FINAL, "{}"),
    "a new message within a message": Buffer.concat([frame(TEXT, "{"), frame(FINAL | TEXT, "}")]),
    "a frame of 2^62 bytes": frame(FINAL | TEXT, "x", { length: 2n ** 62n }),
    "a frame of a gigabyte": frame(FINAL | TEXT, "x", { length: 2 ** 30 }),
    "text that is not UTF-8": frame(FINAL | TEXT, Buffer.from([0x7b, 0xff, 0xfe, 0x7d])),
    "a close of one byte": frame(FINAL | CLOSE, "x"),
  };
  for (const [name, bytes] of Object.entries(BROKEN)) {
    test(`${name} ends the session, whose last words are spoken`, async (t) => {
      const path = `broken/${name.replaceAll(/[^a-z0-9]/g, "-")}`;
      const words = await watch(honest.reader.ref(path));
      const raw = await Raw.open(t, server, "honest");
      await raw.ask("o", { p: `/${path}`, d: "gone" });
      raw.socket._socket.write(bytes);
      await soon("the end", raw.closed);
      await words.untilLast("gone");
      await othersAreServed();
    });
  }

  test("a message in a hundred frames, with pings between, is one message", async (t) => {
    const raw = await Raw.open(t, server, "honest");
    const text = JSON.stringify({ t: "d", d: { r: 1, a: "p", b: { p: "/pieces", d: "x".repeat(500) } } });
    const size = Math.ceil(text.length / 100);
    for (let at = 0; at < text.length; at += size) {
      const isLast = at + size >= text.length;
      raw.socket._socket.write(frame((isLast ? FINAL : 0) | (at === 0 ? TEXT : 0), text.slice(at, at + size)));
      if (!isLast) raw.socket._socket.write(frame(FINAL | PING, "p"));
    }
    await raw.messages.until((seen) => seen.some((m) => m.d.r === 1 && m.d.b.s === "ok"), "the ok");
  });

  test("a message in single bytes is one message", async (t) => {
    const raw = await Raw.open(t, server, "honest");
    raw.socket._socket.setNoDelay(true);
    for (const byte of frame(FINAL | TEXT, JSON.stringify({ t: "d", d: { r: 1, a: "p", b: { p: "/bytes", d: 1 } } }))) {
      raw.socket._socket.write(Buffer.from([byte]));
    }
    await raw.messages.until((seen) => seen.some((m) => m.d.r === 1 && m.d.b.s === "ok"), "the ok");
  });
});

describe("messages", { concurrency: 2 }, () => {
  const request = (d) => JSON.stringify({ t: "d", d });
  const NONSENSE = {
    "no JSON": "hello",
    "half of JSON": '{"t":"d","d":{"r":1,',
    "JSON twice": '{"t":"c","d":{}}{"t":"c","d":{}}',
    "a list": "[]",
    "a text": '"t"',
    null: "null",
    "an empty object": "{}",
    "an empty text": "",
    "an unknown envelope": '{"t":"x","d":{}}',
    "an envelope of a wrong type": '{"t":1,"d":{}}',
    "data that is a list": '{"t":"d","d":[]}',
    "data that is missing": '{"t":"d"}',
    "an unknown control": '{"t":"c","d":{"t":"zz","d":{}}}',
    "a control of a wrong type": '{"t":"c","d":7}',
    "no number": request({ a: "p", b: { p: "/x", d: 1 } }),
    "a number that is text": request({ r: "1", a: "p", b: { p: "/x", d: 1 } }),
    "a number that is negative": request({ r: -1, a: "p", b: { p: "/x", d: 1 } }),
    "a number with a fraction": request({ r: 1.5, a: "p", b: { p: "/x", d: 1 } }),
    "a number beyond all": '{"t":"d","d":{"r":1e400,"a":"g","b":{"p":"/x","q":{}}}}',
    "no action": request({ r: 1, b: {} }),
    "an action of a wrong type": request({ r: 1, a: [], b: {} }),
    "the same member twice": '{"t":"d","d":{"r":1,"r":2,"a":"g","a":"p","b":{"p":"/x","q":{},"d":1}}}',
    "ten thousand brackets": `{"t":"d","d":{"r":1,"a":"p","b":{"p":"/x","d":${"[".repeat(10_000)}${"]".repeat(10_000)}}}}`,
    "ten thousand braces": `{"t":"d","d":{"r":1,"a":"p","b":{"p":"/x","d":${'{"a":'.repeat(3_000)}1${"}".repeat(3_000)}}}}`,
    "zero bytes": "\u0000\u0000",
    "a count of nothing": "0",
    "a negative count": "-1",
    "a count with a fraction": "1.5",
    "spaces": "      ",
  };
  for (const [name, text] of Object.entries(NONSENSE)) {
    test(name, async (t) => {
      const raw = await Raw.open(t, server, "bad");
      raw.socket.send(text);
      await othersAreServed();
      // Answered or sent away, but not left hanging: the next request is answered, or the connection is over.
      if (raw.socket.readyState === raw.socket.OPEN) raw.send({ t: "d", d: { r: 999, a: "s", b: { c: {} } } });
      const answered = raw.messages.until((seen) => seen.some((m) => m.d?.r === 999), "an answer");
      await Promise.race([answered, soon(`an end after ${name}`, raw.closed)]);
    });
  }

  test("more parts announced than a message may have", async (t) => {
    const raw = await Raw.open(t, server, "bad");
    raw.socket.send("999999");
    await othersAreServed();
    const part = "x".repeat(16_384);
    let sent = 0;
    while (raw.socket.readyState === raw.socket.OPEN && sent < 100 * 2 ** 20) {
      await new Promise((resolve) => raw.socket.send(part, resolve));
      sent += part.length;
    }
    await soon("the end", raw.closed);
    await othersAreServed();
  });
});

describe("requests", { concurrency: 2 }, () => {
  const deep = (levels) => JSON.parse(`${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`);
  const BAD = [
    ...["/a.b", "/a#b", "/a$b", "/a[b", "/a]b", "/a\u0001b", "/a\u007fb", `/${"k".repeat(769)}`, "/a".repeat(33)].map((p) => ["p", { p, d: 1 }]),
    ...[7, null, [], {}].map((p) => ["p", { p, d: 1 }]),
    ["p", {}],
    ["p", { p: "/x" }],
    ["p", null],
    ["p", []],
    ...["a.b", "a#b", "$a", "[", "]", "a/b", "", "\u0001", "k".repeat(769), ".oops"].map((key) => ["p", { p: "/x", d: { [key]: 1 } }]),
    ["p", { p: "/x", d: deep(33) }],
    ["p", { p: "/a/b/c", d: deep(30) }],
    ["p", { p: "/x", d: { ".value": 1, a: 2 } }],
    ["p", { p: "/x", d: { ".value": {} , ".priority": 1, a: 1 } }],
    ["p", { p: "/x", d: { ".value": 1, ".priority": [1] } }],
    ["p", { p: "/x", d: { ".sv": "later" } }],
    ["p", { p: "/x", d: { ".sv": { increment: "1" } } }],
    ["p", { p: "/x", d: { ".sv": { decrement: 1 } } }],
    ["p", { p: "/x", d: "s".repeat(10 * 2 ** 20 + 1) }],
    ["p", { p: "/x", d: 1, h: 7 }],
    ["p", { p: "/.info/connected", d: true }],
    ["m", { p: "/x", d: 1 }],
    ["m", { p: "/x", d: { a: 1, "a/b": 2 } }],
    ["m", { p: "/x", d: { "a.b": 1 } }],
    ["m", { p: "/x", d: { ok: 1, "": 1 } }],
    ["q", { p: 7 }],
    ["q", { p: "/a.b" }],
    ["q", { p: "/x", q: 7, t: 1 }],
    ["q", { p: "/x", q: { l: 0, vf: "l" }, t: 1 }],
    ["q", { p: "/x", q: { l: -1, vf: "l" }, t: 1 }],
    ["q", { p: "/x", q: { l: 1.5, vf: "l" }, t: 1 }],
    ["q", { p: "/x", q: { l: "1", vf: "l" }, t: 1 }],
    ["q", { p: "/x", q: { l: 1, vf: "m" }, t: 1 }],
    ["q", { p: "/x", q: { sp: {} }, t: 1 }],
    ["q", { p: "/x", q: { i: 7 }, t: 1 }],
    ["q", { p: "/x", q: { i: "a.b" }, t: 1 }],
    ["q", { p: "/x", q: { i: ".key", sp: 7 }, t: "1" }],
    ["g", { p: "/a#", q: {} }],
    ["o", { p: "/a#", d: 1 }],
    ["o", { p: "/x", d: deep(33) }],
    ["o", { p: "/x", d: { ".sv": "later" } }],
    ["om", { p: "/x", d: 1 }],
    ["om", { p: "/x", d: { a: 1, "a/b": 2 } }],
    ["auth", { cred: "nonsense" }],
    ["auth", {}],
    ["gauth", { cred: 7 }],
  ];
  const short = (value) => JSON.stringify(value).slice(0, 60);
  for (const [a, b] of BAD) {
    test(`${a} ${short(b)} is refused in words`, async (t) => {
      const raw = await Raw.open(t, server, "refused");
      const { s, d } = await raw.ask(a, b);
      assert.notEqual(s, "ok");
      assert.equal(typeof s, "string");
      assert.equal(typeof d, "string");
      // Nothing has changed, and the connection goes on.
      assert.deepEqual(await raw.ask("g", { p: "/x", q: {} }), { s: "ok", d: null });
      await othersAreServed();
    });
  }

  test("what is just within the limits is done", async (t) => {
    const raw = await Raw.open(t, server, "good");
    const good = [
      { p: `/${"k".repeat(768)}`, d: 1 },
      { p: `/${"é".repeat(384)}`, d: 1 },
      { p: "/a".repeat(32), d: 1 },
      { p: "/deep", d: deep(31) },
      { p: "/long", d: "s".repeat(10 * 2 ** 20 - 64) },
    ];
    for (const b of good) assert.equal((await raw.ask("p", b)).s, "ok", short(b));
  });
});

describe("floods", () => {
  /** Asks until it is refused; gives the refusal. */
  async function untilRefused(raw, most, ask) {
    const batch = 1_000;
    for (let n = 0; n < most; n += batch) {
      const answers = await Promise.all(Array.from({ length: batch }, (_, at) => raw.ask(...ask(n + at))));
      const refusal = answers.find(({ s }) => s !== "ok");
      if (refusal) return refusal;
    }
    return assert.fail(`${most} were accepted`);
  }

  test("last words have a limit with a name, and those within it are spoken", async (t) => {
    const raw = await Raw.open(t, server, "flood");
    const refusal = await untilRefused(raw, 200_000, (n) => ["o", { p: `/words/${n}`, d: n }]);
    assert.match(refusal.d, /last words|onDisconnect/i);
    await othersAreServed();
    await raw.close();
    await othersAreServed();
    const after = await Raw.open(t, server, "flood");
    assert.equal((await after.ask("g", { p: "/words/0", q: {} })).d, 0);
  });

  test("listens have a limit with a name", async (t) => {
    const raw = await Raw.open(t, server, "flood");
    const refusal = await untilRefused(raw, 200_000, (n) => ["q", { p: `/listen/${n}`, h: "" }]);
    assert.match(refusal.d, /listen/i);
    await othersAreServed();
    await raw.close();
    await othersAreServed();
  });

  test("a client that asks and never reads is sent away, and costs bounded memory", async (t) => {
    const rss = () => Number(readFileSync(`/proc/${server.pid}/status`, "utf8").match(/VmRSS:\s+(\d+)/)[1]) / 1024;
    const writer = await Raw.open(t, server, "slow");
    await writer.ask("p", { p: "/big", d: "b".repeat(5 * 2 ** 20) });
    const tree = Object.fromEntries(Array.from({ length: 5_000 }, (_, n) => [`k${n}`, "b".repeat(1_000)]));
    await writer.ask("p", { p: "/tree", d: tree });
    const before = rss();
    const deaf = await Raw.open(t, server, "slow");
    await deaf.ask("o", { p: "/deaf", d: "gone" });
    deaf.socket._socket.pause();
    for (let n = 0; n < 400; n++) deaf.begin("g", { p: n % 2 ? "/big" : "/tree", q: {} });
    const words = new Promise((resolve) => {
      const look = async () => ((await writer.ask("g", { p: "/deaf", q: {} })).d === "gone" ? resolve() : setImmediate(look));
      look();
    });
    await othersAreServed();
    const most = { mib: 0 };
    const measuring = setInterval(() => (most.mib = Math.max(most.mib, rss())), 50);
    t.after(() => clearInterval(measuring));
    await soon(() => `the end of the deaf; ${most.mib} MiB`, words);
    assert.ok(most.mib - before < 512, `${before} MiB before, ${most.mib} MiB at most`);
    await othersAreServed();
  });

  test("a crowd that comes and goes leaves nothing behind but its words", async (t) => {
    for (let round = 0; round < 5; round++) {
      const crowd = await Promise.all(Array.from({ length: 100 }, () => Raw.open(t, server, "crowd")));
      await Promise.all(crowd.map((raw, n) => raw.ask("o", { p: `/gone/${round}/${n}`, d: true })));
      for (const [n, raw] of crowd.entries()) {
        if (n % 2) raw.socket.terminate();
        else raw.socket.close();
      }
      await Promise.all(crowd.map((raw) => soon("the end", raw.closed)));
      await othersAreServed();
    }
    const raw = await Raw.open(t, server, "crowd");
    const all = new Promise((resolve) => {
      const look = async () => {
        const gone = (await raw.ask("g", { p: "/gone", q: {} })).d ?? {};
        if (Object.values(gone).flatMap((round) => Object.values(round)).length === 500) resolve();
        else setImmediate(look);
      };
      look();
    });
    await soon("all words of the crowd", all);
  });
});
