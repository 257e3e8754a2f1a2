import { setFlagsFromString } from "node:v8";

/**
 * Percent by which the heap may grow between two full collections, over what the last one found
 * alive. By itself V8 lets a heap of this size grow fourfold while objects become old quickly: a
 * replica of 1,000 devices with 80 MB alive then takes 300 MB. Lower is less memory and more of the
 * collector's time (docs/performance.md).
 */
const growthPercent = 60;

/**
 * Bounds the growth of the process's heap; for the process of a replica. V8 reads the flag after
 * each full collection, so the call may come at any time.
 */
export function boundHeapGrowth(percent = growthPercent): void {
  setFlagsFromString(`--heap-growing-percent=${percent}`);
}
