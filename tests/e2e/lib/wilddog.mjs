// The published Wilddog SDKs for Node, as users install them, and the little that an app's owner has to do so
// that they find this server: a name for the lookup (2.x), and a name for the address.

import dns from "node:dns";
import http from "node:http";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import vm from "node:vm";

import { miniProgram, reactNative } from "./platforms.mjs";

const require = createRequire(import.meta.url);
const HERE = new URL("..", import.meta.url);

/** Where the server of each app is. */
const ports = new Map();

/** Names under `localhost` are this machine. What a resolver or a hosts file does elsewhere. */
const lookup = dns.lookup;
dns.lookup = (name, options, callback) => lookup(String(name).endsWith(".localhost") ? "127.0.0.1" : name, options, callback);

/** What the server calls itself to whoever looks it up: a name that SDKs before 2.5.5 accept, too. */
const NAME = "sync.wilddogio.com.localhost";

/** The lookup of `ns.wilddog.com` goes to the app's server. */
const request = http.request;
http.request = (options, ...rest) => {
  const host = options.hostname ?? options.host;
  const { searchParams, pathname } = new URL(`http://${host}${options.path}`);
  // Signing in: `/v2/APP/auth/…` and `/v1/APP/…`.
  const named = { "ns.wilddog.com": searchParams.get("appId"), "auth.wilddog.com": pathname.split("/")[2] };
  const application = named[host];
  if (!ports.has(application)) return request(options, ...rest);
  return request({ ...options, host: NAME, hostname: NAME, port: ports.get(application) }, ...rest);
};

/** The app's name and address as these SDKs want them: three labels, and a port where there is no TLS. */
function address(url) {
  const { port, protocol, searchParams } = new URL(url);
  const application = searchParams.get("ns");
  ports.set(application, port);
  return { application, port, isSecure: protocol === "https:", syncURL: `${protocol}//${application}.a.localhost:${port}` };
}

const METHODS = {
  goOffline: (sync) => sync.goOffline(),
  goOnline: (sync) => sync.goOnline(),
};

/** wilddog 2.5 */
function second(app) {
  const sync = app.sync();
  return {
    app,
    sync,
    ref: (path) => (path === undefined ? sync.ref() : sync.ref(path)),
    goOffline: () => METHODS.goOffline(sync),
    goOnline: () => METHODS.goOnline(sync),
    timestamp: () => ({ ".sv": "timestamp" }),
    close: () => METHODS.goOffline(sync),
  };
}

/** wilddog 0.7 */
function legacy(Wilddog, syncURL) {
  return {
    Wilddog,
    ref: (path) => new Wilddog(path === undefined ? syncURL : `${syncURL}/${path}`),
    goOffline: () => Wilddog.goOffline(),
    goOnline: () => Wilddog.goOnline(),
    timestamp: () => Wilddog.ServerValue.TIMESTAMP,
    close: () => Wilddog.goOffline(),
  };
}

/** The builds that every test runs with. */
export const WILDDOGS = ["wilddog25", "wilddog07", "wilddog25rn", "wilddog25wx"];
/** Everything else that is published: it connects and is present. */
export const OLDER = ["wilddog2515", "wilddog2510", "wilddog258", "wilddog252", "wilddog212", "wilddog210", "wilddog06", "wilddog04", "wilddog01"];
export const isWilddog = (family) => family.startsWith("wilddog");

/** React Native: the lookup is a request like any other. */
const repointReactNative =
  ({ port }) =>
  ({ XMLHttpRequest }) => {
    const { open } = XMLHttpRequest.prototype;
    XMLHttpRequest.prototype.open = function (method, url, ...rest) {
      return open.call(this, method, url.replace("http://ns.wilddog.com", `http://127.0.0.1:${port}`), ...rest);
    };
  };

/** A mini program: one host, written into the SDK. */
const repointMiniProgram =
  ({ port, isSecure }) =>
  ({ wx }) => {
    const { connectSocket } = wx;
    wx.connectSocket = ({ url, ...rest }) =>
      connectSocket({ ...rest, url: url.replace("wss://s-dalwx-nss-1.wilddogio.com", `${isSecure ? "wss" : "ws"}://127.0.0.1:${port}`) });
  };

export function openWilddog(family, url, name) {
  const at = address(url);
  const { application, syncURL } = at;
  if (/^wilddog0/.test(family)) return legacy(require(family), syncURL);
  const config = { authDomain: `${application}.wilddog.com`, syncURL };
  if (family === "wilddog25rn") return second(reactNative(repointReactNative(at)).initializeApp(config, name));
  if (family === "wilddog25wx") {
    // It takes no port, and TLS for granted.
    const wilddog = miniProgram(repointMiniProgram(at));
    return second(wilddog.initializeApp({ ...config, syncURL: `https://${application}.wilddogio.com` }, name));
  }
  const wilddog = require(family === "wilddog25" ? "wilddog" : family);
  return second(wilddog.initializeApp(config, name));
}

/** Runs programs of the SDKs' documentation in this process, exactly as printed but for the address. */
export function wilddogProgram({ family, url, program }) {
  const { application, syncURL } = address(url);
  const printed = program.map((part) => readFileSync(new URL(`seeds/wilddog/${part}.js`, HERE), "utf8")).join("\n");
  const text = printed
    .replaceAll("https://<SyncAppID>.wilddogio.com", syncURL)
    .replaceAll("<SyncAppID>", application)
    .replaceAll("https://samplechat.wilddogio.com", syncURL);
  globalThis.alert = (line) => console.log(line);
  globalThis.uid = "joe";
  let client;
  if (family === "wilddog25wx") {
    const at = address(url);
    globalThis.wilddog = miniProgram(repointMiniProgram(at));
    vm.runInThisContext(printed.replaceAll("<SyncAppID>", application));
    client = second(globalThis.wilddog);
  } else if (family === "wilddog07") {
    globalThis.Wilddog = require("wilddog07");
    client = legacy(globalThis.Wilddog, syncURL);
    vm.runInThisContext(text);
  } else {
    globalThis.wilddog = require("wilddog");
    vm.runInThisContext(text);
    client = second(globalThis.wilddog);
  }
  const info = (name, callback) => client.ref(`.info/${name}`).on("value", callback);
  return {
    ...client,
    lastWord: (path, value) => new Promise((done, failed) => client.ref(path).onDisconnect().set(value, (e) => (e ? failed(e) : done()))),
    info,
    connected: () => new Promise((done) => info("connected", (snap) => snap.val() === true && done())),
  };
}
