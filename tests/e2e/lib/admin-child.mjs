// firebase-admin, as its users run it against an emulator: told by the environment where that is. Prints one
// line of JSON: what came of each operation.

import { deleteApp, initializeApp } from "firebase-admin/app";
import { getDatabase } from "firebase-admin/database";

const { namespace, override, operations } = JSON.parse(process.argv[2]);
const options = override === undefined ? {} : { databaseAuthVariableOverride: override };
const app = initializeApp({ projectId: "demo", databaseURL: `https://${namespace}.example.com`, ...options });
const database = getDatabase(app);
const outcomes = [];
for (const [what, path, value] of operations) {
  const ref = database.ref(path);
  const doing = { set: () => ref.set(value), get: async () => (await ref.get()).val(), word: () => ref.onDisconnect().set(value) };
  try {
    outcomes.push((await doing[what]()) ?? "ok");
  } catch (error) {
    outcomes.push(error.message);
  }
}
console.log(JSON.stringify(outcomes));
await deleteApp(app);
process.exit(0);
