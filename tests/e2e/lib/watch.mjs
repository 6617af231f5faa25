// A second client who watches.

import { open } from "./families.mjs";
import { Record, soon } from "./until.mjs";

/** A client in this process, closed after the test. */
export async function client(t, server, namespace, family = "modular", hooks = {}) {
  const opened = await open(family, server.url(namespace), hooks);
  t.after(() => opened.close());
  return opened;
}

/** Everything that a listen at `ref` sees, as values. Resolves with the first. */
export async function watch(ref, event = "value", read = (snap) => snap.val()) {
  const record = new Record(`${event} at ${ref}`);
  ref.on(
    event,
    (snap, before) => record.add(read(snap, before)),
    (error) => record.add(`cancelled: ${error.message}`),
  );
  if (event === "value") await record.until((seen) => seen.length > 0, "a first value");
  return record;
}

let marks = 0;

/** Resolves when everything that the server did so far has reached `watcher`. */
export async function settle(watcher) {
  const mark = `mark${++marks}`;
  await soon("a write of the watcher's own", watcher.ref(`marks/${mark}`).set(mark));
  await soon("a read of the watcher's own", watcher.ref(`marks/${mark}`).get());
}
