import { spawnSync } from "node:child_process";
import { chownSync, mkdirSync, rmSync, statfsSync, statSync } from "node:fs";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { type Embedded, startEmbedded } from "../../../src/store/pg/embedded/cluster.ts";
import { migrate } from "../../../src/store/pg/migrate.ts";

/** The rig's PostgreSQL, which can crash, be away and come back at the same address. */
export type Cluster = {
  url: string;
  /** Crashes PostgreSQL (like `pg_ctl stop -m immediate`), which is away until `start`. */
  crash(): Promise<void>;
  /** Starts PostgreSQL on the same port; resolves when connections are accepted. */
  start(): Promise<void>;
  /** Runs one statement; rejects while PostgreSQL is away. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  /**
   * A separate disk for the tables, with the WAL elsewhere; undefined if disks cannot be mounted.
   */
  readonly disk: { fill(): void; empty(): void } | undefined;
  close(): Promise<void>;
};

const settings = {
  max_connections: "200",
  // The commit time of each transaction, by which the checker orders.
  track_commit_timestamp: "on",
};
const connectTimeoutMs = 5_000;
const statementTimeoutMs = 20_000;

export async function openCluster(dataDir: string): Promise<Cluster> {
  await mkdir(dataDir, { recursive: true });
  // As root, PostgreSQL runs as another user, who needs to traverse the directory.
  await chmod(dataDir, 0o711);
  let embedded: Embedded | undefined = await startEmbedded({ dataDir, settings });
  const { url } = embedded;
  await migrate(url);
  const disk = await putTablesOnDisk(url, join(dataDir, "disk"));

  async function crash(): Promise<void> {
    const running = embedded;
    if (!running) return;
    embedded = undefined;
    process.kill(running.pid, "SIGQUIT");
    await running.stop();
  }
  // An interrupted rig leaves nothing behind.
  const kill = () => {
    if (!embedded) return;
    try {
      process.kill(embedded.pid, "SIGQUIT");
    } catch {
      // The process ended by itself.
    }
  };
  process.once("exit", kill);
  return {
    url,
    disk,
    crash,
    async start() {
      embedded ??= await startEmbedded({ dataDir, settings });
      if (embedded.url !== url) throw new Error("PostgreSQL came back at another address");
    },
    async query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []) {
      const client = new pg.Client({
        connectionString: url,
        connectionTimeoutMillis: connectTimeoutMs,
        statement_timeout: statementTimeoutMs,
        application_name: "chaos rig",
      });
      client.on("error", () => {});
      try {
        await client.connect();
        return (await client.query<Row>(text, values)).rows;
      } finally {
        await client.end().catch(() => {});
      }
    },
    async close() {
      process.off("exit", kill);
      await crash();
      disk?.unmount();
    },
  };
}

/** The size of the disk with the tables, in MiB; the runs of half an hour need a quarter. */
const diskMebibytes = 256;

/** Moves all tables to a disk that can be filled. Their indexes and the WAL stay in place. */
async function putTablesOnDisk(
  url: string,
  path: string,
): Promise<(NonNullable<Cluster["disk"]> & { unmount(): void }) | undefined> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ dir: string }>("select current_setting('data_directory') as dir");
    const { uid, gid } = statSync(rows[0]!.dir);
    mkdirSync(path, { recursive: true });
    if (!mount(path)) return undefined;
    const place = join(path, "space");
    mkdirSync(place, { mode: 0o700 });
    chownSync(place, uid, gid);
    await client.query(`create tablespace small location '${place}'`);
    const { rows: tables } = await client.query<{ name: string }>(
      "select oid::regclass::text as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'",
    );
    for (const { name } of tables) await client.query(`alter table ${name} set tablespace small`);
    const ballast = join(path, "ballast");
    return {
      fill: () => void spawnSync("fallocate", ["-l", `${freeBytes(path)}`, ballast]),
      empty: () => rmSync(ballast, { force: true }),
      unmount: () => void spawnSync("umount", ["-l", path]),
    };
  } finally {
    await client.end();
  }
}

function mount(path: string): boolean {
  const options = `size=${diskMebibytes}m,mode=711`;
  return spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]).status === 0;
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}
