/** Ended runs are kept by age and dropped by partition. */
import { sql } from "kysely";
import { beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { storeRepliesOnce } from "../../../src/scheduler/endings/turn-endings.ts";
import { retainIfDue, retainOnce, startRetention } from "../../../src/scheduler/retention.ts";
import { materializeBacklogOnce } from "../../../src/scheduler/slots/materializer.ts";
import { backfill } from "../../../src/scheduler/starts/triggers.ts";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import * as windows from "../../../src/store/work/runs/windows.ts";
import { closePast, tend } from "../../../src/store/work/service/partitions.ts";
import { addSums } from "../../../src/store/work/service/past-days.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { isClockFaked } from "../../support/faketime.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
  findWatcher,
  hourly,
  listRuns,
  listWindows,
  orgId,
  reportOf,
  seedDevice,
  seedOrg,
  seedRunning,
  seedWatcher,
  startRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";
import { replyOf, seedTurn, seedWorker, startTurn } from "../../support/turns.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });
const retain = (days = 30) => retainOnce(database.db, { days, conversationDays: 365, log });

/** A day of UTC, as 2026-01-31. */
const dayAgo = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10);

async function partitions(db: Db): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'run_finished'::regclass order by 1
  `.execute(db);
  return rows.map((row) => row.name);
}

const nameOf = (daysBack: number) =>
  `run_finished_${new Date(Date.now() - daysBack * 86_400_000).toISOString().slice(0, 10).replaceAll("-", "")}`;

// A new database has no partitions but the defaults; the template of the tests has those of the
// coming days.
beforeEach(async () => {
  const { rows } = await sql<{ name: string }>`
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where c.relkind = 'r' and c.relname ~ '_[0-9]{8}$'
  `.execute(database.db);
  for (const { name } of rows) await sql`drop table ${sql.table(name)}`.execute(database.db);
  await passNever();
});

/** A new database, in which no replica has made a pass of retention. */
const passNever = () => sql`update clock set retained_at = null`.execute(database.db);

/** A partition of a past day. */
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
  const { run: newest } = await seedRunning(db);
  await storeOnce(db, [reportOf(newest)], policy);
  const { run: living } = await seedRunning(db);
  await retain();
  const left = await db
    .selectFrom("run_all" as never)
    .select("id" as never)
    .execute();
  expect(left.map((row) => (row as { id: string }).id).sort()).toEqual(
    [ids[2], newest.runId, living.runId].sort(),
  );
  const names = await partitions(db);
  for (const daysBack of [29, 0, -1, -2, -3].filter((day) => day !== 0))
    expect(names).toContain(nameOf(daysBack));
  for (const daysBack of [40, 31]) expect(names).not.toContain(nameOf(daysBack));
  // The windows are the watcher's results, and outlive their runs.
  expect(await db.selectFrom("window").select("run_id").execute()).toHaveLength(4);
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
  // The newest run never counts as old.
  expect((await retain()).deleted).toBe(0);
  expect(await inDefault()).toBe(1);
  const { run: newer } = await seedRunning(db);
  await storeOnce(db, [reportOf(newer)], policy);
  await sql`update event_row set at = now() - interval '31 days'`.execute(db);
  expect((await retain()).deleted).toBeGreaterThan(1);
  expect(await inDefault()).toBe(0);
});

test("two replicas that tend the partitions at once do it once", async () => {
  const { db } = database;
  await using first = await hold(db);
  expect((await tend(first.tx, 30))?.created).toHaveLength(16);
  await using second = await hold(db);
  expect(await tend(second.tx, 30)).toBeNull();
  await first.commit();
  await second.commit();
  await using third = await hold(db);
  expect(await tend(third.tx, 30)).toEqual({ created: [], dropped: [] });
});

test.skipIf(isClockFaked).each([
  ["another table", "select from turn_finished", "select from run_finished"],
  ["the default partition", "select from run_finished_default", "select from run_finished"],
])("tending gives way to a transaction that has read %s and then wants a table", async (_, first, then) => {
  const { db } = database;
  await using reader = await hold(db);
  await sql.raw(first).execute(reader.tx);
  const tended = retain();
  await untilBlocked(db);
  // Longer than deadlock_timeout: a pass that still waits has looked for a circle by now, and found
  // none.
  await sql`select pg_sleep(0.5)`.execute(db);
  await sql.raw(then).execute(reader.tx);
  await reader.commit();
  await tended;
  await retain();
  expect(await partitions(db)).toContain(nameOf(-3));
});

test("past days are closed for their counts, two in a pass; the ends of today cost nothing more", async () => {
  const { db } = database;
  const named = async () => {
    const { rows } = await sql<{ name: string }>`
      select relname as name from pg_class where relname ~ '^run_finished_[0-9]{8}_ends$' order by 1`.execute(
      db,
    );
    return rows.map(({ name }) => name);
  };
  for (const days of [1, 2, 3]) {
    const [first, next] = [dayAgo(days), dayAgo(days - 1)];
    await sql`create table ${sql.ref(`run_finished_${first.replaceAll("-", "")}`)} partition of run_finished
      for values from (${sql.lit(`${first} 00:00:00+00`)}) to (${sql.lit(`${next} 00:00:00+00`)})`.execute(
      db,
    );
  }
  await retain();
  expect(await named()).toHaveLength(2);
  await retain();
  await retain();
  expect(await named()).toHaveLength(3);
  const { rows } = await sql<{ name: string }>`
    select tgrelid::regclass::text as name from pg_trigger where tgname = 'counted' order by 1`.execute(db);
  const closed = [nameOf(3), nameOf(2), nameOf(1), "run_finished_default"];
  expect(rows.map(({ name }) => name)).toEqual(closed);
});

test("an org behind the fence of a move gets no sums, and the other orgs of the day get theirs", async () => {
  const { db } = database;
  await addPartition(db, 1);
  for (const org of ["leaving", "staying"]) {
    await seedOrg(db, org);
    await sql`insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, agent_kind,
        notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt,
        reason, past_attempts, finished_at)
      select ${org}, gen_random_uuid(), gen_random_uuid(), 1, 'a', 1, 'test', 'none', 'manual', now(), now(), now(), now(),
        1000, 1, 'completed', 1, '', '[]', ${`${dayAgo(1)} 12:00:00+00`}::timestamptz
      from generate_series(1, 1000)`.execute(db);
  }
  const asReplica = (fn: (tx: Db) => Promise<unknown>) =>
    transaction(db, async (tx) => {
      await sql`create policy leaving on run_finished as restrictive for all using (org_id <> 'leaving')`.execute(
        tx,
      );
      await sql`set local role pinion_scheduler`.execute(tx);
      await fn(tx);
      await sql`reset role`.execute(tx);
      await sql`drop policy leaving on run_finished`.execute(tx);
    });
  await transaction(db, (tx) => closePast(tx, { countedFrom: 2_000 }));
  await asReplica((tx) => addSums(tx, dayAgo(1), 1_000));
  const { rows } = await sql<{ orgId: string; runs: number }>`
    select org_id as "orgId", sum(runs)::int as runs from run_count_hour group by 1`.execute(db);
  expect(rows).toEqual([{ orgId: "staying", runs: 1_000 }]);
});

test("a day's partition is analyzed when its rows have doubled, not ten times as often", async () => {
  const { db } = database;
  const made = await db.transaction().execute((tx) => tend(tx, 30));
  const { rows } = await sql<{ name: string }>`
    select relname as name from pg_class where reloptions @> '{autovacuum_analyze_scale_factor=1}'`.execute(
    db,
  );
  expect(rows.map(({ name }) => name)).toEqual(expect.arrayContaining(made!.created));
  expect(made!.created).toContain(
    `run_finished_${new Date().toISOString().slice(0, 10).replaceAll("-", "")}`,
  );
});

test("a slot that was recorded for long ago is not forgotten: a repeated backfill does not run it again", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  const daysBack = 60 * 24;
  const span = { ...watcher, actor: "pinion", start: slot(daysBack), end: slot(daysBack - 1) };
  expect(await backfill(db, span)).toEqual({ slotsAccepted: 1, slotsPresent: 0 });
  await materializeBacklogOnce(db, { doorbell: noteDoorbell(), log });
  expect(await listRuns(db, watcher)).toMatchObject([{ scheduledFor: slot(daysBack) }]);
  await retain();
  expect(await backfill(db, span)).toEqual({ slotsAccepted: 0, slotsPresent: 1 });
});

test("slots go with the age of their record, and never while their run lives", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const [living, gone] = [
    await seedWatcher(db, device, { schedule }),
    await seedWatcher(db, device, { schedule }),
  ];
  // So old that the run ids are not derived from the slots; the column `slot` holds the slot.
  for (const watcher of [living, gone])
    await backfill(db, { ...watcher, actor: "pinion", start: slot(24 * 20), end: slot(24 * 20 - 1) });
  await materializeBacklogOnce(db, { doorbell: noteDoorbell(), log });
  expect(await listRuns(db, living!)).toMatchObject([{ status: "pending" }]);
  await db.deleteFrom("run").where("watcher_id", "=", gone.watcherId).execute();
  await sql`update slot set created_at = now() - interval '32 days'`.execute(db);
  await retain();
  const left = await db.selectFrom("slot").select("watcher_id").execute();
  expect(left).toEqual([{ watcher_id: living!.watcherId }]);
});

test("windows go with their age, but a watcher's last one stays", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run)], policy);
  const second = await startRun(db, { device, epoch, watcher });
  await storeOnce(db, [reportOf(second)], policy);
  await retain();
  expect(await listWindows(db, run)).toHaveLength(1);
  await sql`update run_finished set finished_at = now() - interval '32 days'`.execute(db);
  // The newest run never counts as old, whatever the clock shows.
  const { run: newest } = await seedRunning(db);
  await storeOnce(db, [reportOf(newest)], policy);
  await retain();
  expect(await listWindows(db, run)).toEqual([]);
  const [last] = await listWindows(db, second);
  expect(last!.id).toBe((await findWatcher(db, watcher)).last_window_id);

  // Windows of existing runs are listed before windows of deleted runs.
  const third = await startRun(db, { device, epoch, watcher });
  await storeOnce(db, [reportOf(third)], policy);
  const { orgId: org, watcherId } = watcher;
  const listed = async (filter: { limit?: number; beforeId?: string; runId?: string } = {}) =>
    (await windows.list(db, { orgId: org, watcherId, limit: 10, ...filter })).map(({ runId }) => runId);
  expect(await listed()).toEqual([third.runId, second.runId]);
  expect(await listed({ limit: 1 })).toEqual([third.runId]);
  expect(await listed({ beforeId: third.runId })).toEqual([second.runId]);
  expect(await listed({ runId: second.runId })).toEqual([second.runId]);
});

test("conversations in which nobody spoke for long are forgotten with their snapshots, and never while a turn lives", async () => {
  const { db } = database;
  const worker = await seedWorker(db);
  const talk = (person: string) => ({ conversationId: `pinion-default_${person}_${orgId}` });
  const [over, quiet] = [await seedTurn(db, worker, talk("over")), await seedTurn(db, worker, talk("quiet"))];
  const replies = [over, quiet].map((turn) => replyOf(turn, { nextSnapshot: Buffer.from("s") }));
  await transaction(db, (tx) => storeRepliesOnce(tx, replies));
  await startTurn(db, talk("waiting"));
  const people = async () => {
    const { rows } = await sql<{ id: string }>`select id from conversation order by id`.execute(db);
    return rows.map(({ id }) => id.split("_")[1]);
  };
  await sql`update conversation set last_turn_at = now() - interval '366 days' where id not like '%quiet%'`.execute(
    db,
  );
  await sql`update conversation set last_turn_at = now() - interval '364 days' where id like '%quiet%'`.execute(
    db,
  );
  await retain();
  expect(await people()).toEqual(["quiet", "waiting"]);
  // The conversation begins anew.
  await startTurn(db, talk("over"));
  expect(await people()).toEqual(["over", "quiet", "waiting"]);
});

test("a backlog of one table alone is deleted in batches, one after the other, without waiting for the next hour", async () => {
  const { db } = database;
  await seedDevice(db);
  await sql`insert into event_row (org_id, at, kind, actor)
    select ${orgId}, now() - interval '32 days', 'test.old', 'pinion' from generate_series(1, 12000)`.execute(
    db,
  );
  const begun = await retain();
  expect(begun).toMatchObject({ deleted: 5_000, isMore: true });
  const loop = startRetention({ db, days: 30, conversationDays: 365, log, begun });
  onTestFinished(() => loop.stop());
  await vi.waitFor(
    async () => {
      const old = await db.selectFrom("event").select("seq").where("kind", "=", "test.old").execute();
      expect(old).toHaveLength(0);
    },
    { timeout: 10_000 },
  );
});

test("of all replicas one makes the pass of an hour, also when they start again and again", async () => {
  const { db } = database;
  await seedDevice(db);
  const retainAtStart = () => retainIfDue(db, { days: 30, conversationDays: 365, log });
  const putBack = (by: string) => sql`update clock set retained_at = now() - ${by}::interval`.execute(db);
  expect(await retainAtStart()).toMatchObject({ isTended: true });
  expect(await retainAtStart()).toBeUndefined();
  await putBack("59 minutes");
  expect(await retainAtStart()).toBeUndefined();
  await putBack("60 minutes");
  expect(await retainAtStart()).toMatchObject({ isTended: true });
  // The clock was ahead as the last pass was made.
  await putBack("-2 hours");
  expect(await retainAtStart()).toMatchObject({ isTended: true });
});

test("the loop of a second replica leaves the hour's pass to the first", async () => {
  const { db } = database;
  await seedDevice(db);
  await retain();
  await sql`insert into event_row (org_id, at, kind, actor)
    values (${orgId}, now() - interval '32 days', 'test.old', 'pinion')`.execute(db);
  const left = () => db.selectFrom("event").select("seq").where("kind", "=", "test.old").execute();
  const run = async () => {
    const { promise: isAsked, resolve } = Promise.withResolvers<void>();
    const check = async () => {
      resolve();
      return { isInDoubt: false, settledForMs: Number.POSITIVE_INFINITY };
    };
    const loop = startRetention({ db, days: 30, conversationDays: 365, log, judge: { check } });
    await isAsked;
    await loop.stop();
  };
  await run();
  expect(await left()).toHaveLength(1);
  await passNever();
  await run();
  expect(await left()).toHaveLength(0);
});

test("the first pass of a replica's loop goes on with the pass of its start, and does not repeat it", async () => {
  const { db } = database;
  await seedDevice(db);
  const old = sql`insert into event_row (org_id, at, kind, actor)
    select ${orgId}, now() - interval '32 days', 'test.old', 'pinion' from generate_series(1, 5001)`;
  const left = () => db.selectFrom("event").select("seq").where("kind", "=", "test.old").execute();
  const loopAfter = (begun: Awaited<ReturnType<typeof retain>>) => {
    const { promise: isBegun, resolve } = Promise.withResolvers<void>();
    const check = async () => {
      resolve();
      return { isInDoubt: false, settledForMs: Number.POSITIVE_INFINITY };
    };
    const loop = startRetention({ db, days: 30, conversationDays: 365, log, judge: { check }, begun });
    onTestFinished(() => loop.stop());
    return { loop, isBegun };
  };
  const whole = await retain();
  expect(whole).toMatchObject({ isMore: false });
  await old.execute(db);
  const { loop, isBegun } = loopAfter(whole);
  await isBegun;
  await loop.stop();
  expect(await left()).toHaveLength(5_001);
  loopAfter(await retain());
  await vi.waitFor(async () => expect(await left()).toHaveLength(0));
});

test.skipIf(isClockFaked)(
  "tending gives way to whoever uses the runs: it is put off, and the rest of the pass is done",
  async () => {
    const { db } = database;
    await seedDevice(db);
    await sql`update event_row set at = now() - interval '32 days'`.execute(db);
    await using reading = await hold(db);
    await sql`select from run_finished`.execute(reading.tx);
    const startedAt = performance.now();
    expect(await retain()).toMatchObject({ isTended: false });
    expect(performance.now() - startedAt).toBeLessThan(20_000);
    expect(await db.selectFrom("event").select("seq").execute()).toEqual([]);
    expect(await partitions(db)).toEqual(["run_finished_default"]);
    await reading.commit();
    expect(await retain()).toMatchObject({ isTended: true });
    expect(await partitions(db)).toContain(nameOf(-1));
  },
);
