// Wilddog's SDKs for Node, against the server: data, last words, and the programs of their documentation. A
// Firebase client watches: both see one tree.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { open } from "./lib/families.mjs";
import { IMPATIENT, Server } from "./lib/server.mjs";
import { Record, soon } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";
import { WAYS, departing } from "./lib/ways.mjs";
import { OLDER, WILDDOGS } from "./lib/wilddog.mjs";

let server;
before(async () => {
  server = await Server.start({ config: IMPATIENT });
});
after(() => server?.stop());

let runs = 0;
const fresh = () => `dog${++runs}`;

/** Calls a method that takes a callback; gives what the callback is given beside the error. */
const call = (ref, method, ...args) =>
  soon(
    `${method}`,
    new Promise((done, failed) => ref[method](...args, (error, ...rest) => (error ? failed(error) : done(rest)))),
  );
/** Compares long texts without printing them. */
function same(found, expected) {
  let at = 0;
  while (at < expected.length && found[at] === expected[at]) at++;
  assert.ok(found === expected, `${found.length} of ${expected.length} characters, the first ${at} alike: ${JSON.stringify(found.slice(at - 5, at + 20))}`);
}
const read = (ref) => soon("a value", new Promise((done, failed) => ref.once("value", done, failed)));

for (const family of WILDDOGS) {
  describe(family, () => {
    test("writes, and reads what others write", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const dog = await client(t, server, namespace, family);
      const seen = await watch(watcher.ref("a"));
      await call(dog.ref("a"), "set", { text: 'é漢😀 "\\/\u2028', list: ["x", "y"], yes: true, number: -0.5 });
      await call(dog.ref("a"), "update", { "deep/er": 1, yes: null });
      const whole = { deep: { er: 1 }, list: ["x", "y"], number: -0.5, text: 'é漢😀 "\\/\u2028' };
      await seen.untilLast(whole);
      // A build in a world of its own has arrays and objects of its own.
      assert.deepEqual(structuredClone((await read(dog.ref("a"))).val()), whole);
      const heard = await watch(dog.ref("b"));
      await watcher.ref("b").set({ from: "the other side", é: 1 });
      await heard.untilLast({ from: "the other side", é: 1 });
      assert.deepEqual(structuredClone(heard.seen), [null, { from: "the other side", é: 1 }]);
      await call(dog.ref("a"), "remove");
      await seen.untilLast(null);
      const pushed = dog.ref("list").push("one");
      await watch(watcher.ref("list")).then((list) => list.until((values) => Object.values(values.at(-1) ?? {})[0] === "one"));
      assert.ok(pushed);
    });

    test("transactions, priorities and the server's time", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const dog = await client(t, server, namespace, family);
      await watcher.ref("count").set(41);
      const [committed] = await call(dog.ref("count"), "transaction", (count) => (count ?? 0) + 1);
      assert.equal(committed, true);
      assert.equal((await watcher.ref("count").get()).val(), 42);
      await call(dog.ref("ranked"), "setWithPriority", { a: 1 }, 7);
      await call(dog.ref("ranked"), "setPriority", "high");
      assert.equal((await watcher.ref("ranked").get()).getPriority(), "high");
      await call(dog.ref("time"), "set", dog.timestamp());
      const { val: time } = { val: (await watcher.ref("time").get()).val() };
      assert.ok(Math.abs(time - Date.now()) < 60_000, `${time}`);
    });

    test("queries follow their window", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const dog = await client(t, server, namespace, family);
      await watcher.ref("p").set({ ann: { age: 30 }, bob: { age: 20 }, cid: { age: 40 } });
      const events = new Record("child events");
      const eldest = dog.ref("p").orderByChild("age").limitToLast(2);
      const key = (snap) => (typeof snap.key === "function" ? snap.key() : snap.key);
      for (const name of ["child_added", "child_removed"]) eldest.on(name, (snap) => events.add(`${name} ${key(snap)}`));
      await events.until((seen) => seen.length === 2);
      await watcher.ref("p/dee").set({ age: 50 });
      await events.until((seen) => seen.length === 4);
      assert.deepEqual(events.seen.slice(0, 2), ["child_added ann", "child_added cid"]);
      assert.deepEqual(events.seen.slice(2).sort(), ["child_added dee", "child_removed ann"]);
      await watcher.ref("p/cid").remove();
      await events.until((seen) => seen.length === 6);
      assert.deepEqual(events.seen.slice(4).sort(), ["child_added ann", "child_removed cid"]);
    });

    test("long texts, both ways", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const dog = await client(t, server, namespace, family);
      const text = "漢é😀 plain ".repeat(30_000);
      await call(dog.ref("long"), "set", text);
      same((await watcher.ref("long").get()).val(), text);
      // Firebase's own SDK cuts characters beyond the first plane in two.
      const plain = "漢é plain ".repeat(100_000);
      await watcher.ref("longer").set(plain);
      same((await read(dog.ref("longer"))).val(), plain);
    });

    for (const [name, way] of Object.entries(WAYS)) {
      test(`last words: ${name}`, async (t) => {
        const namespace = fresh();
        const watcher = await client(t, server, namespace);
        await watcher.ref().set({ merge: { keep: 1 }, remove: "here", cancelled: "here" });
        const canary = await watch(watcher.ref("canary"));
        const set = await watch(watcher.ref("set"));
        const { peer, go } = await departing(t, server, way, { family, namespace });
        await peer.run(async (client) => {
          const leave = (path, method, ...args) =>
            new Promise((done, failed) =>
              client.ref(path).onDisconnect()[method](...args, (error) => (error ? failed(error) : done())),
            );
          await leave("set", "set", "said");
          await leave("merge", "update", { a: 1, "deep/er": 2 });
          await leave("remove", "remove");
          await leave("cancelled", "set", "never");
          await leave("cancelled", "cancel");
          await leave("at", "set", client.timestamp());
          await leave("canary", "set", "gone");
        });
        await settle(watcher);
        assert.deepEqual(set.seen, [null], "not early");
        await go();
        await canary.untilLast("gone");
        await settle(watcher);
        const { at, marks, ...end } = (await watcher.ref().get()).val();
        assert.deepEqual(end, { set: "said", merge: { keep: 1, a: 1, deep: { er: 2 } }, cancelled: "here", canary: "gone" });
        assert.ok(Math.abs(at - Date.now()) < 60_000);
        assert.deepEqual(set.seen, [null, "said"], "once");
      });
    }

    test("listeners survive a reconnect", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const dog = await client(t, server, namespace, family);
      const [first, second] = [await watch(dog.ref("a")), await watch(dog.ref("b"))];
      const connected = await watch(dog.ref(".info/connected"));
      dog.goOffline();
      await connected.untilLast(false);
      await watcher.ref().set({ a: 1, b: 2 });
      dog.goOnline();
      await first.untilLast(1);
      await second.untilLast(2);
      await connected.untilLast(true);
    });
  });
}

describe("older SDKs connect and are present", () => {
  for (const family of OLDER) {
    test(family, async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      await watcher.ref("greeting").set("hello é漢😀");
      const status = await watch(watcher.ref("status"));
      const { peer, go } = await departing(t, server, WAYS["kill -9"], { family, namespace });
      const read = await peer.run(
        (client) =>
          new Promise((done, failed) => {
            const then = (next) => (error) => (error ? failed(error) : next());
            client.ref("status").onDisconnect().set("offline", then(() =>
              client.ref("status").set("online", then(() => client.ref("greeting").once("value", (snap) => done(snap.val()))))));
          }),
      );
      assert.equal(read, "hello é漢😀");
      assert.equal(status.seen.at(-1), "online");
      await go();
      await status.untilLast("offline");
    });
  }
});

/** A program of the documentation, and what it leaves. */
async function checkProgram(t, { family, parts, way = WAYS["kill -9"], path, before = null, while_: during, after: end }) {
  const namespace = fresh();
  const watcher = await client(t, server, namespace);
  if (before !== null) await watcher.ref(path).set(before);
  const seen = await watch(watcher.ref(path));
  const canary = await watch(watcher.ref("canary"));
  const { peer, go } = await departing(t, server, way, { family, namespace, program: parts });
  await peer.run(async (client) => {
    await client.connected();
    await client.lastWord("canary", "gone");
  });
  if (during !== undefined) await seen.untilLast(during);
  await settle(watcher);
  await go();
  await canary.untilLast("gone");
  await settle(watcher);
  if (end === "time") assert.ok(Math.abs(seen.seen.at(-1) - Date.now()) < 60_000, JSON.stringify(seen.seen));
  else assert.deepEqual(seen.seen.at(-1), end);
  return { peer, seen };
}

describe("programs of the documentation", () => {
  const legacy = "wilddog07";
  const second = "wilddog25";
  const left = { path: "disconnectmessage", after: "I disconnected!" };
  for (const [name, way] of Object.entries(WAYS)) {
    test(`registering again: ${name}`, (t) => checkProgram(t, { family: second, parts: ["config", "register-again"], way, ...left }));
    test(`set: ${name}`, (t) => checkProgram(t, { family: legacy, parts: ["set"], way, ...left }));
  }
  test("registering again in a mini program", (t) =>
    checkProgram(t, { family: "wilddog25wx", parts: ["config", "register-again"], ...left }));
  test("status in a mini program", (t) =>
    checkProgram(t, { family: "wilddog25wx", parts: ["config", "status"], path: "users/status/joe", while_: "online", after: "offline" }));
  test("remove", (t) =>
    checkProgram(t, { family: legacy, parts: ["set", "remove"], path: "disconnectmessage", before: "here", after: null }));
  test("cancel", (t) =>
    checkProgram(t, { family: legacy, parts: ["set", "cancel"], path: "disconnectmessage", before: "here", after: "here" }));
  test("last online", (t) =>
    checkProgram(t, { family: legacy, parts: ["last-online"], path: "users/joe/lastOnline", after: "time" }));
  test("status", (t) =>
    checkProgram(t, { family: second, parts: ["config", "status"], path: "users/status/joe", while_: "online", after: "offline" }));

  test("registering again after each reconnect", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const seen = await watch(watcher.ref("disconnectmessage"));
    const { peer, go } = await departing(t, server, WAYS["a network that resets"], {
      family: second,
      namespace,
      program: ["config", "register-again"],
    });
    for (let round = 1; round <= 3; round++) {
      await peer.output.until((lines) => lines.filter((line) => line === "connected").length === round, `connection ${round}`);
      // What it has said before is answered, so what the program has asked for is registered.
      await peer.run((client) => client.lastWord("other", 1));
      await go();
      await seen.untilLast("I disconnected!");
      await watcher.ref("disconnectmessage").remove();
    }
  });

  test("a wrong state is repaired", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const seen = await watch(watcher.ref("users/status/joe"));
    const { peer } = await departing(t, server, WAYS["kill -9"], { family: second, namespace, program: ["config", "status", "repair"] });
    await seen.untilLast("online");
    await watcher.ref("users/status/joe").set("offline");
    await peer.output.until((lines) => lines.includes("current user offline"));
    await seen.untilLast("online");
  });

  test("the state of the connection, off and on again", async (t) => {
    const { peer } = await departing(t, server, WAYS["kill -9"], { family: legacy, namespace: fresh(), program: ["connected"] });
    await peer.output.until((lines) => lines.includes("connected"));
    const other = await departing(t, server, WAYS["kill -9"], { family: legacy, namespace: fresh(), program: ["off-and-on"] });
    await other.peer.output.until((lines) => lines.filter((line) => line === "connected").length === 2);
    assert.deepEqual(other.peer.output.seen.filter((line) => /connected$/.test(line)).slice(-3), ["connected", "I disconnected", "connected"]);
  });

  test("the server's time", async (t) => {
    const { peer } = await departing(t, server, WAYS["kill -9"], { family: legacy, namespace: fresh(), program: ["offset"] });
    const off = await peer.run(async (client) => {
      await client.connected();
      return Math.abs(globalThis.serverTime - Date.now());
    });
    assert.ok(off < 60_000, `${off}`);
  });

  // Nothing on this wire names the old session, so what it says too late yields to what was said since.
  for (const family of WILDDOGS) {
    test(`the race of two servers ends online: ${family}`, async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const status = await watch(watcher.ref("users/status/joe"));
      const way = WAYS["a network that swallows"];
      const { peer, go } = await departing(t, server, way, { family, namespace });
      const join = (client) =>
        new Promise((done, failed) => {
          const ref = client.ref("users/status/joe");
          ref.onDisconnect().set("offline", (error) => (error ? failed(error) : ref.set("online", (e) => (e ? failed(e) : done()))));
        });
      await peer.run(join);
      await status.untilLast("online");
      await go();
      const other = await departing(t, server, WAYS["kill -9"], { family, namespace });
      await other.peer.run(join);
      // The first connection is given up in silence.
      await new Promise((done) => setTimeout(done, 6_000));
      await settle(watcher);
      assert.equal(status.seen.at(-1), "online");
      await other.go();
      await status.untilLast("offline");
    });
  }
});
