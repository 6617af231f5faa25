// Thin stand-ins for two platforms on which Wilddog's SDK runs: React Native and WeChat's mini programs. Each
// loads the package's own build for it, unmodified, into a world that has the platform's functions and no
// others: sockets, requests, storage, timers.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import vm from "node:vm";

import WebSocket from "ws";

const require = createRequire(import.meta.url);

/** Runs a build in a world of its own, gives what it exports. */
export function load(path, world) {
  const file = require.resolve(path);
  const { setTimeout, clearTimeout, setInterval, clearInterval, console } = globalThis;
  const globals = vm.createContext({ setTimeout, clearTimeout, setInterval, clearInterval, console, ...world });
  globals.global = globals;
  const module = { exports: {} };
  vm.runInContext(`(function (module, exports) {${readFileSync(file, "utf8")}\n})`, globals, { filename: file })(module, module.exports);
  return module.exports;
}

function ask(url, { method = "GET", headers = {}, body }, done, failed) {
  const request = (url.startsWith("https:") ? https : http).request(url, { method, headers }, (response) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (piece) => (text += piece)).on("end", () => done(response, text)).on("error", failed);
  });
  request.on("error", failed).end(body);
  return request;
}

/** A socket as every browser has it, without Node's own additions. */
class Socket {
  constructor(url, protocols) {
    this.socket = new WebSocket(url, protocols ?? []);
    this.socket.onopen = () => this.onopen?.({});
    this.socket.onmessage = ({ data }) => this.onmessage?.({ data });
    this.socket.onerror = ({ message }) => this.onerror?.({ message });
    this.socket.onclose = ({ code, reason }) => this.onclose?.({ code, reason });
  }
  get readyState() {
    return this.socket.readyState;
  }
  send(text) {
    this.socket.send(text);
  }
  close(...args) {
    this.socket.close(...args);
  }
}

/** The request object of browsers and of React Native, as far as it is used. */
class XMLHttpRequest {
  readyState = 0;
  status = 0;
  responseText = "";
  withCredentials = false;
  #headers = {};

  open(method, url) {
    Object.assign(this, { method, url, readyState: 1 });
  }
  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }
  getResponseHeader(name) {
    return this.response?.headers[name.toLowerCase()] ?? null;
  }
  send(body) {
    const end = (response, text) => {
      Object.assign(this, { response, responseText: text, status: response?.statusCode ?? 0, readyState: 4 });
      this.onreadystatechange?.();
    };
    this.request = ask(this.url, { method: this.method, headers: this.#headers, body }, end, () => (end(undefined, ""), this.onerror?.()));
  }
  abort() {
    this.request?.destroy();
  }
}

/** What a program finds in React Native. */
export function reactNativeWorld() {
  class Request extends XMLHttpRequest {}
  Request.prototype.open = XMLHttpRequest.prototype.open;
  const world = { navigator: { product: "ReactNative" }, WebSocket: Socket, XMLHttpRequest: Request };
  world.window = world;
  return world;
}

/** wilddog for React Native. `repoint` is what an app does before it loads the SDK, with the platform's globals. */
export function reactNative(repoint) {
  const world = reactNativeWorld();
  repoint(world);
  return load("wilddog/lib/wilddog-rn-all.js", world);
}

/** `wx`: one socket for the whole program, whose callbacks are set once. */
function wxShim() {
  const storage = new Map();
  const told = {};
  let socket;
  return {
    connectSocket({ url, fail }) {
      if (socket && socket.readyState <= WebSocket.OPEN) return fail?.({ errMsg: "connectSocket:fail already connected" });
      const own = (socket = new WebSocket(url));
      const tell = (name, what) => own === socket && told[name]?.(what);
      own.onopen = () => tell("open", {});
      own.onmessage = ({ data }) => tell("message", { data });
      own.onerror = ({ message }) => tell("error", { errMsg: message });
      own.onclose = ({ code, reason }) => tell("close", { code, reason });
    },
    onSocketOpen: (callback) => (told.open = callback),
    onSocketMessage: (callback) => (told.message = callback),
    onSocketError: (callback) => (told.error = callback),
    onSocketClose: (callback) => (told.close = callback),
    sendSocketMessage: ({ data }) => socket?.readyState === WebSocket.OPEN && socket.send(data),
    closeSocket: () => socket?.close(),
    request({ url, method, data, header, success, fail, complete }) {
      const isJson = /json/.test(header?.["content-type"] ?? header?.["Content-Type"] ?? "json");
      const body = method === "POST" ? (typeof data === "string" ? data : JSON.stringify(data)) : undefined;
      const address = new URL(url);
      if (body === undefined) for (const [name, value] of Object.entries(data ?? {})) address.searchParams.set(name, value);
      const done = (response, text) => {
        let answer = text;
        if (isJson) {
          try {
            answer = JSON.parse(text);
          } catch {
            // Then it is what it is.
          }
        }
        success?.({ data: answer, statusCode: response.statusCode, header: response.headers });
        complete?.();
      };
      ask(address.href, { method, headers: { "Content-Type": "application/json", ...header }, body }, done, (error) => (fail?.({ errMsg: error.message }), complete?.()));
    },
    getStorageSync: (key) => storage.get(key) ?? "",
    setStorageSync: (key, value) => void storage.set(key, value),
    removeStorageSync: (key) => void storage.delete(key),
    login: ({ success }) => success({ code: "code" }),
    getUserInfo: ({ success }) => success({ userInfo: {} }),
  };
}

/** What a mini program finds in WeChat. */
export const miniProgramWorld = () => ({ navigator: { userAgent: "wechatdevtools" }, wx: wxShim() });

/** wilddog for WeChat's mini programs. `repoint` is what a program does before it requires the SDK. */
export function miniProgram(repoint) {
  const world = miniProgramWorld();
  repoint(world);
  return load("wilddog/weixin/wilddog-weapp-all.js", world);
}
