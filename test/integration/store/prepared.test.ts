import { randomUUID } from "node:crypto";
/**
 * Statements of a few items keep their plans, and so do the large ones of a run's life; other
 * statements of many items are planned for their size.
 */
import { type Kysely, sql } from "kysely";
import { afterEach, expect, test } from "vitest";
import { trigger } from "../../../src/scheduler/starts/triggers.ts";
import { type Database, openDatabase, transaction } from "../../../src/store/pg/database.ts";
import { isPassing } from "../../../src/store/pg/failures.ts";
import { keepPlans } from "../../../src/store/pg/plans.ts";
import type { Schema } from "../../../src/store/pg/schema/schema.ts";
import { ofFew } from "../../../src/store/pg/values/unnest.ts";
import { type Settlement, settle } from "../../../src/store/work/attempts/settlements.ts";
import * as runClaims from "../../../src/store/work/runs/run-claims.ts";
import * as events from "../../../src/store/work/service/events.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import * as schedules from "../../../src/store/work/watchers/schedules.ts";
import { useDatabase } from "../../support/database.ts";
import {
  accept,
  claim,
  openDevice,
  seedDevice,
  seedRunning,
  seedWatcher,
  sessionOf,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";

const t = useDatabase();
let opened: Database | undefined;
afterEach(() => opened?.close());

function open(options: { isPooled?: boolean } = {}): Kysely<Schema> {
  opened = openDatabase({ url: t.url, poolMax: 1, ...options });
  return opened.db;
}

const prepared = async (db: Kysely<Schema>) =>
  (
    await sql<{ kept: number; made: number; rows: number }>`
      select generic_plans::int as kept, custom_plans::int as made from pg_prepared_statements`.execute(db)
  ).rows;

const nobody = {
  orgId: "nobody",
  deviceId: "00000000-0000-7000-8000-000000000000",
  epoch: 1,
  sessionId: randomUUID(),
};
const manyOf = (count: number) => Array.from({ length: count }, () => nobody);

test("after some uses a statement of a few items is not planned any more", async () => {
  const db = open();
  for (let use = 0; use < 20; use++) await presence.beat(db, manyOf(2 + (use % 3)));
  const [statement, ...others] = await prepared(db);
  expect(others).toEqual([]);
  expect(statement!.made).toBeLessThan(10);
  expect(statement!.kept).toBeGreaterThan(10);
});

test("a statement of many items is planned for as many as there are", async () => {
  const db = open();
  for (let use = 0; use < 10; use++) await presence.beat(db, manyOf(5 + use));
  expect(await prepared(db)).toEqual([]);
});

test("a large statement of many items that comes again is not planned any more, whatever its number of items", async () => {
  const db = open();
  const policy = { retryBackoffMs: 1, backoffAfter: 3, pauseAfter: 10, watcherBackoffMs: 1 };
  const settlementsOf = (count: number): Settlement[] =>
    Array.from({ length: count }, () => ({
      ...{ orgId: "nobody", workId: randomUUID(), attemptToken: randomUUID(), deviceId: nobody.deviceId },
      ...{ action: "finish", status: "completed", reason: "", output: "done" },
    }));
  for (let use = 0; use < 15; use++)
    expect(await settle(db, settlementsOf(5 + 40 * use), policy)).toEqual([]);
  const [statement, ...others] = await prepared(db);
  expect(others).toEqual([]);
  expect(statement!.made).toBeLessThan(8);
  expect(statement!.kept).toBeGreaterThan(4);
});

test("a statement of one item has a plan of its own, in which the item's values are parameters", async () => {
  const db = open();
  for (let use = 0; use < 20; use++) await presence.beat(db, [nobody]);
  const { rows } = await sql<{ statement: string; kept: number; made: number }>`
    select statement, generic_plans::int as kept, custom_plans::int as made from pg_prepared_statements`.execute(
    db,
  );
  expect(rows).toMatchObject([{ kept: 15, made: 5 }]);
  expect(rows[0]!.statement).not.toContain("unnest(");
});

test("the event of a run that comes alone is written by plans that are kept", async () => {
  const db = open();
  const { orgId } = await seedDevice(t.db);
  const event = { kind: "run.completed", actor: "pinion", runId: randomUUID(), watcherId: randomUUID() };
  for (let use = 0; use < 20; use++) {
    await transaction(db, (tx) => events.append(tx, orgId, [event]));
  }
  expect(await prepared(db)).toMatchObject([{ made: 5, kept: 15 }]);
});

test("nothing is prepared through a pooler", async () => {
  const db = open({ isPooled: true });
  for (let use = 0; use < 10; use++) await presence.beat(db, [nobody]);
  expect(await prepared(db)).toEqual([]);
});

test("a kept plan does what it should for each number of few items, and after its tables changed", async () => {
  const db = open();
  const sessions: presence.SessionName[] = [];
  for (let made = 0; made < 4; made++) {
    const device = await seedDevice(t.db);
    sessions.push(sessionOf(device, (await openDevice(t.db, device)).epoch));
  }
  const stale = (count: number) => sessions.slice(0, count).map((session) => ({ ...session, epoch: 99 }));
  for (let use = 0; use < 10; use++) expect(await presence.beat(db, sessions)).toEqual([]);
  for (const count of [1, 2, 3, 4]) expect(await presence.beat(db, stale(count))).toHaveLength(count);
  await sql`alter table presence add column added_later int`.execute(t.db);
  expect(await presence.beat(db, sessions)).toEqual([]);
  expect(await presence.beat(db, stale(3))).toHaveLength(3);
});

test("a plan that was kept while the table was empty does not read it whole when it is full", async () => {
  const device = await seedDevice(t.db);
  const { epoch } = await openDevice(t.db, device);
  await sql`vacuum analyze run`.execute(t.db);
  const db = open();
  const want = { ...sessionOf(device, epoch), slots: 1, kinds: null };
  for (let use = 0; use < 10; use++) expect(await runClaims.claim(db, [want])).toEqual([]);
  expect((await prepared(db)).some(({ kept }) => kept > 0)).toBe(true);

  // PostgreSQL's planner has no statistics of these rows: the table is not analyzed.
  await sql`alter table run set (autovacuum_enabled = off)`.execute(t.db);
  const watcher = await seedWatcher(t.db, await seedDevice(t.db));
  const { id } = await triggerRun(t.db, watcher);
  await sql`
    insert into run select (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid(), 'watcher_id', gen_random_uuid()))).*
    from run r, generate_series(1, 500) where r.id = ${id}`.execute(t.db);
  const scans = async () => {
    await sql`select pg_stat_force_next_flush()`.execute(db);
    const { rows } = await sql<{ scans: number }>`
      select seq_scan::int as scans from pg_stat_user_tables where relname = 'run'`.execute(db);
    return rows[0]!.scans;
  };
  const before = await scans();
  for (let use = 0; use < 5; use++) expect(await runClaims.claim(db, [want])).toEqual([]);
  expect(await scans()).toBe(before);
});

test("autovacuum counts a table that each run changes when it has doubled: a visit drops the plans", async () => {
  const db = open();
  const { device, epoch, watcher, run } = await seedRunning(db);
  const complete = (of: typeof run) =>
    transaction(db, (tx) =>
      settle(tx, [{ ...of, action: "finish_or_retry", status: "completed", reason: "" }], policy),
    );
  await complete(run);
  const changes = async () => {
    await sql`select pg_stat_force_next_flush()`.execute(db);
    const { rows } = await sql<{
      name: string;
      changed: number;
      counted: string | null;
      visited: string | null;
    }>`
      select c.relname as name, n_tup_ins + n_tup_upd + n_tup_del as changed,
        substring(c.reloptions::text from 'analyze_scale_factor=([0-9]+)') as counted,
        substring(c.reloptions::text from 'vacuum_threshold=([0-9]+)') as visited
      from pg_stat_user_tables t join pg_class c on c.oid = t.relid`.execute(db);
    return new Map(rows.map((row) => [row.name, row]));
  };
  const before = await changes();
  const request = { orgId: watcher.orgId, actor: "user:ann", rpc: "T/Trigger", requestId: "r" };
  await trigger(db, { ...watcher, actor: "user:ann" }, { doorbell: noteDoorbell(), request });
  const [next] = await claim(db, device, epoch);
  await accept(db, next!);
  await presence.beat(db, [sessionOf(device, epoch)]);
  await complete(next!);

  const changed = [...(await changes()).values()].filter(
    (one) => one.changed > before.get(one.name)!.changed,
  );
  expect(changed.map(({ name }) => name)).toEqual(
    expect.arrayContaining(["event_row", "presence", "request", "run", "schedule_position", "watcher"]),
  );
  for (const { name, counted } of changed) expect(Number(counted), name).toBeGreaterThanOrEqual(1);
  // The two small ones, of which each run or heartbeat leaves dead rows.
  const small = changed.filter(({ name }) => name === "run" || name === "presence");
  for (const { name, visited } of small) expect(Number(visited), name).toBeGreaterThanOrEqual(2_000);
});

test("whether a watcher has an active run is one look-up, also in a table that was counted as empty", async () => {
  const watcher = await seedWatcher(t.db, await seedDevice(t.db));
  const { id } = await triggerRun(t.db, watcher);
  await sql`alter table run set (autovacuum_enabled = off)`.execute(t.db);
  const fill = sql`
    insert into run select (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid(), 'watcher_id', gen_random_uuid()))).*
    from run r, generate_series(1, 500) where r.id = ${id}`;
  // The pages stay, nearly without rows.
  await fill.execute(t.db);
  await sql`delete from run where id <> ${id}`.execute(t.db);
  await sql`vacuum (analyze, truncate off) run`.execute(t.db);
  await fill.execute(t.db);
  const db = open();
  const read = async () => {
    await sql`select pg_stat_force_next_flush()`.execute(db);
    const { rows } = await sql<{ read: number }>`
      select sum(idx_tup_read)::int as read from pg_stat_user_indexes where relname = 'run'`.execute(db);
    return rows[0]!.read;
  };
  const before = await read();
  const uses = 20;
  for (let use = 0; use < uses; use++)
    expect(await schedules.lockOne(db, watcher)).toMatchObject({ hasActiveRun: true });
  expect((await read()) - before).toBeLessThanOrEqual(uses);
});

test("an answer that a migration has changed closes the connection that cannot give it, and may be asked for again", async () => {
  const db = open();
  const text = sql`${ofFew} select label from device`;
  await text.execute(db);
  await sql`alter table device alter column label type varchar(500)`.execute(t.db);
  const error = await text.execute(db).then(
    () => undefined,
    (failure: unknown) => failure,
  );
  expect(error).toMatchObject({ code: "0A000" });
  expect(isPassing(error)).toBe(true);
  await text.execute(db);
});

test("what is no promise is committed without waiting for the disk, and what comes after it is waited for as before", async () => {
  const db = open();
  const mode = async (tx: Kysely<Schema>) =>
    (await sql<{ mode: string }>`select current_setting('synchronous_commit') as mode`.execute(tx)).rows[0]!
      .mode;
  const device = await seedDevice(db);
  const session = await openDevice(db, device);
  const before = await mode(db);
  await db.transaction().execute(async (tx) => {
    // Tests do without the disk altogether.
    await sql`set local synchronous_commit = on`.execute(tx);
    await presence.beat(tx, [{ ...device, ...session }]);
    expect(await mode(tx)).toBe("off");
  });
  expect(await mode(db)).toBe(before);
});

test("a transaction that asks for it plans a statement once, and leaves the connection as it was", async () => {
  const db = open();
  for (let use = 0; use < 4; use++) {
    await transaction(db, async (tx) => {
      await keepPlans(tx);
      await presence.beat(tx, [nobody]);
    });
  }
  const { rows } = await sql<{ kept: number; made: number }>`
    select generic_plans::int as kept, custom_plans::int as made from pg_prepared_statements
    where statement like '%presence%'`.execute(db);
  expect(rows).toEqual([{ kept: 4, made: 0 }]);
  const mode = await sql<{ mode: string }>`select current_setting('plan_cache_mode') as mode`.execute(db);
  expect(mode.rows).toEqual([{ mode: "auto" }]);
});
