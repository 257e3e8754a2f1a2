/** Listings with a filter only read matching rows, not the org's whole history. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import * as deviceLists from "../../../src/store/people/devices/device-lists.ts";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import * as runs from "../../../src/store/work/runs/runs.ts";
import * as events from "../../../src/store/work/service/events.ts";
import { useDatabase } from "../../support/database.ts";
import { orgId, reportOf, seedRunning } from "../../support/rows.ts";
import { policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();

/** The number of scans of an index by a list; of a partitioned index in all partitions. */
function scansOf(index: string, list: (tx: Db) => Promise<unknown>): Promise<number> {
  return transaction(database.db, async (tx) => {
    await list(tx);
    const { rows } = await sql<{ scans: number }>`
      select sum(pg_stat_get_xact_numscans(relid))::int as scans
      from (select relid from pg_partition_tree(${index}::regclass)
        union select ${index}::regclass) as i`.execute(tx);
    return rows[0]!.scans;
  });
}

test("rare kinds of events are found through their prefixes, among many others", async () => {
  const { db } = database;
  await seedRunning(db);
  await sql`insert into event_row (org_id, kind, actor)
    select ${orgId}, 'run.completed', 'pinion' from generate_series(1, 20000)`.execute(db);
  await sql`analyze event_row`.execute(db);
  const filter = { orgId, limit: 50, kinds: ["watcher.created", "device."] };
  expect(await scansOf("event_kind", (tx) => events.list(tx, filter))).toBeGreaterThan(0);
  const kinds = (await events.list(db, filter)).map((event) => event.kind);
  expect(kinds).toEqual(expect.arrayContaining(["watcher.created", "device.enrolled"]));
  expect(kinds.filter((kind) => kind.startsWith("run."))).toEqual([]);
  // A prefix is a text, and no pattern.
  expect(await events.list(db, { ...filter, kinds: ["%", "watcher_", "w%"] })).toEqual([]);
});

test("rare outcomes of runs are found through their status, among many others", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run, { status: "failed" })], policy);
  const { rows: columns } = await sql<{ names: string }>`
    select string_agg(column_name, ', ') as names from information_schema.columns
    where table_name = 'run_finished' and column_name not in ('id', 'status')`.execute(db);
  const rest = sql.raw(columns[0]!.names);
  await sql`insert into run_finished (id, status, ${rest})
    select uuid_v7(), 'completed', ${rest} from run_finished, generate_series(1, 20000)`.execute(db);
  await sql`analyze run_finished`.execute(db);
  const filter = { orgId, limit: 50, statuses: ["failed", "timeout"] };
  expect(await scansOf("run_finished_status", (tx) => runs.list(tx, filter))).toBeGreaterThan(0);
  expect(await runs.list(db, filter)).toMatchObject([{ id: run.runId }]);
});

test("a page of devices is read in the order of their labels, and looks for the runs of no other device", async () => {
  const { db } = database;
  await seedRunning(db);
  await sql`insert into device (org_id, install_id, os, label)
    select ${orgId}, 'many-' || i, 'linux', 'many ' || i from generate_series(1, 2000) i`.execute(db);
  await sql`vacuum analyze device`.execute(db);
  const page = { orgId, ttlMs: 60_000, limit: 51 };
  expect(await scansOf("device_label", (tx) => deviceLists.list(tx, page))).toBeGreaterThan(0);
  expect(await scansOf("run_device", (tx) => deviceLists.list(tx, page))).toBeLessThan(200);
});
