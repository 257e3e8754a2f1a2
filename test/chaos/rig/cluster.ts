import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { migrate } from "../../../src/store/pg/migrate.ts";
import { faketimeEnvironment, findFaketime, setFaketime } from "../../support/faketime.ts";
import { type FaultProxy, startFaultProxy, type Target } from "../../support/fault-proxy.ts";
import { realNow } from "../clock.ts";
import { clonePostgres, createPostgres, type PostgresServer, putTablesOnDisk } from "./postgres.ts";

/**
 * The rig's PostgreSQL, with an asynchronous standby: it can crash, be away and come back, fail
 * over to the standby, and have a wrong clock.
 */
export type Cluster = {
  /** The primary's, which a failover changes. */
  readonly url: string;
  primary(): Target;
  /** Crashes the primary (like `pg_ctl stop -m immediate`), which is away until `start`. */
  crash(): Promise<void>;
  /** Starts the primary at its address; resolves when connections are accepted. */
  start(): Promise<void>;
  /** Runs one statement on the primary; rejects while it is away. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  /**
   * A separate disk for the tables, with the WAL elsewhere; undefined if disks cannot be mounted.
   */
  readonly disk: { fill(): void; empty(): void } | undefined;
  /** The clock of all servers; undefined without libfaketime. */
  readonly clock: DatabaseClock | undefined;
  /** Resolves when the standby has all that was committed before, or to false if there is none. */
  standbyIsCurrent(): Promise<boolean>;
  /** From now on the standby receives nothing. */
  cutStandby(): void;
  /**
   * Crashes the primary for good, and promotes the standby with what it has. A new standby is made
   * from the new primary, in the background.
   */
  failOver(): Promise<void>;
  close(): Promise<void>;
};

export type DatabaseClock = {
  /** From now on all servers' clocks are so far ahead, by whole seconds. */
  set(aheadMs: number): Promise<void>;
  /** How far ahead the clock is now, in milliseconds. */
  readonly aheadMs: number;
  /**
   * The true time of a moment that the database has recorded, and whether its clock was wrong then.
   * A jump is longer than a run of the rig, so the two times cannot be mistaken for each other.
   */
  trueTime(moment: number): { at: number; isWrong: boolean };
};

const settings = {
  max_connections: "200",
  // The commit time of each transaction, by which the checker orders.
  track_commit_timestamp: "on",
  // A standby that was cut off, or that is being made, finds the WAL that it lacks.
  wal_keep_size: "1GB",
  wal_retrieve_retry_interval: "200ms",
  hot_standby: "on",
};
const currentMsMax = 10_000;
const currentPollMs = 50;
const cloneAgainMs = 1_000;

/** `hasStandby`: without a standby, no failover is possible, and the rig starts in less time. */
export async function openCluster(directory: string, options: { hasStandby: boolean }): Promise<Cluster> {
  await mkdir(directory, { recursive: true });
  await chmod(directory, 0o711);
  const clock = await openClock(join(directory, "clock"));
  let count = 0;
  const next = (): Place => {
    count += 1;
    return { directory: join(directory, `server-${count}`), settings, env: clock?.env ?? {} };
  };
  const place = next();
  const primary = await createPostgres(place);
  await migrate(primary.url);
  await putTablesOnDisk(primary);
  const cluster = new Servers({ clock, primary, place, next });
  if (options.hasStandby) await cluster.makeStandby();
  return cluster;
}

/** The directory and the settings of a server. */
type Place = { directory: string; settings: Record<string, string>; env: Record<string, string> };

/** A primary, and the standby that follows it. */
class Servers implements Cluster {
  readonly clock: DatabaseClock | undefined;
  readonly #next: () => Place;
  #primary: PostgresServer;
  /** The primary's. */
  #place: Place;
  #standby: { server: PostgresServer; directory: string; link: FaultProxy } | undefined;
  #isClosing = false;
  /** The making of a standby after a failover. */
  #making: Promise<void> = Promise.resolve();

  constructor(options: {
    clock: DatabaseClock | undefined;
    primary: PostgresServer;
    place: Place;
    next: () => Place;
  }) {
    this.clock = options.clock;
    this.#primary = options.primary;
    this.#place = options.place;
    this.#next = options.next;
  }

  get url() {
    return this.#primary.url;
  }

  get disk() {
    return this.#primary.disk;
  }

  primary(): Target {
    return { port: this.#primary.port };
  }

  crash() {
    return this.#primary.crash();
  }

  start() {
    return this.#primary.start();
  }

  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]> {
    return this.#primary.query<Row>(text, values);
  }

  /** Repeats until a standby follows the primary: the primary crashes now and then. */
  async makeStandby(): Promise<void> {
    while (!this.#isClosing) {
      const { port } = this.#primary;
      const link = await startFaultProxy({ port });
      const options = { ...this.#next(), sourceDirectory: this.#place.directory, upstream: link.port };
      try {
        const server = await clonePostgres(this.#primary, options);
        this.#standby = { server, directory: options.directory, link };
        return;
      } catch {
        await link.close();
        await delay(cloneAgainMs);
      }
    }
  }

  async standbyIsCurrent(): Promise<boolean> {
    const deadline = performance.now() + currentMsMax;
    let position: string | undefined;
    while (this.#standby && performance.now() < deadline) {
      const found = await this.#primary
        .query<{ here: string; isThere: boolean | null }>(
          `select coalesce($1, pg_current_wal_lsn()::text) as here,
            (select bool_or(flush_lsn >= $1::pg_lsn) from pg_stat_replication where application_name = 'standby')
              as "isThere"`,
          [position ?? null],
        )
        .catch(() => []);
      position ??= found[0]?.here;
      if (found[0]?.isThere) return true;
      await delay(currentPollMs);
    }
    return false;
  }

  cutStandby(): void {
    this.#standby?.link.set({ up: "blackhole", down: "blackhole", onConnect: "hang" });
  }

  async failOver(): Promise<void> {
    const promoted = this.#standby;
    if (!promoted) return;
    this.#standby = undefined;
    const former = this.#primary;
    await former.crash();
    await promoted.server.query("select pg_promote(true, 20)");
    this.#primary = promoted.server;
    this.#place = { ...this.#place, directory: promoted.directory };
    this.#making = (async () => {
      await promoted.link.close();
      await former.remove();
      await this.makeStandby();
    })();
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#making.catch(() => {});
    await this.#standby?.server.remove();
    await this.#standby?.link.close();
    await this.#primary.remove();
  }
}

type Jump = { from: number; to: number; aheadMs: number };

/** Between the rig's setting of the clock and a server's look at the clock. */
const settingMs = 1_000;

async function openClock(
  file: string,
): Promise<(DatabaseClock & { env: Record<string, string> }) | undefined> {
  const library = findFaketime();
  if (library === undefined) return undefined;
  await setFaketime(file, 0);
  const jumps: Jump[] = [];
  let current: Jump | undefined;
  return {
    env: faketimeEnvironment(library, file),
    get aheadMs() {
      return current?.aheadMs ?? 0;
    },
    async set(aheadMs) {
      const at = realNow();
      if (current) current.to = at + settingMs;
      current = aheadMs === 0 ? undefined : { from: at - settingMs, to: Number.POSITIVE_INFINITY, aheadMs };
      if (current) jumps.push(current);
      await setFaketime(file, aheadMs);
    },
    trueTime(moment) {
      const jump = jumps.find(({ from, to, aheadMs }) => moment - aheadMs >= from && moment - aheadMs <= to);
      return jump ? { at: moment - jump.aheadMs, isWrong: true } : { at: moment, isWrong: false };
    },
  };
}
