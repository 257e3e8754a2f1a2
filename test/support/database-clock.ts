/**
 * A database whose clock a test sets. A schema that precedes pg_catalog has `now()`,
 * `clock_timestamp()` and `statement_timestamp()`, so every statement that calls these functions
 * gets PostgreSQL's time, shifted. Defaults of columns were bound when the tables were created, and
 * use the real clock.
 */
import pg from "pg";
import { beforeEach, onTestFinished } from "vitest";
import { startClock } from "../../src/scheduler/slots/clock-watch.ts";
import { type Db, openDatabase } from "../../src/store/pg/database.ts";
import { createLogger } from "../../src/telemetry/log.ts";

type DatabaseClock = {
  /** The database with its shifted clock. */
  url: string;
  db: Db;
  /** From now on the clock is so far ahead, in milliseconds; behind, if negative. */
  set(aheadMs: number): Promise<void>;
  close(): Promise<void>;
};

const poolMax = 10;

/** How a replica judges the clock. */
type Judging = Partial<Pick<Parameters<typeof startClock>[0], "replicaId" | "policy" | "elapsed">>;

/** A clock of its own for each test of the file, and replicas' views of it. */
export function useDatabaseClock(database: { readonly url: string }) {
  let clock: DatabaseClock;
  beforeEach(async () => {
    clock = await openDatabaseClock(database.url);
    return () => clock.close();
  });
  return {
    get url() {
      return clock.url;
    },
    get db() {
      return clock.db;
    },
    set: (aheadMs: number) => clock.set(aheadMs),
    /** A replica's judgement of the clock, until the test ends. */
    async judged(how: Judging = {}) {
      const log = createLogger({ name: "test", level: "silent" });
      const judged = await startClock({ db: clock.db, log, replicaId: "here", policy: "confirm", ...how });
      onTestFinished(() => judged.stop());
      return judged;
    },
  };
}

/** Only connections opened with the returned URL, and the returned `db`, see the clock. */
async function openDatabaseClock(databaseUrl: string): Promise<DatabaseClock> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on("error", () => {});
  await client.connect();
  await client.query(`
    create schema moved;
    create table moved.by (ms bigint not null);
    insert into moved.by values (0);
    create function moved.now() returns timestamptz stable language sql as
      'select pg_catalog.now() + (select ms from moved.by) * interval ''1 ms''';
    create function moved.clock_timestamp() returns timestamptz volatile language sql as
      'select pg_catalog.clock_timestamp() + (select ms from moved.by) * interval ''1 ms''';
    create function moved.statement_timestamp() returns timestamptz stable language sql as
      'select pg_catalog.statement_timestamp() + (select ms from moved.by) * interval ''1 ms''';
    grant usage on schema moved to public;
    grant select on moved.by to public`);
  // The URL's options take precedence over the store's options, which set the search path to
  // "public" alone.
  const url = new URL(databaseUrl);
  url.searchParams.set("options", "-c search_path=moved,pg_catalog,public -c TimeZone=UTC");
  const database = openDatabase({ url: url.href, poolMax, applicationName: "pinion test" });
  return {
    url: url.href,
    db: database.db,
    async set(aheadMs) {
      await client.query("update moved.by set ms = $1", [Math.round(aheadMs)]);
    },
    async close() {
      await database.close();
      await client.end();
    },
  };
}
