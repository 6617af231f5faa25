// The programs of the SDKs' documentation, exactly as printed, against every way to go.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { FAMILIES } from "./lib/families.mjs";
import { IMPATIENT, Server } from "./lib/server.mjs";
import { client, settle, watch } from "./lib/watch.mjs";
import { WAYS, departing } from "./lib/ways.mjs";

const PARALLEL = { concurrency: 4 };

let server;
before(async () => {
  server = await Server.start({ config: IMPATIENT });
});
after(() => server?.stop());

let runs = 0;
const fresh = () => `seed${++runs}`;

/** Everything that can be said after the departure: what the program's own words changed, and a last one. */
async function checkDeparture(t, { family, way, parts, path, before, expected }) {
  const namespace = fresh();
  const watcher = await client(t, server, namespace);
  if (before !== undefined) await watcher.ref(path).set(before);
  const seen = await watch(watcher.ref(path));
  const canary = await watch(watcher.ref("canary"));
  const { peer, go } = await departing(t, server, way, { family, namespace, program: parts });
  await peer.run(async (client) => {
    await client.connected();
    await client.lastWord("canary", "gone");
  });
  await settle(watcher);
  assert.deepEqual(seen.seen, [before ?? null], "nothing is early");
  await go();
  await canary.untilLast("gone");
  await seen.until((values) => values.length >= expected.length);
  await settle(watcher);
  assert.equal(seen.seen.length, expected.length, `once: ${JSON.stringify(seen.seen)}`);
  expected.forEach((value, at) => {
    if (typeof value === "function") assert.ok(value(seen.seen[at]), `${seen.seen[at]}`);
    else assert.deepEqual(seen.seen[at], value);
  });
  assert.deepEqual(canary.seen, [null, "gone"]);
}

const isRecent = (value) => Math.abs(value - Date.now()) < 60_000;
const message = "disconnectmessage";
const PROGRAMS = [
  { name: "set", parts: ["set"], path: message, expected: [null, "I disconnected!"] },
  { name: "set, then remove", parts: ["set", "remove"], path: message, before: "here", expected: ["here", null] },
  { name: "set, then cancel", parts: ["set", "cancel"], path: message, before: "here", expected: ["here"] },
  { name: "server timestamp", parts: ["last-online"], path: "users/joe/lastOnline", expected: [null, isRecent] },
];

describe("documentation", { concurrency: 3 }, () => {
  for (const family of FAMILIES) {
    for (const { name, ...program } of PROGRAMS) {
      describe(`${family}: ${name}`, PARALLEL, () => {
        for (const [goes, way] of Object.entries(WAYS)) {
          test(goes, (t) => checkDeparture(t, { family, way, ...program }));
        }
      });
    }

    describe(`${family}: presence application`, PARALLEL, () => {
      for (const [goes, way] of Object.entries(WAYS)) {
        test(`two devices, the first goes by ${goes}`, async (t) => {
          const namespace = fresh();
          const watcher = await client(t, server, namespace);
          const joe = await watch(watcher.ref("users/joe"));
          const devices = (value) => Object.keys(value?.connections ?? {}).length;
          const setup = { family, namespace, program: ["presence"] };
          const first = await departing(t, server, way, setup);
          await joe.until((seen) => devices(seen.at(-1)) === 1, "one device");
          const second = await departing(t, server, WAYS["kill -9"], setup);
          await joe.until((seen) => devices(seen.at(-1)) === 2, "two devices");
          // The program leaves its second last word after it shows the device: an answer comes after both.
          for (const { peer } of [first, second]) await peer.run((client) => client.lastWord("canary", "gone"));
          assert.equal(joe.seen.at(-1).lastOnline, undefined, "nobody has gone yet");
          await first.go();
          await joe.until((seen) => devices(seen.at(-1)) === 1 && seen.at(-1).lastOnline, "one device left");
          const firstGone = joe.seen.at(-1).lastOnline;
          assert.ok(isRecent(firstGone));
          const back = way.comesBack ? [2, 1] : [];
          if (way.comesBack) {
            await joe.until((seen) => devices(seen.at(-1)) === 2, "the first has come back");
            await first.peer.kill();
            await joe.until((seen) => devices(seen.at(-1)) === 1, "it has gone again");
          }
          await second.go();
          await joe.until((seen) => devices(seen.at(-1)) === 0 && seen.at(-1).lastOnline > firstGone, "nobody left");
          await settle(watcher);
          assert.deepEqual(Object.keys(joe.seen.at(-1)), ["lastOnline"]);
          const counts = joe.seen.map(devices).filter((count, at, all) => count !== all[at - 1]);
          assert.deepEqual(counts, [0, 1, 2, 1, ...back, 0], "devices come and go once");
        });
      }
    });

    describe(`${family}: connection state`, PARALLEL, () => {
      test("is false, true, false again after goOffline(), and true after goOnline()", async (t) => {
        const { peer } = await departing(t, server, WAYS["kill -9"], { family, namespace: fresh(), program: ["connected"] });
        const said = (lines) => (seen) => JSON.stringify(seen) === JSON.stringify(lines);
        await peer.output.until(said(["not connected", "connected"]));
        await peer.run((client) => void client.goOffline());
        await peer.output.until(said(["not connected", "connected", "not connected"]));
        await peer.run((client) => void client.goOnline());
        await peer.output.until(said(["not connected", "connected", "not connected", "connected"]));
      });

      test("follows a broken network", async (t) => {
        const way = WAYS["a network that resets"];
        const { peer, go } = await departing(t, server, way, { family, namespace: fresh(), program: ["connected"] });
        await peer.output.until((seen) => seen.at(-1) === "connected");
        await go();
        await peer.output.until((seen) => seen.filter((line) => line === "connected").length === 2, "connected again");
        assert.deepEqual(peer.output.seen, ["not connected", "connected", "not connected", "connected"]);
      });

      test("clock skew is known", async (t) => {
        const { peer } = await departing(t, server, WAYS["kill -9"], { family, namespace: fresh(), program: ["offset"] });
        // One machine, one clock: only the way there counts.
        assert.ok(Math.abs(await peer.run((client) => client.connected().then(() => client.offset()))) < 30_000);
      });
    });
  }
});
