/** Two deliberately broken promises, both caught; all mutations: `npm run chaos:mutations`. */
import { expect, test } from "vitest";
import { runMutation } from "./mutate.ts";
import { mutations } from "./mutations.ts";

const patienceMs = 120_000;
const quick = new Set(["the claim looks at no pin", "a window keeps the beginning of its output"]);

test.each(mutations.filter(({ name }) => quick.has(name)))(
  "the checker notices when $name",
  async (mutation) => {
    const { caught } = await runMutation(mutation, { seed: 1 });
    expect(caught).not.toEqual([]);
  },
  patienceMs,
);

test("every promise that can be broken names the rule that notices", () => {
  expect(mutations.filter(({ breaks }) => breaks.length === 0)).toEqual([]);
  expect(mutations.filter(({ name }) => quick.has(name))).toHaveLength(quick.size);
});
