// The SDKs in a real browser: the same programs, and the ways in which only a browser goes.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Site, connect, launch, launchServer, page } from "./lib/browser.mjs";
import { FAMILIES } from "./lib/families.mjs";
import { Network } from "./lib/network.mjs";
import { IMPATIENT, Server } from "./lib/server.mjs";
import { Record, soon } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";

let server;
let site;
let browser;
before(async () => {
  [server, site, browser] = await Promise.all([Server.start({ config: IMPATIENT }), Site.start(), launch()]);
});
after(async () => {
  await browser?.close();
  site?.close();
  await server?.stop();
});

let runs = 0;
const fresh = () => `tab${++runs}`;

/** A tab with the page of `setup`, loaded and connected. */
async function tab(t, setup, { port, from = browser } = {}) {
  const context = await from.newContext();
  t.after(() => soon("the tab's end", context.close().catch(() => {})));
  const tab = await context.newPage();
  const problems = new Record("problems of the page");
  tab.on("pageerror", (error) => problems.add(error.message));
  const said = new Record("console");
  tab.on("console", (line) => said.add(line.text()));
  const asked = new Record("addresses");
  tab.on("request", (request) => asked.add(request.url()));
  tab.on("websocket", (socket) => asked.add(socket.url()));
  await tab.goto(site.publish(page({ ...setup, url: server.url(setup.namespace, port) })));
  await soon(() => `the page's client; ${problems.seen}; ${said.seen}`, tab.waitForFunction(() => window.client));
  return { tab, said, asked };
}

/** How a tab can go. */
const WAYS = {
  "goOffline()": { go: ({ tab }) => tab.evaluate(() => window.client.goOffline()) },
  "closing the tab": { go: ({ tab }) => tab.close() },
  "closing the tab, with its farewells": { go: ({ tab }) => tab.close({ runBeforeUnload: true }) },
  "going to another page": { go: ({ tab }) => tab.goto("about:blank") },
  "a crash of the tab": { go: ({ tab }) => void tab.goto("chrome://crash").catch(() => {}) },
  "a network that swallows": { go: ({ network }) => network.swallow(), needsNetwork: true },
};

const isRecent = (value) => Math.abs(value - Date.now()) < 60_000;
const PROGRAMS = [
  { name: "set", parts: ["set"], path: "disconnectmessage", expected: [null, "I disconnected!"] },
  { name: "set, then remove", parts: ["set", "remove"], path: "disconnectmessage", before: "here", expected: ["here", null] },
  { name: "set, then cancel", parts: ["set", "cancel"], path: "disconnectmessage", before: "here", expected: ["here"] },
  { name: "server timestamp", parts: ["last-online"], path: "users/joe/lastOnline", expected: [null, isRecent] },
];

async function checkDeparture(t, { family, way, parts, path, before, expected }) {
  const namespace = fresh();
  const watcher = await client(t, server, namespace);
  if (before !== undefined) await watcher.ref(path).set(before);
  const [seen, canary] = [await watch(watcher.ref(path)), await watch(watcher.ref("canary"))];
  const network = way.needsNetwork ? await Network.to(server.port) : undefined;
  t.after(() => network?.close());
  const opened = await tab(t, { family, namespace, program: parts }, { port: network?.port });
  await opened.tab.evaluate(async () => {
    await window.client.connected();
    await window.client.lastWord("canary", "gone");
  });
  await settle(watcher);
  assert.deepEqual(seen.seen, [before ?? null], "nothing is early");
  await way.go({ ...opened, network });
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

for (const family of FAMILIES) {
  describe(`${family} in Chromium`, { concurrency: 2 }, () => {
    for (const { name, ...program } of PROGRAMS) {
      for (const [goes, way] of Object.entries(WAYS)) {
        test(`${name}: ${goes}`, (t) => checkDeparture(t, { family, way, ...program }));
      }
    }

    test("presence application in two tabs", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const joe = await watch(watcher.ref("users/joe"));
      const devices = (value) => Object.keys(value?.connections ?? {}).length;
      const setup = { family, namespace, program: ["presence"] };
      const first = await tab(t, setup);
      await joe.until((seen) => devices(seen.at(-1)) === 1, "one tab");
      const second = await tab(t, setup);
      await joe.until((seen) => devices(seen.at(-1)) === 2, "two tabs");
      await first.tab.close();
      await joe.until((seen) => devices(seen.at(-1)) === 1 && isRecent(seen.at(-1).lastOnline), "one tab left");
      // A page that is loaded again is a new device, and the old one is gone.
      const before = Object.keys(joe.seen.at(-1).connections)[0];
      await second.tab.reload();
      await joe.until((seen) => {
        const now = Object.keys(seen.at(-1)?.connections ?? {});
        return now.length === 1 && now[0] !== before;
      }, "the same tab as a new device");
      await second.tab.close();
      await joe.until((seen) => devices(seen.at(-1)) === 0, "nobody left");
      await settle(watcher);
      assert.deepEqual(Object.keys(joe.seen.at(-1)), ["lastOnline"]);
    });

    test("connection state and clock skew", async (t) => {
      const { tab: connected, said } = await tab(t, { family, namespace: fresh(), program: ["connected"] });
      const lines = () => said.seen.filter((line) => /^(not )?connected$/.test(line));
      const until = (expected) => said.until(() => JSON.stringify(lines()) === JSON.stringify(expected), `${expected}`);
      await until(["not connected", "connected"]);
      await connected.evaluate(() => window.client.goOffline());
      await until(["not connected", "connected", "not connected"]);
      const { tab: offset } = await tab(t, { family, namespace: fresh(), program: ["offset"] });
      const skew = await offset.evaluate(() => window.client.connected().then(() => window.client.offset()));
      assert.ok(Math.abs(skew) < 30_000);
    });

    test("data both ways, long and short", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const { tab: here } = await tab(t, { family, namespace });
      await here.evaluate(async () => {
        window.seen = [];
        window.client.ref("down").on("value", (snap) => window.seen.push(snap.val()?.length ?? 0));
        await window.client.ref("up").set({ text: "漢字 ".repeat(300_000), list: [1, 2, 3] });
        await window.client.ref("n").transaction((now) => (now ?? 0) + 1);
      });
      assert.deepEqual((await watcher.ref("up").get()).val(), { text: "漢字 ".repeat(300_000), list: [1, 2, 3] });
      assert.equal((await watcher.ref("n").get()).val(), 1);
      await watcher.ref("down").set("x".repeat(2_000_000));
      await soon("the long text in the page", here.waitForFunction(() => window.seen.at(-1) === 2_000_000));
      await watcher.ref("down").remove();
      await soon("its end", here.waitForFunction(() => window.seen.at(-1) === 0));
      const keys = await here.evaluate(async () => {
        for (const [key, n] of [["a", 3], ["b", 1], ["c", 2]]) await window.client.ref(`list/${key}`).set({ n });
        const snap = await window.client.ref("list").orderByChild("n").limitToLast(2).get();
        return Object.keys(snap.val());
      });
      assert.deepEqual(keys, ["a", "c"]);
    });

    const withoutWebSockets = {
      "by long polling, where there are no WebSockets": "window.WebSocket = undefined;",
      "by long polling first, where a WebSocket has failed before":
        "localStorage.setItem('firebase:previous_websocket_failure', 'true');",
    };
    for (const [name, before] of Object.entries(withoutWebSockets)) test(name, async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const [up, gone] = [await watch(watcher.ref("up")), await watch(watcher.ref("gone"))];
      const { tab: here, asked } = await tab(t, { family, namespace, before });
      await here.evaluate(async () => {
        window.seen = [];
        window.client.ref("down").on("value", (snap) => window.seen.push(snap.val()));
        await window.client.ref("up").set("hello");
        await window.client.ref("up").set("long ".repeat(20_000));
        await window.client.ref("gone").onDisconnect().set("gone");
      });
      await up.untilLast("long ".repeat(20_000));
      for (const value of ["one", "two", "three ".repeat(20_000)]) {
        await watcher.ref("down").set(value);
        await soon("the value in the page", here.waitForFunction((value) => window.seen.at(-1) === value, value));
      }
      assert.deepEqual(gone.seen, [null]);
      assert.ok(asked.seen.some((url) => url.includes("/.lp?")), `${asked.seen}`);
      if (name.includes("no WebSockets")) assert.ok(!asked.seen.some((url) => url.includes("/.ws?")), "no WebSocket");
      await here.close();
      await gone.untilLast("gone");
    });
  });
}

test("kill -9 of the whole browser", async (t) => {
  const namespace = fresh();
  const watcher = await client(t, server, namespace);
  const doomed = await launchServer();
  t.after(() => doomed.close().catch(() => {}));
  const from = await connect(doomed);
  const status = await Promise.all([0, 1, 2].map((n) => watch(watcher.ref(`status/${n}`))));
  for (const [n, family] of FAMILIES.entries()) {
    const { tab: opened } = await tab(t, { family, namespace }, { from });
    await opened.evaluate(async (path) => {
      await window.client.ref(path).set("online");
      await window.client.ref(path).onDisconnect().set("offline");
    }, `status/${n}`);
  }
  doomed.process().kill("SIGKILL");
  for (const one of status) {
    await one.untilLast("offline");
    assert.deepEqual(one.seen, [null, "online", "offline"]);
  }
});
