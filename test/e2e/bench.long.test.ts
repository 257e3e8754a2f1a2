/** The benches work: every bench without requirements, for a few seconds. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import type { Report } from "../../bench/lib/report.ts";
import { root } from "../support/docs.ts";

const run = promisify(execFile);
test.each(["herd", "storm", "replicas", "costs", "growth", "fleet", "small-herd", "soak", "turns"])(
  "npm run bench -- %s --smoke",
  { timeout: 180_000 },
  async (name) => {
    const folder = await mkdtemp(join(tmpdir(), "pinion-bench-test-"));
    onTestFinished(() => rm(folder, { recursive: true }));
    const file = join(folder, "report.json");
    await run(process.execPath, ["bench/main.ts", name, "--smoke", "--json", file], { cwd: root });
    const [report] = JSON.parse(await readFile(file, "utf8")) as Report[];
    expect(report!.bench).toBe(name);
    const numbers = report!.rows.flatMap((row) =>
      Object.values(row).filter((value) => typeof value === "number"),
    );
    expect(numbers.length).toBeGreaterThan(2);
    for (const value of numbers) expect(value).toBeGreaterThanOrEqual(0);
  },
);
