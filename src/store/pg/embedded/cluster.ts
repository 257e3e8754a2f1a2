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
import { chown, mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { basename, dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { within } from "../../../abort.ts";
import { Refusal } from "../../../errors.ts";
import type { Logger } from "../../../log.ts";
import { lockDirectory } from "./lock.ts";
import {
  type Account,
  type Binaries,
  findAccount,
  findBinaries,
  placeFor,
  postgresEnvironment,
  runCommand,
} from "./place.ts";
import { commandLine } from "./process.ts";

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

const superuser = "pinion";
const databaseName = "pinion";
const readyTimeoutMs = 60_000;
/** `initdb` takes a second of a processor; a machine with other work may take minutes. */
const initMsMax = 300_000;
const readyPollMs = 25;
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

type Cluster = {
  dataDir: string;
  /** PostgreSQL's own directory. */
  place: string;
  account: Account | undefined;
  binaries: Binaries;
  password: string;
  log: Logger | undefined;
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

/**
 * Creates the cluster beside its place and moves it there as a whole, so that an interrupted start
 * leaves no partial cluster.
 */
async function createClusterOnce(cluster: Cluster): Promise<void> {
  const version = await readTextOrUndefined(join(cluster.place, "PG_VERSION"));
  if (version !== undefined) {
    await requireSameMajor(cluster, version.trim());
    return;
  }
  const parent = dirname(cluster.place);
  const prefix = `${basename(cluster.place)}.new-`;
  for (const name of await readdir(parent)) {
    if (name.startsWith(prefix)) await rm(join(parent, name), { recursive: true, force: true });
  }
  const draft = join(parent, `${prefix}${randomBytes(4).toString("hex")}`);
  const passwordFile = `${draft}.password`;
  try {
    await mkdir(draft, { mode: 0o700 });
    await writeDurably(passwordFile, `${cluster.password}\n`, 0o600);
    if (cluster.account) {
      await chown(draft, cluster.account.uid, cluster.account.gid);
      await chown(passwordFile, cluster.account.uid, cluster.account.gid);
    }
    const made = await runCommand(
      cluster.binaries.initdb,
      [
        `--pgdata=${draft}`,
        `--username=${superuser}`,
        `--pwfile=${passwordFile}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        // A sort order independent of the machine's C library; a change of the library would
        // corrupt indexes of text.
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        "--no-instructions",
      ],
      { account: cluster.account, timeoutMs: initMsMax },
    );
    if (made.code !== 0) {
      throw new Refusal(
        "failed_precondition",
        `The embedded PostgreSQL's database could not be made in ${cluster.place}:\n${made.output.trim()}\n` +
          "Mend that, or give Pinion a PostgreSQL of your own with DATABASE_URL.",
      );
    }
    // An empty directory is replaced; a non-empty directory makes the rename fail.
    await rename(draft, cluster.place);
    cluster.log?.info({ directory: cluster.place }, "made the embedded PostgreSQL's database");
  } finally {
    await rm(draft, { recursive: true, force: true });
    await rm(passwordFile, { force: true });
  }
}

async function requireSameMajor(cluster: Cluster, found: string): Promise<void> {
  // "postgres (PostgreSQL) 18.4"
  const { output } = await runCommand(cluster.binaries.postgres, ["--version"], { account: cluster.account });
  const brought = /\(PostgreSQL\) (\d+)/.exec(output)?.[1];
  if (brought === undefined || brought === found) return;
  throw new Refusal(
    "failed_precondition",
    `The data in ${cluster.place} was written by PostgreSQL ${found}, and this Pinion brings PostgreSQL ${brought}. ` +
      "Start the Pinion that wrote it and dump the database, or choose another data directory.",
  );
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

/**
 * The PostgreSQL that already runs on the cluster, by postmaster.pid; an outdated file is removed.
 */
async function findOrphan(cluster: Cluster): Promise<{ pid: number; port: number } | undefined> {
  const file = join(cluster.place, "postmaster.pid");
  const lines = (await readTextOrUndefined(file))?.split("\n");
  if (lines === undefined) return undefined;
  // Line 1 is the process, line 4 the port (PostgreSQL's src/include/utils/pidfile.h).
  const pid = Number(lines[0]);
  const port = Number(lines[3]);
  if (pid > 0 && port > 0 && (await isPostmasterOf(pid, cluster.place))) return { pid, port };
  // In a container another process has the same number after a restart, and PostgreSQL would wait
  // for its end.
  await rm(file, { force: true });
  return undefined;
}

async function isPostmasterOf(pid: number, place: string): Promise<boolean> {
  return (await commandLine(pid))?.includes(` -D ${place} `) ?? false;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * Fast: ends connections and writes all out. Immediate: recovers at the next start. Then without
 * being asked.
 */
const stopSteps = [
  ["SIGINT", 15_000],
  ["SIGQUIT", 3_000],
  ["SIGKILL", 2_000],
] as const;

async function stopChild(cluster: Cluster, child: ChildProcess): Promise<void> {
  const ended = new Promise<true>((done) => {
    child.once("exit", () => done(true));
  });
  child.ref();
  for (const [signal, timeoutMs] of stopSteps) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    if (signal !== "SIGINT") cluster.log?.warn({ signal }, "the embedded PostgreSQL does not stop");
    child.kill(signal);
    if (await within(ended, timeoutMs)) return;
  }
}

/** For a process that is no child, whose end raises no event: polls until the process is gone. */
async function stopPid(cluster: Cluster, pid: number): Promise<void> {
  for (const [signal, timeoutMs] of stopSteps) {
    if (!(await isPostmasterOf(pid, cluster.place))) return;
    kill(pid, signal);
    const deadline = performance.now() + timeoutMs;
    while (performance.now() < deadline) {
      if (!(await isPostmasterOf(pid, cluster.place))) return;
      await delay(readyPollMs);
    }
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // The process ended by itself.
  }
}

async function isFree(port: number): Promise<boolean> {
  return (await tryListen(port)) !== undefined;
}

async function freePort(): Promise<number> {
  const port = await tryListen(0);
  if (port === undefined) throw new Error("no free port on 127.0.0.1");
  return port;
}

function tryListen(port: number): Promise<number | undefined> {
  return new Promise((done) => {
    const server = createServer();
    server.once("error", () => done(undefined));
    server.listen({ host: "127.0.0.1", port, exclusive: true }, () => {
      const address = server.address();
      const chosen = typeof address === "object" && address ? address.port : undefined;
      server.close(() => done(chosen));
    });
  });
}

function readTextOrUndefined(file: string): Promise<string | undefined> {
  return readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
}

/** Replaces the file whole or not at all, also when the power fails. */
async function writeDurably(file: string, text: string, mode: number): Promise<void> {
  const draft = `${file}.${randomBytes(4).toString("hex")}`;
  const handle = await open(draft, "wx", mode);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(draft, file);
}
