// Recipes of the documentation, run as they stand: names lead where the recipe's DNS would lead them.

import net from "node:net";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

import { load, miniProgramWorld, reactNativeWorld } from "./platforms.mjs";

const require = createRequire(import.meta.url);

/** The recipes of a page: what stands in its fenced blocks that are marked so. */
export function recipes(page) {
  const text = readFileSync(new URL(`../../../docs/${page}`, import.meta.url), "utf8");
  return [...text.matchAll(/^( *)```(\w+) (recipe=.*)\n([^]*?)^\1```$/gm)].map(([, indent, language, marks, code]) => ({
    language,
    code: code.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
    ...Object.fromEntries(marks.split(" ").map((mark) => mark.split("="))),
  }));
}

/** From now on these names lead to the server, whatever the port: what DNS and a redirected port do. */
function lead(names, port) {
  const { connect } = net.Socket.prototype;
  net.Socket.prototype.connect = function (...args) {
    const list = Array.isArray(args[0]) ? args[0] : args;
    if (names.includes(list[0]?.host)) list[0] = { ...list[0], host: "127.0.0.1", port };
    return connect.apply(this, args);
  };
}

const WORLDS = {
  "react-native": [reactNativeWorld, "wilddog/lib/wilddog-rn-all.js"],
  "mini-program": [miniProgramWorld, "wilddog/weixin/wilddog-weapp-all.js"],
};

/** Runs a recipe in this process; gives a client by what it leaves behind. */
export function recipe({ recipe: { code, package: name, platform }, names, port }) {
  lead(names, port);
  const [makeWorld, build] = WORLDS[platform] ?? [() => ({})];
  const world = makeWorld();
  const find = (wanted) => (wanted !== "wilddog" ? require(wanted) : build ? load(build, world) : require(name));
  const run = new Function("require", "wx", "XMLHttpRequest", `${code}\nreturn typeof root === "undefined" ? { root: sync.ref(), wilddog } : { root };`);
  const { root, wilddog } = run(find, world.wx, world.XMLHttpRequest);
  return { ref: (path) => (path === undefined ? root : root.child(path)), wilddog };
}
