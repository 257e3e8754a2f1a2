/** Processor time: of a set of processes by a control group of Linux, and of short commands. */
import { spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";

/** A set of processes; root makes one. */
export type ProcessorTime = {
  /** A process that writes its id here is counted, and so are its later children. */
  processesFile: string;
  /** So far, in seconds. */
  seconds(): number;
  remove(): void;
};

const unified = "/sys/fs/cgroup";
const separate = "/sys/fs/cgroup/cpuacct";

/** A group that this account may join; undefined where the machine or the user cannot make one. */
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

/** Starts of a short command: the load of a machine only adds to the smallest figure. */
const repeats = 7;

/**
 * The processor time of a command in seconds, user and system: the smallest of some starts, after
 * one that fills the caches. Throws if the command fails.
 */
export function processorSecondsOf(command: readonly string[], env: Record<string, string>): number {
  const times: number[] = [];
  for (let at = 0; at <= repeats; at++) {
    const script = '"$@" > /dev/null || exit 1; times';
    const { status, stdout } = spawnSync("sh", ["-c", script, "sh", ...command], { env, encoding: "utf8" });
    if (status !== 0) throw new Error(`${command.join(" ")} failed`);
    // The last line has the times of the shell's children: "0m0.050s 0m0.010s".
    const [user, sys] = [
      ...stdout
        .trim()
        .split("\n")
        .at(-1)!
        .matchAll(/(\d+)m([\d.]+)s/g),
    ];
    times.push([user, sys].reduce((sum, found) => sum + Number(found?.[1]) * 60 + Number(found?.[2]), 0));
  }
  return Math.min(...times.slice(1));
}
