// Coming back: a client is never marked offline by its own past.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { FAMILIES, open } from "./lib/families.mjs";
import { Network } from "./lib/network.mjs";
import { IMPATIENT, Server } from "./lib/server.mjs";
import { Record, soon } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";
import { WAYS, departing } from "./lib/ways.mjs";

let server;
before(async () => {
  server = await Server.start({ config: `${IMPATIENT}\n[namespace.always]\nlate_last_words = "always"\n` });
});
after(() => server?.stop());

let runs = 0;
const fresh = () => `back${++runs}`;

/** Keeps a status as the documentation advises: words first, then online; again at each connection. */
function keepOnline(client, path) {
  return new Promise((resolve) =>
    client.ref(".info/connected").on("value", async (snap) => {
      if (snap.val() !== true) return;
      await client.ref(path).onDisconnect().set("offline");
      await client.ref(path).set("online");
      resolve();
    }),
  );
}

describe("a client that names its last session", { concurrency: 3 }, () => {
  for (const family of FAMILIES) {
    test(`${family}: the old session's words come before anything new`, async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const status = await watch(watcher.ref("status/joe"));
      const network = await Network.to(server.port);
      t.after(() => network.close());
      const joe = await open(family, server.url(namespace, network.port));
      t.after(() => joe.close());
      await keepOnline(joe, "status/joe");
      await status.untilLast("online");
      // The server does not learn that the connection is closed.
      network.swallow();
      joe.goOffline();
      network.heal();
      joe.goOnline();
      await status.until((seen) => seen.length === 4, "offline, and online again");
      assert.deepEqual(status.seen, [null, "online", "offline", "online"]);
      // A neighbour who falls silent now is noticed after joe's old connection would have been.
      const silent = await departing(t, server, WAYS["a frozen process"], { family: "modular", namespace });
      await silent.peer.run((client) => client.ref("canary").onDisconnect().set("gone"));
      const canary = await watch(watcher.ref("canary"));
      await silent.go();
      await canary.untilLast("gone");
      await settle(watcher);
      assert.deepEqual(status.seen, [null, "online", "offline", "online"]);
    });

    test(`${family}: goOffline(), goOnline(), and what others read then`, async (t) => {
      const namespace = fresh();
      const [joe, ann] = [await client(t, server, namespace, family), await client(t, server, namespace)];
      await ann.ref("warm").get();
      await joe.ref("status").set("online");
      await joe.ref("status").onDisconnect().set("offline");
      joe.goOffline();
      joe.goOnline();
      // Whatever joe says after coming back stands on top of the words of the session before.
      await joe.ref("after").set(true);
      assert.equal((await ann.ref("status").once("value")).val(), "offline");
      await joe.ref("status").set("online");
      assert.equal((await ann.ref("status").once("value")).val(), "online");
    });
  }

  test("a close that is read is a close that is done", async (t) => {
    const namespace = fresh();
    const [joe, ann] = [await client(t, server, namespace), await client(t, server, namespace)];
    const status = await watch(ann.ref("status"));
    for (let round = 0; round < 20; round++) {
      await joe.ref("status").onDisconnect().set(`offline ${round}`);
      joe.goOffline();
      await status.untilLast(`offline ${round}`);
      joe.goOnline();
    }
    assert.equal(status.seen.length, 21);
  });
});

describe("a new process that names nothing", { concurrency: 4 }, () => {
  /** A client that is online, has last words, and freezes. */
  async function frozen(t, namespace) {
    const watcher = await client(t, server, namespace);
    const status = await watch(watcher.ref("users/joe/status"));
    const canary = await watch(watcher.ref("canary/joe"));
    const { peer } = await departing(t, server, WAYS["a frozen process"], { family: "modular", namespace });
    await peer.run(async (client) => {
      await client.ref("users/joe/status").set("online");
      await client.ref("users/joe/status").onDisconnect().set("offline");
      await client.ref("canary/joe").onDisconnect().set("gone");
    });
    await status.untilLast("online");
    peer.freeze();
    return { watcher, status, canary, peer };
  }

  test("step by step: the late word yields to what the new connection wrote", async (t) => {
    const namespace = fresh();
    // 1 and 2: the client is connected, and its network breaks.
    const { watcher, status, canary, peer } = await frozen(t, namespace);
    // 3: without waiting, it connects anew and writes.
    const second = await departing(t, server, WAYS["goOffline()"], { family: "modular", namespace });
    await second.peer.run(async (client) => {
      await client.ref("users/joe/status").set("online");
      await client.ref("users/joe/status").onDisconnect().set("offline");
    });
    // 4: the first connection times out. Its other words are spoken, this one is not.
    await canary.untilLast("gone");
    await settle(watcher);
    assert.deepEqual(status.seen, [null, "online"]);
    // Not even when the first process wakes up and goes for good.
    peer.thaw();
    await peer.kill();
    await settle(watcher);
    assert.deepEqual(status.seen, [null, "online"]);
    // The second one's words are its own.
    await second.go();
    await status.untilLast("offline");
    assert.deepEqual(status.seen, [null, "online", "offline"]);
  });

  test("it yields to a write above it", async (t) => {
    const { watcher, status, canary } = await frozen(t, fresh());
    await watcher.ref("users/joe").set({ status: "back", name: "Joe" });
    await canary.untilLast("gone");
    await settle(watcher);
    assert.deepEqual(status.seen, [null, "online", "back"]);
  });

  test("it yields to a merge from above", async (t) => {
    const { watcher, status, canary } = await frozen(t, fresh());
    await watcher.ref().update({ "users/joe/status": "back", "users/ann/status": "here" });
    await canary.untilLast("gone");
    await settle(watcher);
    assert.deepEqual(status.seen, [null, "online", "back"]);
  });

  test("it does not yield to a write beside it", async (t) => {
    const { watcher, status } = await frozen(t, fresh());
    await watcher.ref("users/joe/name").set("Joe");
    await watcher.ref("users/ann/status").set("online");
    await status.untilLast("offline");
    assert.deepEqual(status.seen, [null, "online", "offline"]);
  });

  test("it does not yield to what was written before the session was last heard", async (t) => {
    const namespace = fresh();
    const ann = await client(t, server, namespace);
    await ann.ref("users/joe/status").set("unknown");
    const { status } = await frozen(t, namespace);
    await status.untilLast("offline");
    assert.deepEqual(status.seen, ["unknown", "online", "offline"]);
  });

  test('with late_last_words = "always" it overwrites, as Firebase does', async (t) => {
    const { watcher, status } = await frozen(t, "always");
    await watcher.ref("users/joe/status").set("back");
    await status.untilLast("offline");
    assert.deepEqual(status.seen, [null, "online", "back", "offline"]);
  });

  test("a word of a client that closed properly does not yield", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const status = await watch(watcher.ref("status"));
    const { peer, go } = await departing(t, server, WAYS["exit of the process"], { family: "modular", namespace });
    await peer.run((client) => client.ref("status").onDisconnect().set("offline"));
    await watcher.ref("status").set("back");
    await go();
    await status.untilLast("offline");
  });
});

describe("what is kept over a reconnect", { concurrency: 3 }, () => {
  for (const family of FAMILIES) {
    test(`${family}: listens, with all that happened meanwhile`, async (t) => {
      const namespace = fresh();
      const network = await Network.to(server.port);
      t.after(() => network.close());
      const ann = await client(t, server, namespace);
      await ann.ref("room").set({ a: 1, b: 2, c: 3 });
      const joe = await open(family, server.url(namespace, network.port));
      t.after(() => joe.close());
      const room = await watch(joe.ref("room"));
      const last = await watch(joe.ref("room").orderByValue().limitToLast(1));
      const added = new Record("children added");
      joe.ref("room").on("child_added", (snap) => added.add(snap.key));
      joe.goOffline();
      await ann.ref("room").update({ b: null, d: 4 });
      joe.goOnline();
      await room.untilLast({ a: 1, c: 3, d: 4 });
      await last.untilLast({ d: 4 });
      network.reset();
      await ann.ref("room/e").set(5);
      await room.untilLast({ a: 1, c: 3, d: 4, e: 5 });
      await last.untilLast({ e: 5 });
      assert.deepEqual(added.seen, ["a", "b", "c", "d", "e"], "a kept child is not added twice");
    });

    test(`${family}: writes made while offline, in their order`, async (t) => {
      const namespace = fresh();
      const [joe, ann] = [await client(t, server, namespace, family), await client(t, server, namespace)];
      const list = await watch(ann.ref("list"));
      await joe.ref("ready").set(true);
      joe.goOffline();
      const done = Array.from({ length: 20 }, (_, n) => joe.ref("list").set(n));
      const counted = joe.ref("counter").transaction((now) => (now ?? 0) + 1);
      joe.goOnline();
      await soon("the acknowledgements", Promise.all([...done, counted]));
      await list.untilLast(19);
      assert.equal((await ann.ref("counter").get()).val(), 1);
    });
  }
});
