// A client that says exactly what it is told to say, and remembers every frame that it gets.

import WebSocket from "ws";

import { Record, soon } from "./until.mjs";

const SEGMENT = 16384;

export class Raw {
  /** Whole messages, parsed. */
  messages = new Record("messages");
  /** Text frames as they came. */
  frames = [];
  #parts = 0;
  #text = "";
  #request = 0;
  /** Who waits for which answer. */
  #waiting = new Map();

  /** Connects and waits for the handshake. */
  static async open(t, server, namespace, { query = "", options = {} } = {}) {
    const raw = Raw.dial(t, `ws://127.0.0.1:${server.port}/.ws?v=5&ns=${namespace}${query}`, options);
    const [first] = await raw.messages.until((seen) => seen.length > 0, "the handshake");
    raw.handshake = first.d.d;
    return raw;
  }

  static dial(t, url, options = {}) {
    const raw = new Raw();
    raw.socket = new WebSocket(url, options);
    raw.socket.on("error", () => {});
    raw.opened = new Promise((resolve) => raw.socket.on("open", resolve));
    raw.closed = new Promise((resolve) => raw.socket.on("close", (code) => resolve(code)));
    raw.socket.on("message", (data, isBinary) => raw.#frame(isBinary ? data : String(data)));
    raw.closed.then((code) => (raw.code = code));
    t.after(() => raw.socket.terminate());
    return raw;
  }

  #frame(text) {
    this.frames.push(text);
    if (this.#parts === 0 && text.length <= 6 && !Number.isNaN(Number(text))) {
      this.#parts = Number(text);
      this.#text = "";
      if (this.#parts === 0) this.messages.add("the frame that no client survives");
      return;
    }
    this.#text = this.#parts > 0 ? this.#text + text : text;
    if (this.#parts > 0 && --this.#parts > 0) return;
    const message = JSON.parse(this.#text);
    this.messages.add(message);
    const resolve = this.#waiting.get(message.d?.r);
    this.#waiting.delete(message.d?.r);
    resolve?.(message.d.b);
  }

  /** Sends a message as the SDKs do. */
  send(message) {
    const text = JSON.stringify(message);
    if (text.length <= SEGMENT) return this.socket.send(text);
    this.socket.send(String(Math.ceil(text.length / SEGMENT)));
    for (let at = 0; at < text.length; at += SEGMENT) this.socket.send(text.slice(at, at + SEGMENT));
  }

  /** Sends a request, waits for its answer: `{ s, d }`. */
  async ask(a, b) {
    const r = this.begin(a, b);
    const answered = new Promise((resolve, reject) => {
      this.#waiting.set(r, resolve);
      this.closed.then((code) => reject(new Error(`closed with ${code} after ${name()}`)));
    });
    const name = () => `${a} ${JSON.stringify(b)?.slice(0, 200)}`;
    return soon(() => `the answer to ${name()}`, answered);
  }

  /** Sends a request, gives its number. */
  begin(a, b) {
    const r = ++this.#request;
    this.send({ t: "d", d: { r, a, b } });
    return r;
  }

  /** What came since `from`, in short: `[action, path, data]` of pushes, `[status]` of answers. */
  since(from) {
    const data = this.messages.seen.slice(from).filter((message) => message.t === "d");
    return data.map(({ d }) => {
      if (d.a) return [d.a, d.b.p.replace(/^\//, ""), d.b.d, ...(d.b.t === undefined ? [] : [d.b.t])];
      return [d.b.s];
    });
  }

  /** What comes of one request, up to its answer. */
  async told(a, b) {
    const from = this.messages.seen.length;
    await this.ask(a, b);
    return this.since(from);
  }

  async close() {
    this.socket.close();
    return soon("the end of the connection", this.closed);
  }
}
