// firebase-server as its README starts it, with everything allowed: `node serve.cjs ADDRESS:PORT`.
const FirebaseServer = require("firebase-server");
const [host, port] = (process.argv[2] ?? "127.0.0.1:9200").split(":");
const server = new FirebaseServer({ host, port: Number(port) }, `${host}:${port}`);
server.wss.on("listening", () => console.log(`ready tcp=${host}:${port}`));
