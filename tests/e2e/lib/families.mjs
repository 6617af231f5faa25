// The published packages, as users install them.

import { createRequire } from "node:module";

import { modular, namespaced } from "./facade.mjs";
import { isWilddog, openWilddog } from "./wilddog.mjs";

const require = createRequire(import.meta.url);

let apps = 0;

const OPEN = {
  // firebase 12, modular
  modular: async (url, name, hooks) =>
    modular(await import("firebase/app"), await import("firebase/database"), url, name, hooks),
  // firebase 12, the namespaced API that it still brings
  compat: (url, name, hooks) => {
    const firebase = require("firebase/compat/app").default ?? require("firebase/compat/app");
    require("firebase/compat/database");
    return namespaced(firebase, url, name, hooks);
  },
  // firebase 8
  v8: (url, name, hooks) => {
    const firebase = require("firebase8/app").default ?? require("firebase8/app");
    require("firebase8/database");
    return namespaced(firebase, url, name, hooks);
  },
};

export const FAMILIES = Object.keys(OPEN);

/** A client of a family, in this process. */
export async function open(family, url, hooks) {
  const name = `app${++apps}`;
  return isWilddog(family) ? openWilddog(family, url, name) : OPEN[family](url, name, hooks);
}
