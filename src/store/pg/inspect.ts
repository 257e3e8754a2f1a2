/**
 * A PostgreSQL's version and settings, for `pinion doctor`. Reads only, except for {@link
 * confirmClock}.
 */

import { sql } from "kysely";
import { createLogger } from "../../telemetry/log.ts";
import { within } from "../../time/abort.ts";
import { newId } from "../../values/ids.ts";
import * as clockJumps from "../work/watchers/clock-jumps.ts";
import { type Db, openDatabase } from "./database.ts";
import { notify, openListener } from "./listener.ts";
import { listMigrations } from "./migrate.ts";
import { isOtherwise } from "./session-settings.ts";
import { onlyRow } from "./values/only-row.ts";

export type Inspection = {
  /** In the server's own form, for example "18.4". */
  version: string;
  /** For comparing: 150004 is 15.4. */
  versionNumber: number;
  /** The database's clock. */
  now: Date;
  /** The time of the answer with the clock, and the round trip of the query in milliseconds. */
  receivedAt: Date;
  roundTripMs: number;
  fsync: string;
  synchronousCommit: string;
  connectionsMax: number;
  connectionsUsed: number;
  isReadOnly: boolean;
  /**
   * Settings that the code relies on, if set differently by the database or the role, as
   * "TimeZone=Pacific/Chatham".
   */
  oddDefaults: string[];
  replication: {
    /** The setting; empty: no commit waits for a standby. */
    synchronousStandbyNames: string;
    standbys: { name: string; isSynchronous: boolean; lagBytes: number | null; lagMs: number | null }[];
  };
  /** A jump of the clock that the replicas doubt; undefined for none. */
  clockJump: { noticedAt: Date; expectedAt: Date } | undefined;
  /** Migrations of the local version that are not applied; all of them on an empty database. */
  migrationsPending: string[];
  /** Applied migrations unknown to the local version: a newer version has used the database. */
  migrationsUnknown: string[];
};

/** Maximum milliseconds for a notification to arrive. */
const notificationWithinMs = 3_000;

/**
 * Whether a notification sent on one connection arrives on another, as replicas need. False behind
 * a pooler in transaction mode: `listenUrl` has to bypass the pooler. Throws if a connection fails.
 */
export async function hearsNotifications(urls: { url: string; listenUrl: string }): Promise<boolean> {
  const channel = `pinion_doctor_${newId()}`;
  const heard = Promise.withResolvers<true>();
  const database = openDatabase({
    url: urls.url,
    poolMax: 1,
    statementTimeoutMs: inspectTimeoutMs,
    connectTimeoutMs: inspectTimeoutMs,
    applicationName: "pinion doctor",
  });
  const listener = openListener({
    url: urls.listenUrl,
    channels: [channel],
    onNotification: () => heard.resolve(true),
    onResync: () => {},
    log: silent,
  });
  try {
    if (
      (await within(
        listener.ready.then(() => true),
        inspectTimeoutMs,
      )) !== true
    )
      return false;
    await notify(database.db, channel, ["here"]);
    return (await within(heard.promise, notificationWithinMs)) === true;
  } finally {
    await Promise.all([listener.close(), database.close()]);
  }
}

/** The doctor reports its findings itself. */
const silent = createLogger({ level: "silent", name: "pinion doctor" });

const inspectTimeoutMs = 5_000;

/** Throws if the database cannot be reached or does not let us in. At most about 10 s. */
export function inspect(url: string): Promise<Inspection> {
  return asDoctor(url, inspectBy);
}

/** Opens one connection for the doctor, and closes the connection afterwards. */
async function asDoctor<T>(url: string, work: (db: Db) => Promise<T>): Promise<T> {
  const database = openDatabase({
    url,
    poolMax: 1,
    statementTimeoutMs: inspectTimeoutMs,
    connectTimeoutMs: inspectTimeoutMs,
    applicationName: "pinion doctor",
    // Right with and without a pooler: the doctor sends single statements.
    isPooled: true,
  });
  try {
    return await work(database.db);
  } finally {
    await database.close();
  }
}

async function inspectBy(db: Db): Promise<Inspection> {
  const clock = await readClock(db);
  const { version, versionNumber, hasMigrations, synchronousStandbyNames, ...settings } =
    await readSettings(db);
  const applied = new Set(hasMigrations ? await readMigrations(db) : []);
  const known = await listMigrations();
  return {
    ...{ version, versionNumber, ...clock, ...settings },
    oddDefaults: await readOddDefaults(db),
    replication: { synchronousStandbyNames, standbys: await readStandbys(db) },
    clockJump: await readClockJump(db),
    migrationsPending: known.filter((name) => !applied.has(name)),
    migrationsUnknown: [...applied].filter((name) => !known.includes(name)),
  };
}

async function readClock(db: Db): Promise<Pick<Inspection, "now" | "receivedAt" | "roundTripMs">> {
  // Connects, so that the next statement takes a single round trip.
  await sql`select 1`.execute(db);
  const startedAt = performance.now();
  const { rows } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(db);
  return { now: onlyRow(rows).now, roundTripMs: performance.now() - startedAt, receivedAt: new Date() };
}

async function readSettings(db: Db) {
  const { rows } = await sql<{
    version: string;
    versionNumber: number;
    fsync: string;
    synchronousCommit: string;
    synchronousStandbyNames: string;
    connectionsMax: number;
    connectionsUsed: number;
    isReadOnly: boolean;
    hasMigrations: boolean;
  }>`
    select current_setting('server_version') as version,
      current_setting('server_version_num')::int as "versionNumber",
      current_setting('fsync') as fsync,
      current_setting('synchronous_commit') as "synchronousCommit",
      current_setting('synchronous_standby_names') as "synchronousStandbyNames",
      current_setting('max_connections')::int as "connectionsMax",
      (select count(*)::int from pg_stat_activity where backend_type = 'client backend') as "connectionsUsed",
      pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on' as "isReadOnly",
      to_regclass('kysely_migration') is not null as "hasMigrations"`.execute(db);
  return onlyRow(rows);
}

async function readMigrations(db: Db): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`select name from kysely_migration order by name`.execute(db);
  return rows.map(({ name }) => name);
}

async function readOddDefaults(db: Db): Promise<string[]> {
  const { rows } = await sql<{ setting: string }>`
    select unnest(setconfig) as setting from pg_db_role_setting
    where setdatabase in (0, (select oid from pg_database where datname = current_database()))
      and setrole in (0, (select oid from pg_roles where rolname = session_user))`.execute(db);
  return rows.map(({ setting }) => setting).filter(isOtherwise);
}

async function readStandbys(db: Db): Promise<Inspection["replication"]["standbys"]> {
  const { rows } = await sql<Inspection["replication"]["standbys"][number]>`
    select application_name as name, sync_state in ('sync', 'quorum') as "isSynchronous",
      (case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn) end)::float8 as "lagBytes",
      (extract(epoch from flush_lag) * 1000)::float8 as "lagMs"
    from pg_stat_replication where state is distinct from 'backup' order by application_name`.execute(db);
  return rows;
}

/** Undefined also without the table, or without the right to read it. */
async function readClockJump(db: Db): Promise<Inspection["clockJump"]> {
  const { rows } = await sql<{ isReadable: boolean }>`
    select coalesce(has_table_privilege(to_regclass('clock_jump')::oid, 'select'), false) as "isReadable"
  `.execute(db);
  if (!onlyRow(rows).isReadable) return undefined;
  const { last } = await clockJumps.read(db);
  return last?.resolution === null ? last : undefined;
}

/** Confirms the clock in spite of its open jump; returns whether a jump was open. */
export function confirmClock(url: string, by: string): Promise<boolean> {
  return asDoctor(url, async (db) => {
    return (await clockJumps.resolve(db, { resolution: "confirmed", by })) !== undefined;
  });
}
