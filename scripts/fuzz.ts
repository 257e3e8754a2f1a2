/**
 * `npm run fuzz -- --seed S --minutes M`: the hostile tests; their random parts take the given
 * minutes.
 */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 31)) },
    minutes: { type: "string", default: "10" },
  },
});
for (const [name, value] of Object.entries(values)) {
  if (!(Number(value) > 0)) {
    process.stderr.write(`--${name} needs a number above 0\n`);
    process.exit(2);
  }
}
process.stdout.write(`npm run fuzz -- --seed ${values.seed} --minutes ${values.minutes}\n`);
const { status } = spawnSync("vitest", ["run", "test/integration/server/hostile"], {
  stdio: "inherit",
  env: {
    ...process.env,
    PINION_TEST_LONG: "1",
    PINION_FUZZ_SEED: values.seed,
    PINION_FUZZ_MINUTES: values.minutes,
  },
});
process.exit(status ?? 1);
