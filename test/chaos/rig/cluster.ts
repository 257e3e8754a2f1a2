import { chmod, mkdir } from "node:fs/promises";
import pg from "pg";
import { type Embedded, startEmbedded } from "../../../src/store/pg/embedded/cluster.ts";
import { migrate } from "../../../src/store/pg/migrate.ts";

/** The rig's PostgreSQL: it can crash, be away and come back at the same address. */
export type Cluster = {
  url: string;
  /** Crashes it (as `pg_ctl stop -m immediate`); it is away until `start`. */
  crash(): Promise<void>;
  /** Starts it where it was; resolves when it takes connections. */
  start(): Promise<void>;
  /** One statement, when it is there. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  close(): Promise<void>;
};

const settings = {
  max_connections: "200",
  // The moment at which something became true for others, which the checker orders by.
  track_commit_timestamp: "on",
};
const connectTimeoutMs = 5_000;
const statementTimeoutMs = 20_000;

export async function openCluster(dataDir: string): Promise<Cluster> {
  await mkdir(dataDir, { recursive: true });
  // As root, PostgreSQL runs as another user, who passes through it.
  await chmod(dataDir, 0o711);
  let embedded: Embedded | undefined = await startEmbedded({ dataDir, settings });
  const { url } = embedded;
  await migrate(url);

  async function crash(): Promise<void> {
    const running = embedded;
    if (!running) return;
    embedded = undefined;
    process.kill(running.pid, "SIGQUIT");
    await running.stop();
  }
  // A rig that is broken off leaves nothing behind.
  const kill = () => {
    if (!embedded) return;
    try {
      process.kill(embedded.pid, "SIGQUIT");
    } catch {
      // It ended by itself.
    }
  };
  process.once("exit", kill);
  return {
    url,
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
    },
  };
}
