// The recipes of docs/WILDDOG.md, each run as it stands, against a server with the certificate that it asks for;
// and the steps of docs/MIGRATION.md.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { Authority, TLS, files, pin } from "./lib/certificates.mjs";
import { Peer } from "./lib/peer.mjs";
import { recipes } from "./lib/recipes.mjs";
import { BIN, IMPATIENT, Server } from "./lib/server.mjs";
import { SECRET, Signer } from "./lib/tokens.mjs";
import { soon } from "./lib/until.mjs";
import { client, watch } from "./lib/watch.mjs";

const OWN = ["sync.example.org", "myapp.example.org", "sync.wilddogio.com.example.org", "myapp.wilddogio.com"];
const THEIRS = ["ns.wilddog.com", "auth.wilddog.com", "myapp.wilddogio.com", "s-dalwx-nss-1.wilddogio.com"];
const CONFIG = `${IMPATIENT}${TLS}[auth]\nsecrets = ["${SECRET}"]\nanonymous = true\n`;
const ALL = recipes("WILDDOG.md");

let authority;
let certificate;
let server;
before(async () => {
  authority = new Authority();
  certificate = authority.issue(OWN);
  server = await Server.start({ config: CONFIG, files: files(certificate) });
});
after(async () => {
  await server?.stop();
  authority?.remove();
});

/** A recipe's client comes and goes, and its namespace is the app's id. */
async function check(t, recipe, { names, at, ca }) {
  const path = recipe.recipe.replaceAll(".", "-");
  const watcher = await client(t, at, "myapp");
  const status = await watch(watcher.ref(path));
  const peer = await Peer.start({ recipe: { recipe, names, port: at.port } }, { NODE_EXTRA_CA_CERTS: ca });
  t.after(() => peer.kill());
  await peer.run(
    (client, path) =>
      new Promise((done, failed) => {
        const ref = client.ref(path);
        ref.onDisconnect().set("offline", (error) => (error ? failed(error) : ref.set("online", (e) => (e ? failed(e) : done()))));
      }),
    path,
  );
  await status.untilLast("online");
  if (recipe.recipe === "sign-in") {
    const uid = await peer.run((client) => new Promise((done) => client.wilddog.auth().onAuthStateChanged((user) => user && done(user.uid))));
    assert.match(uid, /^[0-9a-f]{32}$/);
  }
  await peer.kill();
  await status.untilLast("offline");
}

test("the page has its recipes", () => {
  assert.ok(ALL.length >= 14, ALL.map(({ recipe }) => recipe).join(", "));
});

describe("names of one's own", { concurrency: 2 }, () => {
  for (const recipe of ALL.filter(({ language, recipe }) => language === "js" && !recipe.startsWith("dns"))) {
    test(recipe.recipe, (t) => check(t, recipe, { names: OWN, at: server, ca: authority.file }));
  }

  test("web", async (t) => {
    const { code } = ALL.find(({ recipe }) => recipe === "web");
    const rules = OWN.map((name) => `MAP ${name} 127.0.0.1:${server.port}`).join(",");
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [
        ...["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", `--host-resolver-rules=${rules}`],
        `--ignore-certificate-errors-spki-list=${pin(certificate.leaf)}`,
      ],
    });
    t.after(() => browser.close());
    const watcher = await client(t, server, "myapp");
    const status = await watch(watcher.ref("web"));
    const page = await browser.newPage();
    // The page and the SDK come from the app's own site.
    await page.route(/\/(page|wilddog-web-all\.js)$/, (route) => {
      const isPage = route.request().url().endsWith("/page");
      const body = isPage
        ? `<!doctype html><meta charset="utf-8">${code}`
        : readFileSync(new URL("node_modules/wilddog/lib/wilddog-web-all.js", import.meta.url), "utf8");
      return route.fulfill({ body, contentType: isPage ? "text/html" : "text/javascript" });
    });
    await page.goto("https://sync.example.org/page");
    await soon("presence in the page", page.evaluate(
      () =>
        new Promise((done, failed) => {
          const ref = sync.ref("web");
          ref.onDisconnect().set("offline", (error) => (error ? failed(error) : ref.set("online", (e) => (e ? failed(e) : done()))));
        }),
    ));
    await status.untilLast("online");
    await page.close();
    await status.untilLast("offline");
  });
});

describe("Wilddog's own names", () => {
  let folder;
  let own;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "stillhere-recipes-"));
    const { code } = ALL.find(({ recipe }) => recipe === "authority");
    execFileSync("sh", ["-euc", code], { cwd: folder, stdio: "pipe" });
    const [cert, key] = ["fullchain.pem", "privkey.pem"].map((name) => readFileSync(join(folder, name), "utf8"));
    assert.match(new X509Certificate(cert).subjectAltName, /ns\.wilddog\.com/);
    own = await Server.start({ config: CONFIG, files: files({ cert, key }) });
  });
  after(async () => {
    await own?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  for (const recipe of ALL.filter(({ recipe }) => recipe.startsWith("dns"))) {
    test(recipe.recipe, (t) => check(t, recipe, { names: THEIRS, at: own, ca: join(folder, "ca.pem") }));
  }
});

describe("moving in", () => {
  const STEPS = recipes("MIGRATION.md");
  const block = (name) => STEPS.find(({ recipe }) => recipe === name).code;
  const SOURCES = {
    firebase: {
      namespace: "my-project",
      rules: { rules: { ".read": true, greeting: { ".write": "newData.val().beginsWith('h')" } } },
    },
    wilddog: {
      namespace: "myapp",
      rules: { rules: { ".read": true, greeting: { ".write": "newData.val().startsWith('h') && newData.val().length() < 9" } } },
    },
  };

  test("in every language the same commands", () => {
    const named = (page) => Object.fromEntries(recipes(page).map(({ recipe, language, code }) => [recipe, [language, code]]));
    assert.equal(STEPS.length, 6);
    for (const page of ["MIGRATION.zh.md", "MIGRATION.fa.md"]) assert.deepEqual(named(page), named("MIGRATION.md"));
  });

  for (const [source, { namespace, rules }] of Object.entries(SOURCES)) {
    test(`from ${source}`, async (t) => {
      const data = { greeting: "hello", list: { a: { ".value": 1, ".priority": 2 }, b: true } };
      // The project's keys are published where a test does not go.
      const keys = join(authority.folder, "keys.json");
      writeFileSync(keys, new Signer().jwks);
      const own = await Server.start({
        env: source === "firebase" ? { STILLHERE_AUTH_FIREBASE_JWKS: keys } : {},
        config: block(`${source}-config`),
        isDev: false,
        files: { "rules.json": JSON.stringify(rules), secrets: `${SECRET}\n`, "data.json": JSON.stringify(data) },
      });
      t.after(() => own.stop());
      symlinkSync(BIN, join(own.folder, "stillhere"));
      const env = { ...process.env, PATH: `${own.folder}:${process.env.PATH}`, STILLHERE_URL: `http://127.0.0.1:${own.port}` };
      for (const step of ["check", "import"]) execFileSync("sh", ["-euc", block(`${source}-${step}`)], { cwd: own.folder, env, stdio: "pipe" });
      const found = await client(t, own, namespace);
      const snap = await found.ref().get();
      assert.deepEqual(snap.exportVal(), data);
      await found.ref("greeting").set("hi");
      await assert.rejects(found.ref("greeting").set("bye"), /PERMISSION_DENIED/);
    });
  }
});
