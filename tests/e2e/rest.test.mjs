// The REST API and streams, as curl and browsers use them.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

import { IMPATIENT, Server } from "./lib/server.mjs";
import { Record, soon } from "./lib/until.mjs";

const run = promisify(execFile);
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

let server;
before(async () => (server = await Server.start({ config: IMPATIENT })));
after(() => server?.stop());

/** The address of a location: `at("chat")("/a/b", "print=pretty")`. */
const at = (ns) => (path, params = "") => `http://127.0.0.1:${server.port}${path}.json?ns=${ns}${params && `&${params}`}`;

/** Runs curl; gives what it prints. */
const curl = async (...args) => (await run("curl", ["--silent", "--show-error", "--max-time", "60", ...args])).stdout;

/** Runs curl for the status alone. */
const status = async (...args) => Number(await curl("-o", "/dev/null", "-w", "%{http_code}", ...args));

describe("curl", { concurrency: 2 }, () => {
  test("the examples of the documentation", async () => {
    const url = at("docs");
    const put = `{ "alanisawesome": { "name": "Alan Turing", "birthday": "June 23, 1912" } }`;
    assert.deepEqual(JSON.parse(await curl("-X", "PUT", "-d", put, url("/users"))), JSON.parse(put));
    assert.equal(await curl(url("/users/alanisawesome/name")), '"Alan Turing"');
    const pushed = JSON.parse(await curl("-X", "POST", "-d", '{"user_id" : "jack", "text" : "Ahoy!"}', url("/message_list")));
    assert.match(pushed.name, /^[-\w]{20}$/);
    assert.deepEqual(JSON.parse(await curl("-X", "PATCH", "-d", '{"nickname": "Alan The Machine"}', url("/users/alanisawesome"))), {
      nickname: "Alan The Machine",
    });
    assert.equal(await curl("-X", "DELETE", url("/users/alanisawesome/birthday")), "null");
    assert.deepEqual(JSON.parse(await curl(url("/users", "print=pretty"))), {
      alanisawesome: { name: "Alan Turing", nickname: "Alan The Machine" },
    });
    assert.equal(await status("-X", "PUT", "-d", "1", url("/x", "print=silent")), 204);
    assert.equal(await curl("-X", "POST", "-H", "X-HTTP-Method-Override: DELETE", url("/x")), "null");
    assert.equal(await curl("-G", url("/users"), "--data-urlencode", "shallow=true"), '{"alanisawesome":true}');
  });

  test("the server's time", async () => {
    const time = Number(await curl(`http://127.0.0.1:${server.port}/.json?sv=timestamp`));
    assert.ok(Math.abs(time - Date.now()) < 60_000, `${time}`);
  });

  test("queries, encoded by curl", async () => {
    const url = at("dinosaurs");
    await curl("-X", "PUT", "-d", '{"a":{"height":3},"b":{"height":1},"c":{"height":2}}', url("/d"));
    const query = (...params) => curl("-G", url("/d"), ...params.flatMap((param) => ["--data-urlencode", param]));
    assert.equal(await query('orderBy="height"', "startAt=2"), '{"c":{"height":2},"a":{"height":3}}');
    assert.equal(await query('orderBy="$key"', 'startAt="b"', "limitToFirst=1"), '{"b":{"height":1}}');
    assert.match(await query("orderBy=height"), /orderBy must be a valid JSON encoded path/);
  });

  test("conditions", async () => {
    const url = at("etags")("/n");
    const head = await curl("-i", "-H", "X-Firebase-ETag: true", url);
    assert.match(head, /^etag: null_etag\r$/im);
    assert.equal(await status("-X", "PUT", "-d", "1", "-H", "if-match: null_etag", url), 200);
    assert.equal(await status("-X", "PUT", "-d", "2", "-H", "if-match: null_etag", url), 412);
    assert.equal(await curl(url), "1");
  });

  test("a large location, plain, compressed and by its head", async () => {
    const url = at("large")("/l");
    const large = Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`k${n}`, { n, text: "x".repeat(n % 50) }]));
    const sent = spawn("curl", ["-s", "-X", "PUT", "-T", "-", url, "-o", "/dev/null"], { stdio: ["pipe", "inherit", "inherit"] });
    sent.stdin.end(JSON.stringify(large));
    await once(sent, "exit");
    const [plain, packed] = await Promise.all([fetch(url, { headers: { "accept-encoding": "identity" } }), fetch(url)]);
    assert.equal(packed.headers.get("content-encoding"), "gzip");
    assert.deepEqual(await plain.json(), large);
    assert.deepEqual(await packed.json(), large);
    assert.equal(await status("-I", url), 200);
  });

  test("a client that sends too slowly is told so", async () => {
    const socket = connect(server.port, "127.0.0.1");
    let heard = "";
    socket.on("data", (bytes) => (heard += bytes));
    await once(socket, "connect");
    socket.write("PUT /x.json?ns=slow HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    const drip = setInterval(() => socket.write("1"), 500);
    await soon("the connection is closed", once(socket, "close"));
    clearInterval(drip);
    assert.match(heard, /^HTTP\/1.1 408 [^]*the request body came too slowly/);
  });

  test("more than may be sent is refused at once", async () => {
    const url = at("long")("/x");
    assert.equal(await status("-X", "PUT", "-H", `Content-Length: ${1 << 30}`, "-H", "Expect:", "-d", "1", url), 413);
    assert.equal(await status("-H", `X: ${"a".repeat(100_000)}`, url), 431);
  });
});

/** A stream that curl reads: what it prints grows in `seen`, event by event. */
function stream(url) {
  const child = spawn("curl", ["-sNi", "-H", "Accept: text/event-stream", url]);
  const seen = new Record("events");
  const fields = (text) => Object.fromEntries(text.split("\n").map((line) => line.trimEnd().split(/: (.*)/).slice(0, 2)));
  let text = "";
  let head;
  child.stdout.on("data", (bytes) => {
    text += bytes;
    if (!head) {
      const end = text.indexOf("\r\n\r\n");
      if (end < 0) return;
      head = fields(text.slice(0, end));
      text = text.slice(end + 4);
    }
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) seen.add(fields(event));
  });
  return { child, seen, id: () => head["Stillhere-Stream"] };
}

describe("streams", { concurrency: 2 }, () => {
  test("values, changes, signs of life", async (t) => {
    const url = at("events");
    await curl("-X", "PUT", "-d", '{"a":1}', url("/s"));
    const { child, seen } = stream(url("/s"));
    t.after(() => child.kill());
    await seen.until((seen) => seen.some((event) => event.data === '{"path":"/","data":{"a":1}}'), "the first value");
    await curl("-X", "PUT", "-d", "2", url("/s/b"));
    await curl("-X", "PATCH", "-d", '{"c":3,"d":4}', url("/s"));
    const expected = ["put", '{"path":"/b","data":2}', "patch", '{"path":"/","data":{"c":3,"d":4}}'];
    const flat = (seen) => seen.filter(({ event }) => event !== "keep-alive").slice(1).flatMap(({ event, data }) => [event, data]);
    await seen.until((seen) => JSON.stringify(flat(seen)) === JSON.stringify(expected), "both changes");
    await seen.until((seen) => seen.some(({ event, data }) => event === "keep-alive" && data === "null"), "a keep-alive");
  });

  for (const signal of ["SIGTERM", "SIGKILL"]) {
    test(`last words left with a stream are spoken when its client goes by ${signal}`, async (t) => {
      const url = at(`words-${signal}`.toLowerCase());
      const { child, seen, id } = stream(url("/users/joe"));
      t.after(() => child.kill());
      await seen.until((seen) => seen.length > 0, "the stream is open");
      const word = (path) => url(path, `onDisconnect=${id()}`);
      assert.equal(await status("-X", "PUT", "-d", '"offline"', word("/users/joe/state")), 200);
      assert.equal(await status("-X", "PUT", "-d", '{".sv":"timestamp"}', word("/users/joe/lastSeen")), 200);
      assert.equal(await status("-X", "PUT", "-d", "1", word("/users/joe/never")), 200);
      assert.equal(await status("-X", "DELETE", url("/users/joe/never", `onDisconnect=${id()}&cancel=true`)), 200);
      await curl("-X", "PUT", "-d", '"online"', url("/users/joe/state"));
      const watcher = stream(url("/users/joe"));
      t.after(() => watcher.child.kill());
      await watcher.seen.until((seen) => seen.some(({ data }) => data.includes('"online"')), "online");
      child.kill(signal);
      await watcher.seen.until((seen) => seen.some(({ data }) => data.includes("lastSeen")), "the last word");
      const left = JSON.parse(await curl(url("/users/joe")));
      assert.equal(left.state, "offline");
      assert.ok(Math.abs(left.lastSeen - Date.now()) < 60_000);
      assert.equal(left.never, undefined);
      assert.equal(await status("-X", "PUT", "-d", "1", word("/users/joe/late")), 404);
    });
  }
});

test("EventSource in a browser: hears, comes back by itself, and its last words come first", async (t) => {
  const url = at("browser");
  // The page is of another origin than the data, as pages are.
  const site = createServer((_, response) => response.setHeader("content-type", "text/html").end("<title>page</title>"));
  await once(site.listen(0, "127.0.0.1"), "listening");
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  t.after(async () => {
    await browser.close();
    site.close();
  });
  const page = await browser.newPage();
  const seen = new Record("what the page heard");
  await page.exposeFunction("heard", (event, data, id) => seen.add({ event, data: JSON.parse(data), id }));
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.evaluate((address) => {
    globalThis.source = new EventSource(address);
    for (const name of ["put", "patch"]) {
      globalThis.source.addEventListener(name, ({ data, lastEventId }) => globalThis.heard(name, data, lastEventId));
    }
  }, url("/joe"));
  await seen.until((seen) => seen.length === 1, "the first value");
  const { id } = seen.seen[0];
  const answer = await page.evaluate(
    async ([word, now]) => {
      await fetch(word, { method: "PUT", body: '"offline"' });
      return (await fetch(now, { method: "PUT", body: '"online"' })).json();
    },
    [url("/joe/state", `onDisconnect=${id}`), url("/joe/state")],
  );
  assert.equal(answer, "online");
  await seen.until((seen) => seen.at(-1).data.data === "online", "online");
  await page.goto("about:blank");
  for (;;) {
    if ((await curl(url("/joe/state"))) === '"offline"') break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
});
