/** Processor time: of a set of processes by a control group of Linux, and of short commands. */
import { spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";

/** A set of processes; only root can make a set. */
export type ProcessorTime = {
  /** A process that writes its id here is counted, with its later children. */
  processesFile: string;
  /** The processor time so far, in seconds. */
  seconds(): number;
  remove(): void;
};

const unified = "/sys/fs/cgroup";
const separate = "/sys/fs/cgroup/cpuacct";

/** A group for this account; undefined without control groups or without the right to make one. */
export function makeProcessorTime(name: string, uid: number | undefined): ProcessorTime | undefined {
  const root = existsSync(separate) ? separate : unified;
  const directory = join(root, `pinion-${name}-${process.pid}`);
  try {
    mkdirSync(directory);
    const processesFile = join(directory, "cgroup.procs");
    if (uid !== undefined) chownSync(processesFile, uid, uid);
    const seconds = () =>
      root === separate
        ? Number(readFileSync(join(directory, "cpuacct.usage"), "utf8")) / 1e9
        : Number(/^usage_usec (\d+)$/m.exec(readFileSync(join(directory, "cpu.stat"), "utf8"))?.[1]) / 1e6;
    seconds();
    const remove = () => {
      try {
        rmdirSync(directory);
      } catch {
        // A process of the group is still ending; an empty group costs nothing.
      }
    };
    return { processesFile, seconds, remove };
  } catch {
    return undefined;
  }
}

/** The system counts in ticks of 10 ms, so only the mean of many starts is exact. */
const starts = 6;
/** The load of a machine only adds time, so the smallest mean counts. */
const rounds = 3;

/**
 * The processor time of a short command in seconds, user and system, its children included: the
 * smallest mean of some rounds, after a start that fills the caches. Throws if the command fails.
 */
export function processorSecondsOf(command: readonly string[], env: Record<string, string>): number {
  const script = `"$@" > /dev/null || exit 1; times; for n in $(seq ${starts}); do "$@" > /dev/null; done; times`;
  const means = Array.from({ length: rounds }, () => {
    const { status, stdout } = spawnSync("sh", ["-c", script, "sh", ...command], { env, encoding: "utf8" });
    if (status !== 0) throw new Error(`${command.join(" ")} failed`);
    // Two lines for each time, the shell's and its children's: "0m0.050s 0m0.010s".
    const [, first = "", , all = ""] = stdout.trim().split("\n");
    return (secondsIn(all) - secondsIn(first)) / starts;
  });
  return Math.min(...means);
}

function secondsIn(times: string): number {
  const found = [...times.matchAll(/(\d+)m([\d.]+)s/g)];
  return found.reduce((sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds), 0);
}
