import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

/**
 * Lists of 4 KB: 10,000 stay alive, and 50,000 more live until they are old. Prints the largest
 * heap, in MB.
 */
const program = (isBounded: boolean) => `
  if (${isBounded}) (await import(${JSON.stringify(new URL("../../src/replica/heap-growth.ts", import.meta.url).href)})).boundHeapGrowth();
  const made = () => Array.from({ length: 500 }, (_, index) => ({ index }).index);
  const alive = Array.from({ length: 10_000 }, made);
  let largest = 0;
  for (let round = 0; round < 20; round++) {
    const old = Array.from({ length: 2_500 }, made);
    largest = Math.max(largest, process.memoryUsage().heapTotal);
    alive[round] = old[0];
  }
  console.log(Math.round(largest / 1e6));`;

async function largestHeapMB(isBounded: boolean): Promise<number> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--max-semi-space-size=8",
    "--input-type=module",
    "--eval",
    program(isBounded),
  ]);
  return Number(stdout);
}

test("a replica's heap stays well below the heap that V8 would take for the same objects", async () => {
  const [bounded, unbounded] = await Promise.all([largestHeapMB(true), largestHeapMB(false)]);
  // About 125 and 220 MB, of which 50 are alive.
  expect(bounded).toBeLessThan(0.75 * unbounded);
});
