// A network between a client and the server, that can fail in the ways that networks fail.

import { createServer, connect } from "node:net";
import { once } from "node:events";

export class Network {
  #pairs = new Set();
  #isSwallowing = false;

  static async to(port) {
    const network = new Network();
    network.server = createServer({ allowHalfOpen: true }, (near) => network.#join(near, port));
    network.server.listen(0, "127.0.0.1");
    await once(network.server, "listening");
    network.port = network.server.address().port;
    return network;
  }

  #join(near, port) {
    const far = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    const pair = { near, far, isSwallowed: this.#isSwallowing };
    this.#pairs.add(pair);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      from.on("data", (bytes) => pair.isSwallowed || to.write(bytes));
      from.on("end", () => pair.isSwallowed || to.end());
      from.on("error", () => pair.isSwallowed || to.destroy());
      from.on("close", () => {
        if (pair.isSwallowed) return;
        to.destroy();
        this.#pairs.delete(pair);
      });
    }
  }

  /** From now on nothing passes, of connections old and new, and nobody is told. */
  swallow() {
    this.#isSwallowing = true;
    for (const pair of this.#pairs) pair.isSwallowed = true;
  }

  /** New connections pass again. Old ones stay swallowed. */
  heal() {
    this.#isSwallowing = false;
  }

  /** Breaks every connection, with a reset. */
  reset() {
    for (const { near, far } of this.#pairs) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
    this.#pairs.clear();
  }

  close() {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
    this.server.close();
  }
}
