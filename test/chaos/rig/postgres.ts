import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { chmod, chown, copyFile, lstat, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import {
  type Account,
  type Binaries,
  findAccount,
  findBinaries,
  postgresEnvironment,
  runCommand,
} from "../../../src/store/pg/embedded/place.ts";
import { freePort } from "../../support/programs.ts";

/**
 * One PostgreSQL server of the rig, from the binaries that come with npm: it crashes, comes back at
 * the same address, is copied while it runs, and is promoted.
 */
export type PostgresServer = {
  readonly url: string;
  readonly port: number;
  readonly isUp: boolean;
  /** Resolves when the server accepts connections. */
  start(): Promise<void>;
  /** As `pg_ctl stop -m immediate`. */
  crash(): Promise<void>;
  /** Runs one statement; rejects while the server is away. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  /** A separate disk for tables; undefined if disks cannot be mounted. */
  readonly disk: TableDisk | undefined;
  /** Crashes the server and removes its files. */
  remove(): Promise<void>;
};

/** What all servers of one rig share. */
export type PostgresOptions = {
  directory: string;
  settings: Record<string, string>;
  /** Beyond PostgreSQL's own environment. */
  env: Record<string, string>;
};

type Place = PostgresOptions & { account: Account | undefined; binaries: Binaries };

const user = "pinion";
const database = "pinion";
const readyMsMax = 60_000;
const readyPollMs = 50;
/** The longest wait for the end of a full disk, and the pause between two starts. */
const roomMsMax = 60_000;
const roomPollMs = 500;
/**
 * A server process may stand still in the handler of its signal, and its postmaster waits for it.
 */
const crashMsMax = 10_000;
const connectTimeoutMs = 5_000;
const statementTimeoutMs = 20_000;
const tablespace = "small";

/** Makes an empty cluster with a database, and starts it. */
export async function createPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const place = await placeOf(options);
  const data = dataOf(place);
  const made = await runCommand(
    place.binaries.initdb,
    [
      ...["-D", data, "-U", user, "-A", "trust", "--encoding=UTF8", "--no-instructions", "-N"],
      ...["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"],
    ],
    { account: place.account },
  );
  if (made.code !== 0) throw new Error(`initdb: ${made.output}`);
  const server = await openServer(place);
  await server.start();
  const client = await connect(server.url.replace(/\w+$/, "postgres"));
  await client.query(`create database ${database}`).finally(() => client.end());
  if (server.disk) {
    await server.query(`create tablespace ${tablespace} location '${server.disk.space}'`);
  }
  return server;
}

/** Moves all tables to the server's disk. Their indexes and the WAL stay in place. */
export async function putTablesOnDisk(server: PostgresServer): Promise<void> {
  if (!server.disk) return;
  const tables = await server.query<{ name: string }>(
    "select oid::regclass::text as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'",
  );
  for (const { name } of tables) await server.query(`alter table ${name} set tablespace ${tablespace}`);
}

/** Files that belong to the running server, not to its data. */
const ofProcess = new Set(["postmaster.pid", "postmaster.opts", "pg_internal.init", "current_logfiles"]);
/** Directories of which a copy starts without contents. */
const emptied = new Set(["pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots"]);

/**
 * Copies the running server (a low-level base backup), and starts the copy as its asynchronous
 * standby. `upstream`: the port at which the standby reaches the server.
 */
export async function clonePostgres(
  source: PostgresServer,
  options: PostgresOptions & { sourceDirectory: string; upstream: number },
): Promise<PostgresServer> {
  const place = await placeOf(options);
  const [from, to] = [join(options.sourceDirectory, "data"), dataOf(place)];
  const copy = await openServer(place);
  try {
    const client = await connect(source.url);
    let label: string;
    try {
      await client.query("select pg_backup_start('chaos', true)");
      await copyTree(from, to, { account: place.account, isTop: true });
      if (copy.disk && source.disk)
        await copyTree(source.disk.space, copy.disk.space, { account: place.account });
      await moveTablespace(to, copy.disk?.space);
      const { rows } = await client.query<{ label: string }>(
        "select labelfile as label from pg_backup_stop(false)",
      );
      label = rows[0]!.label;
    } finally {
      await client.end().catch(() => {});
    }
    const own = async (name: string, text: string) => {
      await writeFile(join(to, name), text, { mode: 0o600 });
      if (place.account) await chown(join(to, name), place.account.uid, place.account.gid);
    };
    await own("backup_label", label);
    await own("standby.signal", "");
    await own(
      "postgresql.auto.conf",
      `primary_conninfo = 'host=127.0.0.1 port=${options.upstream} user=${user} application_name=standby'\n`,
    );
    await copy.start();
    return copy;
  } catch (error) {
    await copy.remove();
    throw error;
  }
}

const dataOf = ({ directory }: PostgresOptions) => join(directory, "data");

async function placeOf(options: PostgresOptions): Promise<Place> {
  const { directory } = options;
  await mkdir(directory, { recursive: true });
  const account = await findAccount({ link: join(directory, "data") });
  // As root, PostgreSQL runs as another user, who writes its data here.
  if (account) await chown(directory, account.uid, account.gid);
  await chmod(directory, 0o711);
  const binaries = await findBinaries({ account, copyDir: join(dirname(directory), "binaries") });
  return { ...options, account, binaries };
}

async function openServer(place: Place): Promise<PostgresServer> {
  const { directory, account } = place;
  const port = await freePort();
  const url = `postgres://${user}@127.0.0.1:${port}/${database}`;
  const disk = openTableDisk(join(directory, "disk"), account);
  let child: ChildProcess | undefined;
  const kill = () => child?.kill("SIGQUIT");

  async function crash(): Promise<void> {
    const running = child;
    if (!running) return;
    child = undefined;
    if (running.exitCode !== null || running.signalCode !== null) return;
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGQUIT");
    const late = setTimeout(() => killAll(running), crashMsMax);
    await ended;
    clearTimeout(late);
  }
  // An interrupted rig leaves nothing behind.
  process.once("exit", kill);
  return {
    ...{ url, port, disk, crash },
    get isUp() {
      return child !== undefined;
    },
    async start() {
      if (child) return;
      child = await launchWithRoom(place, port);
    },
    async query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []) {
      const client = await connect(url);
      try {
        return (await client.query<Row>(text, values)).rows;
      } finally {
        await client.end().catch(() => {});
      }
    },
    async remove() {
      process.off("exit", kill);
      await crash();
      disk?.unmount();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Kills the server with its processes; each of them leads a session of its own. */
function killAll(server: ChildProcess): void {
  spawnSync("pkill", ["-KILL", "-P", String(server.pid)]);
  server.kill("SIGKILL");
}

/** Recovery writes: while the tables' disk is full, the start is repeated until the fault ends. */
async function launchWithRoom(place: Place, port: number): Promise<ChildProcess> {
  const deadline = performance.now() + roomMsMax;
  while (true) {
    try {
      return await launch(place, port);
    } catch (error) {
      if (!/No space left on device/.test(String(error)) || performance.now() > deadline) throw error;
      await delay(roomPollMs);
    }
  }
}

async function launch(place: Place, port: number): Promise<ChildProcess> {
  const log = join(place.directory, "log");
  const settings = {
    ...{ listen_addresses: "127.0.0.1", unix_socket_directories: "", timezone: "UTC", log_timezone: "UTC" },
    ...{ jit: "off", shared_buffers: "64MB", autovacuum_naptime: "10s", wal_compression: "on" },
    ...place.settings,
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const output = openSync(log, "a");
  const child = spawn(place.binaries.postgres, ["-D", dataOf(place), "-p", String(port), ...flags], {
    ...place.account,
    cwd: dataOf(place),
    env: { ...postgresEnvironment, ...place.env },
    detached: true,
    stdio: ["ignore", output, output],
  });
  child.on("error", () => {});
  closeSync(output);
  const deadline = performance.now() + readyMsMax;
  while (child.exitCode === null && child.signalCode === null && performance.now() < deadline) {
    try {
      const client = await connect(`postgres://${user}@127.0.0.1:${port}/postgres`);
      await client.end();
      return child;
    } catch {
      await delay(readyPollMs);
    }
  }
  child.kill("SIGQUIT");
  throw new Error(`PostgreSQL did not start: ${readFileSync(log, "utf8").slice(-2_000)}`);
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: connectTimeoutMs,
    statement_timeout: statementTimeoutMs,
    application_name: "chaos rig",
  });
  client.on("error", () => {});
  try {
    await client.connect();
    return client;
  } catch (error) {
    await client.end().catch(() => {});
    throw error;
  }
}

/** Files may change and vanish during the copy: the WAL written meanwhile repairs the copy. */
async function copyTree(
  from: string,
  to: string,
  options: { account: Account | undefined; isTop?: boolean },
): Promise<void> {
  const { account } = options;
  await mkdir(to, { recursive: true, mode: 0o700 });
  if (account) await chown(to, account.uid, account.gid);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (ofProcess.has(entry.name) || entry.name === "pg_tblspc") continue;
    if (entry.isDirectory()) {
      if (!(options.isTop && emptied.has(entry.name))) await copyTree(source, target, { account });
      else {
        await mkdir(target, { mode: 0o700 });
        if (account) await chown(target, account.uid, account.gid);
      }
    } else if (entry.isFile()) {
      try {
        await copyFile(source, target);
        if (account) await chown(target, account.uid, account.gid);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
  }
  if (!options.isTop) return;
  const links = join(to, "pg_tblspc");
  await mkdir(links, { mode: 0o700 });
  if (account) await chown(links, account.uid, account.gid);
  for (const name of await readdir(join(from, "pg_tblspc"))) await symlink("/nonexistent", join(links, name));
}

/** The only tablespace of the copy is on the copy's own disk. */
async function moveTablespace(data: string, space: string | undefined): Promise<void> {
  const links = join(data, "pg_tblspc");
  for (const name of await readdir(links)) {
    if (space === undefined) throw new Error("the copy has no disk for the tables");
    const link = join(links, name);
    if ((await lstat(link)).isSymbolicLink()) await rm(link);
    await symlink(space, link);
  }
}

/** A disk that can be filled. */
export type TableDisk = { space: string; fill(): void; empty(): void; unmount(): void };

/** The size of a disk with the tables, in MiB; the runs of half an hour need a quarter. */
const diskMebibytes = 256;

function openTableDisk(path: string, account: Account | undefined): TableDisk | undefined {
  mkdirSync(path, { recursive: true });
  const options = [`size=${diskMebibytes}m`, "mode=711"];
  if (account) options.push(`uid=${account.uid}`, `gid=${account.gid}`);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", options.join(","), "tmpfs", path]).status !== 0)
    return undefined;
  const unmount = () => void spawnSync("umount", ["-l", path]);
  process.once("exit", unmount);
  const space = join(path, "space");
  mkdirSync(space, { mode: 0o700 });
  if (account) spawnSync("chown", [`${account.uid}:${account.gid}`, space]);
  const ballast = join(path, "ballast");
  return {
    space,
    fill() {
      const { bavail, bsize } = statfsSync(path);
      spawnSync("fallocate", ["-l", String(bavail * bsize), ballast]);
    },
    empty: () => rmSync(ballast, { force: true }),
    unmount() {
      process.off("exit", unmount);
      unmount();
    },
  };
}
