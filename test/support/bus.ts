/** Both kinds of bus behind one interface, so that the same tests run on both. */
import pg from "pg";
import { type Bus, type BusHandlers, openPostgresBus } from "../../src/server/cluster/bus.ts";
import { openNatsBus } from "../../src/server/cluster/bus-nats.ts";
import type { Db } from "../../src/store/pg/database.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { findNatsServer, startNats } from "./nats.ts";
import { noticeSkipped } from "./notice.ts";

export const busKinds = ["postgres", "nats"] as const;
export type BusKind = (typeof busKinds)[number];

const log = createLogger({ level: "silent", name: "test" });

/** The reason why the tests of a kind are skipped here; printed once, visible to people. */
export function missing(kind: BusKind): string | undefined {
  if (kind === "postgres" || findNatsServer()) return undefined;
  return noticeSkipped(
    "the bus over NATS",
    "there is no nats-server here (apt-get install nats-server, or PINION_NATS_SERVER)",
  );
}

export type BusRig = {
  /** The port behind a fault proxy. */
  port: number;
  /** A replica's settings for this bus, behind a proxy if a port is given. */
  env(port?: number): Record<string, string>;
  open(options: {
    replicaId: string;
    handlers: BusHandlers;
    port?: number;
    /** A line that does not answer in this time, in milliseconds, is replaced; default 300. */
    heartbeatMs?: number;
  }): Promise<Bus>;
  /**
   * Listens to the messages for a replica, in place of a replica. Returns a function that stops
   * listening.
   */
  overhear(replicaId: string, onPayload: (payload: string) => void): Promise<() => Promise<void>>;
  /** Sends a replica a payload that no replica would send. */
  say(replicaId: string, payload: string): Promise<void>;
  close(): Promise<void>;
};

const heartbeatMsDefault = 300;

export function startBusRig(kind: BusKind, database: { url: string; db: Db }): Promise<BusRig> {
  return kind === "postgres" ? startPostgresRig(database) : startNatsRig();
}

async function startPostgresRig({ url, db }: { url: string; db: Db }): Promise<BusRig> {
  const port = Number(new URL(url).port || "5432");
  const through = (other = port) => {
    const proxied = new URL(url);
    proxied.port = String(other);
    return proxied.href;
  };
  const once = async (use: (client: pg.Client) => Promise<unknown>) => {
    const client = new pg.Client({ connectionString: url });
    // The database may be dropped before the client is closed.
    client.on("error", () => {});
    await client.connect();
    await use(client);
    return client;
  };
  return {
    port,
    env: (proxyPort) => ({ DATABASE_DIRECT_URL: through(proxyPort) }),
    open: ({ heartbeatMs = heartbeatMsDefault, ...options }) =>
      openPostgresBus({ ...options, db, listenUrl: through(options.port), log, heartbeatMs }),
    async overhear(replicaId, onPayload) {
      const client = await once((opened) =>
        opened.query(`listen ${pg.escapeIdentifier(`pinion_${replicaId}`)}`),
      );
      client.on("notification", ({ payload }) => onPayload(payload ?? ""));
      return () => client.end();
    },
    async say(replicaId, payload) {
      const client = await once((opened) =>
        opened.query("select pg_notify($1, $2)", [`pinion_${replicaId}`, payload]),
      );
      await client.end();
    },
    close: async () => {},
  };
}

async function startNatsRig(): Promise<BusRig> {
  const nats = await startNats();
  const config = (port = nats.port) => ({
    servers: [`127.0.0.1:${port}`],
    subject: "test",
    user: undefined,
    password: undefined,
    token: undefined,
    credentialsFile: undefined,
    tls: undefined,
  });
  return {
    port: nats.port,
    env: (port = nats.port) => ({
      PINION_BUS: "nats",
      PINION_NATS_URL: `nats://127.0.0.1:${port}`,
      PINION_NATS_SUBJECT: "test",
    }),
    open: ({ port, heartbeatMs = heartbeatMsDefault, ...options }) =>
      openNatsBus({ ...options, nats: config(port), log, heartbeatMs }),
    async overhear(replicaId, onPayload) {
      const connection = await nats.dial();
      connection.subscribe(`test.replica.${replicaId}`, {
        callback: (_, message) => onPayload(message.string()),
      });
      await connection.flush();
      return () => connection.close();
    },
    async say(replicaId, payload) {
      const connection = await nats.dial();
      connection.publish(`test.replica.${replicaId}`, payload);
      await connection.drain();
    },
    close: () => nats.kill(),
  };
}
