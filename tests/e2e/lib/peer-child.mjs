// The other side of peer.mjs.

import { open } from "./families.mjs";
import { program } from "./programs.mjs";
import { recipe } from "./recipes.mjs";

let client;

const answer = async ({ setup, action, argument }) => {
  if (setup) {
    client = setup.recipe ? recipe(setup.recipe) : setup.program ? await program(setup) : await open(setup.family, setup.url);
    return null;
  }
  // The text of a function of the test's own.
  return (0, eval)(`(${action})`)(client, argument);
};

process.on("message", async (message) => {
  if (message.exit) process.exit(0);
  try {
    process.send({ id: message.id, value: (await answer(message)) ?? null });
  } catch (error) {
    process.send({ id: message.id, error: { message: String(error?.stack ?? error), code: error?.code } });
  }
});
process.on("disconnect", () => process.exit(0));
