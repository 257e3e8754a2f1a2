import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Wrong } from "./verdict.ts";

/** True if a process is running; a zombie does not count. */
export function isAtWork(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    // Outside Linux only the signal tells.
    return process.platform !== "linux";
  }
}

export async function untilGone(pids: readonly number[], expected: string, withinMs: number): Promise<void> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const left = pids.filter(isAtWork);
    if (left.length === 0) return;
    if (performance.now() > deadline) {
      throw new Wrong(expected, `${left.length} of ${pids.length} processes still run after ${withinMs} ms`);
    }
    await sleep(50);
  }
}
