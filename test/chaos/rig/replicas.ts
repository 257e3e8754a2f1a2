import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type FaultProxy, startFaultProxy, type Target } from "../../support/fault-proxy.ts";
import { freePort } from "../../support/programs.ts";
import type { Record } from "../history.ts";
import { type Child, startChild } from "./child.ts";

/** A `pinion serve` that can be killed and comes back at the same port. */
export type ReplicaProcess = {
  readonly name: string;
  readonly port: number;
  /** The replica's link to PostgreSQL. */
  readonly link: FaultProxy;
  /** Takes connections, as far as the rig knows. */
  readonly isUp: boolean;
  readonly child: Child | undefined;
  /** Starts the replica; resolves when it serves, rejects when the process ends before or is late. */
  start(): Promise<void>;
  kill(): Promise<void>;
  /** Asks the replica to stop, and waits until the process has ended. */
  stop(): Promise<void>;
  pause(): void;
  continue(): void;
};

const repository = fileURLToPath(new URL("../../../", import.meta.url));
/** Maximum time of an orderly stop: the configured limit plus a margin for a busy machine. */
const stopMsMax = 30_000;
/** Maximum time of a start: behind a database that is away, replicas wait. */
const startMsMax = 90_000;

export async function createReplica(options: {
  name: string;
  databaseUrl: string;
  /** The database behind the replica's link, for each new connection. */
  database: () => Target;
  directory: string;
  env: { [name: string]: string };
  record: Record;
  /** The source tree of the replica. */
  sourceTree?: string | undefined;
  /** The script of a built command, in place of sources. */
  program?: string | undefined;
}): Promise<ReplicaProcess> {
  const { name, record } = options;
  const port = await freePort();
  const link = await startFaultProxy(options.database);
  const throughLink = new URL(options.databaseUrl);
  throughLink.port = String(link.port);
  let child: Child | undefined;
  let isUp = false;

  async function ended(): Promise<void> {
    isUp = false;
    await child?.ended;
  }

  return {
    name,
    port,
    link,
    get isUp() {
      return isUp;
    },
    get child() {
      return child;
    },
    async start() {
      if (child?.isAlive) return;
      const { child: started, serves } = startServing(name, {
        file: options.program ?? join(options.sourceTree ?? repository, "src/cli/main.ts"),
        args: ["serve", "--json", "--port", String(port), "--data", join(options.directory, name)],
        env: { PINION_LOG_LEVEL: "warn", DATABASE_URL: throughLink.href, ...options.env },
      });
      child = started;
      started.ended.then(() => {
        if (child !== started) return;
        isUp = false;
        record({ kind: "replica", replica: name, phase: "ended" });
      });
      await serves;
      isUp = true;
      record({ kind: "replica", replica: name, phase: "serving" });
    },
    async kill() {
      child?.signal("SIGKILL");
      await ended();
    },
    async stop() {
      isUp = false;
      record({ kind: "replica", replica: name, phase: "stopping" });
      child?.signal("SIGTERM");
      const timer = setTimeout(() => child?.signal("SIGKILL"), stopMsMax);
      await ended();
      clearTimeout(timer);
    },
    pause() {
      if (!child?.isAlive) return;
      record({ kind: "replica", replica: name, phase: "paused" });
      child.signal("SIGSTOP");
    },
    continue() {
      if (!child?.isAlive) return;
      child.signal("SIGCONT");
      record({ kind: "replica", replica: name, phase: "continued" });
    },
  };
}

/** Starts a server. `serves` resolves when it serves, and rejects if it ends before, or is late. */
function startServing(
  name: string,
  program: { file: string; args: string[]; env: { [name: string]: string } },
): { child: Child; serves: Promise<void> } {
  let output = "";
  const announced = Promise.withResolvers<void>();
  const child = startChild({
    ...program,
    onOutput(text) {
      output += text;
      if (/"url"/.test(output)) announced.resolve();
    },
  });
  const abandon = new AbortController();
  const late = sleep(startMsMax, undefined, { signal: abandon.signal }).then(() => {
    throw new Error(`replica ${name} did not serve within ${startMsMax} ms: ${output}${child.errors}`);
  });
  const over = child.ended.then(() => {
    throw new Error(`replica ${name} ended: ${child.errors}`);
  });
  const serves = Promise.race([announced.promise, over, late]).finally(() => {
    late.catch(() => {});
    abandon.abort();
  });
  return { child, serves };
}
