import { join } from "node:path";
import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/support/longest-first.ts";

/** What takes minutes (`*.long.test.ts`) runs with `npm run test:long`, which runs everything. */
const isLong = process.env.PINION_TEST_LONG === "1";
/**
 * Subjects that are slow by their nature (`*.slow.test.ts`) run with `npm run test:all`, as in
 * `.ci/run`.
 */
const isSlow = isLong || process.env.PINION_TEST_SLOW === "1";
/** Set by test/odd.ts: a project's own list hides `--exclude`. */
const leftOut = process.env.PINION_TEST_LEFT_OUT?.split(" ") ?? [];

// Each worker loads the same packages: from Node's cache of compiled code.
process.env.NODE_COMPILE_CACHE ??= join(import.meta.dirname, "node_modules/.cache/compiled");

export default defineConfig({
  test: {
    pool: "forks",
    // Node loads the sources, as in production: no test replaces a module. Node's cache of compiled
    // code serves each worker, and a call of an imported function costs no look-up.
    experimental: { viteModuleRunner: false, nodeLoader: false },
    // A young generation that has not to grow first: a start takes a fifth less processor time.
    execArgv: ["--min-semi-space-size=16", "--max-semi-space-size=64"],
    // Continuous integration has two cores. The tests of many files wait for timers and processes
    // half of their time: bus-replicas is 9 s of processor time in 44 s, org-move 9 s in 46 s. All
    // tests are 810 s of processor time, so more workers end no sooner (six: 451 s, four: 441 s).
    maxWorkers: 4,
    sequence: { sequencer: LongestFirst },
    reporters: ["default"],
    // A variable that a test sets is gone in the next test.
    unstubEnvs: true,
    // Waits end when their condition holds: the limits are for failures, not for a busy machine.
    setupFiles: ["test/support/patience.ts"],
    expect: { poll: { timeout: 15_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"],
          testTimeout: 30_000,
          // A worker loads the sources once for all its files.
          isolate: false,
        },
      },
      {
        extends: true,
        test: {
          name: "integration",
          include: ["test/{integration,property,chaos,e2e}/**/*.test.ts"],
          exclude: [
            ...(isLong ? [] : ["**/*.long.test.ts"]),
            ...(isSlow ? [] : ["**/*.slow.test.ts"]),
            ...leftOut,
          ],
          globalSetup: ["test/support/global-setup.ts"],
          setupFiles: ["test/support/patience.ts", "test/support/lock-order-setup.ts"],
          // The longest takes a quarter of this time on a quiet machine.
          testTimeout: 60_000,
          hookTimeout: 30_000,
          // The sources of a replica take two seconds of processor time to load: once per worker.
          isolate: false,
        },
      },
    ],
  },
});
