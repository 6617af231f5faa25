// What apps on Wilddog's SDKs do beside reading and writing: hear that the rules refuse, sign in, go offline as a
// whole, outlive the server; and share one tree with Firebase's clients.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { request } from "node:http";

import { IMPATIENT, Server } from "./lib/server.mjs";
import { SECRET, now, secretToken } from "./lib/tokens.mjs";
import { Record, soon } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";
import { WAYS, departing } from "./lib/ways.mjs";
import { WILDDOGS } from "./lib/wilddog.mjs";

const RULES = JSON.stringify({
  rules: {
    open: { ".read": true, ".write": true },
    canary: { ".read": true, ".write": true },
    marks: { ".read": true, ".write": true },
    closed: { ".read": true, ".write": false },
    // The documentation's program leaves a text there, then asks for its removal.
    disconnectmessage: { ".read": true, ".write": "newData.exists()" },
    mine: { $uid: { ".read": "auth.uid == $uid", ".write": "auth.uid == $uid" } },
    anonymous: { ".write": "auth.provider == 'anonymous'" },
    somebody: { ".write": "auth != null" },
  },
});
const CONFIG = `${IMPATIENT}rules = "rules.json"\n[auth]\nsecrets = ["${SECRET}"]\nanonymous = true\n`;

let server;
before(async () => {
  server = await Server.start({ config: CONFIG, isDev: false, files: { "rules.json": RULES } });
});
after(() => server?.stop());

let runs = 0;
const fresh = () => `app${++runs}`;

/** What a method tells its callback first: `null`, or what went wrong. */
const told = (on, method, ...args) => soon(method, new Promise((done) => on[method](...args, (error) => done(error ?? null))));

for (const family of WILDDOGS) {
  describe(family, () => {
    test("last words that the rules refuse are refused when they are left, to the callback", async (t) => {
      const dog = await client(t, server, fresh(), family);
      const words = dog.ref("closed").onDisconnect();
      for (const [method, ...args] of [["set", "I disconnected!"], ["update", { a: 1 }], ["remove"]]) {
        const error = await told(words, method, ...args);
        assert.ok(error, `${method} is refused`);
        if (family !== "wilddog07") assert.equal(error.code, 26101);
        else assert.equal(error.code, "PERMISSION_DENIED");
      }
      assert.equal(await told(dog.ref("open").onDisconnect(), "set", 1), null);
      const denied = await told(dog.ref("closed"), "set", 1);
      assert.match(denied.message, /permission/i);
    });

    test("a listen that the rules refuse is cancelled", async (t) => {
      const dog = await client(t, server, fresh(), family);
      const error = await soon("a cancel", new Promise((done) => dog.ref("mine/ann").on("value", () => {}, done)));
      assert.match(String(error.code ?? error.message), /26101|PERMISSION_DENIED/);
    });
  });
}

test("the program that leaves a last word tells what the rules say", async (t) => {
  const namespace = fresh();
  const { peer } = await departing(t, server, WAYS["kill -9"], { family: "wilddog07", namespace, program: ["set", "remove"] });
  await peer.output.until((lines) => lines.some((line) => line.includes("could not establish onDisconnect event")));
});

describe("signing in", () => {
  const writes = (dog, path) => told(dog.ref(path), "set", 1).then((error) => error === null);

  for (const family of ["wilddog25", "wilddog25rn", "wilddog25wx"]) {
    const signed = async (t, namespace) => {
      const dog = await client(t, server, namespace, family);
      // Node's build takes no port here; what it asks is led here as the lookup is.
      dog.sync.INTERNAL.setAuthenticationServer(family === "wilddog25" ? "http://auth.wilddog.com" : `http://127.0.0.1:${server.port}`);
      return { dog, auth: dog.app.auth() };
    };

    test(`${family}: with a custom token`, async (t) => {
      const { dog, auth } = await signed(t, fresh());
      assert.equal(await writes(dog, "mine/ann"), false);
      const user = await soon("a user", auth.signInWithCustomToken(secretToken({ v: 1, iat: now(), uid: "ann" })));
      assert.equal((user.user ?? user).uid, "ann");
      assert.equal(await writes(dog, "mine/ann"), true);
      assert.equal(await writes(dog, "mine/bob"), false);
      assert.equal(await writes(dog, "anonymous"), false);
      await soon("a sign-out", auth.signOut());
      assert.equal(await writes(dog, "somebody"), false);
    });

    test(`${family}: anonymously, and again after a reconnect`, async (t) => {
      const { dog, auth } = await signed(t, fresh());
      assert.equal(await writes(dog, "anonymous"), false);
      const user = await soon("a user", auth.signInAnonymously());
      const { uid } = user.user ?? user;
      assert.match(uid, /^[0-9a-f]{32}$/);
      assert.equal(await writes(dog, "anonymous"), true);
      assert.equal(await writes(dog, `mine/${uid}`), true);
      const connected = await watch(dog.ref(".info/connected"));
      await connected.untilLast(true);
      dog.goOffline();
      await connected.untilLast(false);
      dog.goOnline();
      await connected.untilLast(true);
      assert.equal(await writes(dog, `mine/${uid}`), true);
    });

    test(`${family}: a token that nobody has signed`, async (t) => {
      const { auth } = await signed(t, fresh());
      await assert.rejects(soon("a refusal", auth.signInWithCustomToken("a.b.c")), (error) => error.code === 22004);
    });
  }

  test("wilddog07: with a custom token, and anonymously", async (t) => {
    const dog = await client(t, server, fresh(), "wilddog07");
    const root = dog.ref();
    const token = secretToken({ v: 0, iat: now(), d: { uid: "ann", provider: "custom" } });
    const { uid } = await soon("a user", new Promise((done, failed) => root.authWithCustomToken(token, (error, data) => (error ? failed(error) : done(data)))));
    assert.equal(uid, "ann");
    assert.equal(await writes(dog, "mine/ann"), true);
    assert.equal(await writes(dog, "anonymous"), false);
    const refused = await soon("a refusal", new Promise((done) => root.authWithCustomToken("a.b.c", done)));
    assert.ok(refused);
    dog.Wilddog.INTERNAL.setAuthenticationServer(`http://127.0.0.1:${server.port}`);
    const guest = await soon("a guest", new Promise((done, failed) => root.authAnonymously((error, data) => (error ? failed(error) : done(data)))));
    assert.equal(guest.provider, "anonymous");
    assert.equal(await writes(dog, `mine/${guest.uid}`), true);
  });

  test("nobody becomes somebody where that is not set up", async (t) => {
    const closed = await Server.start({ config: `[auth]\nsecrets = ["${SECRET}"]\n`, isDev: false });
    t.after(() => closed.stop());
    for (const [path, options] of [
      ["/v2/app/auth/signupNewUser", { method: "POST", body: "{}" }],
      ["/v1/app/auth/anonymous?v=js-0.7.2", {}],
    ]) {
      const answer = await fetch(`http://127.0.0.1:${closed.port}${path}`, options);
      assert.equal(answer.status, 200);
      assert.ok((await answer.json()).error);
    }
  });
});

describe("what was granted ends", () => {
  const closed = JSON.stringify({ rules: { open: { ".read": false, ".write": true } } });
  for (const family of WILDDOGS) {
    test(`${family}: listens, when the rules change`, async (t) => {
      const own = await Server.start({ config: CONFIG, isDev: false, files: { "rules.json": RULES } });
      t.after(() => own.stop());
      const dog = await client(t, own, fresh(), family);
      const [plain, query] = [new Record("a listen"), new Record("a query")];
      const listen = (ref, record) => ref.on("value", (snap) => record.add(snap.val()), (error) => record.add(String(error.code ?? error.message)));
      listen(dog.ref("open/a"), plain);
      listen(dog.ref("open/b").orderByKey().limitToLast(2), query);
      await plain.untilLast(null);
      await query.untilLast(null);
      own.write("rules.json", closed);
      await own.reload("rules_reloads_total", "ok");
      // A push that takes a listen away says no more than that: these SDKs make the error themselves.
      for (const record of [plain, query]) await record.until((seen) => /PERMISSION_DENIED|26101|29999/.test(seen.at(-1)));
    });
  }

  test("wilddog25: a token, when its time is over", async (t) => {
    const dog = await client(t, server, fresh(), "wilddog25");
    dog.sync.INTERNAL.setAuthenticationServer("http://auth.wilddog.com");
    const users = new Record("users");
    dog.app.auth().onAuthStateChanged((user) => users.add(user?.uid ?? null));
    await soon("a user", dog.app.auth().signInWithCustomToken(secretToken({ v: 1, iat: now(), exp: now() + 5, uid: "ann" })));
    await users.until((seen) => seen.includes("ann"));
    assert.equal(await told(dog.ref("mine/ann"), "set", 1), null);
    await users.untilLast(null);
    assert.ok(await told(dog.ref("mine/ann"), "set", 2), "nobody any more");
  });

  test("wilddog07: a token, when its time is over", async (t) => {
    const dog = await client(t, server, fresh(), "wilddog07");
    const users = new Record("users");
    dog.ref().onAuth((user) => users.add(user?.uid ?? null));
    dog.ref().authWithCustomToken(secretToken({ v: 0, iat: now(), exp: now() + 5, d: { uid: "bob" } }), () => {});
    await users.untilLast("bob");
    await users.untilLast(null);
  });
});

describe("the life of a connection", () => {
  for (const family of WILDDOGS) {
    test(`${family}: several references share one connection, and go off and on together`, async (t) => {
      const namespace = fresh();
      const watcher = await client(t, server, namespace);
      const dog = await client(t, server, namespace, family);
      const [one, two] = [await watch(watcher.ref("open/one")), await watch(watcher.ref("open/two"))];
      assert.equal(await told(dog.ref("open/one").onDisconnect(), "set", "gone"), null);
      assert.equal(await told(dog.ref("open").child("two").onDisconnect(), "set", "gone"), null);
      const [first, second] = [await watch(dog.ref(".info/connected")), await watch(dog.ref(".info/connected"))];
      await first.untilLast(true);
      await settle(watcher);
      const ended = await server.metric("sessions_ended_total");
      dog.goOffline();
      await one.untilLast("gone");
      await two.untilLast("gone");
      await first.untilLast(false);
      await second.untilLast(false);
      assert.equal((await server.metric("sessions_ended_total")) - ended, 1, "one connection");
      dog.goOnline();
      await first.untilLast(true);
      await second.untilLast(true);
    });

    test(`${family}: comes back to a server that was started again`, async (t) => {
      const namespace = fresh();
      const settings = { config: CONFIG, isDev: false, files: { "rules.json": RULES } };
      let own = await Server.start(settings);
      t.after(() => own.stop());
      const { port } = own;
      const dog = await client(t, own, namespace, family);
      const seen = await watch(dog.ref("open/a"));
      const connected = await watch(dog.ref(".info/connected"));
      assert.equal(await told(dog.ref("open/a"), "set", 1), null);
      await connected.untilLast(true);
      await own.stop();
      await connected.untilLast(false);
      // Written while nobody is there: kept, and sent again.
      const kept = told(dog.ref("open/b"), "set", "kept");
      own = await Server.start({ ...settings, listen: `127.0.0.1:${port}` });
      const watcher = await client(t, own, namespace);
      assert.equal(await kept, null);
      assert.equal((await watcher.ref("open/b").get()).val(), "kept");
      await watcher.ref("open/a").set("anew");
      await seen.untilLast("anew");
    });
  }
});

test("the server's time, as the documentation asks for it", async () => {
  const ask = (path) =>
    new Promise((done, failed) =>
      request({ port: server.port, host: "127.0.0.1", path, headers: { Host: `app.wilddogio.com` } }, (response) => {
        let text = "";
        response.on("data", (piece) => (text += piece)).on("end", () => done(text));
      })
        .on("error", failed)
        .end(),
    );
  const time = Number(await ask("/.json?sv=timestamp"));
  assert.ok(Math.abs(time - Date.now()) < 60_000, `${time}`);
});

test("four megabytes, there and back", async (t) => {
  const namespace = fresh();
  const dog = await client(t, server, namespace, "wilddog25");
  const other = await client(t, server, namespace, "wilddog07");
  const children = Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`k${index}`, `${index}é`.repeat(33_333).slice(0, 100_000)]));
  assert.equal(await told(dog.ref("open/long"), "set", children), null);
  const found = await soon("a value", new Promise((done, failed) => other.ref("open/long").once("value", done, failed)));
  assert.ok(JSON.stringify(found.val()) === JSON.stringify(Object.fromEntries(Object.entries(children).sort(([a], [b]) => (a < b ? -1 : 1)))));
});

test("a text of nine megabytes", async (t) => {
  const dog = await client(t, server, fresh(), "wilddog25");
  const text = "0123456é9".repeat(1_000_000);
  assert.equal(await told(dog.ref("open/text"), "set", text), null);
  const other = await client(t, server, `app${runs}`, "wilddog25rn");
  const found = await soon("a value", new Promise((done, failed) => other.ref("open/text").once("value", done, failed)));
  assert.ok(found.val() === text);
});

test("Firebase's and Wilddog's clients in one tree see each other come and go", async (t) => {
  const namespace = fresh();
  const families = ["modular", "v8", ...WILDDOGS];
  const clients = await Promise.all(families.map((family) => client(t, server, namespace, family)));
  const records = await Promise.all(clients.map((each) => watch(each.ref("open/status"))));
  const everybody = (value) => Promise.all(records.map((record) => record.until((seen) => JSON.stringify(seen.at(-1)) === JSON.stringify(value), JSON.stringify(value))));
  const status = {};
  for (const [index, each] of clients.entries()) {
    const name = families[index];
    const at = each.ref(`open/status/${name}`);
    const [left, set] = [new Record("a last word"), new Record("a write")];
    at.onDisconnect().set("offline", (error) => left.add(error ?? null));
    await left.untilLast(null);
    const promise = at.set("online", (error) => set.add(error ?? null));
    if (name === "modular") await promise.then(() => set.add(null));
    await set.untilLast(null);
    status[name] = "online";
    await everybody(Object.fromEntries(Object.entries(status).sort(([a], [b]) => (a < b ? -1 : 1))));
  }
  clients[0].goOffline();
  clients.at(-1).goOffline();
  for (const record of records.slice(1, -1)) {
    await record.until((seen) => seen.at(-1)?.[families[0]] === "offline" && seen.at(-1)?.[families.at(-1)] === "offline");
  }
});
