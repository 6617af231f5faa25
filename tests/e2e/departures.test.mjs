// Last words of every kind, against every way to go: performed once, in order, after the end and not before.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { FAMILIES } from "./lib/families.mjs";
import { IMPATIENT, Server } from "./lib/server.mjs";
import { Record } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";
import { WAYS, departing } from "./lib/ways.mjs";

let server;
before(async () => {
  server = await Server.start({ config: IMPATIENT });
});
after(() => server?.stop());

let runs = 0;
const fresh = () => `go${++runs}`;

/** Registers one of everything. Runs over there. */
async function leaveLastWords(client) {
  const words = (path) => client.ref(path).onDisconnect();
  await words("set").set("said");
  await words("twice").set("first");
  await words("twice").set("second");
  await words("parent").set({ a: 1, b: 2 });
  await words("parent/b").set(3);
  await words("merge").update({ a: 1, "deep/path": 2 });
  await words("remove").remove();
  await words("priority").setWithPriority("said", 7);
  await words("count").set(client.increment(1));
  await words("at").set(client.timestamp());
  await words("cancelled").set("never");
  await words("cancelled").cancel();
  await words("below/a/b").set("never");
  await words("below").cancel();
  await words("part").update({ a: "never", b: 2 });
  await words("part/a").cancel();
  await words("canary").set("gone");
}

const BEFORE = { merge: { a: 0, keep: true }, remove: "here", count: 41, cancelled: "here", below: "here", part: { a: 1 } };
const AFTER = {
  set: "said",
  twice: "second",
  parent: { a: 1, b: 3 },
  merge: { a: 1, deep: { path: 2 }, keep: true },
  priority: { ".value": "said", ".priority": 7 },
  count: 42,
  cancelled: "here",
  below: "here",
  part: { a: 1, b: 2 },
  canary: "gone",
};
/** Locations that may only ever be seen as they were, and as they are in the end. */
const ONCE = ["set", "twice", "remove", "priority", "count", "at", "cancelled", "below", "part", "canary"];

async function checkDeparture(t, family, way) {
  const namespace = fresh();
  const watcher = await client(t, server, namespace);
  await watcher.ref().set(BEFORE);
  const seen = Object.fromEntries(
    await Promise.all(ONCE.map(async (path) => [path, await watch(watcher.ref(path), "value", (snap) => snap.exportVal())])),
  );
  const whole = await watch(watcher.ref(), "value", (snap) => snap.exportVal());
  const { peer, go } = await departing(t, server, way, { family, namespace });
  await peer.run(leaveLastWords);
  await settle(watcher);
  for (const path of ONCE) assert.deepEqual(seen[path].seen, [BEFORE[path] ?? null], `${path} is not early`);

  const left = Date.now();
  await go();
  await whole.until((values) => values.at(-1).canary === "gone" && values.at(-1).at, "the last words");
  await settle(watcher);
  const { at, marks, ...end } = whole.seen.at(-1);
  assert.deepEqual(end, AFTER);
  assert.ok(at >= left - 5_000 && at <= Date.now() + 5_000, `the time of the end: ${left} <= ${at}`);
  for (const path of ONCE) {
    const now = path === "at" ? at : (AFTER[path] ?? null);
    const was = BEFORE[path] ?? null;
    const expected = JSON.stringify(was) === JSON.stringify(now) ? [was] : [was, now];
    assert.deepEqual(seen[path].seen, expected, `${path}, once`);
  }
}

describe("every kind of last words", { concurrency: 3 }, () => {
  for (const family of FAMILIES) {
    describe(family, { concurrency: 3 }, () => {
      for (const [goes, way] of Object.entries(WAYS)) test(goes, (t) => checkDeparture(t, family, way));
    });
  }
});

describe("answers", { concurrency: 3 }, () => {
  for (const family of FAMILIES) {
    test(`${family}: promises resolve and callbacks are called without an error`, async (t) => {
      const { peer } = await departing(t, server, WAYS["kill -9"], { family, namespace: fresh() });
      const answers = await peer.run(async (client) => {
        const calls = { set: [1], update: [{ a: 1 }], remove: [], setWithPriority: [1, "p"], cancel: [] };
        const answers = {};
        for (const [name, args] of Object.entries(calls)) {
          const promised = await client.ref("x").onDisconnect()[name](...args);
          const called = await new Promise((resolve) => client.ref("x").onDisconnect()[name](...args, resolve));
          answers[name] = [promised ?? null, called ?? null];
        }
        return answers;
      });
      for (const [name, answer] of Object.entries(answers)) assert.deepEqual(answer, [null, null], name);
    });
  }
});

describe("order and number", { concurrency: 3 }, () => {
  /** Goes after registering `paths` in turn; gives the order in which a watcher saw them. */
  async function orderSeen(t, paths) {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const order = new Record("order of last words");
    for (const path of paths) watcher.ref(path).on("value", (snap) => snap.exists() && order.add(path));
    await settle(watcher);
    const { peer, go } = await departing(t, server, WAYS["kill -9"], { family: "modular", namespace });
    await peer.run(async (client, paths) => {
      for (const path of paths) await client.ref(path).onDisconnect().set("gone");
    }, paths);
    await go();
    await order.until((seen) => seen.length === paths.length, "all of them");
    return order.seen;
  }

  test("one user's words come in the order in which they were registered", async (t) => {
    const paths = ["users/joe/z", "users/joe/a", "users/joe/m/n", "users/joe/b"];
    assert.deepEqual(await orderSeen(t, paths), paths);
  });

  test("so do words all over the tree", async (t) => {
    const paths = [7, 3, 5, 0, 6, 2, 4, 1].map((user) => `users/u${user}/status`);
    assert.deepEqual(await orderSeen(t, paths), paths);
  });

  test("words are not repeated when the client comes back, nor when it goes again", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const count = await watch(watcher.ref("count"));
    const { peer } = await departing(t, server, WAYS["kill -9"], { family: "modular", namespace });
    await peer.run((client) => client.ref("count").onDisconnect().set(client.increment(1)));
    await peer.run((client) => void client.goOffline());
    await count.untilLast(1);
    await peer.run(async (client) => {
      client.goOnline();
      await client.ref("canary").onDisconnect().set("gone");
    });
    const canary = await watch(watcher.ref("canary"));
    await peer.kill();
    await canary.untilLast("gone");
    await settle(watcher);
    assert.deepEqual(count.seen, [null, 1]);
  });

  test("a process that was found frozen and thaws has spoken once", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const count = await watch(watcher.ref("count"));
    const { peer } = await departing(t, server, WAYS["kill -9"], { family: "modular", namespace });
    await peer.run((client) => client.ref("count").onDisconnect().set(client.increment(1)));
    peer.freeze();
    await count.untilLast(1);
    peer.thaw();
    // It finds its connection closed and comes back.
    await peer.run((client) => client.ref("back").set(true));
    const canary = await watch(watcher.ref("canary"));
    await peer.run((client) => client.ref("canary").onDisconnect().set("gone"));
    await peer.kill();
    await canary.untilLast("gone");
    await settle(watcher);
    assert.deepEqual(count.seen, [null, 1]);
  });

  test("fifty sessions of a killed process each speak once", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const count = await watch(watcher.ref("count"));
    const url = server.url(namespace);
    const { peer } = await departing(t, server, WAYS["kill -9"], { family: "modular", namespace });
    await peer.run(async (_, { url, count }) => {
      const [app, database] = [await import("firebase/app"), await import("firebase/database")];
      for (let n = 0; n < count; n++) {
        const db = database.getDatabase(app.initializeApp({ databaseURL: url }, `crowd${n}`));
        await database.onDisconnect(database.ref(db, "count")).set(database.increment(1));
        await database.onDisconnect(database.ref(db, `gone/${n}`)).set(true);
      }
    }, { url, count: 50 });
    const gone = await watch(watcher.ref("gone"), "value", (snap) => snap.numChildren());
    await peer.kill();
    await gone.untilLast(50);
    await settle(watcher);
    assert.equal(count.seen.at(-1), 50);
  });
});

describe("the living", () => {
  test("a client that only answers pings outlives its neighbour's silence", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const [idle, silent] = [await watch(watcher.ref("idle")), await watch(watcher.ref("silent"))];
    const word = (client, path) => client.ref(path).onDisconnect().set("gone");
    const living = await departing(t, server, WAYS["kill -9"], { family: "modular", namespace });
    await living.peer.run(word, "idle");
    // Twice the timeout after the living one last said something of its own.
    for (let round = 1; round <= 2; round++) {
      const dying = await departing(t, server, WAYS["a frozen process"], { family: "modular", namespace });
      await dying.peer.run(word, "silent");
      await dying.go();
      await silent.untilLast("gone");
      await watcher.ref("silent").remove();
      await silent.untilLast(null);
    }
    await settle(watcher);
    assert.deepEqual(idle.seen, [null]);
    await living.go();
    await idle.untilLast("gone");
  });
});
