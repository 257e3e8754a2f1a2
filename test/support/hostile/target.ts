/**
 * An attacked server in a separate process, and a neighbour that goes on with its work meanwhile.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createClients } from "@pinion/client";
import { expect, inject } from "vitest";
import { enrolDevice, type Identity } from "../device.ts";
import type { MemoryGroup } from "../memory-group.ts";
import { eventually } from "../processes.ts";
import { ownerToken } from "../server.ts";

const main = inject("pinionMain");
const neighbourScript = fileURLToPath(new URL("./neighbour-process.ts", import.meta.url));

export type Target = {
  url: string;
  port: number;
  token: string;
  clients: ReturnType<typeof createClients>;
  /** A device owned by the attacker. */
  device: Identity;
  /** The server's log, by line. */
  log: string[];
  rssBytes(): number;
  /** CPU time used so far by the server's process, in seconds. */
  cpuSeconds(): number;
  isAlive(): boolean;
  stop(): Promise<void>;
  /** The neighbour's latencies from here on, until `end`. */
  measure(): { end(): number[] };
  problems: string[];
};

const quietSamples = 30;
const attackedSamples = 10;
const mebibyte = 1024 * 1024;

/** `group`: the server's process lives in this group from its first moment. */
export async function startTarget(
  databaseUrl: string,
  env: Record<string, string> = {},
  { group }: { group?: MemoryGroup | undefined } = {},
): Promise<Target> {
  const folder = await mkdtemp(join(tmpdir(), "pinion-hostile-"));
  const token = await ownerToken(databaseUrl);
  const command = [process.execPath, main, "serve", "--json", "--port", "0", "--data", folder];
  // The shell becomes the server, and keeps its process id.
  const joining = group ? ["sh", "-c", 'echo $$ > "$0" && exec "$@"', group.processesFile] : [];
  const [file, ...args] = [...joining, ...command];
  const server = spawn(file!, args, {
    env: {
      ...process.env,
      DATABASE_URL: databaseUrl,
      PINION_LOG_LEVEL: "info",
      // Separate tests cover these deadlines; here they end the leftovers of the attacks.
      PINION_HELLO_DEADLINE_MS: "2000",
      NODE_OPTIONS: "",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log: string[] = [];
  createInterface(server.stderr).on("line", (line) => log.push(line));
  let url: string | undefined;
  createInterface(server.stdout).on("line", (line) => {
    url ??= (JSON.parse(line) as { url?: string }).url;
  });
  const at = await eventually(() => url, `the server: ${log.join("\n")}`);
  const clients = createClients({ url: at, token });
  const neighbour = startNeighbour({
    url: at,
    token,
    device: await enrolDevice(clients, "neighbour"),
    stateDir: join(folder, "neighbour"),
  });
  return {
    url: at,
    port: Number(new URL(at).port),
    token,
    clients,
    device: await enrolDevice(clients, "attacker"),
    log,
    problems: neighbour.problems,
    rssBytes: () => rssOf(server),
    cpuSeconds: () => cpuOf(server),
    isAlive: () => server.exitCode === null && server.signalCode === null,
    measure: neighbour.measure,
    async stop() {
      neighbour.child.kill("SIGKILL");
      server.kill("SIGKILL");
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function startNeighbour(options: object) {
  const child = spawn(process.execPath, [neighbourScript, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const listeners = new Set<(ms: number) => void>();
  const problems: string[] = [];
  createInterface(child.stdout).on("line", (line) => {
    const { ms, problem } = JSON.parse(line) as { ms?: number; problem?: string };
    if (ms !== undefined) for (const listener of listeners) listener(ms);
    if (problem) problems.push(problem);
  });
  return {
    child,
    problems,
    measure() {
      const samples: number[] = [];
      const listener = (ms: number) => samples.push(ms);
      listeners.add(listener);
      return {
        samples,
        end() {
          listeners.delete(listener);
          return samples;
        },
      };
    },
  };
}

/** Linux counts CPU time in hundredths of a second. */
const ticksPerSecond = 100;

/** CPU time of a process, in seconds (Linux). */
function cpuOf(child: ChildProcess): number {
  try {
    const fields = readFileSync(`/proc/${child.pid}/stat`, "utf8").split(") ")[1]!.split(" ");
    // utime and stime: fields 14 and 15, counted from the process id.
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  } catch {
    return 0;
  }
}

/** Resident memory of a process (Linux). */
function rssOf(child: ChildProcess): number {
  try {
    const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"));
    return Number(line?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** The value below which a share of the samples lies. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

export type Withstood = { quietMs: number; attackedMs: number; grownBytes: number };

/**
 * Includes memory that Node has not collected yet: bursts of large requests have left 110 to 230
 * MiB.
 */
const grownBytesMaxDefault = 400 * mebibyte;

/**
 * Runs an attack and expects that the server lives, that its memory stays below a bound, and that
 * the neighbour's work goes on. Prints the measurements on standard error. The bound on latency is
 * generous: on two busy cores the attacker takes CPU from the server. The reported figure is the
 * ratio.
 */
export async function withstand(
  target: Target,
  name: string,
  attack: () => Promise<unknown>,
  { grownBytesMax = grownBytesMaxDefault, neighbourMsMax = 10_000 } = {},
): Promise<Withstood> {
  const quiet = await gather(target, quietSamples);
  const before = target.rssBytes();
  let peak = before;
  const watch = setInterval(() => {
    peak = Math.max(peak, target.rssBytes());
  }, 50);
  const measuring = target.measure();
  let samples: number[];
  try {
    await attack();
  } finally {
    clearInterval(watch);
    samples = measuring.end();
  }
  expect(target.isAlive(), `the server lives after: ${name}`).toBe(true);
  // The effects of a short attack are measured on the following samples.
  if (samples.length < attackedSamples)
    samples.push(...(await gather(target, attackedSamples - samples.length)));
  peak = Math.max(peak, target.rssBytes());
  const withstood = {
    quietMs: quantile(quiet, 0.99),
    attackedMs: quantile(samples, 0.99),
    grownBytes: peak - before,
  };
  const ratio = withstood.attackedMs / withstood.quietMs;
  process.stderr.write(
    `  ${name}: neighbour's p99 ${withstood.quietMs.toFixed(1)} → ${withstood.attackedMs.toFixed(1)} ms ` +
      `(× ${ratio.toFixed(1)}, ${samples.length} samples); memory ${(before / mebibyte).toFixed(0)} → ${(peak / mebibyte).toFixed(0)} MiB at most\n`,
  );
  const health = await fetch(`${target.url}/healthz`, { signal: AbortSignal.timeout(10_000) });
  expect(health.status).toBe(200);
  expect(target.problems).toEqual([]);
  expect(withstood.attackedMs, "the neighbour's latency").toBeLessThan(neighbourMsMax);
  expect(withstood.grownBytes / mebibyte, "memory in MiB").toBeLessThan(grownBytesMax / mebibyte);
  return withstood;
}

async function gather(target: Target, count: number): Promise<number[]> {
  const measuring = target.measure() as ReturnType<Target["measure"]> & { samples: number[] };
  await eventually(
    () => measuring.samples.length >= count || undefined,
    `the neighbour's work: ${target.problems.join(", ")}`,
  );
  return measuring.end();
}
