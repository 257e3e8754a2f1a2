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
  /**
   * Starts the replica; resolves when it serves, rejects when the process ends before or is late.
   */
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

type Options = {
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
};

export async function createReplica(options: Options): Promise<ReplicaProcess> {
  return new Replica(options, await freePort(), await startFaultProxy(options.database));
}

class Replica implements ReplicaProcess {
  readonly port: number;
  readonly link: FaultProxy;
  readonly #options: Options;
  #child: Child | undefined;
  #isUp = false;

  constructor(options: Options, port: number, link: FaultProxy) {
    this.#options = options;
    this.port = port;
    this.link = link;
  }

  get name() {
    return this.#options.name;
  }

  get isUp() {
    return this.#isUp;
  }

  get child() {
    return this.#child;
  }

  async start(): Promise<void> {
    if (this.#child?.isAlive) return;
    const { child, serves } = startServing(this.name, this.#program());
    this.#child = child;
    child.ended.then(() => {
      if (this.#child !== child) return;
      this.#isUp = false;
      this.#record("ended");
    });
    await serves;
    this.#isUp = true;
    this.#record("serving");
  }

  #program() {
    const { databaseUrl, directory, env, program, sourceTree } = this.#options;
    const throughLink = new URL(databaseUrl);
    throughLink.port = String(this.link.port);
    return {
      file: program ?? join(sourceTree ?? repository, "src/cli/main.ts"),
      args: ["serve", "--json", "--port", String(this.port), "--data", join(directory, this.name)],
      env: { PINION_LOG_LEVEL: "warn", DATABASE_URL: throughLink.href, ...env },
    };
  }

  async kill(): Promise<void> {
    this.#child?.signal("SIGKILL");
    await this.#ended();
  }

  async stop(): Promise<void> {
    this.#isUp = false;
    this.#record("stopping");
    this.#child?.signal("SIGTERM");
    const timer = setTimeout(() => this.#child?.signal("SIGKILL"), stopMsMax);
    await this.#ended();
    clearTimeout(timer);
  }

  pause(): void {
    if (!this.#child?.isAlive) return;
    this.#record("paused");
    this.#child.signal("SIGSTOP");
  }

  continue(): void {
    if (!this.#child?.isAlive) return;
    this.#child.signal("SIGCONT");
    this.#record("continued");
  }

  async #ended(): Promise<void> {
    this.#isUp = false;
    await this.#child?.ended;
  }

  #record(phase: Extract<Parameters<Record>[0], { kind: "replica" }>["phase"]): void {
    this.#options.record({ kind: "replica", replica: this.name, phase });
  }
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
