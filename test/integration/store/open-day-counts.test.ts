/**
 * Counts and usage of a big org read sums, and few of the rows that the sums were made from; runs
 * since midnight are found without the day before.
 */
import { sql } from "kysely";
import { beforeAll, expect, test } from "vitest";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import { withinOrg } from "../../../src/store/pg/tenancy.ts";
import { summarize } from "../../../src/store/work/runs/run-counts.ts";
import * as runs from "../../../src/store/work/runs/runs.ts";
import { closePast, countOpenDay, tend } from "../../../src/store/work/service/partitions.ts";
import * as usage from "../../../src/store/work/service/usage.ts";
import { useDatabase } from "../../support/database.ts";
import { pagesRead, rowsRead } from "../../support/reads.ts";
import { orgId, seedDevice, seedWatcher } from "../../support/rows.ts";
import { vacuumWhole } from "../../support/vacuum.ts";

const database = useDatabase({ per: "file" });

const perDay = 20_000;
const pastDays = 5;
const devices = 100;
/** The sums, and the ends of some minutes. */
const rowsMax = 3_000;
const dayMs = 86_400_000;
const today = Math.floor(Date.now() / dayMs) * dayMs;
/** Of a day that has just begun nothing is counted yet. */
const isTooEarly = Date.now() - today < 10 * 60_000;
const limits = { endsMin: 1, endsMax: 7_000, countedFrom: 1_000, lagMs: 0 };

beforeAll(async () => {
  const { db } = database;
  await transaction(db, (tx) => tend(tx, 30));
  for (let ago = 1; ago <= pastDays; ago++) {
    const [first, next] = [ago, ago - 1].map((days) =>
      new Date(today - days * dayMs).toISOString().slice(0, 10),
    );
    await sql`create table ${sql.ref(`run_finished_${first!.replaceAll("-", "")}`)} partition of run_finished
      for values from (${sql.lit(`${first} 00:00:00+00`)}) to (${sql.lit(`${next} 00:00:00+00`)})`.execute(
      db,
    );
  }
  const { watcherId } = await seedWatcher(db, await seedDevice(db), {});
  for (let ago = 0; ago <= pastDays; ago++) {
    const start = today - ago * dayMs;
    const lengthMs = ago === 0 ? Date.now() - today : dayMs;
    await addEnds(watcherId, { start, lengthMs, count: perDay });
    await sql`
      insert into usage_day (org_id, day, watcher_id, agent_id, device_id, runs, input_tokens)
      select ${orgId}, (${new Date(start)}::timestamptz at time zone 'UTC')::date, gen_random_uuid(), 'a', gen_random_uuid(), 1, i
      from generate_series(1, ${perDay / 4}::int) i`.execute(db);
  }
  await sql`vacuum analyze run_finished, usage_day`.execute(db);
});

async function addEnds(
  watcherId: string,
  { start, lengthMs, count }: { start: number; lengthMs: number; count: number },
): Promise<void> {
  await sql`
    insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt, reason,
      past_attempts, duration_ms, finished_at)
    select ${orgId}, uuid_v7(), ${watcherId}, 1, 'a', 1, lpad((i % ${devices}::int)::text, 32, '0')::uuid, 'test', 'none',
      'manual', at - interval '1 hour', at, at, at, 1000, 1, case when i % 20 = 0 then 'failed' else 'completed' end, 1, '', '[]',
      i % 1000, at
    from generate_series(0, ${count}::int - 1) i
      cross join lateral (
        select ${new Date(start)}::timestamptz + i * (${lengthMs}::float8 / ${count}) * interval '1 millisecond' as at) t`.execute(
    database.db,
  );
}

/** The rows of ended runs, of usage and of sums that a statement of the org's people reads. */
const readByOrg = (read: (tx: Db) => Promise<unknown>) =>
  withinOrg(orgId, () =>
    rowsRead({ db: database.database.tenantDb, tables: "^(run_finished|usage|run_count)" }, read),
  );

test("counts of today and of days read the sums and the ends of a few minutes, and are the same", async ({
  skip,
}) => {
  skip(isTooEarly);
  const { db } = database;
  const asked = [1, 2, 5].map((days) => ({
    ...{ orgId, start: new Date(Date.now() - days * dayMs + 1), end: new Date(), spanMs: 3_600_000 },
  }));
  const before = await Promise.all(asked.map((of) => summarize(db, of)));
  const rowsOf = async () => {
    const rows: number[] = [];
    for (const of of asked) rows.push(await readByOrg((tx) => summarize(tx, of)));
    return rows;
  };
  const rowsBefore = await rowsOf();
  while (await transaction(db, (tx) => closePast(tx, limits)));
  while (await countOpenDay(db, limits));
  expect(await Promise.all(asked.map((of) => summarize(db, of)))).toEqual(before);
  // At any hour: up to three hours at the beginning are in no block, and today's newest ends are
  // read by ranges of pages.
  const rowsAfter = await rowsOf();
  for (const [nth, share] of [2, 3, 8].entries()) {
    expect(rowsAfter[nth]).toBeLessThan(rowsBefore[nth]! / share);
  }
});

test("a day that is under way has less than a thousand new sums' rows, and ends after the sums are counted one by one", async ({
  skip,
}) => {
  skip(isTooEarly);
  const { db } = database;
  const day = { orgId, start: new Date(today), end: new Date(today + dayMs), spanMs: dayMs };
  while (await countOpenDay(db, limits));
  const counted = async () => (await summarize(db, day)).spans.reduce((sum, span) => sum + span.runs, 0);
  const before = await counted();
  expect(await readByOrg((tx) => summarize(tx, day))).toBeLessThan(rowsMax);
  const { rows } = await sql<{
    watcherId: string;
  }>`select watcher_id as "watcherId" from run_finished limit 1`.execute(db);
  // Before the moment until which the day is counted, and after it.
  await addEnds(rows[0]!.watcherId, { start: today, lengthMs: 60_000, count: 3 });
  await addEnds(rows[0]!.watcherId, { start: Date.now(), lengthMs: 1, count: 2 });
  expect(await counted()).toBe(before + 5);
});

test("a device's counts of past days are read from an index alone; a day without it is closed once more", async () => {
  const { db } = database;
  while (await transaction(db, (tx) => closePast(tx, limits)));
  const deviceId = "00000000-0000-0000-0000-000000000007";
  const asked = {
    ...{ orgId, deviceId, start: new Date(today - pastDays * dayMs), end: new Date(today), spanMs: dayMs },
  };
  // As autovacuum leaves a day some time after its last end.
  await vacuumWhole(db, "run_finished");
  const pages = () =>
    pagesRead(database.database, { orgId, tables: "^run_finished" }, (tx) => summarize(tx, asked));
  const counts = await summarize(db, asked);
  expect(counts.spans.reduce((sum, { runs }) => sum + runs, 0)).toBe((pastDays * perDay) / devices);
  expect(await pages()).toBeLessThan(50);
  const [closed] = (
    await sql<{ name: string }>`
      select relname as name from pg_class where relname like 'run_finished_%_devices' order by 1 limit 1`.execute(
      db,
    )
  ).rows;
  await sql`drop index ${sql.ref(closed!.name)}`.execute(db);
  const sums = () => sql`select * from run_count_hour order by id`.execute(db).then(({ rows }) => rows);
  const before = await sums();
  expect(await pages()).toBeGreaterThan(100);
  expect(`${await transaction(db, (tx) => closePast(tx, limits))}_devices`).toBe(closed!.name);
  expect(await transaction(db, (tx) => closePast(tx, limits))).toBeUndefined();
  expect(await sums()).toEqual(before);
  expect(await pages()).toBeLessThan(50);
  expect(await summarize(db, asked)).toEqual(counts);
});

test("usage by day reads the sums of past days; usage that is added to a past day is counted", async () => {
  const { db } = database;
  while (await transaction(db, (tx) => closePast(tx, limits)));
  const asked = {
    ...{
      orgId,
      start: new Date(today - pastDays * dayMs),
      end: new Date(today + dayMs),
      groupBy: "day" as const,
    },
  };
  const runs = async () => (await usage.summarize(db, asked)).map((sum) => Number(sum.runs));
  expect(await runs()).toEqual(Array(pastDays + 1).fill(perDay / 4));
  expect(await readByOrg((tx) => usage.summarize(tx, asked))).toBeLessThan(perDay / 2 + 1_000);
  await sql`update usage_day set runs = runs + 1 where ctid in (
    select ctid from usage_day where day = (${new Date(today - dayMs)}::timestamptz at time zone 'UTC')::date limit 1)`.execute(
    db,
  );
  expect((await runs())[pastDays - 1]).toBe(perDay / 4 + 1);
});

test("runs since midnight are a page of today, without the ends of the day before", async ({ skip }) => {
  skip(isTooEarly);
  while (await transaction(database.db, (tx) => closePast(tx, limits)));
  const asked = { orgId, limit: 51, statuses: [], since: new Date(today) };
  expect(await runs.list(database.db, asked)).toHaveLength(51);
  expect(await readByOrg((tx) => runs.list(tx, asked))).toBeLessThan(rowsMax);
});
