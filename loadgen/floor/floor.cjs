// The least that does the job, as one would write it in an evening over uWebSockets: what a server must
// not be slower than. No rules, no disk, no sliced work, no limits.
const uws = require("@trufflesuite/uws-js-unofficial");
const [host, port] = (process.argv[2] ?? "127.0.0.1:9200").split(":");
// uWebSockets takes multiples of four seconds, from eight on.
const idleTimeout = Math.max(8, Math.ceil((process.argv[3] ?? 45) / 4) * 4);
const values = new Map();
const listeners = new Set();
let session = 0;

const tell = (socket, d) => socket.send(JSON.stringify({ t: "d", d }));
const answer = (socket, r, d = "") => tell(socket, { r, b: { s: "ok", d } });

function write(path, value) {
  values.set(path, value);
  const frame = JSON.stringify({ t: "d", d: { a: "d", b: { p: path, d: value } } });
  for (const [socket, above] of listeners) if (path === above || path.startsWith(above + "/")) socket.send(frame);
}
const actions = {
  p: (socket, { p, d }) => write(p, d),
  o: (socket, { p, d }) => socket.getUserData().words.set(p, d),
  oc: (socket, { p }) => socket.getUserData().words.delete(p),
  m: (socket, { p, d }) => Object.entries(d).forEach(([key, value]) => write(`${p}/${key}`, value)),
  q: (socket, { p }) => {
    const entry = [socket, p];
    socket.getUserData().listens.push(entry);
    listeners.add(entry);
    tell(socket, { a: "d", b: { p, d: values.get(p) ?? null } });
  },
};
uws.App()
  .ws("/.ws", {
    idleTimeout,
    upgrade: (res, req, context) => {
      const of = (name) => req.getHeader(`sec-websocket-${name}`);
      res.upgrade({ words: new Map(), listens: [] }, of("key"), of("protocol"), of("extensions"), context);
    },
    open: (socket) => {
      const hello = { t: "h", d: { ts: Date.now(), v: "5", h: `${host}:${port}`, s: `session${++session}` } };
      socket.send(JSON.stringify({ t: "c", d: hello }));
    },
    message: (socket, bytes) => {
      const { t, d } = JSON.parse(Buffer.from(bytes).toString());
      if (t !== "d") return;
      if (d.a === "g") return answer(socket, d.r, values.get(d.b.p) ?? null);
      actions[d.a]?.(socket, d.b);
      answer(socket, d.r);
    },
    close: (socket) => {
      const { words, listens } = socket.getUserData();
      listens.forEach((entry) => listeners.delete(entry));
      words.forEach((value, path) => write(path, value));
    },
  })
  .listen(host, Number(port), () => console.log(`ready tcp=${host}:${port}`));
