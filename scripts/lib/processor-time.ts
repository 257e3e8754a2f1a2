/** The processor time of a set of processes, by a control group of Linux; root makes one. */
import { chownSync, existsSync, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";

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
