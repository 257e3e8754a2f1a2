/**
 * `npm run chaos:mutations -- [--seed S] [--only TEXT]`: breaks each promise on purpose and prints
 * whether the checker noticed. Exits with 1 if the checker missed a mutation.
 */
import { parseArgs } from "node:util";
import { runMutation } from "./mutate.ts";
import { mutations } from "./mutations.ts";

const { values } = parseArgs({
  options: { seed: { type: "string", default: "1" }, only: { type: "string", default: "" } },
});
const seed = Number(values.seed);
const say = (text: string) => process.stdout.write(`${text}\n`);
let missed = 0;
for (const mutation of mutations.filter(({ name }) => name.includes(values.only))) {
  const startedAt = performance.now();
  const { caught, violations } = await runMutation(mutation, { seed });
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  if (caught.length === 0) missed += 1;
  say(`${caught.length > 0 ? "caught" : "MISSED"}  ${mutation.name} (${seconds} s, seed ${seed})`);
  for (const { rule, what } of caught.length > 0 ? caught : violations) say(`          ${rule}: ${what}`);
}
process.exit(missed === 0 ? 0 : 1);
