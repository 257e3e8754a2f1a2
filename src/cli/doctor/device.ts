import { existsSync } from "node:fs";
import { readdir, rm, stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  ConfigError,
  createClients,
  DEFAULT_ENV,
  directoryProblem,
  type ExecutorConfig,
  egressNote,
  findIdentity,
  isUnauthenticated,
  loadConfig,
  type ProxySetting,
  readStatus,
} from "@pinion/client";
import type { Environment } from "../cli.ts";
import { findProgram } from "../device/find-program.ts";
import { daemonPid } from "../device/state-dir.ts";
import { explain, systemCode } from "../failures.ts";
import { formatBytes } from "../print/bytes.ts";
import { formatLength } from "../print/lengths.ts";
import type { Check } from "./check.ts";

/** Maximum wait of a result in ms; a longer wait needs attention. */
const waitMsMax = 60_000;

/**
 * Checks the device's state directory: its presence, its daemon, and its outbox. Changes nothing.
 */
export async function checkDeviceState(stateDir: string, proxy: ProxySetting | undefined): Promise<Check[]> {
  const files = await names(stateDir);
  if (!files) {
    return [
      { name: "device", verdict: "absent", found: `this machine is no device (nothing at ${stateDir})` },
    ];
  }
  return [
    await checkDirectory(stateDir),
    await checkDisk(stateDir),
    await checkIdentity(stateDir, proxy),
    await checkDaemon(stateDir),
    ...(await checkOutbox(join(stateDir, "outbox"))),
  ];
}

/** The proxy of the daemon's configuration. Another check reports an unusable configuration. */
export function proxyOfDevice(file: string): ProxySetting | undefined {
  try {
    return existsSync(file) ? loadConfig(file).proxy : undefined;
  } catch {
    return undefined;
  }
}

/** The environment in which programs are looked for, and whose it is. */
export type Surroundings = { env: Environment; ofDaemon: number | undefined; names: readonly string[] };

/**
 * The environment of the running daemon, as the daemon wrote it into its status; without a daemon
 * the environment of this shell.
 */
export async function surroundingsOf(stateDir: string, env: Environment): Promise<Surroundings> {
  const pid = await daemonPid(stateDir);
  const status = pid === undefined ? undefined : await readStatus(stateDir);
  const facts = status?.pid === pid ? status?.environment : undefined;
  if (!facts) return { env, ofDaemon: undefined, names: Object.keys(env) };
  return { env: { ...env, PATH: facts.path, HOME: facts.home }, ofDaemon: pid, names: facts.names };
}

/** Checks whether the daemon can use its configuration. */
export function checkDeviceConfig(file: string, surroundings: Surroundings): Check[] {
  const { env } = surroundings;
  const name = "device.toml";
  if (!existsSync(file)) {
    return [
      { name, verdict: "absent", found: `not there yet; the first start of the daemon writes ${file}` },
    ];
  }
  try {
    const { executors, defaultExecutor } = loadConfig(file);
    const kinds = Object.keys(executors).map((kind) =>
      kind === defaultExecutor ? `${kind} (default)` : kind,
    );
    return [
      { name, verdict: "good", found: `${file}: ${kinds.join(", ") || "nothing may be executed"}` },
      ...checkSurroundings(surroundings),
      ...Object.values(executors).map((executor) => checkExecutor(executor, surroundings)),
      ...Object.values(executors).flatMap((executor) => checkVariables(executor, surroundings)),
      ...Object.values(executors).flatMap((executor) => checkEgress(executor, env)),
    ];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return [
      {
        name,
        verdict: "bad",
        found: error.message.replaceAll("\n", "; "),
        advice:
          "correct the file: a daemon that runs reads it again, and goes on with the one before it until then",
      },
    ];
  }
}

/** Says whose PATH the programs are looked for in. */
function checkSurroundings({ env, ofDaemon }: Surroundings): Check[] {
  if (ofDaemon === undefined) return [];
  return [
    {
      name: "environment",
      verdict: "good",
      found: `that of the daemon (process ${ofDaemon}): PATH=${env.PATH ?? ""}`,
    },
  ];
}

/**
 * Checks whether an executor's program is present. A service's daemon may have a shorter PATH than
 * this shell.
 */
function checkExecutor(
  { kind, command: [program], cwd }: ExecutorConfig,
  { env, ofDaemon }: Surroundings,
): Check {
  const name = `executor ${kind}`;
  const path = findProgram(program, env);
  if (!path) {
    const place = program.includes("/") ? "" : ofDaemon === undefined ? " in PATH" : " in the daemon's PATH";
    return {
      name,
      verdict: "bad",
      found: `${program} is not there${place}, or may not be executed`,
      advice:
        ofDaemon === undefined
          ? 'install it, or give its full path as "command" in device.toml'
          : 'give its full path as "command" in device.toml, or start the daemon where the program is found (`pinion device install` writes the PATH of its shell)',
    };
  }
  if (cwd !== undefined && !existsSync(cwd)) {
    const advice = 'create it, or change "cwd" in device.toml';
    return { name, verdict: "bad", found: `its working directory ${cwd} does not exist`, advice };
  }
  return { name, verdict: "good", found: path };
}

/** Variables that an executor passes on, and that the daemon does not have. */
function checkVariables({ kind, env }: ExecutorConfig, { ofDaemon, names }: Surroundings): Check[] {
  if (ofDaemon === undefined) return [];
  const has = new Set(names);
  const usual = new Set(DEFAULT_ENV);
  const missing = env.filter(
    (name) => !usual.has(name) && /KEY|TOKEN|SECRET|PASSWORD/.test(name) && !has.has(name),
  );
  if (missing.length === 0) return [];
  return [
    {
      name: `executor ${kind}`,
      verdict: "doubtful",
      found: `the daemon has no ${missing.join(", ")}, which the executor passes on`,
      advice:
        "set it where the daemon starts, and start the daemon again; a variable of this shell does not count",
    },
  ];
}

/** Checks whether an agent's hosts can be enforced. Commands are not checked. */
function checkEgress(executor: ExecutorConfig, env: Environment): Check[] {
  if (executor.type === "command") return [];
  const name = `egress ${executor.kind}`;
  const note = egressNote(executor, env);
  if (note === undefined)
    return [{ name, verdict: "good", found: "its sandbox keeps to the hosts that an agent may connect to" }];
  const programs = ["bwrap", "socat"].filter((program) => note.includes(program));
  const advice =
    programs.length > 0
      ? `install ${programs.map((program) => (program === "bwrap" ? "bubblewrap" : program)).join(" and ")}; it matters for agents with egress_config only`
      : "it matters for agents with egress_config only";
  return [{ name, verdict: "absent", found: note, advice }];
}

/** Minimum free space in bytes: a few results of the largest size. */
const bytesFreeMin = 64 * 1024 * 1024;

/** Checks whether results can be stored: the outbox is written before any send. */
async function checkDisk(stateDir: string): Promise<Check> {
  const name = "disk";
  const outbox = join(stateDir, "outbox");
  const directory = existsSync(outbox) ? outbox : stateDir;
  const probe = join(directory, `.doctor-${process.pid}`);
  try {
    await writeFile(probe, "may this be written?", { flush: true });
    await rm(probe);
  } catch (error) {
    return {
      name,
      verdict: "bad",
      found: `${directory} cannot be written (${systemCode(error) ?? "unknown error"})`,
      advice: "without it no result is kept, and so no work is taken: mend its owner, its mode or the disk",
    };
  }
  const { bavail, bsize } = await statfs(directory);
  const free = `${formatBytes(bavail * bsize)} are free for results`;
  if (bavail * bsize >= bytesFreeMin) return { name, verdict: "good", found: free };
  return { name, verdict: "bad", found: `only ${free}`, advice: "make room; a full disk stops the device" };
}

/** Deadline of the server's answer, in ms. */
const askTimeoutMs = 5_000;

/** Checks the device's own token with the server of its enrolment. */
async function checkIdentity(stateDir: string, proxy: ProxySetting | undefined): Promise<Check> {
  const name = "device token";
  const again = "`pinion device enroll --join-code …` makes this machine a device again";
  let identity: Awaited<ReturnType<typeof findIdentity>>;
  try {
    identity = await findIdentity(stateDir);
  } catch (error) {
    return {
      name,
      verdict: "bad",
      found: error instanceof Error ? error.message : String(error),
      advice: again,
    };
  }
  if (!identity) return { name, verdict: "bad", found: "it is not enrolled", advice: again };
  const { deviceId, url, token } = identity;
  if (token === "") {
    return { name, verdict: "good", found: `device ${deviceId} of ${url}; its token is kept elsewhere` };
  }
  let clients: ReturnType<typeof createClients>;
  try {
    clients = createClients({ url, token, ...(proxy ? { proxy } : {}) });
  } catch (error) {
    const { message, advice } = explain(error, url);
    return { name, verdict: "bad", found: message, ...(advice ? { advice } : {}) };
  }
  try {
    await clients.device.listMyWatchers({ pageSize: 1 }, { timeoutMs: askTimeoutMs });
    return { name, verdict: "good", found: `device ${deviceId}, taken by ${url}` };
  } catch (error) {
    const { message } = explain(error, url);
    if (isUnauthenticated(error)) return { name, verdict: "bad", found: message, advice: again };
    const advice = "the daemon keeps trying, and results wait in its outbox";
    return { name, verdict: "doubtful", found: `device ${deviceId}: ${message}`, advice };
  } finally {
    clients.close();
  }
}

async function names(directory: string): Promise<string[] | undefined> {
  try {
    return await readdir(directory);
  } catch (error) {
    // The check of the disk reports a file in place of a directory.
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return undefined;
    throw error;
  }
}

async function checkDirectory(stateDir: string): Promise<Check> {
  const found = await stat(stateDir);
  const problem = directoryProblem(stateDir);
  if (problem) return { name: "device", verdict: "bad", ...problem };
  // Permissions of group and others: the directory holds the device's token.
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
  const status = pid === undefined ? undefined : await readStatus(stateDir);
  if (pid !== undefined && status?.pid === pid && /has a copy of its identity/.test(status.reason)) {
    return {
      name: "daemon",
      verdict: "bad",
      found: `runs (process ${pid}), and is turned down: ${status.reason}`,
      advice:
        "stop it, and `pinion device enroll --anew --join-code …`: this state is a copy of another daemon's",
    };
  }
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
  const checks: Check[] = [await checkWaiting(outbox, waiting), ...(await checkKept(join(outbox, "kept")))];
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

/** Kept acknowledged results, for a failover of the database. */
async function checkKept(directory: string): Promise<Check[]> {
  const kept = (await names(directory))?.filter((name) => name.endsWith(".kept")) ?? [];
  if (kept.length === 0) return [];
  const files = await Promise.all(kept.map((name) => stat(join(directory, name)).catch(() => undefined)));
  const bytes = files.reduce((sum, file) => sum + (file?.size ?? 0), 0);
  const mebibytes = (bytes / 1024 / 1024).toFixed(1);
  const found = `${kept.length} acknowledged results (${mebibytes} MiB), for a day or 256 MiB`;
  return [{ name: "kept results", verdict: "good", found }];
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
