// The original service's own tools, as they are published, pointed at the server by their environment.

import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { BIN, Server } from "./lib/server.mjs";
import { Record } from "./lib/until.mjs";

const run = promisify(execFile);
const TOOLS = fileURLToPath(new URL("tools/", import.meta.url));
const PYTHON = join(TOOLS, "node_modules/.python/bin/python");

let server;
let folder;
before(async () => {
  install();
  server = await Server.start();
  folder = mkdtempSync(join(tmpdir(), "stillhere-tools-"));
});
after(async () => {
  if (folder) rmSync(folder, { recursive: true, force: true });
  await server?.stop();
});

/** What the tests of this file alone need, in the versions that are written down. */
function install() {
  const must = (command, ...args) => {
    const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
    assert.equal(status, 0, `${command} ${args.join(" ")}: ${stderr}`);
  };
  if (!existsSync(join(TOOLS, "node_modules/.package-lock.json"))) {
    must("npm", "ci", "--prefix", TOOLS, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error");
  }
  if (!existsSync(join(TOOLS, "node_modules/.python/installed"))) {
    must("python3", "-m", "venv", join(TOOLS, "node_modules/.python"));
    must(PYTHON, "-m", "pip", "install", "--quiet", "-r", join(TOOLS, "requirements.txt"));
    writeFileSync(join(TOOLS, "node_modules/.python/installed"), "");
  }
}

const origin = () => `http://127.0.0.1:${server.port}`;

/** One value, as an administrator reads it. */
async function valueAt(ns, path) {
  const response = await fetch(`${origin()}${path}.json?ns=${ns}`, { headers: { authorization: "Bearer owner" } });
  return response.json();
}

describe("firebase-tools", () => {
  const NS = "tools";
  const write = (name, value) => {
    const file = join(folder, name);
    writeFileSync(file, JSON.stringify(value));
    return file;
  };

  /** Runs the command line with the addresses of all the services that it knows. */
  async function firebase(...args) {
    const env = {
      PATH: process.env.PATH,
      HOME: folder,
      FIREBASE_TOKEN: "any",
      ...Object.fromEntries(
        ["REALTIME_URL", "RTDB_MANAGEMENT_URL", "RTDB_METADATA_URL", "RESOURCEMANAGER_URL", "API_URL"].map((name) => [
          `FIREBASE_${name}`,
          origin(),
        ]),
      ),
    };
    const command = join(TOOLS, "node_modules/.bin/firebase");
    const { stdout } = await run(command, [...args, "--non-interactive", "--project", "demo-x"], { env, cwd: folder, timeout: 300_000 });
    return stdout;
  }
  const database = (command, ...args) => firebase(`database:${command}`, ...args, "--instance", NS);
  const json = (text) => JSON.parse(text.slice(text.search(/^[[{"\dntf-]/m)));

  test("set, get, update, push, import, remove", { timeout: 600_000 }, async () => {
    await database("set", "-f", "/", write("set.json", { a: { b: 1 }, c: [1, 2] }));
    assert.deepEqual(await valueAt(NS, "/"), { a: { b: 1 }, c: [1, 2] });
    assert.deepEqual(json(await database("get", "/")), { a: { b: 1 }, c: [1, 2] });
    assert.deepEqual(json(await database("get", "/", "--shallow", "--pretty")), { a: true, c: true });
    assert.deepEqual(json(await database("get", "/", "--order-by-key", "--limit-to-first", "1", "--export")), { a: { b: 1 } });
    await database("update", "-f", "/a", write("update.json", { b: null, "d/e": true }));
    assert.deepEqual(await valueAt(NS, "/a"), { d: { e: true } });
    await database("push", "/list", write("push.json", { x: 1 }));
    assert.deepEqual(Object.values(await valueAt(NS, "/list")), [{ x: 1 }]);
    await database("import", "-f", "/imported", write("import.json", { y: { z: [true] } }));
    assert.deepEqual(await valueAt(NS, "/imported"), { y: { z: [true] } });
    await database("remove", "-f", "/a");
    assert.equal(await valueAt(NS, "/a"), null);
  });

  test("profile", { timeout: 600_000 }, async () => {
    const output = join(folder, "profile.txt");
    let isRecording = true;
    const recording = database("profile", "--duration", "3", "--output", output).finally(() => (isRecording = false));
    const headers = { authorization: "Bearer owner" };
    // Nothing tells from outside when the recording begins: so there is always something to record.
    while (isRecording) {
      const url = `${origin()}/profiled/joe.json?ns=${NS}`;
      await fetch(url, { method: "PUT", headers, body: '"here"' });
      await (await fetch(url, { headers })).text();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await recording;
    const report = readFileSync(output, "utf8");
    assert.match(report, /Download[^]*\/profiled\/joe[^]*Upload[^]*\/profiled\/joe/, report);
  });

  test("settings and rules", { timeout: 600_000 }, async () => {
    assert.match(await database("settings:get", "defaultWriteSizeLimit"), /unlimited/);
    writeFileSync(join(folder, "firebase.json"), JSON.stringify({ database: { rules: "rules.json" } }));
    writeFileSync(join(folder, "rules.json"), '{"rules":{".read":true,".write":"auth != null"}} // deployed');
    await firebase("deploy", "--only", "database");
    const url = `${origin()}/.settings/rules.json?ns=demo-x-default-rtdb`;
    const rules = await (await fetch(url, { headers: { authorization: "Bearer owner" } })).text();
    assert.equal(rules, readFileSync(join(folder, "rules.json"), "utf8"));
    const refused = await fetch(`${origin()}/x.json?ns=demo-x-default-rtdb`, { method: "PUT", body: "1" });
    assert.equal(refused.status, 401);
    writeFileSync(join(folder, "rules.json"), '{"rules":{".read":tru}}');
    await assert.rejects(firebase("deploy", "--only", "database"), ({ stdout, stderr }) => /[Ss]yntax error/.test(stdout + stderr));
  });
});

test("firebase-admin for Node: an administrator's socket", { timeout: 300_000 }, async (t) => {
  const require = createRequire(join(TOOLS, "package.json"));
  process.env.FIREBASE_DATABASE_EMULATOR_HOST = `127.0.0.1:${server.port}`;
  const { initializeApp, deleteApp } = require("firebase-admin/app");
  const { getDatabase } = require("firebase-admin/database");
  const credential = { getAccessToken: async () => ({ access_token: "owner", expires_in: 3_600 }) };
  const app = initializeApp({ credential, projectId: "demo-x", databaseURL: `${origin()}?ns=admin-node` });
  t.after(() => deleteApp(app));
  const database = getDatabase(app);
  const seen = new Record("values");
  const ref = database.ref("a");
  ref.on("value", (snapshot) => seen.add(snapshot.val()));
  await ref.set({ b: 1 });
  await seen.untilLast({ b: 1 });
  const { snapshot } = await ref.child("b").transaction((value) => (value ?? 0) + 1);
  assert.equal(snapshot.val(), 2);
  assert.equal((await ref.orderByKey().limitToLast(1).get()).child("b").val(), 2);
  await database.setRules('{"rules":{".read":false}}');
  assert.match(await database.getRules(), /"\.read":false/);
  assert.equal((await fetch(`${origin()}/a.json?ns=admin-node`)).status, 401);
});

test("firebase-admin for Python: REST and streams", { timeout: 300_000 }, async () => {
  const { stdout } = await run(PYTHON, [join(TOOLS, "admin.py"), `${server.port}`], { timeout: 300_000 });
  assert.match(stdout, /all is well/);
});

test("export and import", { timeout: 300_000 }, async () => {
  const large = Object.fromEntries(Array.from({ length: 30_000 }, (_, n) => [`k${n}`, { n, t: ["x", null, { y: true }] }]));
  large.ranked = { ".value": 1, ".priority": 2 };
  const [file, back] = [join(folder, "large.json"), join(folder, "back.json")];
  writeFileSync(file, JSON.stringify(large));
  const stillhere = (command, ns, ...args) =>
    run(BIN, [command, "--url", origin(), "--auth", "owner", "--namespace", ns, ...args], { timeout: 300_000 });
  await stillhere("import", "moved", file);
  await stillhere("export", "moved", back);
  const moved = JSON.parse(readFileSync(back, "utf8"));
  assert.deepEqual(moved.ranked, large.ranked);
  assert.deepEqual(moved.k7, { n: 7, t: { 0: "x", 2: { y: true } } });
  assert.equal(Object.keys(moved).length, Object.keys(large).length);
  await assert.rejects(stillhere("import", "moved", file), /there is data already/);
  await stillhere("import", "moved", "--replace", "--path", "/part", back);
  await stillhere("import", "again", back);
  assert.deepEqual(await valueAt("again", "/k9"), { n: 9, t: ["x", null, { y: true }] });
  const { stdout } = await stillhere("export", "again", "--path", "/k8/n");
  assert.equal(stdout, "8");
  await assert.rejects(run(BIN, ["export", "--url", origin(), "--namespace", "again", "--auth", "wrong"]), /answers 401/);
});
