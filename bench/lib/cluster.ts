import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { startEmbedded } from "../../src/store/pg/embedded/cluster.ts";
import { migrate } from "../../src/store/pg/migrate.ts";

/** A PostgreSQL for a bench: everything durable, like a user's PostgreSQL. */
export type Cluster = {
  /** The URL of a new database, migrated unless `isEmpty`. */
  database(name: string, options?: { isEmpty?: boolean }): Promise<string>;
  /** Of PostgreSQL's first process. */
  pid: number;
  version: string;
  close(): Promise<void>;
};

const settings = {
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  max_connections: "200",
  shared_buffers: "512MB",
  max_wal_size: "4GB",
  // For the moment at which a row became visible to others.
  track_commit_timestamp: "on",
};

export async function openCluster(extra: Record<string, string> = {}): Promise<Cluster> {
  const dataDir = await mkdtemp(join(tmpdir(), "pinion-bench-"));
  // As root, PostgreSQL runs as another user, who needs to traverse the directory.
  await chmod(dataDir, 0o711);
  const embedded = await startEmbedded({ dataDir, settings: { ...settings, ...extra } });
  // Of a bench that fails nothing stays behind.
  const orphan = () => process.kill(embedded.pid, "SIGINT");
  process.once("exit", orphan);
  const { rows } = await query(embedded.url, "select current_setting('server_version') as version");
  return {
    pid: embedded.pid,
    version: rows[0].version as string,
    async database(name, options = {}) {
      await query(embedded.url, `drop database if exists ${name} with (force)`);
      await query(embedded.url, `create database ${name} template template0`);
      const url = new URL(embedded.url);
      url.pathname = `/${name}`;
      if (!options.isEmpty) await migrate(url.href);
      return url.href;
    },
    async close() {
      process.off("exit", orphan);
      await embedded.stop();
      if (!process.env.KEEP) await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Runs one statement on a new connection. */
export async function query(url: string, text: string, values: unknown[] = []) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await client.query(text, values);
  } finally {
    await client.end();
  }
}
