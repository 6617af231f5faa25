// The protocol itself, message by message: what the SDKs rely on and do not say.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Raw } from "./lib/raw.mjs";
import { Server } from "./lib/server.mjs";
import { client, watch } from "./lib/watch.mjs";

let server;
before(async () => {
  server = await Server.start();
});
after(() => server?.stop());

let runs = 0;
const fresh = () => `wire${++runs}`;
const open = (t, options) => Raw.open(t, server, fresh(), options);

/** A second connection to the same database. */
const pair = async (t) => {
  const namespace = fresh();
  return [await Raw.open(t, server, namespace), await Raw.open(t, server, namespace)];
};

describe("handshake", () => {
  test("comes first and unasked, with the host that was asked for", async (t) => {
    const raw = await open(t, { options: { headers: { Host: "db.example:1234" } } });
    const [first] = raw.messages.seen;
    assert.equal(first.t, "c");
    assert.equal(first.d.t, "h");
    const { ts, v, h, s } = first.d.d;
    assert.ok(Number.isInteger(ts) && Math.abs(ts - Date.now()) < 60_000, `ts ${ts}`);
    assert.equal(v, "5");
    assert.equal(h, "db.example:1234");
    assert.match(s, /^[0-9A-Za-z]{22,64}$/);
  });

  test("names a session that nobody can guess", async (t) => {
    const ids = new Set();
    for (let n = 0; n < 40; n++) ids.add((await open(t)).handshake.s);
    assert.equal(ids.size, 40);
    const ordered = [...ids];
    // Neighbours share no long beginning or end: nothing in them counts.
    for (let n = 1; n < ordered.length; n++) {
      const [a, b] = [ordered[n - 1], ordered[n]];
      const same = [...a].filter((letter, at) => letter === b[at]).length;
      assert.ok(same < a.length / 2, `${a} and ${b}`);
    }
  });

  test("offers no subprotocol and no compression", async (t) => {
    const raw = Raw.dial(t, `ws://127.0.0.1:${server.port}/.ws?v=5&ns=x`, { perMessageDeflate: true });
    await raw.opened;
    assert.equal(raw.socket.protocol, "");
    assert.equal(raw.socket.extensions, "");
  });

  test("of a client that names an unknown session is like any other", async (t) => {
    const raw = await open(t, { query: "&ls=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" });
    assert.equal((await raw.ask("p", { p: "/a", d: 1 })).s, "ok");
  });

  test("does not end a session of another database", async (t) => {
    const [one, other] = [fresh(), fresh()];
    const old = await Raw.open(t, server, one);
    assert.equal((await old.ask("o", { p: "/gone", d: true })).s, "ok");
    await Raw.open(t, server, other, { query: `&ls=${old.handshake.s}` });
    assert.deepEqual(await old.ask("g", { p: "/gone", q: {} }), { s: "ok", d: null });
  });
});

describe("keepalive", () => {
  test("zero is ignored, a ping is answered", async (t) => {
    const raw = await open(t);
    raw.socket.send("0");
    raw.send({ t: "c", d: { t: "p", d: {} } });
    await raw.messages.until((seen) => seen.some((m) => m.t === "c" && m.d.t === "o"), "a pong");
    assert.deepEqual(raw.messages.seen.find((m) => m.d.t === "o"), { t: "c", d: { t: "o", d: null } });
    raw.socket.send("0");
    assert.equal((await raw.ask("s", { c: {} })).s, "ok");
    assert.ok(!raw.frames.includes("0"));
  });

  test("a WebSocket ping is answered", async (t) => {
    const raw = await open(t);
    const pong = new Promise((resolve) => raw.socket.on("pong", (data) => resolve(String(data))));
    raw.socket.ping("are you there");
    assert.equal(await pong, "are you there");
  });
});

describe("answers", () => {
  const OK = { s: "ok", d: "" };
  const CASES = [
    ["s", { c: { "sdk.js.12-0-0": 1 } }, OK],
    ["q", { p: "/nothing", h: "" }, { s: "ok", d: {} }],
    ["n", { p: "/nothing" }, OK],
    ["g", { p: "/nothing", q: {} }, { s: "ok", d: null }],
    ["p", { p: "/a", d: 1 }, OK],
    ["p", { p: "a/b", d: { c: 2 } }, OK],
    ["m", { p: "/a", d: { x: 1, "y/z": 2 } }, OK],
    ["o", { p: "/gone", d: 1 }, OK],
    ["om", { p: "/gone", d: { "a/b": 1 } }, OK],
    ["oc", { p: "/gone", d: null }, OK],
    ["unauth", {}, { s: "ok" }],
    ["unappcheck", {}, { s: "ok" }],
    ["unappeck", {}, { s: "ok" }],
    ["appcheck", { token: "x" }, { s: "ok" }],
  ];
  for (const [a, b, expected] of CASES) {
    test(`${a} ${JSON.stringify(b)}`, async (t) => {
      const answer = await (await open(t)).ask(a, b);
      assert.equal(answer.s, expected.s);
      if ("d" in expected) assert.deepEqual(answer.d, expected.d);
    });
  }

  test("numbers count from wherever the client likes", async (t) => {
    const raw = await open(t);
    for (const r of [0, 7, 2_000_000_000]) {
      raw.send({ t: "d", d: { r, a: "p", b: { p: "/a", d: r } } });
      await raw.messages.until((seen) => seen.some((m) => m.d.r === r), `answer ${r}`);
    }
  });

  test("an unknown action is refused, and the connection stays", async (t) => {
    const raw = await open(t);
    const { s, d } = await raw.ask("dance", { p: "/a" });
    assert.notEqual(s, "ok");
    assert.equal(typeof d, "string");
    assert.equal((await raw.ask("p", { p: "/a", d: 1 })).s, "ok");
  });

  test("requests sent together are answered in their order", async (t) => {
    const raw = await open(t);
    const numbers = Array.from({ length: 200 }, (_, n) => raw.begin(...(n % 3 ? ["p", { p: `/u${n}/x`, d: n }] : ["g", { p: `/u${n}`, q: {} }])));
    const seen = await raw.messages.until((seen) => seen.filter((m) => m.d.r).length === numbers.length, "all answers");
    assert.deepEqual(seen.filter((m) => m.d.r).map((m) => m.d.r), numbers);
  });
});

describe("listens", () => {
  test("data first, then ok; nothing of a location that is empty", async (t) => {
    const raw = await open(t);
    assert.deepEqual(await raw.told("q", { p: "/a", h: "" }), [["ok"]]);
    await raw.ask("p", { p: "/b", d: { x: 1 } });
    assert.deepEqual(await raw.told("q", { p: "/b", h: "" }), [["d", "b", { x: 1 }], ["ok"]]);
    assert.deepEqual(await raw.told("q", { p: "/b", q: { l: 1, vf: "l" }, t: 5, h: "" }), [["d", "b", { x: 1 }, 5], ["ok"]]);
  });

  test("a hash that matches saves the data", async (t) => {
    const raw = await open(t);
    // Known answers of the SDKs.
    const KNOWN = [
      [4, "eVih19a6ZDz3NL32uVBtg9KSgQY="],
      [4.5623, "vf1CL0tIRwXXunHcG/irRECk3lY="],
      ["hey guys", "CUNLXWpCVoJE6z7z1vE57lGaKAU="],
      [true, "E5z61QM0lN/U2WsOnusszCTkR8M="],
      [{ intNode: 4, doubleNode: 4.5623, stringNode: "hey guys", boolNode: true }, "6Mc4jFmNdrLVIlJJjz2/MakTK9I="],
      [{ root: { c: { ".value": 99, ".priority": "abc" }, ".priority": "def" } }, "Fm6tzN4CVEu5WxFDZUdTtqbTVaA="],
      ["unicode ✔ 🐵 🌴 x͢", "JoKoFUnbmg3/DlY70KaDWslfYPk="],
      [1.7976931348623157e308, "8R+ekVQmxs6ZWP0fdzFHxVeGnWo="],
      [{ ".value": 12345678901234568, ".priority": "🐵" }, "+E+Mxlqh5MhT+On05bjsZ6JaaxI="],
    ];
    for (const [index, [value, hash]] of KNOWN.entries()) {
      const path = `/h${index}/x`;
      await raw.ask("p", { p: path, d: value });
      assert.deepEqual(await raw.told("q", { p: path, h: hash }), [["ok"]], JSON.stringify(value));
      await raw.ask("n", { p: path });
      assert.deepEqual((await raw.told("q", { p: path, h: "wrong" })).length, 2);
    }
  });

  test("an own write is told before its ok", async (t) => {
    const raw = await open(t);
    await raw.ask("q", { p: "/a", h: "" });
    assert.deepEqual(await raw.told("p", { p: "/a/b", d: 1 }), [["d", "a/b", 1], ["ok"]]);
    assert.deepEqual(await raw.told("m", { p: "/a", d: { b: 2, "c/d": 3 } }), [["m", "a", { b: 2, "c/d": 3 }], ["ok"]]);
    assert.deepEqual(await raw.told("p", { p: "/", d: { a: { z: 1 } } }), [["d", "a", { z: 1 }], ["ok"]]);
  });

  test("a write elsewhere tells nothing, and neither does anything after unlisten", async (t) => {
    const raw = await open(t);
    await raw.ask("q", { p: "/a/b", h: "" });
    assert.deepEqual(await raw.told("p", { p: "/a/c", d: 1 }), [["ok"]]);
    assert.deepEqual(await raw.told("p", { p: "/b", d: 1 }), [["ok"]]);
    await raw.ask("n", { p: "/a/b" });
    assert.deepEqual(await raw.told("p", { p: "/a/b", d: 1 }), [["ok"]]);
  });

  test("a query's window is told under its tag", async (t) => {
    const raw = await open(t);
    await raw.ask("p", { p: "/list", d: { a: 1, b: 2, c: 3 } });
    const query = { i: ".value", l: 2, vf: "r" };
    assert.deepEqual(await raw.told("q", { p: "/list", q: query, t: 9, h: "" }), [["d", "list", { b: 2, c: 3 }, 9], ["ok"]]);
    await raw.ask("p", { p: "/list/d", d: 4 });
    const view = { b: 2, c: 3 };
    for (const [action, path, data, tag] of raw.since(0).filter(([action]) => "dm".includes(action)).slice(1)) {
      assert.equal(tag, 9);
      const at = path.replace(/^list\/?/, "");
      const changes = action === "m" ? data : { [at]: data };
      for (const [key, value] of Object.entries(changes)) {
        if (value === null) delete view[key];
        else view[key] = value;
      }
    }
    assert.deepEqual(view, { c: 3, d: 4 });
    await raw.ask("n", { p: "/list", q: query, t: 9 });
    assert.deepEqual(await raw.told("p", { p: "/list/e", d: 5 }), [["ok"]]);
  });

  test("priorities travel", async (t) => {
    const raw = await open(t);
    await raw.ask("p", { p: "/a", d: { x: { ".value": 1, ".priority": 2 }, ".priority": "p" } });
    const data = { x: { ".value": 1, ".priority": 2 }, ".priority": "p" };
    assert.deepEqual(await raw.ask("g", { p: "/a", q: {} }), { s: "ok", d: data });
    await raw.ask("q", { p: "/a", h: "" });
    const told = await raw.told("p", { p: "/a/x/.priority", d: null });
    assert.deepEqual(told.at(-1), ["ok"]);
    assert.equal((await raw.ask("g", { p: "/a", q: {} })).d.x, 1);
  });
});

describe("compare and set", () => {
  test("a stale hash is refused after what made it stale was told", async (t) => {
    const [ann, joe] = await pair(t);
    await ann.ask("q", { p: "/n", h: "" });
    assert.equal((await ann.ask("p", { p: "/n", d: 4, h: "" })).s, "ok");
    await joe.ask("p", { p: "/n", d: true });
    const told = await ann.told("p", { p: "/n", d: 5, h: "eVih19a6ZDz3NL32uVBtg9KSgQY=" });
    assert.deepEqual(told.at(-1), ["datastale"]);
    assert.ok(ann.since(0).some(([action, , data]) => action === "d" && data === true), "told before");
    assert.equal((await ann.ask("p", { p: "/n", d: 5, h: "E5z61QM0lN/U2WsOnusszCTkR8M=" })).s, "ok");
    assert.equal((await joe.ask("g", { p: "/n", q: {} })).d, 5);
    assert.equal((await joe.ask("p", { p: "/n", d: 6, h: "" })).s, "datastale");
  });
});

describe("server values", () => {
  test("one instant for a whole request; increments are numbers", async (t) => {
    const raw = await open(t);
    const now = { ".sv": "timestamp" };
    await raw.ask("p", { p: "/a", d: { x: now, y: { z: now } } });
    const { d } = await raw.ask("g", { p: "/a", q: {} });
    assert.equal(d.x, d.y.z);
    assert.ok(Math.abs(d.x - Date.now()) < 60_000);
    const by = (n) => ({ ".sv": { increment: n } });
    await raw.ask("m", { p: "/c", d: { a: by(2), b: by(0.5) } });
    await raw.ask("m", { p: "/c", d: { a: by(-3), b: by(1) } });
    assert.deepEqual((await raw.ask("g", { p: "/c", q: {} })).d, { a: -1, b: 1.5 });
    assert.notEqual((await raw.ask("p", { p: "/a", d: { ".sv": "nonsense" } })).s, "ok");
  });
});

describe("long messages", () => {
  const COUNT = /^[1-9][0-9]{0,5}$/;

  test("are cut at most at 16384, never through a character, and can be put together", async (t) => {
    const [ann, joe] = await pair(t);
    await ann.ask("q", { p: "/big", h: "" });
    for (const text of ["x".repeat(100_000), "🐵".repeat(50_000), `y${"🐵".repeat(50_000)}`, "é".repeat(33_000)]) {
      const from = ann.frames.length;
      assert.equal((await joe.ask("p", { p: "/big", d: "short" })).s, "ok");
      // Whole characters, whatever this client's own segments are.
      const points = [...JSON.stringify({ t: "d", d: { r: 9999, a: "p", b: { p: "/big", d: text } } })];
      joe.socket.send(String(Math.ceil(points.length / 5000)));
      for (let at = 0; at < points.length; at += 5000) joe.socket.send(points.slice(at, at + 5000).join(""));
      await ann.messages.until((seen) => seen.at(-1).d.b?.d === text, "the long text");
      const frames = ann.frames.slice(from).filter((frame) => !COUNT.test(frame));
      for (const frame of frames) {
        assert.ok(frame.length <= 16384, `a segment of ${frame.length}`);
        assert.ok(frame.isWellFormed?.() ?? true, "a character was cut");
      }
    }
  });

  test("of every length around the limit arrive whole", async (t) => {
    const [ann, joe] = await pair(t);
    await ann.ask("q", { p: "/big", h: "" });
    for (const length of [16_300, 16_320, 16_330, 16_340, 16_345, 16_350, 16_355, 16_360, 16_384, 32_768 - 40, 32_768]) {
      const text = "z".repeat(length);
      await joe.ask("p", { p: "/big", d: text });
      await ann.messages.until((seen) => seen.at(-1).d.b?.d === text, `${length}`);
    }
  });

  test("of megabytes go up and come down", async (t) => {
    const [ann, joe] = await pair(t);
    const text = "a long story ".repeat(400_000);
    assert.equal((await joe.ask("p", { p: "/big", d: text })).s, "ok");
    assert.deepEqual(await ann.ask("g", { p: "/big", q: {} }), { s: "ok", d: text });
  });

  test("a short message may be announced too", async (t) => {
    const raw = await open(t);
    raw.socket.send("1");
    assert.equal((await raw.ask("p", { p: "/a", d: 1 })).s, "ok");
  });
});

describe("the end", () => {
  test("last words are spoken when the close is read", async (t) => {
    const namespace = fresh();
    const ann = await client(t, server, namespace);
    for (let round = 0; round < 10; round++) {
      const raw = await Raw.open(t, server, namespace);
      await raw.ask("o", { p: "/status", d: round });
      await raw.close();
      assert.equal((await ann.ref("status").get()).val(), round);
    }
  });

  test("last words of a connection that is reset, or only half closed", async (t) => {
    const namespace = fresh();
    const ann = await client(t, server, namespace);
    const status = await watch(ann.ref("status"));
    for (const [name, go] of Object.entries({
      reset: (socket) => socket.resetAndDestroy(),
      finished: (socket) => socket.end(),
    })) {
      const raw = await Raw.open(t, server, namespace);
      await raw.ask("o", { p: "/status", d: name });
      go(raw.socket._socket);
      await status.untilLast(name);
    }
  });
});
