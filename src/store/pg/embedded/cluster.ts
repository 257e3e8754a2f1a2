/**
 * The embedded PostgreSQL, for a start without a database: its binaries come with npm, its data is
 * in the data directory.
 *
 * Guarantees:
 * - One Pinion per data directory: `postgres.lock` names its holder, and a dead holder is detected.
 * - PostgreSQL runs in its own process group and survives a killed Pinion unharmed; the next start
 *   takes the process over, or stops and restarts PostgreSQL, and reports the choice.
 * - PostgreSQL listens on 127.0.0.1 alone, with a random password in a file readable by its owner
 *   only. fsync stays on.
 * - A root process runs PostgreSQL as another user, since PostgreSQL refuses root; files out of the
 *   user's reach are copied.
 *
 * Files in the data directory: `postgres` (the cluster, or a link to its place),
 * `postgres.password`, `postgres.port`, `postgres.log`, `postgres.lock`.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, open, rename, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { Refusal } from "../../../errors.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { createClusterOnce, superuser, writeDurably } from "./initdb.ts";
import { lockDirectory } from "./lock.ts";
import { findAccount, findBinaries, placeFor, postgresEnvironment } from "./place.ts";
import { freePort, isFree } from "./ports.ts";
import {
  type Cluster,
  findOrphan,
  isAlive,
  readTextOrUndefined,
  readyPollMs,
  stopChild,
  stopPid,
} from "./postmaster.ts";

export type Embedded = {
  /** The URL of the database `pinion`, as its owner. */
  url: string;
  port: number;
  /** The process number of PostgreSQL's first process. */
  pid: number;
  /** `reattached`: PostgreSQL was still running, left behind by a killed Pinion. */
  origin: "started" | "restarted" | "reattached";
  /** A fast shutdown: ends open connections, writes everything out. At most 20 s. Idempotent. */
  stop(): Promise<void>;
};

export type EmbeddedOptions = {
  dataDir: string;
  /** A used port is refused. Undefined: the last port, or else a free port. */
  port?: number;
  /** PostgreSQL's own settings, beyond ours. */
  settings?: Record<string, string>;
  log?: Logger | undefined;
};
const databaseName = "pinion";
const readyTimeoutMs = 60_000;
const portAttemptsMax = 5;
/** PostgreSQL logs warnings only; a larger log is renamed at the next start. In bytes. */
const logBytesMax = 10 * 1024 * 1024;

const settingsDefault: Record<string, string> = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  max_connections: "100",
  shared_buffers: "128MB",
  timezone: "UTC",
  log_timezone: "UTC",
  // The statements are short: compiling a statement would cost more than running it.
  jit: "off",
  // The queue tables live from being vacuumed often.
  autovacuum_naptime: "10s",
  // The first change of a page after a checkpoint writes the whole page.
  wal_compression: "on",
};

/**
 * Starts the embedded PostgreSQL, or takes over the running process; the first start creates the
 * cluster (about 2 s).
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const dataDir = resolve(options.dataDir);
  // For root: PostgreSQL's user passes through the directory; secret files in it have their own
  // mode.
  await mkdir(dataDir, { recursive: true, mode: process.getuid?.() === 0 ? 0o711 : 0o700 });
  const lock = await lockDirectory(join(dataDir, "postgres.lock"));
  try {
    const link = join(dataDir, "postgres");
    const account = await findAccount({ link, log: options.log });
    const place = await placeFor({ link, account, log: options.log });
    const cluster: Cluster = {
      dataDir,
      place,
      account,
      binaries: await findBinaries({ account, copyDir: `${place}-binaries`, log: options.log }),
      password: await readOrMakePassword(dataDir),
      log: options.log,
    };
    await createClusterOnce(cluster);
    const running = await start(cluster, options);
    try {
      await createDatabaseOnce(cluster, running.port);
    } catch (error) {
      await running.stop();
      throw error;
    }
    let stopping: Promise<void> | undefined;
    const stop = () => {
      stopping ??= running.stop().finally(() => lock.release());
      return stopping;
    };
    return { ...running, url: urlOf(cluster, running.port, databaseName), stop };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

function urlOf(cluster: Cluster, port: number, database: string): string {
  return `postgres://${superuser}:${cluster.password}@127.0.0.1:${port}/${database}`;
}

async function readOrMakePassword(dataDir: string): Promise<string> {
  const file = join(dataDir, "postgres.password");
  const existing = await readTextOrUndefined(file);
  if (existing?.trim()) return existing.trim();
  const password = randomBytes(24).toString("hex");
  await writeDurably(file, `${password}\n`, 0o600);
  return password;
}

type Running = Omit<Embedded, "url">;

async function start(cluster: Cluster, options: EmbeddedOptions): Promise<Running> {
  const orphan = await findOrphan(cluster);
  if (orphan) {
    const isWanted = options.port === undefined || options.port === orphan.port;
    if (isWanted && (await isReady(cluster, orphan.port, orphan.pid, readyTimeoutMs))) {
      cluster.log?.info(
        { postgresPid: orphan.pid, port: orphan.port },
        "took over the embedded PostgreSQL that an earlier Pinion left running",
      );
      return {
        pid: orphan.pid,
        port: orphan.port,
        origin: "reattached",
        stop: () => stopPid(cluster, orphan.pid),
      };
    }
    cluster.log?.info(
      { postgresPid: orphan.pid },
      "stopping the embedded PostgreSQL that an earlier Pinion left running, to start it anew",
    );
    await stopPid(cluster, orphan.pid);
  }
  const origin = orphan ? "restarted" : "started";
  const portFile = join(cluster.dataDir, "postgres.port");
  const remembered = Number((await readTextOrUndefined(portFile))?.trim()) || undefined;
  let port = options.port ?? remembered ?? (await freePort());
  for (let attempt = 1; ; attempt++) {
    const child = (await isFree(port)) ? await launch(cluster, port, options.settings ?? {}) : undefined;
    if (child) {
      await writeDurably(portFile, `${port}\n`, 0o600);
      cluster.log?.info({ postgresPid: child.pid, port }, `the embedded PostgreSQL was ${origin}`);
      return { pid: child.pid!, port, origin, stop: () => stopChild(cluster, child) };
    }
    if (options.port !== undefined) {
      throw new Refusal(
        "failed_precondition",
        `Port ${port} on 127.0.0.1 is taken, so the embedded PostgreSQL cannot listen there. ` +
          "Choose another port, or none to get a free one.",
      );
    }
    if (attempt >= portAttemptsMax) throw await startFailure(cluster, "it found no free port");
    port = await freePort();
  }
}

/**
 * Starts PostgreSQL and waits until it accepts connections. Undefined if another process took the
 * port just before.
 */
async function launch(
  cluster: Cluster,
  port: number,
  settings: Record<string, string>,
): Promise<ChildProcess | undefined> {
  const logFile = join(cluster.dataDir, "postgres.log");
  const size = await stat(logFile).then(
    (found) => found.size,
    () => 0,
  );
  if (size > logBytesMax) await rename(logFile, `${logFile}.old`);
  const output = await open(logFile, "a", 0o600);
  const flags = Object.entries({ ...settingsDefault, ...settings }).flatMap(([name, value]) => [
    "-c",
    `${name}=${value}`,
  ]);
  let child: ChildProcess;
  try {
    child = spawn(cluster.binaries.postgres, ["-D", cluster.place, "-p", String(port), ...flags], {
      ...cluster.account,
      cwd: cluster.place,
      env: postgresEnvironment,
      // An own process group: an interrupt at the terminal reaches Pinion only, which stops
      // PostgreSQL last.
      detached: true,
      // To a file and not to a pipe: PostgreSQL outlives Pinion, and a closed pipe would break it.
      stdio: ["ignore", output.fd, output.fd],
    });
    await new Promise<void>((done, fail) => {
      child.once("spawn", done);
      child.once("error", fail);
    });
  } catch (error) {
    throw await startFailure(cluster, (error as Error).message);
  } finally {
    await output.close();
  }
  child.unref();
  if (await isReady(cluster, port, child.pid!, readyTimeoutMs, child)) {
    child.once("exit", (code, signal) => {
      cluster.log?.[code === 0 ? "info" : "error"]({ code, signal }, "the embedded PostgreSQL ended");
    });
    return child;
  }
  if (child.exitCode === null && child.signalCode === null) {
    await stopChild(cluster, child);
    throw await startFailure(cluster, `it took no connections within ${readyTimeoutMs / 1000} s`);
  }
  if (!(await isFree(port))) return undefined;
  throw await startFailure(cluster, `it ended with ${child.signalCode ?? `code ${child.exitCode}`}`);
}

async function startFailure(cluster: Cluster, what: string): Promise<Error> {
  const logFile = join(cluster.dataDir, "postgres.log");
  const lines = (await readTextOrUndefined(logFile))?.trimEnd().split("\n").slice(-8) ?? [];
  return new Refusal(
    "failed_precondition",
    `The embedded PostgreSQL did not start: ${what}. Its log (${logFile}) ends with:\n${lines.join("\n")}\n` +
      "Mend that, or give Pinion a PostgreSQL of your own with DATABASE_URL.",
  );
}

/**
 * Whether the cluster behind the port is the expected cluster and accepts connections, before the
 * process ends or time is up.
 */
async function isReady(
  cluster: Cluster,
  port: number,
  pid: number,
  timeoutMs: number,
  child?: ChildProcess,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (performance.now() < deadline) {
    if (child ? child.exitCode !== null || child.signalCode !== null : !isAlive(pid)) return false;
    try {
      const directory = await querySettings(cluster, port);
      return directory === cluster.place;
    } catch (error) {
      // Waiting does not cure a wrong password: the file was replaced, or the server is another
      // PostgreSQL.
      if ((error as { code?: string }).code === "28P01") return false;
      await delay(readyPollMs);
    }
  }
  return false;
}

async function querySettings(cluster: Cluster, port: number): Promise<string | undefined> {
  const client = new pg.Client({
    connectionString: urlOf(cluster, port, "postgres"),
    connectionTimeoutMillis: 2000,
  });
  client.on("error", () => {});
  try {
    await client.connect();
    const result = await client.query<{ setting: string }>(
      "select setting from pg_settings where name = 'data_directory'",
    );
    return result.rows[0]?.setting;
  } finally {
    await client.end().catch(() => {});
  }
}

async function createDatabaseOnce(cluster: Cluster, port: number): Promise<void> {
  const client = new pg.Client({
    connectionString: urlOf(cluster, port, "postgres"),
    connectionTimeoutMillis: 5000,
  });
  client.on("error", () => {});
  try {
    await client.connect();
    const found = await client.query("select 1 from pg_database where datname = $1", [databaseName]);
    if (found.rowCount === 0) await client.query(`create database ${databaseName}`);
  } finally {
    await client.end().catch(() => {});
  }
}
