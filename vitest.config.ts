import { defineConfig } from "vitest/config";

/** What takes minutes (`*.long.test.ts`) runs with `npm run test:long`, which runs everything. */
const isLong = process.env.PINION_TEST_LONG === "1";

export default defineConfig({
  test: {
    pool: "forks",
    // Continuous integration has two cores; more workers than that only make the real clocks in the tests late.
    maxWorkers: 2,
    reporters: ["default"],
    projects: [
      {
        extends: true,
        test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 30_000 },
      },
      {
        extends: true,
        test: {
          name: "integration",
          include: ["test/{integration,property,chaos,e2e}/**/*.test.ts"],
          exclude: isLong ? [] : ["**/*.long.test.ts"],
          globalSetup: ["test/support/global-setup.ts"],
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
    ],
  },
});
