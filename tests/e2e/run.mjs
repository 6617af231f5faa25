// Runs the end-to-end tests: all of them, or those whose file names contain one of the arguments.

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const wanted = process.argv.slice(2);
const files = readdirSync(here)
  .filter((name) => name.endsWith(".test.mjs"))
  .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
  .map((name) => here + name);
// Some clients never let go of their process: they try to connect for as long as it lives.
const options = ["--test", "--test-reporter=spec", "--test-force-exit", "--test-concurrency=2", "--test-timeout=240000"];
const { status } = spawnSync(process.execPath, [...options, ...files], { stdio: "inherit", env: { ...process.env, NO_COLOR: "1" } });
process.exit(status ?? 1);
