// The console in a real browser: what it shows is what is so, strangers' names stay text, and nobody gets in
// who is no administrator.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { launch } from "./lib/browser.mjs";
import { Server } from "./lib/server.mjs";
import { Record } from "./lib/until.mjs";
import { client } from "./lib/watch.mjs";

const SECRET = "an-administrators-secret-of-48-characters-000000";
const VIEWS = { here: "Here", words: "Last words", data: "Data", rules: "Rules", load: "Load" };

let server;
let browser;
before(async () => {
  [server, browser] = await Promise.all([Server.start({}), launch()]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

let runs = 0;
const fresh = () => `console${++runs}`;

/** The console of a database, open; it fails the test if the page breaks, or loads or does what it must not. */
async function open(t, { ns, at = server, view = "", options = {} }) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const problems = new Record("problems of the page");
  page.on("pageerror", (error) => problems.add(error.message));
  page.on("console", (line) => line.type() === "error" && !/401|400/.test(line.text()) && problems.add(line.text()));
  page.on("request", (request) => {
    if (new URL(request.url()).port !== String(at.port)) problems.add(`asked elsewhere: ${request.url()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(problems.seen, []);
  });
  await page.goto(`http://127.0.0.1:${at.port}/?ns=${ns}${view && `#${view}`}`);
  return page;
}

const isLive = (page) => page.locator('#link[data-state="on"]').waitFor();
const text = (page, selector, part) => page.locator(selector).filter({ hasText: part }).first().waitFor();
const go = (page, name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();

/** An SDK's client that has left a last word. */
async function leaver(t, ns, path = "status/joe") {
  const joe = await client(t, server, ns);
  await joe.ref(path).onDisconnect().set("offline");
  await joe.ref(path).set("online");
  return joe;
}

describe("the console", () => {
  test("shows who is here, and who goes", async (t) => {
    const ns = fresh();
    const joe = await leaver(t, ns);
    const page = await open(t, { ns });
    await isLive(page);
    await text(page, "#sessions tr", "WebSocket");
    await go(page, "Last words");
    await text(page, "#waiting li", "/status/joe");
    await joe.goOffline();
    await text(page, "#recent li", "spoken");
    await page.locator("#waiting li").first().waitFor({ state: "detached" });
    await page.locator("#recent").getByRole("button", { name: "Explain /status/joe" }).click();
    await text(page, "#explained", "as a last word, because its client");
  });

  test("ends a session, which speaks", async (t) => {
    const ns = fresh();
    const joe = await leaver(t, ns);
    const page = await open(t, { ns });
    const row = page.locator("#sessions tr").filter({ hasText: "WebSocket" });
    await row.getByRole("button").click();
    await page.getByRole("dialog").getByText("Its last word is spoken at once").waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    assert.equal(await row.count(), 1, "nothing is done without a yes");
    await row.getByRole("button").click();
    await page.getByRole("dialog").getByRole("button", { name: "End session" }).click();
    await text(page, "#status", "is over.");
    await go(page, "Last words");
    await text(page, "#recent li", "was ended");
    await joe.goOffline();
  });

  test("shows data as it changes, and changes it", async (t) => {
    const ns = fresh();
    const joe = await leaver(t, ns);
    const page = await open(t, { ns, view: "data" });
    await page.getByRole("button", { name: "Children of status" }).click();
    const value = page.locator('[data-key="/status/joe"] > .row > .value');
    await value.filter({ hasText: '"online"' }).waitFor();
    await joe.ref("status/joe").set("busy");
    await value.filter({ hasText: '"busy"' }).waitFor();
    await page.getByRole("button", { name: "Edit joe" }).click({ force: true });
    await page.getByRole("textbox", { name: "New value (JSON)" }).fill("no JSON");
    await page.keyboard.press("Enter");
    await text(page, "#status", "That is no JSON");
    await page.getByRole("textbox", { name: "New value (JSON)" }).fill('{"a":[1,true]}');
    await page.keyboard.press("Enter");
    await text(page, "#status", "/status/joe is written.");
    assert.deepEqual((await joe.ref("status/joe").get()).val(), { a: [1, true] });
    await page.getByRole("button", { name: "Remove status" }).click({ force: true });
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await text(page, "#status", "/status is removed.");
    assert.equal((await joe.ref("status").get()).val(), null);
  });

  test("checks, tries and publishes rules", async (t) => {
    const ns = fresh();
    const page = await open(t, { ns, view: "rules" });
    const rules = page.getByLabel("Rules of this database");
    await page.waitForFunction(() => document.getElementById("rules-text").value.includes(".read"));
    await rules.fill('{"rules": {"a": {".write": "auth.uid =="}}}');
    await page.getByRole("button", { name: "Check" }).click();
    await page.locator("#rules-result.bad").filter({ hasText: "1:" }).waitFor();
    await rules.fill('{"rules": {"$uid": {".write": "auth.uid === $uid"}}}');
    await page.getByRole("button", { name: "Check" }).click();
    await page.locator("#rules-result.good").waitFor();
    await page.getByLabel("What", { exact: true }).selectOption("set");
    await page.getByLabel("Where", { exact: true }).fill("/ann");
    await page.getByLabel("As the user").fill("joe");
    await page.getByRole("button", { name: "Try" }).click();
    await page.locator("#try-result.bad").filter({ hasText: "auth.uid === $uid" }).waitFor();
    await page.getByLabel("As the user").fill("ann");
    await page.getByRole("button", { name: "Try" }).click();
    await page.locator("#try-result.good").waitFor();
    await page.getByRole("button", { name: "Publish" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Publish" }).click();
    await page.locator("#rules-result.good").filter({ hasText: "Published" }).waitFor();
    const refused = await fetch(`http://127.0.0.1:${server.port}/ann.json?ns=${ns}`, { method: "PUT", body: "1" });
    assert.equal(refused.status, 401, "they are in force");
  });

  test("shows strangers' names and values as text", async (t) => {
    const ns = fresh();
    const evil = `<img src=x onerror="window.hacked=1">'"</script><script>window.hacked=2</script>`;
    const key = `<svg onload=hacked=1>"&amp;`;
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const token = `${part({ alg: "none", typ: "JWT" })}.${part({ sub: evil, iat: 1, exp: 9_999_999_999 })}.`;
    const { WebSocket } = await import("ws");
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/.ws?v=5&ns=${ns}`);
    t.after(() => socket.terminate());
    const heard = new Record("answers");
    socket.on("message", (data) => heard.add(String(data)));
    await new Promise((resolve) => socket.once("open", resolve));
    const say = (r, a, b) => socket.send(JSON.stringify({ t: "d", d: { r, a, b } }));
    say(1, "gauth", { cred: token });
    say(2, "o", { p: `/${key}`, d: evil });
    say(3, "p", { p: `/${key}`, d: { [key]: evil } });
    await heard.until((seen) => seen.some((line) => line.includes('"r":3')));
    const page = await open(t, { ns });
    await text(page, "#sessions tr", evil);
    await page.locator("#sessions tr").filter({ hasText: evil }).getByRole("button").click();
    await page.getByRole("dialog").getByText(evil).waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await go(page, "Last words");
    await text(page, "#waiting li", `/${key}`);
    socket.terminate();
    await text(page, "#recent li", evil);
    await page.locator("#recent li button").first().click();
    await text(page, "#explained", evil);
    await go(page, "Data");
    await text(page, "#tree li", key);
    await text(page, "#tree .value", JSON.stringify(evil).slice(0, 40));
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.equal(await page.locator("main img, main script, main svg").count(), 0);
  });

  test("lets nobody in who is no administrator, and keeps the credential in the tab alone", async (t) => {
    const strict = await Server.start({ isDev: false, config: `[auth]\nsecrets = ["${SECRET}"]\n` });
    t.after(() => strict.stop());
    const page = await open(t, { ns: "app", at: strict });
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    assert.equal(await page.getByRole("navigation").isVisible(), false);
    await page.getByLabel("Secret or token").fill("not-the-secret");
    await page.keyboard.press("Enter");
    await text(page, "#sign-in-error", "does not accept");
    await page.getByLabel("Secret or token").fill(SECRET);
    await page.keyboard.press("Enter");
    await isLive(page);
    const kept = () => page.evaluate(() => [{ ...localStorage }, document.cookie, Object.values(sessionStorage), location.href]);
    const [local, cookie, session, address] = await kept();
    assert.deepEqual([local, cookie, session], [{}, "", [SECRET]]);
    assert.ok(!address.includes(SECRET));
    await page.reload();
    await isLive(page);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    assert.deepEqual((await kept())[2], []);
    const told = await fetch(`http://127.0.0.1:${strict.port}/.stillhere/cores.json`);
    assert.equal(told.status, 401);
  });

  test("goes from database to database", async (t) => {
    const [one, two] = [fresh(), fresh()];
    await leaver(t, one, "only/in/one");
    await leaver(t, two, "only/in/two");
    const page = await open(t, { ns: one, view: "words" });
    await text(page, "#waiting li", "/only/in/one");
    await page.getByLabel("Database", { exact: true }).fill(two);
    await page.keyboard.press("Enter");
    await text(page, "#waiting li", "/only/in/two");
    assert.equal(await page.locator("#waiting li").filter({ hasText: "/only/in/one" }).count(), 0);
    assert.ok(page.url().includes(`ns=${two}`));
  });

  test("is used by the keyboard, and says where one is", async (t) => {
    const page = await open(t, { ns: fresh() });
    await isLive(page);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
    for (const [view, name] of Object.entries(VIEWS)) {
      await page.getByRole("link", { name, exact: true }).focus();
      await page.keyboard.press("Enter");
      await page.waitForFunction((id) => document.activeElement.id === id, `${view}-title`);
      assert.equal(await page.locator("nav [aria-current=page]").textContent(), name);
      const nameless = await page.evaluate(() =>
        [...document.querySelectorAll("button, input, select, textarea, svg[role=img], section")]
          .filter((it) => it.checkVisibility())
          .filter((it) => !(it.labels?.length || it.ariaLabel || it.textContent.trim() || it.getAttribute("aria-labelledby")))
          .map((it) => it.outerHTML),
      );
      assert.deepEqual(nameless, [], view);
    }
    assert.equal(await page.locator("[aria-live=assertive]").count(), 0);
    assert.equal(await page.locator("tbody [role=status], ol [role=status], ul [role=status]").count(), 0, "what streams is not read out");
  });

  for (const colorScheme of ["dark", "light"]) {
    test(`is readable and fits a phone, ${colorScheme}`, async (t) => {
      const ns = fresh();
      const joe = await leaver(t, ns, `a/${"long".repeat(40)}/path`);
      const options = { colorScheme, viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };
      const page = await open(t, { ns, options });
      await text(page, "#sessions tr", "WebSocket");
      await joe.goOffline();
      for (const view of Object.keys(VIEWS)) {
        await page.goto(`http://127.0.0.1:${server.port}/?ns=${ns}#${view}`);
        await page.locator(`#view-${view}`).waitFor();
        if (view === "words") await text(page, "#recent li", "spoken");
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= 360, `${view} is ${width} wide`);
        assert.deepEqual(await page.evaluate(faint), [], `${view}: contrast below 4.5`);
      }
    });
  }
});

/** Texts that stand out too little from what is behind them (WCAG 2.2, 1.4.3). Runs in the page. */
function faint() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((part) => part / 255);
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((part, index) => part * a + under[index] * (1 - a));
  const behind = (it) => {
    const [r, g, b, a] = rgba(getComputedStyle(it).backgroundColor);
    if (a === 1) return [r, g, b];
    return over([r, g, b, a], it.parentElement ? behind(it.parentElement) : [1, 1, 1]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const isText = (it) => [...it.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== "");
  return [...document.querySelectorAll("body *")]
    .filter((it) => it.checkVisibility() && isText(it) && !it.closest(".hidden, noscript"))
    .map((it) => {
      const ground = behind(it);
      const [a, b] = [light(over(rgba(getComputedStyle(it).color), ground)), light(ground)];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), it.textContent.trim().slice(0, 40)];
    })
    .filter(([contrast]) => contrast < 4.5);
}
