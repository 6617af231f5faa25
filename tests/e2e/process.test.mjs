// The command itself: what scripts and operators rely on, and what the README says.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { Raw } from "./lib/raw.mjs";
import { BIN, Program, ROOT, Server } from "./lib/server.mjs";
import { PATIENCE_MS, soon } from "./lib/until.mjs";
import { client, watch } from "./lib/watch.mjs";

/** Runs the command to its end. */
async function run(...args) {
  const program = new Program(BIN, args);
  const { code } = await program.ended();
  return { code, out: program.lines.seen.filter((line) => !/^exit /.test(line)).join("\n"), logs: program.logs };
}

function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "stillhere-e2e-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

describe("the command", { concurrency: 2 }, () => {
  test("says when it is ready, once, in one line", async (t) => {
    const server = await Server.start();
    const lines = server.program.lines.seen.filter((line) => line.startsWith("ready "));
    assert.equal(lines.length, 1);
    assert.match(lines[0], /^ready tcp=127\.0\.0\.1:\d+ coap=(-|\S+:\d+) coaps=(-|\S+:\d+) internal=\S+:\d+ shards=\d+$/);
    await server.stop();
  });

  test("wrong usage is 2", async () => {
    assert.equal((await run("serve", "--no-such-flag")).code, 2);
    assert.equal((await run("dance")).code, 2);
  });

  test("a wrong configuration is 78, with the place", async (t) => {
    const file = join(folder(t), "stillhere.toml");
    for (const [text, place] of [
      ['heartbeat = "1s"\nno_such_key = 1\n', /no_such_key/],
      ['heartbeat = "soon"\n', /stillhere\.toml:1:/],
      ['late_last_words = "never"\n', /stillhere\.toml:1:/],
      ["heartbeat = \n", /stillhere\.toml:1:/],
    ]) {
      writeFileSync(file, text);
      for (const command of ["check", "serve"]) {
        const { code, out, logs } = await run(command, "--config", file, ...(command === "serve" ? ["--data", join(folder(t), "data")] : []));
        assert.equal(code, 78, `${command} with ${text}: ${out}${logs}`);
        assert.match(out + logs, place);
      }
    }
    writeFileSync(file, 'heartbeat = "1s"\n');
    assert.equal((await run("check", "--config", file)).code, 0);
  });

  test("--dev is refused where strangers could come", async (t) => {
    const { code } = await run("serve", "--dev", "--listen", "0.0.0.0:0", "--data", join(folder(t), "data"));
    assert.ok(code === 2 || code === 78, `${code}`);
  });

  test("an address that is taken is a failure with a reason", async (t) => {
    const server = await Server.start();
    const taken = `127.0.0.1:${server.port}`;
    const { code, logs } = await run("serve", "--dev", "--listen", taken, "--data", join(folder(t), "data"), "--shards", "1");
    assert.equal(code, 1);
    assert.match(logs, new RegExp(taken.replaceAll(".", "\\.")));
    await server.stop();
  });

  test("SIGTERM lets clients go and ends with 0, while they talk", async (t) => {
    const server = await Server.start();
    const raws = await Promise.all(Array.from({ length: 20 }, () => Raw.open(t, server, "busy")));
    const talk = async (raw, n) => {
      for (;;) await raw.ask("p", { p: `/u${n}`, d: n });
    };
    const ends = raws.map((raw, n) => talk(raw, n).catch((error) => error.message));
    await server.stop();
    for (const end of await Promise.all(ends)) assert.match(end, /^closed with/);
  });

  test("SIGINT does, too", async () => {
    const server = await Server.start();
    server.program.process.kill("SIGINT");
    assert.deepEqual(await server.program.ended(), { code: 0, signal: null });
  });

  test("without --dev and without rules nobody may do anything, and clients are told so", async (t) => {
    const path = folder(t);
    const server = new Server();
    server.folder = path;
    server.program = new Program(BIN, ["serve", "--listen", "127.0.0.1:0", "--data", join(path, "data"), "--shards", "1"]);
    await server.becomeReady();
    for (const family of ["modular", "v8"]) {
      const one = await client(t, server, "closed", family);
      await assert.rejects(one.ref("x").set(1), (error) => /permission_denied/i.test(error.code ?? error.message));
      await assert.rejects(one.ref("x").get(), /Permission denied/);
      await assert.rejects(one.ref("x").onDisconnect().set(1), (error) => /permission_denied/i.test(error.code ?? error.message));
      const cancelled = await new Promise((resolve) => one.ref("x").on("value", () => {}, resolve));
      assert.match(cancelled.message, /permission_denied/i);
    }
    await server.stop();
  });

  test("no token reaches the log", async (t) => {
    const server = await Server.start({ args: ["--log-level", "trace"] });
    const raw = await Raw.open(t, server, "secret");
    await raw.ask("auth", { cred: "eyJsecret.eyJsecret.secret" });
    await raw.ask("gauth", { cred: "very-secret-token" });
    await raw.close();
    await server.stop();
    assert.doesNotMatch(server.logs, /eyJsecret|very-secret-token/);
    assert.ok(!server.logs.includes(raw.handshake.s), "a session's id is a secret, too");
  });

  test("a server that is held up at any moment goes on", async (t) => {
    const server = await Server.start();
    const raws = await Promise.all(Array.from({ length: 3 }, () => Raw.open(t, server, "held")));
    const held = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    for (let pause = 0; pause < 150; pause++) {
      // The moment must not be always the same: requests are under way, and answered, when it comes.
      const asked = raws.map((raw, n) => raw.ask("p", { p: `/u${n}`, d: pause }));
      if (pause % 3) await asked[0];
      server.program.process.kill("SIGSTOP");
      await held(pause % 15 === 0 ? 300 : 15);
      server.program.process.kill("SIGCONT");
      await soon(`answers after pause ${pause}`, Promise.all(asked));
    }
    await server.stop();
  });
});

describe("the README", () => {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/```(\w+)\n([^]*?)```/g)].map(([, language, text]) => ({ language, text: text.trim() }));
  const [serve, tests] = blocks.filter(({ language }) => language === "sh").map(({ text }) => text);

  test("tells two commands: this one, and the one that runs this", () => {
    assert.deepEqual(blocks.map(({ language }) => language), ["sh", "js", "sh"]);
    assert.equal(tests, "tests/run");
  });

  test("its first command serves, and its ten lines see presence flip", async (t) => {
    const path = folder(t);
    // Only port and folder differ: somebody may be using the usual ones.
    const environment = { ...process.env, STILLHERE_LISTEN: "127.0.0.1:0", STILLHERE_DATA: join(path, "data") };
    delete environment.STILLHERE_BIN;
    delete environment.STILLHERE_SHARDS;
    const [command, ...args] = serve.split(" ");
    const program = new Program(command, args, { cwd: ROOT, env: environment });
    const server = new Server();
    server.folder = path;
    server.program = program;
    await server.becomeReady(10 * PATIENCE_MS);

    const { text } = blocks[1];
    assert.ok(text.split("\n").length <= 12, "about ten lines");
    const file = join(ROOT, "tests/e2e/node_modules/.readme.mjs");
    writeFileSync(file, text.replace("127.0.0.1:9000", `127.0.0.1:${server.port}`));
    const app = new Program(process.execPath, [file]);
    t.after(() => app.process.kill("SIGKILL"));
    await app.lines.until((seen) => seen.at(-1)?.endsWith("offline"), "joe is offline");
    const states = app.lines.seen.map((line) => line.split(" ").at(-1));
    assert.deepEqual(states.filter((state) => state !== "null"), ["online", "offline"]);

    // Cargo passes the signal on by ending; the server is its child.
    const pid = Number(readFileSync(`/proc/${program.process.pid}/task/${program.process.pid}/children`, "utf8").trim().split(" ")[0]);
    process.kill(pid || program.process.pid, "SIGTERM");
    assert.equal((await program.ended()).code, 0);
  });
});
