import { setFlagsFromString } from "node:v8";
import type { StartOptions } from "./replica.ts";
import { YoungGeneration } from "./young-generation.ts";

/**
 * Percent by which the heap may grow between two full collections, over what the last one found
 * alive. By itself V8 lets a heap of this size grow fourfold while objects become old quickly: a
 * replica of 1,000 devices with 80 MB alive then takes 300 MB. Lower is less memory and more of the
 * collector's time (docs/performance.md).
 */
const growthPercent = 60;

/**
 * Bounds the growth of the process's heap and of its young generation, which is told by the replica
 * of ended runs and turns; for the process of a replica. V8 reads the flags after each collection,
 * so the call may come at any time.
 */
export function boundHeapGrowth(percent = growthPercent): Required<Pick<StartOptions, "onEnds">> {
  setFlagsFromString(`--heap-growing-percent=${percent}`);
  const young = new YoungGeneration();
  return { onEnds: (count) => young.noteEnds(count) };
}
