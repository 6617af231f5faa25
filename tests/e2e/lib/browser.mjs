// A real browser, and the pages that it opens: the SDKs' browser builds as their packages bring them.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { extname } from "node:path";

import { chromium } from "playwright-core";

import { text } from "./programs.mjs";

const HERE = new URL("..", import.meta.url);
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript" };

const IMPORTS = {
  "firebase/app": "/node_modules/firebase/firebase-app.js",
  "firebase/database": "/node_modules/firebase/firebase-database.js",
};
const SCRIPTS = {
  compat: ["/node_modules/firebase/firebase-app-compat.js", "/node_modules/firebase/firebase-database-compat.js"],
  v8: ["/node_modules/firebase8/firebase-app.js", "/node_modules/firebase8/firebase-database.js"],
};

/** What every start of Chromium needs here: no sandbox, since tests may run as root; no calls home. */
const LAUNCH = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"],
    ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
  ],
};

export const launch = () => chromium.launch(LAUNCH);

/** A browser whose process can be killed. */
export const launchServer = () => chromium.launchServer(LAUNCH);
export const connect = (server) => chromium.connect(server.wsEndpoint());

/** A web site that holds the SDKs and the pages of the tests. */
export class Site {
  #pages = new Map();

  static async start() {
    const site = new Site();
    site.server = createServer((request, response) => site.#answer(request, response));
    site.server.listen(0, "127.0.0.1");
    await once(site.server, "listening");
    site.origin = `http://127.0.0.1:${site.server.address().port}`;
    return site;
  }

  /** Publishes a page, gives its address. */
  publish(html) {
    const path = `/page${this.#pages.size}`;
    this.#pages.set(path, html);
    return this.origin + path;
  }

  #answer({ url }, response) {
    const page = this.#pages.get(url);
    if (page !== undefined) {
      response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(page);
      return;
    }
    try {
      // The packages' modules import each other from where their makers host them.
      const script = readFileSync(new URL(`.${url}`, HERE), "utf8");
      const own = script.replaceAll(/https:\/\/www\.gstatic\.com\/firebasejs\/[^/"]+\//g, "/node_modules/firebase/");
      response.writeHead(200, { "Content-Type": TYPES[extname(url)] ?? "text/plain" }).end(own);
    } catch {
      response.writeHead(404).end();
    }
  }

  close() {
    this.server.close();
    this.server.closeAllConnections();
  }
}

/** A page with an app, a program as printed, and `window.client`: a companion, or with no program a client. `before` runs first. */
export function page({ family, url, program, before = "" }) {
  const address = JSON.stringify(url);
  const head = `<!doctype html><meta charset="utf-8"><title>page</title><script>${before}</script>`;
  if (family === "modular") {
    const start = `import { initializeApp } from "firebase/app"; import * as m from "firebase/database";
      initializeApp({ databaseURL: ${address} });`;
    const end = program
      ? `import * as m from "firebase/database"; import { ofModular } from "/lib/companion.mjs"; window.client = ofModular(m);`
      : `import * as app from "firebase/app"; import * as m from "firebase/database";
         import { modular } from "/lib/facade.mjs"; window.client = modular(app, m, ${address}, "test");`;
    return `${head}<script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
      <script type="module">${start}</script>
      <script type="module">${program ? text(family, program) : ""}</script>
      <script type="module">${end}</script>`;
  }
  const end = program
    ? `import { ofNamespaced } from "/lib/companion.mjs"; window.client = ofNamespaced(firebase);`
    : `import { namespaced } from "/lib/facade.mjs"; window.client = namespaced(firebase, ${address}, "test");`;
  return `${head}${SCRIPTS[family].map((src) => `<script src="${src}"></script>`).join("")}
    <script>firebase.initializeApp({ databaseURL: ${address} });</script>
    <script>${program ? text(family, program) : ""}</script>
    <script type="module">${end}</script>`;
}
