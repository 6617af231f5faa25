// Pages without WebSocket, or before it: Firebase's long polling, and Wilddog's polling with and without its way
// to a WebSocket, in a real browser.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createServer } from "node:http";
import { once } from "node:events";
import { readFileSync } from "node:fs";

import { chromium } from "playwright-core";

import { IMPATIENT, Server } from "./lib/server.mjs";
import { soon } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";

const VERSION = JSON.parse(readFileSync(new URL("node_modules/firebase/package.json", import.meta.url))).version;
const GSTATIC = `https://www.gstatic.com/firebasejs/${VERSION}/firebase-app.js`;
const HEAD = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">';
const PAGES = new Map([
  ["/firebase", `${HEAD}<script type="importmap">{"imports":{"${GSTATIC}":"/firebase/firebase-app.js"}}</script><body></body>`],
  ["/wilddog", `${HEAD}<body><script src="/wilddog/lib/wilddog-web-all.js"></script></body>`],
]);

let server;
let browser;
let site;
before(async () => {
  server = await Server.start({ config: IMPATIENT });
  site = createServer((request, response) => {
    const page = PAGES.get(request.url);
    response.setHeader("Content-Type", page ? "text/html" : "text/javascript");
    response.end(page ?? readFileSync(new URL(`node_modules${request.url}`, import.meta.url)));
  }).listen(0, "127.0.0.1");
  await once(site, "listening");
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
});
after(async () => {
  await browser?.close();
  site?.close();
  await server?.stop();
});

let runs = 0;
const fresh = () => `page${++runs}`;

/** What a page does to be a client: gives `ref`, `words`, `goOffline`, `goOnline`. */
const CLIENTS = {
  "Firebase, long polling": {
    page: "firebase",
    sockets: 0,
    begin: async ({ port, namespace }) => {
      const { initializeApp } = await import("/firebase/firebase-app.js");
      const m = await import("/firebase/firebase-database.js");
      m.forceLongPolling();
      const database = m.getDatabase(initializeApp({ databaseURL: `http://127.0.0.1:${port}?ns=${namespace}` }));
      const then = (promise, callback) => promise.then(() => callback(null), callback);
      window.ref = (path) => {
        const at = m.ref(database, path);
        return {
          set: (value, callback) => then(m.set(at, value), callback),
          remove: (callback) => then(m.remove(at), callback),
          on: (_, callback) => m.onValue(at, callback),
          onDisconnect: () => ({ set: (value, callback) => then(m.onDisconnect(at).set(value), callback) }),
        };
      };
      window.goOffline = () => m.goOffline(database);
      window.goOnline = () => m.goOnline(database);
    },
  },
  "Wilddog, polling and WebSocket": { page: "wilddog", sockets: 1, begin: beginWilddog },
  "Wilddog, WebSocket only": { page: "wilddog", sockets: 1, begin: beginWilddog, options: { websocketOnly: true } },
  "Wilddog, polling only": { page: "wilddog", sockets: 0, begin: beginWilddog, withoutSocket: true },
};

function beginWilddog({ port, namespace, options }) {
  const { open } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    return open.call(this, method, url.replace("https://ns.wilddog.com", `http://127.0.0.1:${port}`), ...rest);
  };
  wilddog.initializeApp({
    authDomain: `${namespace}.wilddog.com`,
    syncURL: `http://${namespace}.a.localhost:${port}`,
    ...options,
  });
  window.ref = (path) => wilddog.sync().ref(path);
  window.goOffline = () => wilddog.sync().goOffline();
  window.goOnline = () => wilddog.sync().goOnline();
}

/** A page with a client; says how many WebSockets carry it. */
async function open(t, { page: name, begin, options, withoutSocket }, namespace) {
  const page = await browser.newPage();
  t.after(() => page.close().catch(() => {}));
  page.sockets = 0;
  page.on("websocket", (socket) => {
    page.sockets += 1;
    socket.on("close", () => (page.sockets -= 1));
  });
  if (withoutSocket) await page.addInitScript(() => delete window.WebSocket);
  await page.goto(`http://127.0.0.1:${site.address().port}/${name}`);
  await page.evaluate(begin, { port: server.port, namespace, options });
  return page;
}

/** Calls a method of a reference in the page and waits for its callback. */
const call = (page, path, method, ...args) =>
  soon(
    `${method} at ${path}`,
    page.evaluate(
      ([path, method, args]) => {
        const [first, second] = method.split(".");
        const on = second ? ref(path)[first]() : ref(path);
        return new Promise((done, failed) => on[second ?? first](...args, (error) => (error ? failed(error) : done())));
      },
      [path, method, args],
    ),
  );

for (const [name, kind] of Object.entries(CLIENTS)) {
  describe(name, () => {
    test("writes and hears", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const page = await open(t, kind, namespace);
      const seen = await watch(watcher.ref("a"));
      const text = "é漢 <script> \u2028 ".repeat(3_000);
      await call(page, "a", "set", { text });
      await seen.untilLast({ text });
      await page.evaluate(() => {
        window.heard = [];
        ref("b").on("value", (snap) => heard.push(snap.val()));
      });
      for (let n = 1; n <= 20; n++) await watcher.ref("b").set(`${text}${n}`);
      await soon("the last", page.waitForFunction((last) => heard.at(-1) === last, `${text}20`));
      await call(page, "b", "remove");
      assert.equal(await page.evaluate(() => heard.at(-1)), null);
      assert.equal(page.sockets, kind.sockets, "as many WebSockets as there may be");
    });

    const ways = {
      "goOffline()": (page) => page.evaluate(() => void goOffline()),
      "closing the tab": (page) => page.close({ runBeforeUnload: false }),
      "leaving the page": (page) => page.goto("about:blank"),
    };
    for (const [wayName, go] of Object.entries(ways)) {
      test(`last words: ${wayName}`, async (t) => {
        const namespace = fresh();
        const watcher = await client(t, server, namespace);
        const page = await open(t, kind, namespace);
        await call(page, "s", "onDisconnect.set", "gone");
        await call(page, "s", "set", "here");
        const seen = await watch(watcher.ref("s"));
        // Longer than the server would wait for a sign of life.
        await new Promise((done) => setTimeout(done, 6_000));
        await settle(watcher);
        assert.deepEqual(seen.seen, ["here"], "not early");
        await go(page);
        await seen.untilLast("gone");
      });
    }

    test("comes back", async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const page = await open(t, kind, namespace);
      await call(page, "a", "set", 1);
      await page.evaluate(() => {
        window.heard = [];
        ref("a").on("value", (snap) => heard.push(snap.val()));
        goOffline();
      });
      await watcher.ref("a").set(2);
      await page.evaluate(() => goOnline());
      await soon("the value", page.waitForFunction(() => heard.at(-1) === 2));
    });
  });
}
