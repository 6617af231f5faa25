// TLS on the port that serves everything: published clients, Node's and Chromium's, an authority of our own, a
// certificate that changes, and peers who mean no good.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import tls from "node:tls";

import { chromium } from "playwright-core";

import { Authority, TLS, files, pin } from "./lib/certificates.mjs";
import { Peer } from "./lib/peer.mjs";
import { BIN, IMPATIENT, Program, Server } from "./lib/server.mjs";
import { soon } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";
import { WILDDOGS } from "./lib/wilddog.mjs";

const NAMES = ["127.0.0.1", "localhost", "*.a.localhost", "sync.wilddogio.com.localhost"];

let authority;
let certificate;
let server;
before(async () => {
  authority = new Authority();
  certificate = authority.issue(NAMES);
  server = await Server.start({ config: `${IMPATIENT}${TLS}`, files: files(certificate) });
});
after(async () => {
  await server?.stop();
  authority?.remove();
});

let runs = 0;
const fresh = () => `tls${++runs}`;

/** A client in a process that knows the authority. */
async function secure(t, setup, at = server) {
  const url = at.url(setup.namespace).replace("http:", "https:");
  const peer = await Peer.start({ ...setup, url }, { NODE_EXTRA_CA_CERTS: authority.file });
  t.after(() => peer.kill());
  return peer;
}

/** A raw TLS connection, shaken hands. */
async function raw(t, options = {}, at = server) {
  const socket = tls.connect({ port: at.port, host: "127.0.0.1", ca: readFileSync(authority.file), ...options });
  socket.received = "";
  socket.setEncoding("latin1");
  socket.on("data", (text) => (socket.received += text));
  socket.on("error", (error) => (socket.failed = error));
  socket.ended = new Promise((done) => socket.once("close", done));
  t.after(() => socket.destroy());
  await soon("a handshake", new Promise((done, failed) => socket.once("secureConnect", done).once("error", failed)));
  return socket;
}

/** A raw connection of bytes. */
async function plain(t, at = server) {
  const socket = net.connect(at.port, "127.0.0.1");
  socket.received = Buffer.alloc(0);
  socket.on("data", (bytes) => (socket.received = Buffer.concat([socket.received, bytes])));
  socket.on("error", () => {});
  socket.ended = new Promise((done) => socket.once("close", done));
  t.after(() => socket.destroy());
  await new Promise((done) => socket.once("connect", done));
  return socket;
}

async function until(what, is) {
  const deadline = Date.now() + 60_000;
  while (!is()) {
    assert.ok(Date.now() < deadline, what);
    await new Promise((done) => setTimeout(done, 5));
  }
}

const GET = (path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;

/** Somebody is still served, encrypted and not. */
async function stillServed(t) {
  const socket = await raw(t);
  socket.write(GET("/.json?sv=timestamp&ns=x"));
  await until("an answer", () => /\r\n\r\n\d+$/.test(socket.received));
  assert.equal((await fetch(`http://127.0.0.1:${server.port}/.json?ns=x`)).status, 200);
}

for (const family of ["modular", "v8", ...WILDDOGS]) {
  test(`${family}: presence over TLS, watched without`, async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const status = await watch(watcher.ref("status"));
    const peer = await secure(t, { family, namespace });
    const long = "漢é plain ".repeat(50_000);
    await peer.run(
      (client, long) =>
        new Promise((done, failed) => {
          const then = (next) => (error) => (error ? failed(error) : next());
          client.ref("status").onDisconnect().set("offline", then(() =>
            client.ref("status").set("online", then(() => client.ref("long").set(long, then(done))))));
          // Promises only: Firebase's free functions.
          const promise = client.ref("probe").set(1);
          if (client.ref("probe").constructor.name === "Ref")
            promise.then(() => client.ref("status").set("online")).then(() => client.ref("long").set(long)).then(() => done(), failed);
        }),
      long,
    );
    await status.untilLast("online");
    assert.ok((await watcher.ref("long").get()).val() === long, "long texts arrive whole");
    const seen = await peer.run((client) => new Promise((done) => client.ref("long").on("value", (snap) => done(snap.val().length))));
    assert.equal(seen, long.length);
    await peer.kill();
    await status.untilLast("offline");
  });
}

test("Chromium: firebase 12 and wilddog 2.5", async (t) => {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", `--ignore-certificate-errors-spki-list=${pin(certificate.leaf)}`],
  });
  t.after(() => browser.close());
  const namespace = fresh();
  const watcher = await client(t, server, namespace);
  const context = await browser.newContext();
  const at = `127.0.0.1:${server.port}`;
  // The pages and the SDKs come from elsewhere; everything that these ask for comes from the server.
  await context.route(/\/(page|firebase\/.*|wilddog\/.*)$/, (route) => {
    const { pathname } = new URL(route.request().url());
    const body = pathname !== "/page"
      ? readFileSync(new URL(`node_modules${pathname}`, import.meta.url), "utf8")
      : '<!doctype html><meta charset="utf-8"><script src="/wilddog/lib/wilddog-web-all.js"></script><script src="/firebase/firebase-app-compat.js"></script><script src="/firebase/firebase-database-compat.js"></script>';
    return route.fulfill({ body, contentType: pathname.endsWith(".js") ? "text/javascript" : "text/html" });
  });
  for (const family of ["firebase", "wilddog"]) {
    const status = await watch(watcher.ref(family));
    const page = await context.newPage();
    const requests = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("websocket", (socket) => requests.push(socket.url()));
    await page.goto(`https://${at}/page`);
    await soon("presence in the page", page.evaluate(
      ([family, at, namespace]) =>
        new Promise((done, failed) => {
          const { open } = XMLHttpRequest.prototype;
          XMLHttpRequest.prototype.open = function (method, url, ...rest) {
            return open.call(this, method, url.replace("https://ns.wilddog.com", `https://${at}`), ...rest);
          };
          const sync =
            family === "firebase"
              ? firebase.initializeApp({ databaseURL: `https://${at}?ns=${namespace}` }).database()
              : wilddog.initializeApp({ authDomain: `${namespace}.wilddog.com`, syncURL: `https://${namespace}.wilddogio.com` }).sync();
          const ref = sync.ref(family);
          ref.onDisconnect().set("offline", (error) => (error ? failed(error) : ref.set("online", (e) => (e ? failed(e) : done()))));
        }),
      [family, at, namespace],
    ));
    await status.untilLast("online");
    const ours = requests.filter((url) => url.includes(at) && !/\.js$|\/page$/.test(url));
    assert.ok(ours.length > 0 && ours.every((url) => /^(https|wss):/.test(url)), ours.join("\n"));
    await page.close();
    await status.untilLast("offline");
  }
});

test("who does not know the authority does not come in, and the log says why", async (t) => {
  await assert.rejects(raw(t, { ca: [] }), /self-signed|unable to/);
  // Node goes without a word; others say what they think of the certificate.
  const distrustful = new Program("openssl", ["s_client", "-connect", `127.0.0.1:${server.port}`, "-verify_return_error"]);
  await distrustful.ended();
  await until("a line in the log", () => server.logs.includes("a TLS connection has failed"));
  await stillServed(t);
});

for (const version of ["TLSv1.2", "TLSv1.3"]) {
  test(`${version}: resumed by whoever comes back; only HTTP/1.1 is offered`, async (t) => {
    const only = { minVersion: version, maxVersion: version, ALPNProtocols: ["h2", "http/1.1"] };
    const first = await raw(t, only);
    assert.equal(first.getProtocol(), version);
    assert.equal(first.alpnProtocol, "http/1.1");
    const session = new Promise((done) => first.once("session", done));
    first.write(GET("/.json?sv=timestamp&ns=x"));
    const ticket = version === "TLSv1.2" ? first.getSession() : await soon("a ticket", session);
    first.end();
    const again = await raw(t, { ...only, session: ticket });
    assert.ok(again.isSessionReused());
  });
}

test("TLS 1.1 is refused", async (t) => {
  const old = { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" };
  await assert.rejects(raw(t, old));
  await stillServed(t);
});

describe("hostile", { concurrency: 4 }, () => {
  const HELLO = Buffer.from("16030100050100000100", "hex");
  const attacks = {
    "garbage behind the first byte": Buffer.concat([Buffer.from([0x16]), Buffer.alloc(5_000, 0xab)]),
    "a record that is too long": Buffer.from([0x16, 3, 1, 0xff, 0xff, 1, 2, 3]),
    "a handshake that is none": HELLO,
    "application data before a handshake": Buffer.concat([Buffer.from([0x16, 3, 1, 0, 1, 1]), Buffer.from([0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5])]),
    "a request of HTTP behind the first byte": Buffer.concat([Buffer.from([0x16]), Buffer.from(GET("/"))]),
    "an alert at once": Buffer.from([0x15, 3, 1, 0, 2, 2, 40]),
    "a megabyte of hello": Buffer.concat([Buffer.from([0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff]), Buffer.alloc(1 << 20, 1)]),
  };
  for (const [name, bytes] of Object.entries(attacks)) {
    test(`${name}: the connection is closed`, async (t) => {
      const socket = await plain(t);
      socket.write(bytes);
      await soon("the end of the connection", socket.ended, 30_000);
      await stillServed(t);
    });
  }

  test("half a handshake is waited for, but not for ever", async (t) => {
    const [silent, trickling] = [await plain(t), await plain(t)];
    silent.write(Buffer.from([0x16, 3, 1, 2, 0, 1]));
    trickling.write(Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1]));
    const trickle = setInterval(() => trickling.write(Buffer.from([0])), 200);
    t.after(() => clearInterval(trickle));
    await soon("the end of the silent one", silent.ended, 40_000);
    await soon("the end of the slow one", trickling.ended, 40_000);
  });

  test("a stream that is tampered with ends, and its last words are spoken", async (t) => {
    const namespace = fresh();
    const watcher = await client(t, server, namespace);
    const status = await watch(watcher.ref("status"));
    // Somebody stands between who can change bytes.
    const meddler = net.createServer((near) => {
      const far = net.connect(server.port, "127.0.0.1");
      meddler.spoil = () => far.write(Buffer.from([0x17, 3, 3, 0, 20, ...Array(20).fill(7)]));
      near.on("data", (bytes) => far.write(bytes)).on("error", () => {}).on("close", () => far.destroy());
      far.on("data", (bytes) => near.write(bytes)).on("error", () => {}).on("close", () => near.destroy());
    });
    await new Promise((done) => meddler.listen(0, "127.0.0.1", done));
    t.after(() => meddler.close());
    const url = `https://127.0.0.1:${meddler.address().port}?ns=${namespace}`;
    const peer = await Peer.start({ family: "v8", url }, { NODE_EXTRA_CA_CERTS: authority.file });
    t.after(() => peer.kill());
    await peer.run((client) => client.ref("status").onDisconnect().set("offline"));
    await settle(watcher);
    assert.deepEqual(status.seen, [null]);
    meddler.spoil();
    await status.untilLast("offline");
  });

  test("two hundred who only begin a handshake", async (t) => {
    const crowd = await Promise.all(Array.from({ length: 200 }, () => plain(t)));
    for (const socket of crowd) socket.write(Buffer.from([0x16, 3, 1, 2, 0]));
    await stillServed(t);
    for (const socket of crowd) socket.destroy();
  });

  test("a hundred handshakes at once", async (t) => {
    const crowd = await Promise.all(Array.from({ length: 100 }, () => raw(t)));
    for (const socket of crowd) socket.write(GET("/.json?sv=timestamp&ns=x"));
    for (const socket of crowd) await until("an answer", () => /\r\n\r\n\d+$/.test(socket.received));
  });

  test("single bytes, in both directions of the layers", async (t) => {
    // What TLS carries comes in pieces, and the records themselves, too.
    const socket = await raw(t);
    socket.setNoDelay(true);
    for (const byte of GET("/.json?sv=timestamp&ns=x")) {
      socket.write(byte);
      await new Promise((done) => setImmediate(done));
    }
    await until("an answer", () => /\r\n\r\n\d+$/.test(socket.received));
  });
});

test("a farewell in TLS is answered with one, and what was asked before it is answered", async (t) => {
  const socket = await raw(t, { allowHalfOpen: true });
  socket.end(`GET /.json?sv=timestamp&ns=x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  await soon("the end", socket.ended);
  assert.match(socket.received, /^HTTP\/1.1 200 [^]*\r\n\r\n\d+$/);
  assert.equal(socket.failed, undefined);
});

test("a certificate is renewed by SIGHUP; a wrong pair changes nothing", async (t) => {
  const first = authority.issue(NAMES);
  const own = await Server.start({ config: TLS, files: files(first) });
  t.after(() => own.stop());
  const serial = async () => (await raw(t, {}, own)).getPeerX509Certificate().serialNumber;
  assert.equal(await serial(), first.leaf.serialNumber);
  const namespace = fresh();
  const old = await secure(t, { family: "v8", namespace }, own);
  await old.run((client) => client.ref("a").set(1));

  const second = authority.issue(NAMES, ["rsa:2048"]);
  own.write("server.pem", second.cert);
  await own.reload("tls_reloads_total", "refused");
  assert.equal(await serial(), first.leaf.serialNumber, "the key is still the first one's");
  await own.logged(/server\.key.*it is not the key of the first certificate in .*server\.pem/);

  own.write("server.key", second.key);
  await own.reload("tls_reloads_total", "ok");
  assert.equal(await serial(), second.leaf.serialNumber);
  // Who was there stays.
  await old.run((client) => client.ref("a").set(2));
});

describe("stillhere check", { concurrency: 2 }, () => {
  const BAD = {
    "no file": [{}, /server\.pem: cannot be read: No such file/],
    "no certificate": [{ "server.pem": "hello" }, /server\.pem: there is no certificate in it/],
    "half a certificate": [{ "server.pem": "-----BEGIN CERTIFICATE-----\nMIIB" }, /server\.pem: is not PEM: /],
    "a certificate of nonsense": [{ "server.pem": "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n" }, /server\.pem: the first certificate cannot be used: /],
    "no key": [{ "server.key": "" }, /server\.key: there is no private key in it/],
    "a key with a password": [{ "server.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n" }, /server\.key: the key in it is encrypted with a password/],
    "a key of nonsense": [{ "server.key": "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n" }, /server\.key: the key cannot be used: /],
  };
  const check = async (t, texts) => {
    const folder = new Authority();
    t.after(() => folder.remove());
    for (const [name, text] of Object.entries({ ...texts, "stillhere.toml": `data = "data"\n${TLS}` })) writeFileSync(`${folder.folder}/${name}`, text);
    const program = new Program(BIN, ["check", "--config", `${folder.folder}/stillhere.toml`]);
    return { ...(await program.ended()), logs: program.logs, lines: program.lines.seen };
  };
  for (const [name, [wrong, message]] of Object.entries(BAD)) {
    test(`${name} is 78, with the file and the reason`, async (t) => {
      const texts = Object.keys(wrong).length > 0 ? { ...files(certificate), ...wrong } : {};
      const { code, logs } = await check(t, texts);
      assert.equal(code, 78, logs);
      assert.match(logs, message);
    });
  }

  test("a pair that fits is 0", async (t) => {
    const { code, lines, logs } = await check(t, files(certificate));
    assert.equal(code, 0, logs);
    assert.ok(lines.some((line) => /^tls\.cert .*server\.pem/.test(line)), lines.join("\n"));
  });
});
