// The console. It asks the server what anybody with the same credential may ask, and writes what it is told
// as text, never as markup: names and values are strangers' work.

const $ = (id) => document.getElementById(id);
const KEY = "stillhere.credential";
const HISTORY_MAX = 120;
const PAGE_ROWS = 100;
const VIEWS = ["here", "words", "data", "rules", "load"];

const state = { credential: null, isDev: false, ns: null, view: "here", glance: null, history: new Map(), recent: [] };

/** An element with attributes and children; children that are no elements become text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Puts a text into an element, if it is another. */
function put(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Makes the children of `parent` those of `rows`, keeping elements (and so the focus) by key. */
function keep(parent, rows, keyOf, make, update = () => {}) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const row of rows) {
    const key = keyOf(row);
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = make(row);
      child.dataset.key = key;
    }
    update(child, row);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of known.values()) child.remove();
}

// ---- asking

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const query = (params) => new URLSearchParams(params).toString();

async function ask(path, { method = "GET", params = {}, body, credential = state.credential } = {}) {
  const headers = credential ? { Authorization: `Bearer ${credential}` } : {};
  const all = new URLSearchParams(params);
  if (state.ns !== null) all.set("ns", state.ns);
  const response = await fetch(`${path}?${all}`, { method, headers, body });
  const text = await response.text();
  if (response.ok) return text === "" ? null : JSON.parse(text);
  let told = text;
  try {
    told = JSON.parse(text).error ?? text;
  } catch {
    // What is no JSON is told as it is.
  }
  throw new Refused(response.status, told);
}

const look = (view, options) => ask(`/.stillhere/${view}.json`, options);
const address = (path) => "/" + path.split("/").filter(Boolean).map(encodeURIComponent).join("/");
const data = (path, options) => ask(`${address(path) === "/" ? "/" : address(path)}.json`, options);

/** Says something to whoever looks, and to whoever listens. */
function say(text, isBad = false) {
  $("status").classList.toggle("bad", isBad);
  $("status").textContent = text;
}

/** Does something that the user asked for, and says what came of it. */
async function attempt(what, done) {
  try {
    const result = await what();
    if (done) say(done);
    return result;
  } catch (error) {
    if (error.status === 401) signOut("The credential is no longer accepted.");
    else say(error instanceof Refused ? `Refused: ${error.message}` : `Not done: ${error.message}`, true);
    return undefined;
  }
}

/** Asks before something that cannot be taken back. */
function confirmed(title, text, verb) {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = verb;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

// ---- signing in

async function isBelieved(credential) {
  try {
    state.ns = null;
    await look("cores", { credential });
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    throw error;
  }
}

async function begin() {
  const kept = sessionStorage.getItem(KEY);
  if (kept && (await isBelieved(kept))) return signedIn(kept);
  sessionStorage.removeItem(KEY);
  // A server that was started with --dev believes this.
  if (await isBelieved("owner")) {
    state.isDev = true;
    return signedIn("owner");
  }
  return showSignIn("");
}

function showSignIn(text) {
  for (const id of ["nav", "database", "sign-out"]) $(id).hidden = true;
  for (const name of VIEWS) $(`view-${name}`).hidden = true;
  $("sign-in").hidden = false;
  $("sign-in-error").textContent = text;
  setLink("off", "not signed in");
  $("credential").value = "";
  $("credential").focus();
}

function signOut(text = "") {
  sessionStorage.removeItem(KEY);
  live.stop();
  Object.assign(state, { credential: null, ns: null, glance: null, recent: [] });
  for (const id of ["sessions", "waiting", "recent", "tree", "cores", "cards", "explained", "databases"]) $(id).replaceChildren();
  $("rules-text").value = "";
  showSignIn(text);
}

async function signedIn(credential) {
  state.credential = credential;
  $("sign-in").hidden = true;
  for (const id of ["nav", "database"]) $(id).hidden = false;
  $("sign-out").hidden = state.isDev;
  const names = (await attempt(() => ask("/.inspect/databases.json"))) ?? [];
  offerDatabases(names.map(({ name }) => name));
  const wanted = new URLSearchParams(location.search).get("ns");
  await openDatabase(wanted || names[0]?.name || "demo");
}

function offerDatabases(names) {
  $("databases").replaceChildren(...names.filter(Boolean).map((name) => element("option", { value: name })));
}

async function openDatabase(ns) {
  state.ns = ns;
  $("ns").value = ns;
  Object.assign(state, { glance: null, recent: [] });
  const url = new URL(location.href);
  url.searchParams.set("ns", ns);
  history.replaceState(null, "", url);
  $("explained").hidden = true;
  tree.open("");
  rules.forget();
  live.start();
  show();
}

$("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const credential = $("credential").value.trim();
  $("sign-in-error").textContent = "";
  const good = await isBelieved(credential).catch((error) => void ($("sign-in-error").textContent = error.message));
  if (good) {
    sessionStorage.setItem(KEY, credential);
    say("");
    await signedIn(credential);
  } else if (good === false) {
    $("sign-in-error").textContent = "The server does not accept this as an administrator's.";
  }
});
$("sign-out").addEventListener("click", () => signOut());
$("database").addEventListener("submit", (event) => {
  event.preventDefault();
  openDatabase($("ns").value.trim());
});

// ---- the stream

function setLink(name, text) {
  $("link").dataset.state = name;
  put($("link-text"), text);
}

const live = {
  abort: null,

  async start() {
    this.stop();
    const abort = (this.abort = new AbortController());
    let pauseMs = 500;
    while (!abort.signal.aborted) {
      try {
        await this.follow(abort.signal, () => (pauseMs = 500));
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error.status === 401) return signOut("The credential is no longer accepted.");
        if (error.status === 404) {
          say(`There is no database ${state.ns}.`, true);
          return setLink("trouble", "no such database");
        }
      }
      if (abort.signal.aborted) return;
      setLink("trouble", "connecting again");
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      pauseMs = Math.min(2 * pauseMs, 10_000);
    }
  },

  stop() {
    this.abort?.abort();
    this.abort = null;
  },

  /** Reads the stream to its end. */
  async follow(signal, connected) {
    const headers = { Accept: "text/event-stream", Authorization: `Bearer ${state.credential}` };
    const response = await fetch(`/.stillhere/live.json?${query({ ns: state.ns })}`, { headers, signal });
    if (!response.ok) throw new Refused(response.status, await response.text());
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        if (!event.startsWith("event: glance\n")) continue;
        connected();
        setLink("on", state.isDev ? "live, open (--dev)" : "live");
        glanced(JSON.parse(event.slice(event.indexOf("data: ") + 6)));
      }
    }
  },
};

function glanced(glance) {
  state.glance = glance;
  state.recent = [...(glance.recent ?? []).toReversed(), ...state.recent].slice(0, 200);
  for (const core of glance.cores) {
    const past = state.history.get(core.core) ?? [];
    past.push(core);
    state.history.set(core.core, past.slice(-HISTORY_MAX));
  }
  draw();
}

// ---- views

function show() {
  const [view] = location.hash.slice(1).split("/");
  state.view = VIEWS.includes(view) ? view : "here";
  for (const name of VIEWS) $(`view-${name}`).hidden = name !== state.view;
  for (const link of $("nav").children) {
    if (link.hash === `#${state.view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (state.view === "rules") rules.load();
  draw();
}

window.addEventListener("hashchange", () => {
  if (!state.credential) return;
  show();
  window.scrollTo(0, 0);
  $(`${state.view}-title`).focus({ preventScroll: true });
});

function draw() {
  if (!state.glance || document.hidden) return;
  if (state.view === "here") drawHere();
  if (state.view === "words") drawWords();
  if (state.view === "load") drawLoad();
}
document.addEventListener("visibilitychange", draw);

const span = (ms) => {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds / 60) % 60)} min`;
  return `${Math.floor(seconds / 86_400)} d`;
};
const clock = (at) => element("time", { datetime: new Date(at).toISOString(), title: new Date(at).toLocaleString() }, new Date(at).toLocaleTimeString());
const count = (number) => number.toLocaleString();
const nameOf = ({ uid, admin }) => (admin ? "admin" : uid === null ? "nobody" : uid === "" ? "somebody" : uid);
const user = (row) => element("span", { class: row.uid ? "user" : "user none" }, element("bdi", {}, nameOf(row)));
const sum = (cores, value) => cores.reduce((total, core) => total + value(core), 0);
const clients = ({ sessions }) => Object.entries(sessions).reduce((total, [name, number]) => total + (name === "rest" ? 0 : number), 0);
const PROTOCOLS = { websocket: "WebSocket", long_polling: "long polling", stream: "stream", wilddog: "Wilddog", coap: "CoAP", guest: "in the program" };
const ENDS = {
  closed: "said goodbye",
  dropped: "connection broke",
  timed_out: "went silent",
  superseded: "came back as another session",
  killed: "was ended",
  server_stopped: "server stopped",
};
const VERBS = { set: "set", update: "update", remove: "remove", set_priority: "priority" };

function drawHere() {
  const { cores, sessions, sessionsCut, leaving } = state.glance;
  const cards = [
    ["Here, this database", `${count(sessions.length)}${sessionsCut ? "+" : ""}`],
    ["Leave last words", count(leaving ?? 0)],
    ["All databases", count(sum(cores, clients))],
    ["Last words spoken", count(sum(cores, ({ spoken }) => spoken))],
    ["Yielded", count(sum(cores, ({ yielded }) => yielded))],
    ["Denied", count(sum(cores, ({ denied }) => denied))],
  ];
  const make = ([title]) => element("div", {}, element("dt", {}, title), element("dd"));
  keep($("cards"), cards, ([title]) => title, make, (card, [, text]) => put(card.lastElementChild, text));
  const wanted = $("filter").value.trim().toLowerCase();
  const isWanted = (row) => `${nameOf(row)} ${PROTOCOLS[row.protocol]} ${row.session}`.toLowerCase().includes(wanted);
  const rows = sessions.filter(isWanted).sort((a, b) => a.ageMs - b.ageMs);
  keep($("sessions"), rows, ({ session }) => session, makeSession, updateSession);
  const cut = sessionsCut ? "These are the first sessions of each core. stillhere sessions ls tells all." : "";
  const nobody = wanted ? "Nobody like that is here." : "Nobody is here.";
  put($("sessions-note"), rows.length === 0 ? nobody : cut);
}

function makeSession(row) {
  const cell = (attributes, ...children) => element("td", { role: "cell", ...attributes }, ...children);
  const end = element("button", { class: "small", "aria-label": `End session ${row.session} of ${nameOf(row)}`, onclick: () => endSession(row) }, "End");
  return element(
    "tr",
    { role: "row" },
    cell(),
    cell({}, PROTOCOLS[row.protocol] ?? row.protocol),
    cell({ class: "number", "data-label": "here" }),
    cell({ class: "number", "data-label": "heard" }),
    cell({ class: "number", "data-label": "last words" }),
    cell({ class: "code" }, row.session),
    cell({ class: "actions" }, end),
  );
}

function updateSession(line, row) {
  const [who, , age, silent, words] = line.children;
  if (line.dataset.who !== JSON.stringify([row.uid, row.admin])) {
    line.dataset.who = JSON.stringify([row.uid, row.admin]);
    who.replaceChildren(user(row));
  }
  put(age, span(row.ageMs));
  put(silent, `${span(row.silentMs)} ago`);
  put(words, String(row.words));
}

async function endSession(row) {
  const words = row.words === 1 ? "Its last word is" : `Its ${row.words} last words are`;
  const text = `${nameOf(row)}, ${PROTOCOLS[row.protocol]}, session ${row.session}. ${words} spoken at once. The client is sent away; most clients come back by themselves.`;
  if (!(await confirmed("End this session?", text, "End session"))) return;
  await attempt(() => look("sessions", { method: "DELETE", params: { session: row.session } }), `Session ${row.session} is over.`);
}
$("filter").addEventListener("input", draw);

function drawWords() {
  const { lastwords = [], lastwordsCut } = state.glance;
  const seen = new Map();
  const keyOf = (row) => {
    const key = `${row.session} ${row.kind} ${row.path} ${row.preview ?? ""}`;
    seen.set(key, (seen.get(key) ?? 0) + 1);
    return `${key} ${seen.get(key)}`;
  };
  keep($("waiting"), lastwords.map((row) => ({ ...row, key: keyOf(row) })), ({ key }) => key, makeWaiting);
  put($("waiting-note"), lastwords.length === 0 ? "No last words wait here." : lastwordsCut ? "These are the first. stillhere ondisconnect ls tells all." : "");
  keep($("recent"), state.recent, ({ order }) => String(order), makeHappened);
  put($("recent-note"), state.recent.length === 0 ? "Nothing yet, since the server started." : "");
}

const pathButton = (path) => element("button", { class: "link code", type: "button", onclick: () => explain(path), "aria-label": `Explain ${path}` }, element("bdi", {}, path));

function written(row) {
  if (row.kind === "remove") return "removes it";
  if (row.places) return `writes ${row.placesCount} ${row.placesCount === 1 ? "place" : "places"} at once`;
  if (row.preview === undefined) return "changes the priority";
  return `writes ${row.preview}${row.cut ? "…" : ""}${row.serverValues ? " (with server values)" : ""}`;
}

function makeWaiting(row) {
  return element(
    "li",
    {},
    element("div", { class: "top" }, places(row), element("span", { class: "tag" }, VERBS[row.kind])),
    element("div", { class: "under" }, written(row)),
    element("div", { class: "under" }, row.owed ? "left before the server started, by " : "when ", user(row), row.owed ? ", session " : " goes, session ", row.session),
  );
}

/** Where it writes: the places of an update say more than what is above them. */
function places(row) {
  if (!row.places?.length) return element("span", { class: "places" }, pathButton(row.path));
  const absolute = row.places.slice(0, 3).map((place) => (place.startsWith("/") ? place : `${row.path === "/" ? "" : row.path}/${place}`));
  const more = row.placesCount - absolute.length;
  return element("span", { class: "places" }, ...absolute.map(pathButton), more > 0 ? element("span", { class: "under" }, `and ${more} more`) : null);
}

function makeHappened(row) {
  const item = element(
    "li",
    {},
    element("div", { class: "top" }, places(row), element("span", { class: `tag ${row.became}` }, row.became)),
    element("div", { class: "under" }, clock(row.at), ` · ${VERBS[row.kind]} of `, user(row), `, who ${ENDS[row.end]} · session ${row.session}`),
  );
  if (row.why) item.append(element("div", { class: "why" }, row.why));
  if (row.newer) item.append(element("div", { class: "under" }, "yielded to a newer write: ", ...traced(row.newer)));
  return item;
}

// ---- explanations

function traced(trace) {
  const how = { client: "by the client of session", rest: "by a plain request, connection" }[trace.cause] ?? `as a last word, because its client ${ENDS[trace.end]}; session`;
  return [element("bdi", { class: "code" }, trace.path ?? "a long path"), ", ", clock(trace.at), `, ${how} ${trace.session}, `, user(trace), trace.wide ? " (one of very many places)" : ""];
}

async function explain(path) {
  location.hash = "#words";
  $("explain-path").value = path;
  const seen = await attempt(() => look("explain", { params: { path } }));
  if (!seen) return;
  const lines = [element("h3", {}, element("bdi", { class: "code" }, seen.path)), element("p", { class: "code" }, seen.exists ? `${seen.preview}${seen.cut ? "…" : ""}` : "nothing stands here")];
  lines.push(element("p", {}, ...(seen.last ? ["Last write here or above: ", ...traced(seen.last), "."] : ["No write here or above is remembered."])));
  const part = (title, rows, make) => {
    if (rows.length > 0) lines.push(element("h3", {}, title), element("ul", { class: "list" }, ...rows.map(make)));
  };
  part("Writes below, the latest first", seen.below, (row) => element("li", {}, ...traced(row)));
  part("Last words that wait", seen.waiting, makeWaiting);
  part("What became of last words", seen.recent.toReversed(), makeHappened);
  if (seen.unseen > 0) lines.push(element("p", { class: "note" }, `${count(seen.unseen)} sessions with last words were not looked at.`));
  $("explained").replaceChildren(...lines);
  $("explained").hidden = false;
  $("explained").scrollIntoView({ block: "nearest" });
}
$("explain-form").addEventListener("submit", (event) => {
  event.preventDefault();
  explain($("explain-path").value);
});

// ---- the data tree

const join = (path, key) => (path === "" ? key : `${path}/${key}`);

const tree = {
  root: "",
  /** How many rows are wanted of each open place. */
  wanted: new Map(),
  texts: new Map(),
  timer: null,

  open(path) {
    this.root = path.split("/").filter(Boolean).join("/");
    $("path").value = `/${this.root}`;
    this.wanted = new Map([[this.root, PAGE_ROWS]]);
    this.texts.clear();
    $("tree").replaceChildren();
    this.refresh();
  },

  /** Looks again at all open places. */
  async refresh() {
    clearTimeout(this.timer);
    const ns = state.ns;
    if (state.credential && state.view === "data" && !document.hidden) {
      const paths = [...new Set([this.root, ...this.wanted.keys()])].slice(0, 50);
      const limit = String(Math.max(PAGE_ROWS, ...this.wanted.values()));
      const params = new URLSearchParams([["limit", limit], ...paths.map((path) => ["path", `/${path}`])]);
      try {
        const { pages } = await look("children", { params });
        if (ns === state.ns) this.draw(new Map(pages.map((page) => [page.path.slice(1), page])));
      } catch (error) {
        if (error.status === 401) return signOut("The credential is no longer accepted.");
        say(`The data cannot be read: ${error.message}`, true);
      }
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), 1000);
  },

  draw(pages) {
    const page = pages.get(this.root);
    if (!page) return;
    const row = { key: this.root === "" ? "/" : this.root, path: this.root, count: page.count, preview: page.preview, cut: page.cut };
    keep($("tree"), [row], ({ path }) => `/${path}`, (it) => this.make(it), (line, it) => this.update(line, it, pages));
  },

  make(row) {
    const open = element("button", { class: "open", type: "button", "aria-expanded": "false", onclick: () => this.toggle(row.path) });
    const tool = (text, act) => element("button", { class: "small", type: "button", "aria-label": `${text} ${row.key}`, onclick: act }, text);
    const line = element("li", {});
    const showTools = (event) => event.currentTarget.setAttribute("aria-expanded", String(line.firstElementChild.classList.toggle("with-tools")));
    const more = element("button", { class: "small more", type: "button", "aria-label": `What can be done with ${row.key}`, "aria-expanded": "false", onclick: showTools }, "⋯");
    const tools = element(
      "span",
      { class: "tools" },
      tool("Edit", () => this.edit(line, row)),
      tool("Add", () => this.add(line, row)),
      tool("Why", () => explain(`/${row.path}`)),
      tool("Remove", () => this.remove(row)),
    );
    line.append(element("div", { class: "row" }, open, element("bdi", { class: "key" }, row.key), element("span", { class: "value" }), element("span", { class: "count" }), more, tools), element("ul"));
    return line;
  },

  update(line, row, pages) {
    const [open, , value, number] = line.firstElementChild.children;
    const isOpen = row.count > 0 && this.wanted.has(row.path);
    open.classList.toggle("leaf", row.count === 0);
    put(open, isOpen ? "▾" : "▸");
    open.setAttribute("aria-expanded", String(isOpen));
    open.setAttribute("aria-label", `Children of ${row.key}`);
    const text = row.count === 0 ? `${row.preview ?? "null"}${row.cut ? "…" : ""}` : "";
    put(value, text);
    put(number, row.count > 0 ? `${count(row.count)} ${row.count === 1 ? "child" : "children"}` : "");
    const told = `${row.count} ${text}`;
    const before = this.texts.get(row.path);
    if (before !== undefined && before !== told) {
      line.classList.remove("changed");
      void line.offsetWidth;
      line.classList.add("changed");
    }
    this.texts.set(row.path, told);
    this.updateChildren(line.lastElementChild, row, isOpen ? pages.get(row.path) : undefined, pages, isOpen);
  },

  updateChildren(list, row, page, pages, isOpen) {
    if (!isOpen) return list.replaceChildren();
    if (!page) return;
    const rows = page.children.map((child) => ({ ...child, path: join(row.path, child.key) }));
    if (page.more) rows.push({ more: true, path: `${row.path}/`, rest: page.count - rows.length });
    const make = (it) => (it.more ? this.more(row, it) : this.make(it));
    keep(list, rows, ({ path, more }) => (more ? "more" : `/${path}`), make, (line, it) => !it.more && this.update(line, it, pages));
  },

  more(row, { rest }) {
    const act = () => {
      this.wanted.set(row.path, Math.min(1000, this.wanted.get(row.path) + PAGE_ROWS));
      this.refresh();
    };
    return element("li", {}, element("button", { class: "small", type: "button", onclick: act }, `Show more (${count(rest)} left)`));
  },

  toggle(path) {
    if (this.wanted.has(path)) {
      const isBelow = (open) => path === "" || open === path || open.startsWith(`${path}/`);
      [...this.wanted.keys()].filter(isBelow).forEach((open) => this.wanted.delete(open));
    } else {
      this.wanted.set(path, PAGE_ROWS);
    }
    this.refresh();
  },

  /** A form in a row: `fields` are names with values; `save` gets what was typed. */
  form(line, fields, save) {
    line.querySelector(":scope > .row > form")?.remove();
    const inputs = fields.map(([label, value]) => element("input", { class: "code", "aria-label": label, placeholder: label, value, autocomplete: "off", spellcheck: "false" }));
    const close = () => {
      form.remove();
      line.querySelector(".tools button")?.focus();
    };
    const submit = async (event) => {
      event.preventDefault();
      if ((await save(...inputs.map((input) => input.value))) !== undefined) close();
      tree.refresh();
    };
    const form = element("form", { onsubmit: submit, onkeydown: (event) => event.key === "Escape" && close() }, ...inputs, element("button", { class: "small main" }, "Save"), element("button", { class: "small", type: "button", onclick: close }, "Cancel"));
    line.firstElementChild.append(form);
    inputs[0].focus();
    inputs[0].select();
  },

  async edit(line, row) {
    let value = line.querySelector(".value").textContent;
    if (row.cut || value.endsWith("…") || value === "") {
      const whole = await attempt(() => data(row.path));
      if (whole === undefined) return;
      value = JSON.stringify(whole);
      if (value.length > 20_000) return say("This is too long to be edited here. Use stillhere export and import.", true);
    }
    this.form(line, [["New value (JSON)", value]], (text) => this.write(row.path, text));
  },

  add(line, row) {
    this.form(line, [["Name", ""], ["Value (JSON)", '""']], (key, text) => {
      if (key === "" || key.includes("/")) return void say("A name is needed, without a slash.", true);
      if (row.count > 0) this.wanted.set(row.path, this.wanted.get(row.path) ?? PAGE_ROWS);
      return this.write(join(row.path, key), text);
    });
  },

  async write(path, text) {
    try {
      JSON.parse(text);
    } catch {
      return void say('That is no JSON. Text stands in quotes: "online".', true);
    }
    return attempt(async () => (await data(path, { method: "PUT", body: text, params: { print: "silent" } }), true), `/${path} is written.`);
  },

  async remove(row) {
    const what = row.count > 0 ? `/${row.path} and everything below it.` : `/${row.path}.`;
    if (!(await confirmed("Remove this?", `${what} Whoever listens there hears of it. This cannot be undone.`, "Remove"))) return;
    await attempt(async () => (await data(row.path, { method: "DELETE", params: { print: "silent" } }), true), `/${row.path} is removed.`);
    this.refresh();
  },
};

$("path-form").addEventListener("submit", (event) => {
  event.preventDefault();
  tree.open($("path").value);
});
document.addEventListener("visibilitychange", () => tree.refresh());
window.addEventListener("hashchange", () => tree.refresh());

// ---- rules

const rules = {
  saved: null,

  forget() {
    this.saved = null;
    $("rules-text").value = "";
    this.tell("", "");
  },

  tell(text, kind) {
    $("rules-result").className = `verdict ${kind}`;
    $("rules-result").textContent = text;
  },

  async load() {
    if (this.saved !== null) return;
    const headers = { Authorization: `Bearer ${state.credential}` };
    await attempt(async () => {
      const response = await fetch(`/.settings/rules.json?${query({ ns: state.ns })}`, { headers });
      if (!response.ok) throw new Refused(response.status, await response.text());
      this.saved = await response.text();
      $("rules-text").value = this.saved;
    });
  },

  async put(params, done) {
    const body = $("rules-text").value;
    try {
      await ask("/.settings/rules.json", { method: "PUT", params, body });
      this.tell(done, "good");
      return body;
    } catch (error) {
      this.tell(error.message, "bad");
      this.point(/(\d+):(\d+):/.exec(error.message));
      return undefined;
    }
  },

  /** Puts the cursor where a line and a column are. */
  point(found) {
    if (!found) return;
    const lines = $("rules-text").value.split("\n");
    const before = lines.slice(0, found[1] - 1).reduce((total, line) => total + line.length + 1, 0);
    $("rules-text").focus();
    $("rules-text").setSelectionRange(before + Number(found[2]) - 1, before + Number(found[2]));
  },
};

$("rules-check").addEventListener("click", () => rules.put({ dryRun: "true" }, "These rules are sound."));
$("rules-publish").addEventListener("click", async () => {
  const text = "They apply at once, to everybody of this database. Listens that they no longer allow end. They hold until the server starts again: put them into its rules file, too.";
  if (!(await confirmed(`Publish these rules for ${state.ns}?`, text, "Publish"))) return;
  const saved = await rules.put({}, "Published.");
  if (saved !== undefined) rules.saved = saved;
});
$("rules-revert").addEventListener("click", () => {
  rules.forget();
  rules.load();
});
$("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const result = $("try-result");
  const uid = $("try-uid").value;
  const op = $("try-op").value;
  const trial = { op, path: $("try-path").value, auth: uid === "" ? null : { uid, provider: "custom", token: { sub: uid } } };
  try {
    if (op === "set" || op === "update") trial.value = JSON.parse($("try-value").value);
  } catch {
    result.className = "verdict bad";
    result.textContent = "The value is no JSON.";
    return;
  }
  if ($("try-text").checked) trial.rules = $("rules-text").value;
  try {
    const seen = await look("try", { method: "POST", body: JSON.stringify(trial) });
    result.className = `verdict ${seen.allowed ? "good" : "bad"}`;
    result.textContent = seen.allowed ? "Allowed" : `Denied: ${seen.why}`;
  } catch (error) {
    result.className = "verdict bad";
    result.textContent = error.message;
  }
});

// ---- load

const SVG = "http://www.w3.org/2000/svg";
const GRAPHS = [
  ["Sessions", (now) => clients(now)],
  ["Requests per second", (now, old) => rate(now, old, "requests")],
  ["Writes per second", (now, old) => rate(now, old, "writes")],
  ["Spoken per second", (now, old) => rate(now, old, "spoken")],
  ["Queued", (now) => now.queued],
  ["Late, ms", (now) => now.lateMs],
];
const rate = (now, old, name) => (old && now.at > old.at ? ((now[name] - old[name]) * 1000) / (now.at - old.at) : 0);

function drawLoad() {
  const rows = [...state.history].sort(([a], [b]) => a - b);
  keep($("cores"), rows, ([core]) => String(core), makeCore, (card, [, past]) => {
    GRAPHS.forEach(([title, value], index) => {
      const values = past.map((now, at) => value(now, past[at - 1])).slice(past.length > 1 ? 1 : 0);
      drawGraph(card.querySelectorAll("dd")[index], title, values);
    });
  });
}

function makeCore([core]) {
  const graph = (title) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    const under = document.createElementNS(SVG, "path");
    under.setAttribute("class", "under");
    svg.append(under, document.createElementNS(SVG, "path"));
    return element("div", {}, element("dt", {}, title), element("dd", {}, element("span", { class: "now" }), svg));
  };
  return element("section", { class: "core", "aria-label": `Core ${core}` }, element("h3", {}, `Core ${core}`), element("dl", { class: "graphs" }, ...GRAPHS.map(([title]) => graph(title))));
}

function drawGraph(cell, title, values) {
  const [now, svg] = cell.children;
  const most = Math.max(1, ...values);
  const last = values.at(-1) ?? 0;
  put(now, last >= 100 || Number.isInteger(last) ? count(Math.round(last)) : last.toFixed(1));
  const points = values.map((value, index) => `${index} ${(38 - (value / most) * 34).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  const [under, over] = svg.children;
  over.setAttribute("d", line);
  under.setAttribute("d", line ? `${line}V40H0Z` : "");
  svg.setAttribute("viewBox", `0 0 ${Math.max(29, values.length - 1)} 40`);
  svg.setAttribute("aria-label", `${title}: now ${count(Math.round(last))}, at most ${count(Math.round(most))} in two minutes`);
}

begin().catch((error) => {
  showSignIn("");
  say(`The server cannot be asked: ${error.message}`, true);
});
