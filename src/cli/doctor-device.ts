import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, loadConfig } from "@pinion/client";
import type { Check } from "./doctor-check.ts";
import { formatLength } from "./lengths.ts";
import { daemonPid } from "./state-dir.ts";

/** A result that has waited longer than this has a reason that somebody should look into. */
const waitMsMax = 60_000;

/** The device's state directory: is it there, is its daemon, and what waits in its outbox. Changes nothing. */
export async function checkDeviceState(stateDir: string): Promise<Check[]> {
  const files = await names(stateDir);
  if (!files) {
    return [
      { name: "device", verdict: "absent", found: `this machine is no device (nothing at ${stateDir})` },
    ];
  }
  return [
    await checkDirectory(stateDir),
    await checkDaemon(stateDir),
    ...(await checkOutbox(join(stateDir, "outbox"))),
  ];
}

/** Whether the daemon can use its configuration. */
export function checkDeviceConfig(file: string): Check {
  const name = "device.toml";
  if (!existsSync(file)) {
    return { name, verdict: "absent", found: `not there yet; the first start of the daemon writes ${file}` };
  }
  try {
    const { executors, defaultExecutor } = loadConfig(file);
    const kinds = Object.keys(executors).map((kind) =>
      kind === defaultExecutor ? `${kind} (default)` : kind,
    );
    return { name, verdict: "good", found: `${file}: ${kinds.join(", ") || "nothing may be executed"}` };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return {
      name,
      verdict: "bad",
      found: error.message.replaceAll("\n", "; "),
      advice: "correct the file and start the daemon again; it is read at the start only",
    };
  }
}

async function names(directory: string): Promise<string[] | undefined> {
  try {
    return await readdir(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

async function checkDirectory(stateDir: string): Promise<Check> {
  const found = await stat(stateDir);
  // Group and others: the directory holds the device's token.
  if (process.platform !== "win32" && (found.mode & 0o077) !== 0) {
    return {
      name: "device",
      verdict: "doubtful",
      found: `${stateDir} is open to other users (mode ${(found.mode & 0o777).toString(8)})`,
      advice: `chmod 700 ${stateDir}`,
    };
  }
  return { name: "device", verdict: "good", found: `state in ${stateDir}` };
}

async function checkDaemon(stateDir: string): Promise<Check> {
  const pid = await daemonPid(stateDir);
  if (pid !== undefined) return { name: "daemon", verdict: "good", found: `runs (process ${pid})` };
  return {
    name: "daemon",
    verdict: "doubtful",
    found: "does not run",
    advice: "`pinion device run` starts it; `pinion up` runs its own",
  };
}

async function checkOutbox(outbox: string): Promise<Check[]> {
  const waiting = (await names(outbox))?.filter((name) => name.endsWith(".completion")) ?? [];
  const setAside = [
    ...((await names(join(outbox, "bad"))) ?? []).map((name) => join(outbox, "bad", name)),
    ...((await names(join(outbox, "rejected"))) ?? []).map((name) => join(outbox, "rejected", name)),
  ];
  const checks: Check[] = [await checkWaiting(outbox, waiting)];
  if (setAside.length > 0) {
    checks.push({
      name: "set aside",
      verdict: "bad",
      found: `${setAside.length} results could not be delivered: ${setAside.slice(0, 3).join(", ")}${setAside.length > 3 ? ", …" : ""}`,
      advice:
        "the server turned them down or they are damaged; keep what you need of them, then remove the files",
    });
  }
  return checks;
}

async function checkWaiting(outbox: string, waiting: readonly string[]): Promise<Check> {
  if (waiting.length === 0)
    return { name: "outbox", verdict: "good", found: "empty: every result was acknowledged" };
  const times = await Promise.all(waiting.map((name) => stat(join(outbox, name)).catch(() => undefined)));
  const oldestMs = Date.now() - Math.min(...times.map((found) => found?.mtimeMs ?? Date.now()));
  const found = `${waiting.length} results wait for their acknowledgement, the oldest for ${formatLength(oldestMs)}`;
  if (oldestMs < waitMsMax) return { name: "outbox", verdict: "good", found };
  return {
    name: "outbox",
    verdict: "doubtful",
    found,
    advice: "nothing is lost; they are sent as soon as the daemon runs and reaches the server",
  };
}
