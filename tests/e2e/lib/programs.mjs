// Programs from the documentation of the SDKs, run exactly as printed: what stands around them here is what
// stands around them in every app, an app's configuration. They are kept in `seeds/`.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { randomBytes } from "node:crypto";

import { ofModular, ofNamespaced } from "./companion.mjs";
import { isWilddog, wilddogProgram } from "./wilddog.mjs";

const require = createRequire(import.meta.url);
const HERE = new URL("..", import.meta.url);

/** How each family is printed. */
export const PRINTED = { modular: "modular", compat: "namespaced", v8: "namespaced" };

/** The text of a program: parts that build on each other, one below the other. */
export function text(family, parts) {
  const extension = family === "modular" ? "mjs" : "js";
  return parts.map((part) => readFileSync(new URL(`seeds/${PRINTED[family]}/${part}.${extension}`, HERE), "utf8")).join("\n");
}

/** Runs a program in this process with the default app at `url`; gives a client on the same connection. */
export async function program({ family, url, program: parts }) {
  if (isWilddog(family)) return wilddogProgram({ family, url, program: parts });
  if (family === "modular") {
    const { initializeApp } = await import("firebase/app");
    const m = await import("firebase/database");
    initializeApp({ databaseURL: url });
    await import(pathToFileURL(place("mjs", text(family, parts))));
    return ofModular(m);
  }
  const name = family === "v8" ? "firebase8" : "firebase/compat";
  const firebase = require(`${name}/app`).default ?? require(`${name}/app`);
  require(`${name}/database`);
  firebase.initializeApp({ databaseURL: url });
  globalThis.firebase = firebase;
  require(place("cjs", text(family, parts)));
  return ofNamespaced(firebase);
}

/** Writes a program where it finds the packages that it imports. */
function place(extension, text) {
  const folder = new URL("node_modules/.programs/", HERE);
  mkdirSync(folder, { recursive: true });
  const file = new URL(`${randomBytes(8).toString("hex")}.${extension}`, folder);
  writeFileSync(file, text);
  return file.pathname;
}
