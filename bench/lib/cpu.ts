import { readdirSync, readFileSync } from "node:fs";

/** Linux counts in hundredths of a second (USER_HZ). */
const ticksPerSecond = 100;

type Stat = { parent: number; own: number; ofEndedChildren: number };

/**
 * proc(5): the name may contain spaces and brackets, so fields are counted after the last bracket.
 */
function statOf(pid: number | string): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const [user, system, endedUser, endedSystem] = fields.slice(11, 15).map(Number) as [
      number,
      number,
      number,
      number,
    ];
    return { parent: Number(fields[1]), own: user + system, ofEndedChildren: endedUser + endedSystem };
  } catch {
    return undefined;
  }
}

/** CPU seconds used by a process so far; `withChildren` includes its ended children. */
export function cpuSeconds(pid: number, options: { withChildren?: boolean } = {}): number {
  const self = statOf(pid);
  if (!self) return 0;
  let ticks = self.own;
  if (options.withChildren) {
    ticks += self.ofEndedChildren;
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      const stat = statOf(name);
      if (stat?.parent === pid) ticks += stat.own;
    }
  }
  return ticks / ticksPerSecond;
}

/** The most resident memory that a process has had, in KiB; 0 for an ended process. */
export function peakKiB(pid: number): number {
  try {
    const line = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return Number(line?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Resident memory of a process, in KiB. */
export function residentKiB(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(line?.[1] ?? 0);
}
