// A device: the bytes that the C SDK puts into its datagrams, by hand, and as few of its habits as tests need.

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { EventEmitter, once } from "node:events";

import { Record, soon } from "./until.mjs";

export const CODE = { get: 1, post: 2, put: 3, delete: 4, content: 0x45, unauthorized: 0x81, forbidden: 0x83 };
const OPTION = { host: 3, observe: 6, path: 11, query: 15 };

/** The bytes of a message. Options are pairs, in order. */
export function encode({ type = 0, code, id, token, options = [], payload = Buffer.alloc(0) }) {
  const parts = [Buffer.from([0x40 | (type << 4) | token.length, code, id >> 8, id & 255]), token];
  let last = 0;
  for (const [number, value] of options) {
    const bytes = Buffer.from(value);
    const nibble = (n) => (n < 13 ? n : n < 269 ? 13 : 14);
    const more = (n) => (n < 13 ? [] : n < 269 ? [n - 13] : [(n - 269) >> 8, (n - 269) & 255]);
    parts.push(Buffer.from([(nibble(number - last) << 4) | nibble(bytes.length), ...more(number - last), ...more(bytes.length)]), bytes);
    last = number;
  }
  if (payload.length > 0) parts.push(Buffer.from([0xff]), payload);
  return Buffer.concat(parts);
}

/** What a datagram says. */
export function decode(bytes) {
  const token = bytes.subarray(4, 4 + (bytes[0] & 15));
  const message = { type: (bytes[0] >> 4) & 3, code: bytes[1], id: bytes.readUInt16BE(2), token: token.toString("hex"), options: [] };
  let at = 4 + token.length;
  let number = 0;
  while (at < bytes.length && bytes[at] !== 0xff) {
    const read = (nibble) => (nibble < 13 ? nibble : nibble === 13 ? bytes[++at] + 13 : ((bytes[++at] << 8) | bytes[++at]) + 269);
    const first = bytes[at];
    number += read(first >> 4);
    const length = read(first & 15);
    message.options.push([number, bytes.subarray(at + 1, at + 1 + length)]);
    at += 1 + length;
  }
  message.observe = message.options.find(([option]) => option === OPTION.observe)?.[1].reduce((sum, byte) => sum * 256 + byte, 0);
  message.payload = bytes.subarray(at + 1);
  return message;
}

/** A text as the SDK writes it. */
export function text(value) {
  const bytes = Buffer.from(value);
  if (bytes.length > 23) throw new Error("short texts only");
  return Buffer.concat([Buffer.from([0x60 + bytes.length]), bytes]);
}

/** A DTLS tunnel with the only suite that the SDK has: looks like a socket. The name that is expected is the SDK's. */
export class Tunnel extends EventEmitter {
  constructor(address, authority) {
    super();
    this.process = spawn("openssl", [
      ...["s_client", "-dtls1_2", "-quiet", "-connect", address, "-cipher", "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"],
      ...["-CAfile", authority, "-verify_return_error", "-verify_hostname", "Li", "-servername", "Li"],
    ], { stdio: ["pipe", "pipe", "ignore"] });
    this.process.stdout.on("data", (bytes) => this.emit("message", bytes));
    this.process.stdin.on("error", () => {});
    this.process.on("close", () => this.emit("close"));
  }

  send(bytes) {
    this.process.stdin.write(bytes);
  }

  /** At once, and without a farewell. */
  close() {
    this.process.kill("SIGKILL");
  }
}

/** A device at a server's CoAP address, with all the habits of a fresh process: its first id is 1. */
export class Device {
  #id = 0;
  #waiting = new Map();
  values = new Record("what the device observes");
  names = [];

  /** `makeSocket` makes what its datagrams go through. */
  constructor(address, host = "myapp.wilddogio.com", makeSocket = () => createSocket("udp4")) {
    this.makeSocket = makeSocket;
    const [, name, port] = /^(.*):(\d+)$/.exec(address);
    this.to = [Number(port), name];
    this.host = host;
    /** Called with each datagram that is about to be sent or was received; says how often it is. */
    this.fate = () => 1;
    this.open();
  }

  open() {
    this.socket?.close();
    this.socket = this.makeSocket();
    this.socket.on("message", (bytes) => {
      for (let copies = this.fate(bytes); copies > 0; copies -= 1) this.#hear(decode(bytes));
    });
  }

  #hear(message) {
    this.#waiting.get(message.token)?.(message);
    if (message.type === 0) {
      const isKnown = this.observed === message.token;
      // With the token, against the standard.
      this.#send(encode({ type: isKnown ? 2 : 3, code: 0, id: message.id, token: Buffer.from(message.token, "hex") }));
      if (isKnown) this.#observe(message);
    }
  }

  #observe(message) {
    if (message.observe > (this.last ?? 0)) {
      this.last = message.observe;
      this.values.add(message.payload.toString("hex"));
    }
  }

  #send(bytes) {
    if (this.isDead) return;
    for (let copies = this.fate(bytes); copies > 0; copies -= 1) this.socket.send(bytes, ...this.to);
  }

  /** Sends a request, again after a while, as the SDK does after 2 and 6 seconds, and gives its answer. */
  async request(code, path, { payload, queries = [`.cs=${this.name}`], observe } = {}) {
    this.#id = (this.#id + 1) & 0xffff;
    const id = ((this.#id & 255) << 8) | (this.#id >> 8);
    const token = Buffer.from([this.#id & 255, 0x45, 0x8b, this.#id >> 8]);
    const options = [
      [OPTION.host, this.host],
      ...(observe === undefined ? [] : [[OPTION.observe, [observe]]]),
      ...path.split("/").slice(1).map((segment) => [OPTION.path, segment]),
      ...queries.map((query) => [OPTION.query, query]),
    ];
    const bytes = encode({ code, id, token, options, payload });
    const key = token.toString("hex");
    if (observe === 0) [this.observed, this.last] = [key, 0];
    const answered = new Promise((resolve) => this.#waiting.set(key, (message) => message.type === 2 && resolve(message)));
    // Not sooner: an observe request that comes again within 1.5 seconds is taken for a storm and not answered.
    const again = [0, 2_000, 6_000].map((wait) => setTimeout(() => this.#send(bytes), wait));
    try {
      const answer = await soon(`answer to ${path}`, answered);
      if (observe === 0) this.#observe(answer);
      return answer;
    } finally {
      again.forEach(clearTimeout);
      this.#waiting.delete(key);
    }
  }

  /** Gets its session, or another name for it. */
  async begin(token = "") {
    const answer = await this.request(CODE.post, "/.cs", { payload: Buffer.from(token), queries: ["v=2"] });
    if (answer.code !== CODE.content || answer.payload.length !== 48) throw new Error(`/.cs: ${answer.code}`);
    this.name = answer.payload.subarray(4, 12).toString();
    this.pass = answer.payload.subarray(16).toString();
    await this.ping();
  }

  ping() {
    return this.request(CODE.get, "/.ping");
  }

  off() {
    return this.request(CODE.get, "/.off");
  }

  set(path, payload) {
    return this.request(CODE.put, path, { payload });
  }

  get(path) {
    return this.request(CODE.get, path);
  }

  observe(path) {
    return this.request(CODE.get, path, { observe: 0 });
  }

  onDisconnectSet(path, payload) {
    return this.request(CODE.put, path, { payload, queries: [".dis=add", `.cs=${this.name}`] });
  }

  /** The power is cut: nothing is said. */
  async die() {
    if (this.isDead) return;
    this.isDead = true;
    this.socket.close();
    await once(this.socket, "close");
  }
}
