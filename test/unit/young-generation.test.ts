import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

/**
 * Lists that outlive two collections, many times the young generation. Prints the size of its half
 * in MB, with `ends` ends of runs beforehand.
 */
const program = (ends: number) => `
  import v8 from "node:v8";
  const { YoungGeneration } = await import(${JSON.stringify(new URL("../../src/replica/young-generation.ts", import.meta.url).href)});
  const young = new YoungGeneration(5);
  young.noteEnds(${ends});
  const alive = [];
  for (let round = 0; round < 100; round++) {
    alive[round % 10] = Array.from({ length: 50_000 }, (_, index) => ({ index }));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const space = v8.getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space");
  console.log(Math.round(space.space_size / 2 / 1_048_576));`;

async function halfMB(ends: number, maxMB: number): Promise<number> {
  const flags = [`--max-semi-space-size=${maxMB}`, "--input-type=module", "--eval", program(ends)];
  const { stdout } = await promisify(execFile)(process.execPath, flags);
  return Number(stdout);
}

test("the young generation of a replica that ends few runs stays small, and grows with many", async () => {
  const [calm, busy] = await Promise.all([halfMB(10, 32), halfMB(1_000, 32)]);
  expect(busy).toBe(32);
  expect(calm).toBeLessThan(32);
});
