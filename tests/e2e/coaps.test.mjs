// Devices over DTLS: the SDK's suite, its host name, and whoever tries to disturb them.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { deleteApp, initializeApp } from "firebase/app";
import { getDatabase, onValue, ref } from "firebase/database";

import { Authority, files } from "./lib/certificates.mjs";
import { CODE, Device, Tunnel, text } from "./lib/coap.mjs";
import { Server } from "./lib/server.mjs";
import { Record, soon } from "./lib/until.mjs";

const CONFIG = `
[coap]
listen = "127.0.0.1:0"
[namespace.sealed.coap]
session_timeout = "20s"
[coaps]
listen = "127.0.0.1:0"
cert = "server.pem"
key = "server.key"
`;

/** The name that builds with mbedTLS insist on, whatever they connect to. */
const NAMES = ["Li", "127.0.0.1"];

let authority;
let server;
before(async () => {
  authority = new Authority();
  server = await Server.start({ config: CONFIG, files: files(authority.issue(NAMES)) });
});
after(async () => {
  await server.stop();
  authority.remove();
});

let apps = 0;
function seen(t, namespace, path) {
  const app = initializeApp({ databaseURL: server.url(namespace) }, `coaps-${++apps}`);
  t.after(() => deleteApp(app));
  const record = new Record(path);
  onValue(ref(getDatabase(app), path), (snapshot) => record.add(snapshot.val()));
  return record;
}

async function device(t, namespace) {
  const tunnel = () => new Tunnel(server.ready.coaps, authority.file);
  const device = new Device(server.ready.coaps, `${namespace}.wilddogio.com`, tunnel);
  t.after(() => device.die());
  await device.begin();
  return device;
}

describe("devices over DTLS", () => {
  test("live and die as those without", async (t) => {
    const status = seen(t, "sealed", "status");
    const lamp = await device(t, "sealed");
    await lamp.onDisconnectSet("/status", text("offline"));
    await lamp.set("/status", text("online"));
    await status.untilLast("online");
    const first = await lamp.observe("/wish");
    assert.equal(first.payload.toString("hex"), "f6");
    await fetch(server.url("sealed").replace("?", "/wish.json?"), { method: "PUT", body: "7" });
    await lamp.values.untilLast("07");
    await lamp.die();
    await status.untilLast("offline");
  });

  test("go on in another tunnel, and never in the clear", async (t) => {
    const lamp = await device(t, "moving");
    const eavesdropper = new Device(server.ready.coap, "moving.wilddogio.com");
    t.after(() => eavesdropper.die());
    eavesdropper.name = lamp.name;
    assert.equal((await eavesdropper.get("/x")).code, CODE.unauthorized);
    assert.equal((await eavesdropper.ping()).code, CODE.unauthorized);
    const returned = await eavesdropper.request(CODE.post, "/.rst", { payload: Buffer.from(lamp.pass), queries: [] });
    assert.equal(returned.code, 0x80);
    lamp.open();
    assert.equal((await lamp.set("/x", text("y"))).code, CODE.content);
    assert.equal((await lamp.ping()).code, CODE.content);
  });
});

const client = (name) => `/usr/bin/coap-client-${name}`;
const url = (path, where = server) => `coaps://${where.ready.coaps}/${path}?ns=tools`;

function run(name, ...args) {
  const { stdout, stderr, status } = spawnSync(client(name), ["-B", "20", ...args], { encoding: "utf8", timeout: 60_000 });
  assert.equal(status, 0, `${name} ${args}: ${stderr}`);
  return stdout.trim();
}

describe("coap-client of libcoap over DTLS", () => {
  for (const name of ["openssl", "gnutls"]) {
    test(`with ${name}: by certificate`, async (t) => {
      assert.ok(existsSync(client(name)), "libcoap3-bin is not installed: tests/run does it");
      const trust = ["-C", authority.file];
      run(name, ...trust, "-m", "put", "-e", `{"by":"${name}"}`, url(name));
      assert.equal(run(name, ...trust, "-m", "get", url(name)), `{"by":"${name}"}`);
      const heard = new Record(name);
      const observer = spawn(client(name), [...trust, "-s", "60", "-B", "60", "-m", "get", url(`${name}/seen`)]);
      t.after(() => observer.kill());
      let all = "";
      observer.stdout.on("data", (bytes) => heard.add((all += bytes)));
      await heard.until((seen) => seen.at(-1)?.startsWith("null"), "the first value");
      run(name, ...trust, "-m", "put", "-e", '"told"', url(`${name}/seen`));
      await heard.until((seen) => /"told"/.test(seen.at(-1)), "the second value");
    });
  }
});

/** What `openssl s_client` says about a connection. */
function probe(where, ...args) {
  const { stdout, stderr } = spawnSync(
    "openssl",
    ["s_client", "-connect", where.ready.coaps, "-CAfile", authority.file, "-servername", "Li", ...args],
    { encoding: "utf8", input: "", timeout: 20_000 },
  );
  return stdout + stderr;
}

test("the SDK's suite is spoken and its name believed; what is weaker is refused", () => {
  const sdk = ["-dtls1_2", "-verify_hostname", "Li", "-cipher", "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"];
  const good = probe(server, ...sdk);
  assert.match(good, /Cipher is ECDHE-ECDSA-AES128-CCM8/);
  assert.match(good, /Verify return code: 0 \(ok\)/);
  for (const bad of [["-dtls1", "-cipher", "ALL:@SECLEVEL=0"], ["-dtls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"]]) {
    assert.match(probe(server, ...bad), /Cipher is \(NONE\)|Cipher\s+: 0000/, `${bad}`);
  }
});

test("a certificate is renewed by SIGHUP; a wrong pair changes nothing", async (t) => {
  const first = authority.issue(NAMES);
  const own = await Server.start({ config: CONFIG, files: files(first) });
  t.after(() => own.stop());
  const shown = () => probe(own, "-dtls1_2").match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----\n/)?.[0];
  const firstOf = ({ cert }) => cert.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----\n/)[0];
  assert.equal(shown(), firstOf(first));
  const second = authority.issue(NAMES);
  own.write("server.pem", second.cert);
  await own.reload("tls_reloads_total", "refused");
  assert.equal(shown(), firstOf(first));
  own.write("server.key", second.key);
  await own.reload("tls_reloads_total", "ok");
  assert.equal(shown(), firstOf(second));
});

describe("hostile peers", () => {
  const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))[1]) * 1024;

  /** Sends datagrams from a fresh socket, and collects what comes back. */
  async function stranger(t, datagrams) {
    const socket = createSocket("udp4");
    t.after(() => socket.close());
    const [, name, port] = /^(.*):(\d+)$/.exec(server.ready.coaps);
    const heard = [];
    socket.on("message", (bytes) => heard.push(bytes));
    for (const datagram of datagrams) socket.send(datagram, Number(port), name);
    return { socket, heard };
  }

  /** The first hello of a real client. */
  async function hello() {
    const socket = createSocket("udp4").bind(0, "127.0.0.1");
    await once(socket, "listening");
    const to = `127.0.0.1:${socket.address().port}`;
    const args = ["s_client", "-dtls1_2", "-connect", to, "-cipher", "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"];
    const process = spawn("openssl", args, { stdio: "ignore" });
    const [bytes] = await soon("a hello", once(socket, "message"));
    process.kill("SIGKILL");
    socket.close();
    return bytes;
  }

  test("garbage, fragments and floods of hellos keep nobody from being served, and leave nothing", async (t) => {
    const lamp = await device(t, "hostile");
    const first = await hello();
    const was = memory();
    const garbage = [Buffer.alloc(0), Buffer.from([22]), first.subarray(0, 40), Buffer.alloc(1_400, 22), Buffer.alloc(1_400, 23)];
    for (let at = 0; at < first.length; at += 1) {
      const changed = Buffer.from(first);
      changed[at] ^= 0xff;
      garbage.push(changed);
    }
    for (let round = 0; round < 20; round += 1) {
      const { heard } = await stranger(t, [...garbage, ...Array(100).fill(first)]);
      assert.equal((await lamp.set("/alive", Buffer.from([round]))).code, CODE.content);
      // What is said to who has no cookie is shorter than what was asked.
      assert.ok(heard.every((bytes) => bytes.length <= first.length));
    }
    const other = await device(t, "hostile");
    assert.equal((await other.get("/alive")).payload[0], 19);
    assert.ok(memory() - was < 32 * 1024 * 1024, `${memory() - was} bytes more`);
  });

  test("half handshakes by the hundred keep nobody from having a whole one", async (t) => {
    const lamp = await device(t, "half");
    // Each has shown its cookie and is stuck there: a relay keeps the server's flight from it.
    const halves = await Promise.all(Array.from({ length: 40 }, async () => {
      const relay = createSocket("udp4").bind(0, "127.0.0.1");
      await once(relay, "listening");
      const outer = createSocket("udp4");
      t.after(() => (relay.close(), outer.close()));
      const [, name, port] = /^(.*):(\d+)$/.exec(server.ready.coaps);
      const process = spawn("openssl", ["s_client", "-dtls1_2", "-connect", `127.0.0.1:${relay.address().port}`], { stdio: "ignore" });
      t.after(() => process.kill("SIGKILL"));
      let from;
      relay.on("message", (bytes, { port: own }) => {
        from = own;
        outer.send(bytes, Number(port), name);
      });
      let sawFlight;
      const flight = new Promise((resolve) => (sawFlight = resolve));
      outer.on("message", (bytes) => {
        // Behind the heads of record and message: 3 asks for the cookie, 2 begins the flight.
        if (bytes[13] === 3) relay.send(bytes, from, "127.0.0.1");
        else sawFlight();
      });
      await soon("a flight", flight);
    }));
    assert.equal(halves.length, 40);
    assert.equal((await lamp.set("/alive", Buffer.from([1]))).code, CODE.content);
    const other = await device(t, "half");
    assert.equal((await other.get("/alive")).payload[0], 1);
  });
});
