// Waiting for conditions, never for time: everything here ends as soon as what it waits for is so, and fails
// by name after a generous while.

export const PATIENCE_MS = 60_000;

/** Settles like `promise`, or fails after a while and says what was waited for. */
export function soon(what, promise, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain: ${typeof what === "function" ? what() : what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A growing list of what was seen, that can be waited on. */
export class Record {
  seen = [];
  #waiting = new Set();

  constructor(name) {
    this.name = name;
  }

  add(value) {
    this.seen.push(value);
    for (const look of [...this.#waiting]) look();
  }

  /** Waits until `is(seen)` holds. */
  until(is, what = is.toString(), ms = PATIENCE_MS) {
    let look;
    const found = new Promise((resolve, reject) => {
      look = () => {
        try {
          if (is(this.seen)) resolve(this.seen);
        } catch (error) {
          reject(error);
        }
      };
    });
    this.#waiting.add(look);
    look();
    return soon(() => `${this.name}: ${what}; seen: ${JSON.stringify(this.seen).slice(0, 2000)}`, found, ms).finally(() =>
      this.#waiting.delete(look),
    );
  }

  /** Waits until the newest of what was seen is `value`. */
  untilLast(value) {
    const wanted = JSON.stringify(value);
    return this.until((seen) => seen.length > 0 && JSON.stringify(seen.at(-1)) === wanted, `last is ${wanted}`);
  }
}
