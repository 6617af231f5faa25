// A server that may have only so much memory: it says no, by name, and lives.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Raw } from "./lib/raw.mjs";
import { Server } from "./lib/server.mjs";

const FULL = /memory is full/;
const put = (raw, path, value) => raw.ask("p", { p: path, d: value });

describe("a server that is given too much to keep", () => {
  let server;
  before(async () => {
    server = await Server.start({ config: 'memory_max = "64MiB"\n' });
  });
  after(() => server.stop());

  test("refuses by name, takes deletes, speaks last words, and then goes on", async (t) => {
    const writer = await Raw.open(t, server, "full");
    const leaver = await Raw.open(t, server, "full");
    assert.equal((await leaver.ask("o", { p: "left", d: "gone" })).s, "ok");
    let count = 0;
    let answer;
    do {
      // Different each time, so that nothing is shared.
      answer = await put(writer, `big/${count}`, `${count}`.padEnd(512 * 1024, "x"));
      count += answer.s === "ok" ? 1 : 0;
      assert.ok(count < 400, "64 MiB have no room for 200");
    } while (answer.s === "ok");
    assert.match(answer.d, FULL);
    assert.ok(count > 20, `${count} of half a MiB fit`);
    // Nobody new, and no new data by another door.
    const refused = await fetch(`http://127.0.0.1:${server.port}/more.json?ns=full`, { method: "PUT", body: "1" });
    assert.match(await refused.text(), FULL);
    const headers = { Accept: "text/event-stream" };
    const response = await fetch(`http://127.0.0.1:${server.port}/more.json?ns=full`, { headers });
    assert.equal(response.status, 503);
    assert.match(await response.text(), FULL);
    // What was left is spoken.
    leaver.socket.terminate();
    const read = async (path) => (await fetch(`http://127.0.0.1:${server.port}${path}.json?ns=full`)).json();
    const deadline = Date.now() + 60_000;
    while ((await read("/left")) !== "gone") assert.ok(Date.now() < deadline);
    assert.equal((await put(writer, "big", null)).s, "ok");
    // What is deleted is dropped a little at a time.
    do answer = await put(writer, "small", 1);
    while (answer.s !== "ok" && Date.now() < deadline);
    assert.equal(answer.s, "ok");
    assert.deepEqual(await read("/"), { left: "gone", small: 1 });
    await server.logged(/memory_max is reached/);
  });
});
