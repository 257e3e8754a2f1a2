import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** A cgroup of Linux with a limit of memory: the system ends its processes beyond the limit. */
export type MemoryGroup = {
  /** A process that writes its id here joins the group. */
  processesFile: string;
  /** The most memory so far, in bytes: of the processes, and of the kernel for them. */
  peakBytes(): number;
  /** Removes the group once its processes have ended. */
  remove(): Promise<void>;
};

type Kind = { root: string; limits: Record<string, string>; peak: string };

const endingMsMax = 5_000;

/** Undefined where the machine or the user cannot make one. */
export function makeMemoryGroup(bytes: number): MemoryGroup | undefined {
  const kind = kindOf(bytes);
  const directory = join(kind.root, `pinion-test-${randomUUID()}`);
  try {
    mkdirSync(directory);
  } catch {
    return undefined;
  }
  const remove = async () => {
    for (const deadline = performance.now() + endingMsMax; performance.now() < deadline; ) {
      try {
        rmdirSync(directory);
        return;
      } catch {
        // A process of the group is still ending.
        await delay(50);
      }
    }
  };
  try {
    for (const [name, value] of Object.entries(kind.limits)) {
      // A kernel without a count of swap has no such file.
      if (name.includes("sw") && !existsSync(join(directory, name))) continue;
      writeFileSync(join(directory, name), value);
    }
    readFileSync(join(directory, kind.peak));
  } catch {
    void remove();
    return undefined;
  }
  return {
    processesFile: join(directory, "cgroup.procs"),
    peakBytes: () => Number(readFileSync(join(directory, kind.peak), "utf8")),
    remove,
  };
}

function kindOf(bytes: number): Kind {
  const root = "/sys/fs/cgroup";
  if (!existsSync(join(root, "cgroup.controllers"))) {
    return {
      root: join(root, "memory"),
      limits: { "memory.limit_in_bytes": String(bytes), "memory.memsw.limit_in_bytes": String(bytes) },
      peak: "memory.max_usage_in_bytes",
    };
  }
  try {
    writeFileSync(join(root, "cgroup.subtree_control"), "+memory");
  } catch {
    // The group's files tell whether memory is counted.
  }
  return { root, limits: { "memory.max": String(bytes), "memory.swap.max": "0" }, peak: "memory.peak" };
}
