// A second hand on the connection of a program that runs as printed: to know when it is connected, to leave a
// last word after the program's own, to go offline. Runs in Node and in browsers.

export function ofModular(m) {
  const database = m.getDatabase();
  return companion({
    lastWord: (path, value) => m.onDisconnect(m.ref(database, path)).set(value),
    info: (name, callback) => m.onValue(m.ref(database, `.info/${name}`), callback),
    goOffline: () => m.goOffline(database),
    goOnline: () => m.goOnline(database),
  });
}

export function ofNamespaced(firebase) {
  const database = firebase.database();
  return companion({
    lastWord: (path, value) => database.ref(path).onDisconnect().set(value),
    info: (name, callback) => database.ref(`.info/${name}`).on("value", callback),
    goOffline: () => database.goOffline(),
    goOnline: () => database.goOnline(),
  });
}

function companion(client) {
  const info = (name, is) => new Promise((resolve) => client.info(name, (snap) => is(snap.val()) && resolve(snap.val())));
  return {
    ...client,
    connected: () => info("connected", (value) => value === true),
    offset: () => info("serverTimeOffset", (value) => typeof value === "number"),
  };
}
