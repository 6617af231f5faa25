// Every way to go.

import { Network } from "./network.mjs";
import { Peer } from "./peer.mjs";

/** How a client in a process of its own can go. The flags say what follows. */
export const WAYS = {
  "goOffline()": { go: (peer) => peer.run((client) => void client.goOffline()) },
  "exit of the process": { go: (peer) => peer.exit() },
  "kill -9": { go: (peer) => peer.kill() },
  "a frozen process": { go: (peer) => peer.freeze(), isSilent: true },
  "a network that resets": { go: (_, network) => network.reset(), needsNetwork: true, comesBack: true },
  "a network that swallows": { go: (_, network) => network.swallow(), needsNetwork: true, isSilent: true },
};

/** A client in a process of its own, ready to go in the given way. Ended after the test. */
export async function departing(t, server, way, setup) {
  const network = way.needsNetwork ? await Network.to(server.port) : undefined;
  const port = network?.port ?? server.port;
  const peer = await Peer.start({ ...setup, url: server.url(setup.namespace, port) });
  t.after(async () => {
    await peer.kill();
    network?.close();
  });
  return { peer, network, go: () => way.go(peer, network) };
}
