// The commands that look at a running server, and the demo: as an operator types them.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { BIN, Program, ROOT, Server } from "./lib/server.mjs";
import { PATIENCE_MS } from "./lib/until.mjs";
import { client, watch } from "./lib/watch.mjs";

let server;
before(async () => (server = await Server.start({})));
after(() => server?.stop());

let runs = 0;
const fresh = () => `operate${++runs}`;

/** Runs a command to its end. */
function run(args, { url = `http://127.0.0.1:${server.port}`, auth = "owner" } = {}) {
  const env = { PATH: process.env.PATH, STILLHERE_URL: url, ...(auth && { STILLHERE_AUTH: auth }) };
  return new Promise((resolve) => {
    execFile(BIN, args, { env, timeout: PATIENCE_MS }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code : 0, lines: stdout.split("\n").filter(Boolean), stderr });
    });
  });
}

const rows = async (args) => {
  const { code, lines, stderr } = await run([...args, "--json"]);
  assert.equal(code, 0, stderr);
  return lines.map((line) => JSON.parse(line));
};

describe("commands for operators", () => {
  test("sessions are listed and ended", async (t) => {
    const ns = fresh();
    const [joe, ann] = [await client(t, server, ns), await client(t, server, ns)];
    const seen = await watch(ann.ref("status/joe"));
    await joe.ref("status/joe").onDisconnect().set("offline");
    const all = await rows(["sessions", "ls", "--namespace", ns]);
    assert.equal(all.length, 2);
    const [{ session }] = all.filter(({ words }) => words === 1);
    const { lines } = await run(["sessions", "ls", "--namespace", ns]);
    assert.match(lines[0], /^SESSION +PROTOCOL +USER +AGE +LAST HEARD +LAST WORDS$/);
    assert.equal(lines.length, 3);
    assert.equal((await rows(["sessions", "ls", "--namespace", ns, "--limit", "1"])).length, 1);
    const killed = await run(["sessions", "kill", "--namespace", ns, session]);
    assert.deepEqual([killed.code, killed.lines], [0, [`killed ${session}`]]);
    await seen.untilLast("offline");
    const again = await run(["sessions", "kill", "--namespace", ns, session]);
    assert.deepEqual([again.code, /no such session/.test(again.stderr)], [1, true], again.stderr);
  });

  test("last words are listed and explained", async (t) => {
    const ns = fresh();
    const joe = await client(t, server, ns);
    await joe.ref("status/joe").onDisconnect().set("offline");
    const [word] = await rows(["ondisconnect", "ls", "--namespace", ns]);
    assert.deepEqual([word.path, word.kind, word.preview], ["/status/joe", "set", '"offline"']);
    await joe.ref("status/joe").set("online");
    const before = await run(["explain", "--namespace", ns, "/status/joe"]);
    assert.match(before.lines.join("\n"), /^\/status\/joe: "online"\nlast write .* by the client of session/);
    const seen = await watch((await client(t, server, ns)).ref("status/joe"));
    await joe.goOffline();
    await seen.untilLast("offline");
    const after = await run(["explain", "--namespace", ns, "/status/joe"]);
    assert.match(after.lines.join("\n"), /last write .* the last word of session \((closed|dropped)\)/);
    assert.match(after.lines.join("\n"), /spoken \/status\/joe/);
  });

  test("top is plain where nobody watches", async () => {
    const { code, lines } = await run(["top", "--namespace", fresh(), "--count", "2"]);
    assert.equal(code, 0);
    assert.equal(lines.filter((line) => line.startsWith("CORE ")).length, 2);
    assert.ok(!lines.join("").includes("\x1b"), "no orders to a terminal");
  });

  test("who is no administrator is told so", async () => {
    for (const args of [["sessions", "ls"], ["ondisconnect", "ls"], ["explain", "/a"], ["top"]]) {
      const [command, ...rest] = args;
      const { code, stderr } = await run([command, ...rest, "--namespace", "x"], { auth: null });
      assert.deepEqual([code, /401.*--auth/.test(stderr)], [1, true], stderr);
    }
  });
});

test("the dashboard and the alerts ask for what a server prints", async () => {
  const printed = await (await fetch(`http://${server.ready.internal}/metrics`)).text();
  const families = new Map();
  for (const [, name] of printed.matchAll(/^# TYPE (\S+) /gm)) families.set(name, new Set());
  const familyOf = (name) => [name, name.replace(/_(total|bucket|sum|count)$/, "")].find((known) => families.has(known));
  for (const [, name, labels] of printed.matchAll(/^([a-z_]+)\{([^}]*)\}/gm)) {
    for (const [, label] of labels.matchAll(/(\w+)=/g)) families.get(familyOf(name)).add(label);
  }
  const GIVEN = new Set(["job", "instance"]);
  for (const file of ["grafana.json", "alerts.yml"]) {
    const text = readFileSync(join(ROOT, "packaging", file), "utf8").replaceAll('\\"', '"');
    const asked = [...text.matchAll(/\b((?:stillhere|process)_[a-z_]+)(?:\{([^}]*)\})?/g)];
    assert.ok(asked.length > 5, file);
    for (const [, name, matchers = ""] of asked) {
      const family = familyOf(name);
      assert.ok(family, `${file}: no server prints ${name}`);
      for (const [, label] of matchers.matchAll(/(\w+)\s*(?:=~|!=|!~|=)/g)) {
        assert.ok(GIVEN.has(label) || families.get(family).has(label), `${file}: ${name} has no label ${label}`);
      }
    }
    for (const [, labels] of text.matchAll(/\bby \(([^)]*)\)/g)) {
      const known = new Set([...families.values()].flatMap((some) => [...some]));
      for (const label of labels.split(/, ?/)) assert.ok(GIVEN.has(label) || known.has(label) || label === "le", `${file}: nothing has a label ${label}`);
    }
  }
  JSON.parse(readFileSync(join(ROOT, "packaging/grafana.json"), "utf8"));
});

test("the demo plays, and leaves nothing behind", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "stillhere-e2e-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const free = await Server.start({});
  const port = free.port;
  await free.stop();
  const demo = new Program(BIN, ["demo", "--listen", `127.0.0.1:${port}`, "--people", "30"], { env: { PATH: process.env.PATH, TMPDIR: folder } });
  t.after(() => demo.process.kill("SIGKILL"));
  const lines = await demo.lines.until((seen) => seen.some((line) => line.startsWith("console ")), "it says where the console is");
  const console = lines.find((line) => line.startsWith("console ")).split(" ")[1];
  const look = async (view) => {
    const response = await fetch(`http://127.0.0.1:${port}/.stillhere/${view}.json?ns=demo`, { headers: { Authorization: "Bearer owner" } });
    return response.json();
  };
  const page = await fetch(console, { headers: { Accept: "text/html" } });
  assert.match(await page.text(), /<title>Stillhere console<\/title>/);
  const deadline = Date.now() + PATIENCE_MS;
  let spoken = 0;
  while (spoken === 0 && Date.now() < deadline) {
    spoken = (await look("recent")).recent.filter(({ became }) => became === "spoken").length;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(spoken > 0, "somebody has come and gone");
  assert.equal(readdirSync(folder).length, 1);
  demo.process.kill("SIGINT");
  assert.deepEqual(await demo.ended(), { code: 0, signal: null }, demo.logs);
  assert.deepEqual(readdirSync(folder), []);
});
