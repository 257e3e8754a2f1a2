/** Facts about other processes, on Linux and macOS. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";

function ps(column: string, pid: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile("ps", ["-ww", "-o", `${column}=`, "-p", String(pid)], { timeout: 5000 }, (error, stdout) => {
      resolve(error ? undefined : stdout.trim() || undefined);
    });
  });
}

function readProc(pid: number, name: string): Promise<string | undefined> {
  return readFile(`/proc/${pid}/${name}`, "utf8").catch(() => undefined);
}

/**
 * The fields of /proc/<pid>/stat after the command; the command may contain spaces and parentheses.
 */
function statFields(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/**
 * The start of a process, as a text that no later process of the same number repeats; undefined if
 * the process is gone.
 */
export async function processStartedAt(pid: number): Promise<string | undefined> {
  if (!Number.isInteger(pid) || pid <= 0) return undefined;
  if (process.platform !== "linux") return ps("lstart", pid);
  const stat = await readProc(pid, "stat");
  if (stat === undefined) return undefined;
  const fields = statFields(stat);
  // A zombie has ended; only its parent has not read the exit code.
  if (fields[0] === "Z" || fields[0] === "X") return undefined;
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "")).trim();
  // Field 22 of proc(5), in ticks since the start of the machine.
  return `${bootId}:${fields[19]}`;
}

/** The command line of a process, joined by spaces; undefined if the process is gone. */
export async function commandLine(pid: number): Promise<string | undefined> {
  if (!Number.isInteger(pid) || pid <= 0) return undefined;
  if (process.platform !== "linux") return ps("command", pid);
  const line = await readProc(pid, "cmdline");
  return line ? line.split("\0").join(" ") : undefined;
}
