/** Ended runs are kept by age and dropped by partition (DESIGN 6). */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createLogger } from "../../../src/log.ts";
import { storeOnce } from "../../../src/scheduler/completer.ts";
import { retainOnce } from "../../../src/scheduler/retention.ts";
import type { Db } from "../../../src/store/database.ts";
import * as retention from "../../../src/store/retention.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, policy, reportOf, seedRunning } from "../../support/rows.ts";

const database = useDatabase();
const retain = (days = 30) =>
  retainOnce(database.db, { days, log: createLogger({ name: "test", level: "silent" }) });

async function partitions(db: Db): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'run_finished'::regclass order by 1
  `.execute(db);
  return rows.map((row) => row.name);
}

const nameOf = (daysBack: number) =>
  `run_finished_${new Date(Date.now() - daysBack * 86_400_000).toISOString().slice(0, 10).replaceAll("-", "")}`;

/** A partition of a day that has passed. */
async function addPartition(db: Db, daysBack: number): Promise<void> {
  const day = (back: number) =>
    `${new Date(Date.now() - back * 86_400_000).toISOString().slice(0, 10)} 00:00:00+00`;
  await sql`create table ${sql.table(nameOf(daysBack))} partition of run_finished
    for values from (${sql.lit(day(daysBack))}) to (${sql.lit(day(daysBack - 1))})`.execute(db);
}

test("partitions of the coming days are made, those older than the age are dropped with their runs, others stay", async () => {
  const { db } = database;
  for (const daysBack of [40, 31, 29]) await addPartition(db, daysBack);
  const ids: string[] = [];
  for (const daysBack of [40, 31, 29]) {
    const { run } = await seedRunning(db);
    await storeOnce(db, [reportOf(run)], policy);
    await db
      .updateTable("run_finished")
      .set({ finished_at: sql<Date>`now() - ${daysBack} * interval '1 day'` })
      .where("id", "=", run.runId)
      .execute();
    ids.push(run.runId);
  }
  const { run: living } = await seedRunning(db);
  await retain();
  const left = await db
    .selectFrom("run_all" as never)
    .select("id" as never)
    .execute();
  expect(left.map((row) => (row as { id: string }).id).sort()).toEqual([ids[2], living.runId].sort());
  const names = await partitions(db);
  for (const daysBack of [29, 0, -1, -2, -3].filter((day) => day !== 0))
    expect(names).toContain(nameOf(daysBack));
  for (const daysBack of [40, 31]) expect(names).not.toContain(nameOf(daysBack));
  // The windows are the watcher's results, and outlive their runs.
  expect(await db.selectFrom("window").select("run_id").execute()).toHaveLength(3);
});

test("runs that ended while no partition was there are kept, and go with their age", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run)], policy);
  const inDefault = () =>
    sql<{ id: string }>`select id from run_finished_default`.execute(db).then(({ rows }) => rows.length);
  expect(await inDefault()).toBe(1);
  await retain();
  expect(await inDefault()).toBe(1);
  await sql`update run_finished_default set finished_at = now() - interval '31 days'`.execute(db);
  await sql`update event set at = now() - interval '31 days'`.execute(db);
  expect(await retain()).toBeGreaterThan(1);
  expect(await inDefault()).toBe(0);
});

test("two replicas that tend the partitions at once do it once", async () => {
  const { db } = database;
  await using first = await hold(db);
  expect((await retention.tendPartitions(first.tx, 30))?.created).toHaveLength(4);
  await using second = await hold(db);
  expect(await retention.tendPartitions(second.tx, 30)).toBeNull();
  await first.commit();
  await second.commit();
  await using third = await hold(db);
  expect(await retention.tendPartitions(third.tx, 30)).toEqual({ created: [], dropped: [] });
});
