// Clients in processes of their own, so that they can exit, be killed, and freeze.

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

import { Record, soon } from "./until.mjs";

const CHILD = fileURLToPath(new URL("./peer-child.mjs", import.meta.url));

export class Peer {
  output = new Record("output of the client");
  #calls = new Map();
  #next = 0;

  /** Starts a process. `setup` is what `peer-child.mjs` is told to begin with; `env` adds to the environment. */
  static async start(setup, env = {}) {
    const peer = new Peer();
    peer.process = fork(CHILD, { stdio: ["ignore", "pipe", "pipe", "ipc"], env: { ...process.env, ...env } });
    peer.exited = once(peer.process, "exit");
    for (const stream of [peer.process.stdout, peer.process.stderr]) {
      stream.on("data", (text) => String(text).split("\n").filter(Boolean).forEach((line) => peer.output.add(line)));
    }
    peer.process.on("message", ({ id, error, value }) => {
      const { resolve, reject } = peer.#calls.get(id);
      peer.#calls.delete(id);
      if (error) reject(Object.assign(new Error(error.message), { code: error.code }));
      else resolve(value);
    });
    await peer.#ask({ setup });
    return peer;
  }

  /** Runs `action(client, argument)` over there. What it needs comes in as arguments. */
  run(action, argument) {
    return this.#ask({ action: action.toString(), argument });
  }

  #ask(message) {
    const id = ++this.#next;
    const answer = new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    this.process.send({ id, ...message });
    return soon(() => `${JSON.stringify(message)}; output: ${this.output.seen.join("\n")}`, answer);
  }

  async exit() {
    this.process.send({ exit: true });
    await soon("exit of the client", this.exited);
  }

  async kill() {
    this.process.kill("SIGKILL");
    await soon("death of the client", this.exited);
  }

  freeze() {
    this.process.kill("SIGSTOP");
  }

  thaw() {
    this.process.kill("SIGCONT");
  }
}
