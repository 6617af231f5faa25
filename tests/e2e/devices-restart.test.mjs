// Devices whose server ends and begins again: they cannot notice, and so must not.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { CODE, Device, text } from "./lib/coap.mjs";
import { Server } from "./lib/server.mjs";

const ROUNDS = Number(process.env.STILLHERE_ROUNDS ?? 6);
const MINE = JSON.stringify({ rules: { ".read": true, ".write": true, mine: { ".write": "auth.uid === 'lamp'" } } });

/** What a developer's server believes. */
function unsigned(uid) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "none" })}.${part({ sub: uid })}.`;
}

/** A server that can be ended and begun again at the same addresses. */
class Life {
  constructor(t, config = "") {
    this.folder = mkdtempSync(join(tmpdir(), "stillhere-e2e-"));
    this.t = t;
    this.config = config;
    this.coap = "127.0.0.1:0";
    t.after(() => rmSync(this.folder, { recursive: true, force: true }));
  }

  async start(shards) {
    const config = `[coap]\nlisten = "${this.coap}"\n${this.config}`;
    writeFileSync(join(this.folder, "rules.json"), MINE);
    const args = ["--rules", join(this.folder, "rules.json")];
    const server = await Server.start({ data: join(this.folder, "data"), config, args, ...(shards ? { shards } : {}) });
    this.server = server;
    this.coap = server.ready.coap;
    this.t.after(() => server.program.process.kill("SIGKILL"));
    this.t.after(() => rmSync(server.folder, { recursive: true, force: true }));
  }

  async end(signal) {
    this.server.program.process.kill(signal);
    await this.server.program.ended();
  }

  async read(path) {
    const response = await fetch(`http://127.0.0.1:${this.server.port}${path}.json?ns=myapp`);
    return response.json();
  }

  async until(path, wanted) {
    const deadline = Date.now() + 60_000;
    while (JSON.stringify(await this.read(path)) !== JSON.stringify(wanted)) {
      assert.ok(Date.now() < deadline, `${path} is ${JSON.stringify(await this.read(path))}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Asks as often as it takes: a server that is not there says nothing. */
async function insist(ask) {
  for (let tries = 0; tries < 20; tries += 1) {
    const asked = ask();
    asked.catch(() => {});
    const answer = await Promise.race([asked, new Promise((resolve) => setTimeout(resolve, 4_000))]);
    if (answer) return answer;
  }
  throw new Error("nobody answers");
}

function device(t, life) {
  const device = new Device(life.coap);
  t.after(() => device.die().catch(() => {}));
  return device;
}

describe("a device whose server ends and begins again", { concurrency: 2 }, () => {
  for (const signal of ["SIGKILL", "SIGTERM"]) {
    test(`goes on after ${signal} as if nothing had happened`, async (t) => {
      const life = new Life(t);
      await life.start("1");
      const lamp = device(t, life);
      await lamp.begin(unsigned("lamp"));
      assert.equal((await lamp.observe("/told")).code, CODE.content);
      assert.equal((await lamp.set("/mine", text("on"))).code, CODE.content);
      assert.equal((await lamp.onDisconnectSet("/status", text("off"))).code, CODE.content);
      for (const shards of ["2", "1"]) {
        const { last } = lamp;
        await life.end(signal);
        await life.start(shards);
        // The server speaks first: what is observed, with a newer number.
        await fetch(`http://127.0.0.1:${life.server.port}/told.json?ns=myapp`, { method: "PUT", body: `"${shards}"` });
        await lamp.values.untilLast(text(shards).toString("hex"));
        assert.ok(lamp.last > last, `${lamp.last} after ${last}`);
        assert.equal((await insist(() => lamp.ping())).code, CODE.content);
        assert.equal((await lamp.set("/mine", text(shards))).code, CODE.content, "it is still who it was");
        assert.equal(await life.read("/status"), null, "it is not over");
      }
      assert.equal((await lamp.request(CODE.post, "/.rst", { payload: Buffer.from(lamp.pass), queries: [] })).code, CODE.content);
      assert.equal((await lamp.off()).code, CODE.content);
      await life.until("/status", "off");
      await life.end("SIGTERM");
    });
  }

  test("and does not come back has its last words spoken when its time is over, once", async (t) => {
    const life = new Life(t, 'session_timeout = "3s"\n');
    await life.start();
    const lamp = device(t, life);
    await lamp.begin();
    for (const path of ["/status", "/again"]) {
      assert.equal((await lamp.onDisconnectSet(path, text("off"))).code, CODE.content);
    }
    await lamp.die();
    await life.end("SIGKILL");
    await life.start();
    await life.until("/status", "off");
    await fetch(`http://127.0.0.1:${life.server.port}/again.json?ns=myapp`, { method: "PUT", body: '"later"' });
    await life.end("SIGKILL");
    await life.start();
    assert.equal(await life.read("/again"), "later", "nothing is spoken twice");
    await life.end("SIGTERM");
  });

  test("has lost nothing that was acknowledged, however often", async (t) => {
    const life = new Life(t);
    await life.start("1");
    const devices = Array.from({ length: 6 }, () => device(t, life));
    await Promise.all(devices.map((one) => one.begin()));
    const done = devices.map(() => -1);
    const sent = devices.map(() => -1);
    for (let round = 0; round < ROUNDS; round += 1) {
      let goes = true;
      const work = devices.map(async (one, n) => {
        while (goes) {
          const number = ++sent[n];
          // Again and again until it is answered: by this server, or the next.
          const answer = await insist(() => one.set(`/n/${n}`, text(`${number}`)));
          assert.equal(answer.code, CODE.content, "a device's session outlives every server");
          done[n] = number;
        }
      });
      await new Promise((resolve) => setTimeout(resolve, 20 + 13 * (round % 9)));
      await life.end(round % 4 === 3 ? "SIGTERM" : "SIGKILL");
      await life.start(String(1 + (round % 2)));
      goes = false;
      await Promise.all(work);
      for (const n of devices.keys()) assert.equal(await life.read(`/n/${n}`), `${done[n]}`);
    }
    await life.end("SIGTERM");
  });
});
