// One way to speak to every SDK, so that one test covers all. Shaped like the namespaced API, which two of the
// three families have anyway. Runs in Node and in browsers.

/** firebase 8, and firebase 12's compat: `firebase.database()`. `hooks` get the app and the database first. */
export function namespaced(firebase, databaseURL, name, hooks = {}) {
  const app = firebase.initializeApp({ databaseURL, projectId: "demo" }, name);
  hooks.app?.((component) => app._addComponent(component));
  const database = app.database();
  hooks.database?.((...args) => database.useEmulator(...args));
  return {
    ref: (path) => (path === undefined ? database.ref() : database.ref(path)),
    goOffline: () => database.goOffline(),
    goOnline: () => database.goOnline(),
    timestamp: () => firebase.database.ServerValue.TIMESTAMP,
    increment: (by) => firebase.database.ServerValue.increment(by),
    close: () => app.delete(),
  };
}

/** firebase 9 and later: free functions, from `firebase/app` and `firebase/database`. */
export function modular(appModule, m, databaseURL, name, hooks = {}) {
  const app = appModule.initializeApp({ databaseURL, projectId: "demo" }, name);
  hooks.app?.((component) => appModule._addComponent(app, component));
  const database = m.getDatabase(app);
  hooks.database?.((...args) => m.connectDatabaseEmulator(database, ...args));
  return {
    ref: (path) => new Ref(m, path === undefined ? m.ref(database) : m.ref(database, path)),
    goOffline: () => m.goOffline(database),
    goOnline: () => m.goOnline(database),
    timestamp: () => m.serverTimestamp(),
    increment: (by) => m.increment(by),
    close: () => appModule.deleteApp(app),
  };
}

const LISTEN = {
  value: "onValue",
  child_added: "onChildAdded",
  child_changed: "onChildChanged",
  child_moved: "onChildMoved",
  child_removed: "onChildRemoved",
};

class Ref {
  constructor(m, at) {
    this.m = m;
    this.at = at;
    this.stops = new Map();
  }

  get key() {
    return this.at.key;
  }

  child(path) {
    return new Ref(this.m, this.m.child(this.at, path));
  }

  on(event, callback, cancelled) {
    const stop = this.m[LISTEN[event]](this.at, (snap, before) => callback(new Snap(snap), before), cancelled);
    this.stops.set(callback, stop);
    return callback;
  }

  off(_event, callback) {
    for (const [known, stop] of this.stops) if (!callback || known === callback) stop();
  }

  once(event) {
    return new Promise((resolve, reject) =>
      this.m[LISTEN[event]](this.at, (snap) => resolve(new Snap(snap)), reject, { onlyOnce: true }),
    );
  }

  async get() {
    return new Snap(await this.m.get(this.at));
  }

  push(value) {
    const made = this.m.push(this.at, value);
    const ref = new Ref(this.m, made);
    ref.then = undefined;
    ref.done = Promise.resolve(made);
    return ref;
  }

  async transaction(update) {
    const { committed, snapshot } = await this.m.runTransaction(this.at, update);
    return { committed, snapshot: new Snap(snapshot) };
  }

  onDisconnect() {
    const words = this.m.onDisconnect(this.at);
    // The modular API has promises only.
    const withCallback = (name) => (...args) => {
      const callback = typeof args.at(-1) === "function" ? args.pop() : undefined;
      const done = words[name](...args);
      if (callback) done.then(() => callback(null), callback);
      return done;
    };
    return Object.fromEntries(["set", "update", "remove", "setWithPriority", "cancel"].map((name) => [name, withCallback(name)]));
  }
}

class Snap {
  constructor(snap) {
    this.snap = snap;
  }

  get key() {
    return this.snap.key;
  }

  val() {
    return this.snap.val();
  }

  exportVal() {
    return this.snap.exportVal();
  }

  getPriority() {
    return this.snap.priority;
  }

  exists() {
    return this.snap.exists();
  }

  numChildren() {
    return this.snap.size;
  }

  forEach(action) {
    return this.snap.forEach((child) => action(new Snap(child)));
  }
}

const WRITES = ["set", "update", "remove", "setWithPriority", "setPriority"];
for (const name of WRITES) {
  Ref.prototype[name] = function (...args) {
    return this.m[name](this.at, ...args);
  };
}

const ORDERS = ["orderByChild", "orderByKey", "orderByValue", "orderByPriority"];
const BOUNDS = ["limitToFirst", "limitToLast", "startAt", "startAfter", "endAt", "endBefore", "equalTo"];
for (const name of [...ORDERS, ...BOUNDS]) {
  Ref.prototype[name] = function (...args) {
    return new Ref(this.m, this.m.query(this.at, this.m[name](...args)));
  };
}
