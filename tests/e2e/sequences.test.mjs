// Rules over time: every recorded story of rules, sign-ins and last words, told by real SDKs and by hand.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { FAMILIES } from "./lib/families.mjs";
import { Raw } from "./lib/raw.mjs";
import { Server } from "./lib/server.mjs";
import { FakeAuth, PROJECT, Signer } from "./lib/tokens.mjs";
import { Record, soon } from "./lib/until.mjs";
import { client } from "./lib/watch.mjs";

const STORIES = readFileSync(new URL("cases/sequences.jsonl", import.meta.url), "utf8")
  .split("\n")
  .filter(Boolean)
  .map((line) => JSON.parse(line));

const signer = new Signer();
/** Shorter than in the stories, which nobody wants to wait for. */
const TOKEN_LASTS_S = 3;
let server;
let generation = 0;

before(async () => {
  const config = `rules = "rules.json"\n[auth]\nfirebase_project = "${PROJECT}"\nfirebase_jwks = "jwks.json"\n`;
  const files = { "rules.json": JSON.stringify({ rules: {} }), "jwks.json": signer.jwks };
  server = await Server.start({ config, files });
});
after(() => server?.stop());

/** Puts rules in force, and waits until a database feels them. */
async function setRules(admin, prober, rules) {
  const mark = `g${++generation}`;
  const probe = { ".write": true, $mark: { ".validate": `$mark == '${mark}'` } };
  server.write("rules.json", JSON.stringify({ rules: { ...rules.rules, probe } }));
  await server.reload("rules_reloads_total", "ok");
  const feels = async () => (await prober.ask("p", { p: `/probe/${mark}`, d: 1 })).s === "ok";
  const felt = (async () => {
    while (!(await feels())) await new Promise((resolve) => setTimeout(resolve, 5));
  })();
  await soon("the new rules in force", felt);
  assert.equal((await admin.ask("p", { p: "/probe", d: null })).s, "ok");
}

/** A client of a family. */
class SdkClient {
  static async open(t, family, namespace) {
    const actor = new SdkClient();
    actor.auth = new FakeAuth();
    actor.sdk = await client(t, server, namespace, family, actor.auth.hooks);
    actor.cancelled = new Record("cancelled listens");
    actor.connected = new Record("connected");
    actor.sdk.ref(".info/connected").on("value", (snap) => actor.connected.add(snap.val()));
    await actor.connected.until((seen) => seen.includes(true));
    return actor;
  }

  async #outcome(promise) {
    try {
      await soon("the outcome", promise);
      return "ok";
    } catch (error) {
      assert.match(error.message, /permission_denied|permission denied/i);
      return "permission_denied";
    }
  }

  put = (path, value) => this.#outcome(this.sdk.ref(path).onDisconnect().set(this.#plain(value)));
  mergeLater = (path, value) => this.#outcome(this.sdk.ref(path).onDisconnect().update(value));
  merge = (path, value) => this.#outcome(this.sdk.ref(path === "/" ? undefined : path).update(value));
  transact = (path, value) => this.#outcome(this.sdk.ref(path).transaction(() => value));

  #plain(value) {
    return value?.[".sv"] === "timestamp" ? this.sdk.timestamp() : value;
  }

  listen(path) {
    return new Promise((resolve) => {
      this.sdk.ref(path).on("value", () => resolve("ok"), (error) => {
        this.cancelled.add(error.message);
        resolve("permission_denied");
      });
    });
  }

  /** Signs in; the SDK tells nobody when that is done, but later requests wait their turn behind it. */
  async signIn(token) {
    this.auth.set(token);
  }

  async signOut() {
    this.auth.set(null);
  }

  async expectPush([action, what]) {
    if (action === "c") {
      const text = `permission_denied at ${what}: Client doesn't have permission to access the desired data.`;
      await this.cancelled.until((seen) => seen.some((message) => message.includes(text)), text);
    } else {
      // The SDK asks for another token, and connects anew.
      assert.deepEqual([action, what], ["ac", "expired_token"]);
      await this.auth.refreshes.until((seen) => seen.length > 0, "the SDK asks for another token");
      this.auth.set(null);
      this.isGone = true;
    }
  }

  leave() {
    this.sdk.goOffline();
  }
}

/** A client that speaks the protocol itself. */
class RawClient {
  static async open(t, _family, namespace) {
    const actor = new RawClient();
    actor.raw = await Raw.open(t, server, namespace);
    return actor;
  }

  async #ask(action, body) {
    const { s, d } = await this.raw.ask(action, body);
    if (s !== "ok") assert.deepEqual([s, d], ["permission_denied", "Permission denied"]);
    return s;
  }

  put = (p, d) => this.#ask("o", { p, d });
  mergeLater = (p, d) => this.#ask("om", { p, d });
  merge = (p, d) => this.#ask("m", { p, d });
  transact = (p, d) => this.#ask("p", { p, d, h: "" });
  listen = (p) => this.#ask("q", { p, h: "" });
  signOut = () => this.#ask("unauth", {});

  async signIn(cred) {
    assert.equal(await this.#ask("auth", { cred }), "ok");
  }

  async expectPush([action, what]) {
    const isIt = ({ d }) => d?.a === action && (action === "c" ? `/${d.b.p}` === what : d.b.s === what);
    const seen = await this.raw.messages.until((messages) => messages.some(isIt), `${action} ${what}`);
    if (action === "ac") assert.deepEqual(seen.find(isIt).d.b, { s: "expired_token", d: "Auth token is expired." });
  }

  leave() {
    this.raw.socket.terminate();
  }
}

async function tell(t, story, Actor, family) {
  const namespace = `story${++generation}`;
  const admin = await Raw.open(t, server, namespace);
  const prober = await Raw.open(t, server, namespace);
  assert.equal((await admin.ask("gauth", { cred: "owner" })).s, "ok");
  let actor;
  let left = 0;
  const present = async () => (actor ??= await Actor.open(t, family, namespace));
  for (const step of story.steps) {
    if (step.rules) await setRules(admin, prober, step.rules);
    else if (step.data) assert.equal((await admin.ask("p", { p: "/", d: step.data })).s, "ok");
    else if (step.admin) assert.equal((await admin.ask("p", { p: step.set[0], d: step.set[1] })).s, "ok");
    else if (step.clock) await new Promise((resolve) => setTimeout(resolve, step.clock === "+60s" ? 1_500 : 0));
    else if (step.expectData) assert.equal((await admin.ask("g", { p: step.expectData[0], q: {} })).d, step.expectData[1]);
    else if (step.expectDataNear) {
      const { d } = await admin.ask("g", { p: step.expectDataNear[0], q: {} });
      assert.ok(d >= left - 1_000 && d <= Date.now() + 1_000, `${d} is the time of the end, ${left}`);
    } else {
      const actor = await present();
      if (step.auth) await actor.signIn(signer.idToken(step.auth, step.expiresIn ? TOKEN_LASTS_S : 3_600));
      else if (step.unauth) await actor.signOut();
      else if (step.expectPush) await actor.expectPush(step.expectPush);
      else if (step.disconnect) {
        left = Date.now();
        if (actor.isGone) continue;
        const was = await server.metric("sessions_ended_total");
        actor.leave();
        await server.metricAfter(was, "sessions_ended_total");
        await admin.ask("s", { c: {} });
      } else {
        const doing = step.onDisconnectPut ?? step.onDisconnectMerge ?? step.merge ?? step.putIfHash ?? [step.listen];
        const name = step.onDisconnectPut ? "put" : step.onDisconnectMerge ? "mergeLater" : step.merge ? "merge" : step.putIfHash ? "transact" : "listen";
        assert.equal(await actor[name](doing[0], doing.at(-1)), step.expect, JSON.stringify(step));
      }
    }
  }
}

test("there are thirteen stories", () => assert.equal(STORIES.length, 13));

for (const [family, Actor] of [...FAMILIES.map((family) => [family, SdkClient]), ["by hand", RawClient]]) {
  // One after the other: the rules are everybody's.
  describe(family, { concurrency: 1 }, () => {
    for (const story of STORIES) test(story.name, (t) => tell(t, story, Actor, family));
  });
}
