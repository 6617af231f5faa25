// Who may come in, and as whom: every kind of credential, by the SDKs that send it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { FAMILIES } from "./lib/families.mjs";
import { Raw } from "./lib/raw.mjs";
import { Server } from "./lib/server.mjs";
import { ADMIN_TOKEN, FakeAuth, PROJECT, SECRET, Signer, now, secretToken } from "./lib/tokens.mjs";
import { Record, soon } from "./lib/until.mjs";
import { client } from "./lib/watch.mjs";

const signer = new Signer();
const provider = new Signer("their-key");
const ISSUER = "https://id.example/realms/app";

const RULES = JSON.stringify({
  rules: {
    open: { ".read": true, ".write": true },
    closed: { ".read": false, ".write": false },
    mine: { $uid: { ".read": "auth.uid == $uid", ".write": "auth.uid == $uid" } },
    staff: { ".read": "auth.token.role == 'staff'" },
    custom: { ".read": "auth.provider == 'custom'" },
    legacy: { ".read": "auth.team == 'red'" },
  },
});

const CONFIG = `
rules = "rules.json"
log_level = "trace"
[auth]
firebase_project = "${PROJECT}"
firebase_jwks = "jwks.json"
secrets_file = "secrets"
admin_tokens = ["${ADMIN_TOKEN}"]
[[auth.issuer]]
issuer = "${ISSUER}"
audiences = ["app"]
jwks = "their.json"
uid_prefix = "kc:"
provider = "keycloak"
claims = { role = "role" }
`;

const files = () => ({ "rules.json": RULES, "jwks.json": signer.jwks, "their.json": provider.jwks, secrets: `${SECRET}\n` });

let server;
before(async () => {
  server = await Server.start({ config: CONFIG, files: files(), isDev: false });
});
after(() => server?.stop());

let namespaces = 0;
const fresh = () => `auth${++namespaces}`;

/** Which of these paths a credential may read, and what the answer to it says. */
async function reads(t, cred, paths, on = server) {
  const raw = await Raw.open(t, on, fresh());
  const answer = cred === null ? { s: "ok" } : await raw.ask("auth", { cred });
  const may = [];
  for (const path of paths) if ((await raw.ask("g", { p: path, q: {} })).s === "ok") may.push(path);
  return { answer, may };
}

const PATHS = ["open", "closed", "mine/u1", "mine/kc:u1", "staff", "custom", "legacy"];

describe("credentials without --dev", () => {
  const times = () => ({ iat: now() - 5, exp: now() + 600 });
  const theirs = (more = {}) => provider.token({ iss: ISSUER, aud: "app", sub: "u1", role: "staff", ...times(), ...more });
  const unsigned = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${Buffer.from('{"sub":"u1"}').toString("base64url")}.`;
  const accepted = {
    "no credential": [null, ["open"]],
    "a Firebase ID token": [() => signer.idToken("u1"), ["open", "mine/u1", "custom"]],
    "a Firebase ID token with a claim": [() => signer.idToken("u2", 60, { role: "staff" }), ["open", "staff", "custom"]],
    "another issuer's token": [() => theirs(), ["open", "mine/kc:u1", "staff"]],
    "a legacy token": [() => secretToken({ v: 0, d: { uid: "u1", team: "red" } }), ["open", "mine/u1", "legacy"]],
    "a Wilddog token": [() => secretToken({ v: 1, uid: "u1", claims: { role: "staff" } }), ["open", "mine/u1", "staff", "custom"]],
    "an administrator's legacy token": [() => secretToken({ v: 0, admin: true, d: {} }), PATHS],
    "the database secret": [() => SECRET, PATHS],
    "an admin token": [() => ADMIN_TOKEN, PATHS],
  };
  for (const [name, [cred, may]] of Object.entries(accepted)) {
    test(name, async (t) => {
      const outcome = await reads(t, cred && cred(), PATHS);
      assert.equal(outcome.answer.s, "ok");
      assert.deepEqual(outcome.may, may);
    });
  }
  const refused = {
    owner: [() => "owner"],
    "an unsigned token": [() => unsigned],
    "a token of another key": [() => new Signer().idToken("u1")],
    "a token of an unknown key": [() => new Signer("other").idToken("u1")],
    "a token of another project": [() => signer.idToken("u1", 60, { aud: "other" })],
    "a token with another secret": [() => secretToken({ v: 0, d: { uid: "u1" } }, "x".repeat(40))],
    "an issuer's token for another audience": [() => theirs({ aud: "web" })],
    "one issuer's token by another's key": [() => signer.token({ iss: ISSUER, aud: "app", sub: "u1", ...times() })],
    "an admin token with one character more": [() => `${ADMIN_TOKEN}x`],
    "an expired token": [() => signer.idToken("u1", -100), "expired_token", "Auth token is expired"],
  };
  for (const [name, [cred, status = "invalid_token", text = "Could not parse auth token."]] of Object.entries(refused)) {
    test(`not: ${name}`, async (t) => {
      const outcome = await reads(t, cred(), PATHS);
      assert.deepEqual(outcome.answer, { s: status, d: text });
      assert.deepEqual(outcome.may, ["open"]);
    });
  }
  test("no credential is in the log", async (t) => {
    const token = signer.idToken("in-the-log");
    await reads(t, token, ["open"]);
    await server.logged(/starting/);
    for (const secret of [SECRET, ADMIN_TOKEN, token, token.split(".")[2]]) assert.ok(!server.logs.includes(secret));
  });
});

describe("what SDKs say when they may not", { concurrency: 1 }, () => {
  for (const family of FAMILIES) {
    test(family, async (t) => {
      const sdk = await client(t, server, fresh(), family);
      const ref = sdk.ref("closed");
      const failure = async (promise) => {
        const error = await soon("a failure", promise.then(() => assert.fail("it is allowed"), (error) => error));
        return [error.code, error.message];
      };
      const denied = ["PERMISSION_DENIED", "PERMISSION_DENIED: Permission denied"];
      assert.deepEqual(await failure(ref.set(1)), denied);
      assert.deepEqual(await failure(ref.update({ a: 1 })), denied);
      assert.deepEqual(await failure(ref.remove()), denied);
      for (const [name, args] of Object.entries({ set: [1], update: [{ a: 1 }], remove: [], setWithPriority: [1, 2] })) {
        assert.deepEqual(await failure(ref.onDisconnect()[name](...args)), denied, `onDisconnect ${name}`);
        const called = await new Promise((resolve) => ref.onDisconnect()[name](...args, resolve).catch(() => {}));
        assert.deepEqual([called.code, called.message], denied, `onDisconnect ${name} calls back`);
      }
      await ref.onDisconnect().cancel();
      let runs = 0;
      const [, transaction] = await failure(ref.transaction(() => ++runs));
      assert.match(transaction, /permission_denied/i);
      assert.equal(runs, 1, "the update function runs once");
      const cancelled = await new Promise((resolve) => ref.on("value", () => {}, resolve));
      const where = "permission_denied at /closed: Client doesn't have permission to access the desired data.";
      assert.equal(cancelled.message, where);
      assert.equal(cancelled.code, "PERMISSION_DENIED");
      const [, get] = await failure(ref.get());
      assert.match(get, /permission denied/i);
      await sdk.ref("open").set("still served");
    });
  }
});

describe("signing in by an SDK", { concurrency: 1 }, () => {
  for (const family of FAMILIES) {
    test(`${family}: in, anew, out, and back`, async (t) => {
      const auth = new FakeAuth();
      auth.set(signer.idToken("u1"));
      const sdk = await client(t, server, fresh(), family, auth.hooks);
      const mine = sdk.ref("mine/u1");
      await soon("a write", mine.set("here"));
      const seen = new Record("mine");
      mine.on("value", (snap) => seen.add(snap.val()), (error) => seen.add(error.message));
      await seen.untilLast("here");
      auth.set(signer.idToken("u1", 1800));
      await mine.set("renewed");
      await seen.untilLast("renewed");
      auth.set(null);
      await seen.until((values) => /permission_denied at \/mine\/u1/.test(values.at(-1)), "the listen is revoked");
      await assert.rejects(mine.set("nobody"), { code: "PERMISSION_DENIED" });
      auth.set(signer.idToken("u1"));
      await mine.set("back");
    });

    test(`${family}: a token runs out, and the SDK fetches another`, async (t) => {
      const auth = new FakeAuth();
      auth.set(signer.idToken("u1", 4));
      const sdk = await client(t, server, fresh(), family, auth.hooks);
      const mine = sdk.ref("mine/u1");
      await soon("a write", mine.set("here"));
      // Whoever is asked anew has a better one.
      const later = signer.idToken("u1");
      const plain = auth.getToken.bind(auth);
      auth.getToken = async (isForced) => (await plain(isForced), isForced ? { accessToken: later } : plain(false));
      await auth.refreshes.until((seen) => seen.length > 0, "the SDK asks for another token");
      await soon("a write after that", mine.set("still here"));
    });
  }
});

test("a short-lived token: the push, the lost listens, the open socket", async (t) => {
  const raw = await Raw.open(t, server, fresh());
  await raw.ask("auth", { cred: signer.idToken("u1", 4) });
  assert.equal((await raw.ask("q", { p: "/mine/u1", h: "" })).s, "ok");
  assert.equal((await raw.ask("q", { p: "/open", h: "" })).s, "ok");
  const pushes = (messages) => messages.filter(({ d }) => d?.a);
  const seen = await raw.messages.until((messages) => pushes(messages).length === 2, "two pushes");
  const [ac, c] = pushes(seen).map(({ d }) => d);
  assert.deepEqual(ac, { a: "ac", b: { s: "expired_token", d: "Auth token is expired." } });
  assert.deepEqual(c, { a: "c", b: { p: "mine/u1" } });
  assert.equal((await raw.ask("p", { p: "/mine/u1", d: 1 })).s, "permission_denied");
  assert.equal((await raw.ask("auth", { cred: signer.idToken("u1") })).s, "ok");
  assert.equal((await raw.ask("p", { p: "/mine/u1", d: 1 })).s, "ok");
});

describe("with --dev", { concurrency: 1 }, () => {
  let dev;
  before(async () => {
    dev = await Server.start({ config: `rules = "rules.json"`, files: { "rules.json": RULES } });
  });
  after(() => dev?.stop());

  for (const family of FAMILIES) {
    test(`${family}: mockUserToken`, async (t) => {
      const mockUserToken = { sub: "u1", role: "staff" };
      const hooks = { database: (connect) => connect("127.0.0.1", dev.port, { mockUserToken }) };
      const sdk = await client(t, dev, fresh(), family, hooks);
      await soon("a write", sdk.ref("mine/u1").set("mock"));
      assert.equal((await sdk.ref("mine/u1").get()).val(), "mock");
      assert.equal((await sdk.ref("staff").get()).val(), null);
      await assert.rejects(sdk.ref("mine/u2").set(1), { code: "PERMISSION_DENIED" });
    });
  }

  /** What firebase-admin gets to hear. */
  async function admin(override) {
    const operations = [
      ["set", "mine/u1", "a"],
      ["set", "mine/u2", "b"],
      ["get", "mine/u1"],
      ["get", "closed"],
      ["word", "closed", "gone"],
    ];
    const script = fileURLToPath(new URL("lib/admin-child.mjs", import.meta.url));
    const setup = JSON.stringify({ namespace: fresh(), override, operations });
    const env = { ...process.env, FIREBASE_DATABASE_EMULATOR_HOST: `127.0.0.1:${dev.port}` };
    const child = spawn(process.execPath, [script, setup], { env, stdio: ["ignore", "pipe", "pipe"] });
    ends.push(() => child.kill("SIGKILL"));
    let [text, errors] = ["", ""];
    child.stdout.on("data", (bytes) => (text += bytes));
    child.stderr.on("data", (bytes) => (errors += bytes));
    await soon(() => `the end of firebase-admin; ${text}${errors}`, once(child, "close"));
    const line = text.split("\n").find((line) => line.startsWith("["));
    assert.ok(line, `${text}${errors}`);
    return JSON.parse(line);
  }
  const ends = [];
  after(() => ends.forEach((end) => end()));

  const denied = "PERMISSION_DENIED: Permission denied";
  test("firebase-admin may do anything", async () => {
    assert.deepEqual(await admin(undefined), ["ok", "ok", "a", "ok", "ok"]);
  });

  test("firebase-admin as a user", async () => {
    const [mine, other, got, closed, word] = await admin({ uid: "u1" });
    assert.deepEqual([mine, other, got, word], ["ok", denied, "a", denied]);
    assert.match(closed, /permission denied/i);
  });

  test("firebase-admin as nobody", async () => {
    const [mine, other, got, closed, word] = await admin(null);
    assert.deepEqual([mine, other, word], [denied, denied, denied]);
    for (const read of [got, closed]) assert.match(read, /permission denied/i);
  });

  test("only administrators act as others", async (t) => {
    const raw = await Raw.open(t, dev, fresh());
    const unsigned = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${Buffer.from('{"sub":"u2"}').toString("base64url")}.`;
    assert.deepEqual(await raw.ask("auth", { cred: unsigned, authvar: { uid: "u1" } }), { s: "permission_denied", d: "Permission denied" });
    assert.equal((await raw.ask("p", { p: "/mine/u1", d: 1 })).s, "permission_denied");
  });
});

describe("files and addresses of keys", { concurrency: 1 }, () => {
  /** A server that hands out keys over HTTPS as an authority vouches for that only the test knows. */
  async function hands(t, body) {
    const read = (name) => readFileSync(new URL(`keys/${name}`, import.meta.url));
    const source = { body, count: 0 };
    const https = createServer({ key: read("server.key"), cert: read("server.pem") }, (_, response) => {
      source.count++;
      response.writeHead(source.body ? 200 : 503, { "Cache-Control": "public, max-age=600" }).end(source.body);
    });
    https.listen(0, "127.0.0.1");
    await once(https, "listening");
    t.after(() => (https.closeAllConnections(), https.close()));
    source.url = `https://localhost:${https.address().port}/keys`;
    return source;
  }

  const authority = fileURLToPath(new URL("keys/authority.pem", import.meta.url));
  const start = (t, url, env = { SSL_CERT_FILE: authority }) =>
    Server.start({
      config: `rules = "rules.json"\n[auth]\nfirebase_project = "${PROJECT}"\nfirebase_jwks = "${url}"\n`,
      files: { "rules.json": RULES },
      isDev: false,
      env,
    }).then((started) => (t.after(() => started.stop()), started));

  test("keys are there when the server is ready, and the last good ones stay", async (t) => {
    const source = await hands(t, signer.jwks);
    const fetched = await start(t, source.url);
    assert.equal(source.count, 1);
    const may = async (by) => (await reads(t, by.idToken("u1"), ["mine/u1"], fetched)).may;
    assert.deepEqual(await may(signer), ["mine/u1"]);
    for (const bad of [null, "no keys", '{"keys":[]}']) {
      source.body = bad;
      await fetched.reload("key_fetches_total", "failed");
      assert.deepEqual(await may(signer), ["mine/u1"], `after ${bad}`);
    }
    const other = new Signer("next");
    source.body = other.jwks;
    await fetched.reload("key_fetches_total", "ok");
    while ((await may(other)).length === 0);
    assert.deepEqual(await may(signer), []);
  });

  test("a server starts without its source, and without being able to trust it", async (t) => {
    const source = await hands(t, signer.jwks);
    const lonely = await start(t, "https://127.0.0.1:1/keys");
    await lonely.logged(/keys cannot be fetched/);
    assert.deepEqual((await reads(t, signer.idToken("u1"), ["open", "mine/u1"], lonely)).answer.s, "invalid_token");
    const wary = await start(t, source.url, {});
    assert.equal(source.count, 0);
    await wary.logged(/keys cannot be fetched/);
  });

  test("secrets change at SIGHUP, and wrong ones change nothing", async (t) => {
    const rotating = await Server.start({ config: CONFIG, files: files(), isDev: false });
    t.after(() => rotating.stop());
    const next = "another-secret-of-more-than-32-characters";
    const status = async (cred) => (await reads(t, cred, [], rotating)).answer.s;
    rotating.write("secrets", "short\n");
    await rotating.reload("auth_reloads_total", "refused");
    assert.equal(await status(SECRET), "ok");
    rotating.write("secrets", `${SECRET}\n${next}\n`);
    await rotating.reload("auth_reloads_total", "ok");
    while ((await status(next)) !== "ok");
    assert.equal(await status(SECRET), "ok");
    rotating.write("secrets", `${next}\n`);
    await rotating.reload("auth_reloads_total", "ok");
    while ((await status(SECRET)) === "ok");
    assert.equal(await status(next), "ok");
    for (const secret of [SECRET, next]) assert.ok(!rotating.logs.includes(secret));
  });

  test("a client feels new rules, and not wrong ones", async (t) => {
    const ruled = await Server.start({ config: CONFIG, files: files(), isDev: false });
    t.after(() => ruled.stop());
    const namespace = fresh();
    const sdk = await client(t, ruled, namespace);
    const seen = new Record("open");
    await sdk.ref("open").set(1);
    sdk.ref("open").on("value", (snap) => seen.add(snap.val()), (error) => seen.add(error.message));
    await seen.untilLast(1);
    ruled.write("rules.json", '{"rules": {".read": false, ".write": tru}}');
    await ruled.reload("rules_reloads_total", "refused");
    await ruled.logged(/rules\.json:1:38/);
    await sdk.ref("open").set(2);
    await seen.untilLast(2);
    ruled.write("rules.json", '{"rules": {".read": false}}');
    await ruled.reload("rules_reloads_total", "ok");
    await seen.until((values) => /permission_denied at \/open/.test(values.at(-1)), "the listen is revoked");
    await assert.rejects(sdk.ref("open").set(3), { code: "PERMISSION_DENIED" });
  });
});
