// The real server, as a process: what a user starts is what is tested.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { PATIENCE_MS, Record, soon } from "./until.mjs";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
export const BIN = process.env.STILLHERE_BIN ?? join(ROOT, "target/release/stillhere");
export const SHARDS = process.env.STILLHERE_SHARDS ?? "1";

/** Timeouts so short that silence is found while a test waits, and long enough for a busy machine. */
export const IMPATIENT = `heartbeat = "1s"\nsession_timeout = "4s"\n`;

/** The environment of a server: ours, without what we were told about it. */
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("STILLHERE_")));

let namespaces = 0;

/** A process that prints lines. */
export class Program {
  lines = new Record("standard output");
  /** What it has logged so far, in pieces. Logging waits for nobody: a line comes a while after what it tells of. */
  pieces = new Record("standard error");

  constructor(command, args, options = {}) {
    this.process = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env: ENVIRONMENT, ...options });
    createInterface({ input: this.process.stdout }).on("line", (line) => this.lines.add(line));
    this.process.stderr.setEncoding("utf8").on("data", (text) => this.pieces.add(text));
    this.exited = once(this.process, "close").then(([code, signal]) => ({ code, signal }));
    this.exited.then(({ code, signal }) => this.lines.add(`exit ${code ?? signal}`), () => {});
  }

  get logs() {
    return this.pieces.seen.join("");
  }

  /** Waits for something to be logged. */
  async logged(pattern) {
    await this.pieces.until((seen) => pattern.test(seen.join("")), `${pattern}`);
  }

  /** Waits for the end, kills if it does not come, and tells how it ended. */
  async ended() {
    try {
      return await soon(() => `end of ${this.process.spawnargs.join(" ")}\n${this.logs}`, this.exited);
    } finally {
      this.process.kill("SIGKILL");
    }
  }
}

/** A server that is ready to serve. */
export class Server {
  /** Starts one on a free port. `config` is the text of a configuration file. */
  static async start(options = {}) {
    const { config = "", args = [], data, isDev = true, files = {}, env = {}, listen = "127.0.0.1:0", shards = SHARDS } = options;
    const server = new Server();
    server.folder = mkdtempSync(join(tmpdir(), "stillhere-e2e-"));
    server.data = data ?? join(server.folder, "data");
    const file = join(server.folder, "stillhere.toml");
    writeFileSync(file, config);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(server.folder, name), text);
    server.program = new Program(BIN, [
      ...["serve", ...(isDev ? ["--dev"] : []), "--config", file, "--listen", listen],
      ...["--shards", shards, "--data", server.data, ...args],
    ], { env: { ...ENVIRONMENT, ...env } });
    await server.becomeReady();
    return server;
  }

  /** Waits for the line that says so. Longer than usual where the server must first be compiled. */
  async becomeReady(patienceMs = PATIENCE_MS) {
    const lines = await this.program.lines
      .until((seen) => seen.some((line) => /^(ready|exit) /.test(line)), "the server is ready", patienceMs)
      .catch((error) => {
        throw new Error(`${error.message}\n${this.program.logs}`);
      });
    const ready = lines.find((line) => line.startsWith("ready "));
    if (!ready) throw new Error(`the server ended: ${lines}\n${this.program.logs}`);
    this.ready = Object.fromEntries(ready.split(" ").slice(1).map((pair) => pair.split("=")));
    this.port = Number(this.ready.tcp.split(":").at(-1));
  }

  /** Writes a file of its folder anew. */
  write(name, text) {
    writeFileSync(join(this.folder, name), text);
  }

  /** The sum of the samples of a metric whose line has `part` in it. */
  async metric(name, part = "") {
    const text = await (await fetch(`http://${this.ready.internal}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line.startsWith(`stillhere_${name}`) && line.includes(part));
    return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  /** Waits until the metric is not what it was. */
  async metricAfter(was, name, part) {
    const deadline = Date.now() + 60_000;
    while ((await this.metric(name, part)) === was) {
      if (Date.now() > deadline) throw new Error(`${name}${part} stays ${was}\n${this.logs}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Makes it read its files again; `metric` counts what is waited for. */
  async reload(metric, part) {
    const was = await this.metric(metric, part);
    this.program.process.kill("SIGHUP");
    await this.metricAfter(was, metric, part);
  }

  get pid() {
    return this.program.process.pid;
  }

  get logs() {
    return this.program.logs;
  }

  logged(pattern) {
    return this.program.logged(pattern);
  }

  /** The address of a database that nobody else has used; or of the one named. */
  url(namespace = `t${++namespaces}`, port = this.port) {
    return `http://127.0.0.1:${port}?ns=${namespace}`;
  }

  /** Stops it as an operator would, and insists that it goes in peace. */
  async stop() {
    this.program.process.kill("SIGTERM");
    const { code, signal } = await this.program.ended();
    rmSync(this.folder, { recursive: true, force: true });
    if (code !== 0) throw new Error(`the server ended with ${code ?? signal}\n${this.logs}`);
  }
}
