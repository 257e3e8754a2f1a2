/**
 * Counts of ended runs from the sums of past days against a count of the rows: for random histories
 * with late results, restorations, moved schedules, closed and dropped days both are the same at
 * every step.
 *
 * PINION_TEST_SEED=<seed> repeats a run of this test.
 */
import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { storeLate } from "../../src/scheduler/endings/run-endings.ts";
import { transaction } from "../../src/store/pg/database.ts";
import { isPassing, isUnavailable } from "../../src/store/pg/failures.ts";
import { restore } from "../../src/store/work/runs/restorations.ts";
import { type RunCounts, type RunCountsOf, summarize } from "../../src/store/work/runs/run-counts.ts";
import { closePast, countOpenDay, tend } from "../../src/store/work/service/partitions.ts";
import { addUpChanges } from "../../src/store/work/service/past-days.ts";
import { moveBack } from "../../src/store/work/watchers/positions.ts";
import { newId } from "../../src/values/ids.ts";
import { useDatabase } from "../support/database.ts";
import { isLong } from "../support/long.ts";
import { type DeviceName, orgId, reportOf, seedDevice, seedWatcher } from "../support/rows.ts";
import { policy } from "../support/surroundings.ts";
import { checkFor } from "../support/timed-property.ts";

const database = useDatabase({ per: "file" });
const timeLimitMs = isLong ? 60_000 : 6_000;
const pastDays = 4;
const minuteMs = 60_000;
const dayMs = 86_400_000;

/** Milliseconds before now; often on a minute, an hour or a day. */
const ago = fc
  .tuple(
    fc.noBias(fc.nat({ max: (pastDays + 1) * dayMs })),
    fc.constantFrom(1, minuteMs, 60 * minuteMs, dayMs),
  )
  .map(([ms, unit]) => ({ ms, unit }));
type Ago = { ms: number; unit: number };
/** The moment, rounded down to its unit. */
const momentOf = ({ ms, unit }: Ago) => Math.floor((Date.now() - ms) / unit) * unit;

const end = fc.record({
  kind: fc.constant("end" as const),
  at: ago,
  status: fc.constantFrom("completed", "failed", "timeout", "timeout", "cancelled", "skipped", "skipped"),
  device: fc.option(fc.nat({ max: 2 })),
  durationMs: fc.option(fc.nat({ max: 10_000 })),
});
const of = fc.nat({ max: 30 });
const step = fc.oneof(
  { weight: 8, arbitrary: end },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("late" as const), of }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("restore" as const), of }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restoreUnknown" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("moveBack" as const), at: ago }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("shift" as const), of, at: ago }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("leave" as const), of }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("close" as const), countedFrom: fc.constantFrom(1, 3) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("count" as const),
      endsMin: fc.constantFrom(1, 3),
      endsMax: fc.constantFrom(1, 2, 100),
      countedFrom: fc.constantFrom(1, 3),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("addUp" as const), moreThan: fc.nat({ max: 2 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("drop" as const), days: fc.nat({ max: pastDays }) }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer One> ? One : never;
const question = fc.record({
  start: ago,
  end: ago,
  spanMs: fc.oneof(
    fc.constantFrom(minuteMs, 7 * minuteMs, 60 * minuteMs, 6 * 60 * minuteMs, dayMs, 31 * dayMs),
    fc.integer({ min: minuteMs, max: 2 * dayMs }),
  ),
});
type Question = typeof question extends fc.Arbitrary<infer One> ? One : never;

type Work = { watcherId: string; devices: DeviceName[]; runs: Run[] };
type Run = { id: string; status: string; device: DeviceName | undefined; token: string; slotAt: Date };

/** As ended runs are stored; the end of a run that was skipped is recorded with its slot. */
async function addEnd(work: Work, { at, status, device, durationMs }: Step & { kind: "end" }): Promise<void> {
  const endedAt = new Date(momentOf(at));
  const of = device === null ? undefined : work.devices[device];
  const [id, token] = [newId(endedAt.getTime()), randomUUID()];
  await sql`
    insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, scheduled_for, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status,
      attempt, attempt_token, reason, past_attempts, skip_reason, duration_ms, finished_at)
    values (${orgId}, ${id}, ${work.watcherId}, 1, 'a', 1, ${of?.deviceId ?? null}, 'test', 'none', 'scheduled', ${endedAt},
      ${endedAt}::timestamptz - interval '1 hour', ${endedAt}, ${endedAt}, ${endedAt}, 1000, 1, ${status}, 1, ${status === "skipped" ? null : token}, '', '[]',
      ${status === "skipped" ? "missed" : null}, ${durationMs}, ${endedAt})`.execute(database.db);
  await sql`insert into slot (org_id, watcher_id, scheduled_for, run_id)
    values (${orgId}, ${work.watcherId}, ${endedAt}, ${id}) on conflict do nothing`.execute(database.db);
  work.runs.push({ id, status, device: of, token, slotAt: endedAt });
}

/** What a device brings back of a run that the database has forgotten, or has skipped. */
const forgottenOf = (work: Work, of: { slotAt: Date | null }) => ({
  ...{ orgId, deviceId: work.devices[0]!.deviceId, watcherId: work.watcherId, runId: newId() },
  ...{ attemptToken: randomUUID(), attempt: 1, windowStart: new Date(0), windowEnd: new Date() },
  ...{ source: of.slotAt ? ("scheduled" as const) : ("manual" as const), scheduledFor: of.slotAt },
});

/**
 * PostgreSQL's own analysis may have a day's table for longer than the lock is waited for: the next
 * pass has it.
 */
async function untilFree(pass: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await pass();
      return;
    } catch (error) {
      if (!isPassing(error) || isUnavailable(error)) throw error;
    }
  }
}

async function take(work: Work, one: Step): Promise<void> {
  const { db } = database;
  const run = "of" in one ? work.runs[one.of % Math.max(1, work.runs.length)] : undefined;
  switch (one.kind) {
    case "end":
      return addEnd(work, one);
    case "late": {
      if (!run?.device) return;
      const { deviceId } = run.device;
      const report = reportOf(
        { orgId, deviceId, runId: run.id, attemptToken: run.token },
        { durationMs: 777 },
      );
      await transaction(db, (tx) => storeLate(tx, [report], policy));
      return;
    }
    case "restore":
      if (run) await transaction(db, (tx) => restore(tx, forgottenOf(work, run)));
      return;
    case "restoreUnknown":
      await transaction(db, (tx) => restore(tx, forgottenOf(work, { slotAt: null })));
      return;
    case "moveBack": {
      const nextSlotAt = new Date(momentOf(one.at));
      const { watcherId } = work;
      await transaction(db, (tx) => moveBack(tx, { orgId, watcherId, nextSlotAt, nextDueAt: nextSlotAt }));
      return;
    }
    case "shift":
      if (run)
        await sql`update run_finished set finished_at = ${new Date(momentOf(one.at))} where id = ${run.id}`.execute(
          db,
        );
      return;
    case "leave":
      if (run) await sql`update run_finished set device_id = null where id = ${run.id}`.execute(db);
      return;
    case "close":
      await untilFree(() => transaction(db, (tx) => closePast(tx, one)));
      return;
    case "count":
      await untilFree(() => countOpenDay(db, { ...one, lagMs: 0 }));
      return;
    case "addUp":
      return addUpChanges(db, one);
    case "drop":
      await untilFree(() => tend(db, one.days));
      return;
  }
}

/** The same from the rows, one by one. */
async function countRows(asked: RunCountsOf): Promise<RunCounts> {
  const { rows } = await sql<{ status: string; deviceId: string | null; durationMs: number; endedAt: Date }>`
    select status, device_id as "deviceId", coalesce(duration_ms, 0)::int as "durationMs", finished_at as "endedAt"
    from run_finished where org_id = ${orgId} and finished_at >= ${asked.start} and finished_at < ${asked.end}`.execute(
    database.db,
  );
  const startOf = (at: Date) =>
    asked.start.getTime() + Math.floor((at.getTime() - asked.start.getTime()) / asked.spanMs) * asked.spanMs;
  const spans = Map.groupBy(
    rows,
    ({ status, endedAt }) => `${new Date(startOf(endedAt)).toISOString()} ${status}`,
  );
  const ran = rows.filter(({ status, deviceId }) => status !== "skipped" && deviceId !== null);
  const devices = Map.groupBy(ran, ({ deviceId }) => deviceId!);
  return {
    spans: [...spans].sort().map(([name, of]) => ({
      ...{ start: new Date(name.split(" ")[0]!), status: name.split(" ")[1]!, runs: of.length },
    })),
    busiest: [...devices]
      .map(([deviceId, of]) => ({
        ...{ deviceId, runs: of.length, busyMs: of.reduce((sum, { durationMs }) => sum + durationMs, 0) },
      }))
      .sort((a, b) => b.runs - a.runs || (a.deviceId < b.deviceId ? -1 : 1)),
  };
}

function askedOf({ start, end, spanMs }: Question): RunCountsOf {
  const [one, other] = [momentOf(start), momentOf(end)];
  return { orgId, spanMs, start: new Date(Math.min(one, other)), end: new Date(Math.max(one, other) + 1) };
}

/** No ended runs and no sums, and a partition for today and each past day. */
async function beginAnew(): Promise<void> {
  const { db } = database;
  await sql`delete from run_count`.execute(db);
  await sql`delete from slot`.execute(db);
  await sql`delete from run_finished`.execute(db);
  for (let back = 0; back <= pastDays; back++) {
    const day = (more: number) => new Date(Date.now() - (back - more) * dayMs).toISOString().slice(0, 10);
    const name = `run_finished_${day(0).replaceAll("-", "")}`;
    await sql`drop table if exists ${sql.table(name)}`.execute(db);
    await sql`create table ${sql.table(name)} partition of run_finished
      for values from (${sql.lit(`${day(0)} 00:00:00+00`)}) to (${sql.lit(`${day(1)} 00:00:00+00`)})`.execute(
      db,
    );
  }
}

/** A history with sums, however few others there is time for. */
const today: Ago = { ms: 0, unit: minuteMs };
const ofTwoDays: Question = { start: { ms: 2 * dayMs, unit: 1 }, end: today, spanMs: dayMs };
const closed: [Step, Question][] = [
  [{ kind: "end", at: { ms: dayMs, unit: 1 }, status: "completed", device: 0, durationMs: 5 }, ofTwoDays],
  [{ kind: "close", countedFrom: 1 }, ofTwoDays],
];

test("counts from the sums of past days are the counts of the rows, whatever happened and whenever it is asked", async () => {
  const { db } = database;
  const devices: DeviceName[] = [];
  for (let nth = 0; nth < 3; nth++) devices.push(await seedDevice(db));
  const { watcherId } = await seedWatcher(db, devices[0]!, { schedule: "0 * * * *" });
  let fromSums = 0;
  const history = fc.array(fc.tuple(step, question), { minLength: 5, maxLength: 40 });
  await checkFor({ name: "run-counts", limitMs: timeLimitMs, examples: [closed] }, history, async (steps) => {
    await beginAnew();
    const work: Work = { watcherId, devices, runs: [] };
    for (const [one, asked] of steps) {
      await take(work, one);
      const of = askedOf(asked);
      expect(await summarize(db, of)).toEqual(await countRows(of));
    }
    const { rows } = await sql<{
      hours: number;
    }>`select count(*)::int as hours from run_count_hour`.execute(db);
    fromSums += rows[0]!.hours;
  });
  expect(fromSums).toBeGreaterThan(0);
});
