/**
 * The moves of schedules by what their slots say, against the moves by the rows that were written:
 * for random slots of random watchers both leave the same positions, runs and skipped runs.
 *
 * PINION_TEST_SEED=<seed> repeats a run of this test.
 */
import fc from "fast-check";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { type Db, undoOnFailure } from "../../src/store/pg/database.ts";
import { type ScheduleMove, toldMoves } from "../../src/store/work/watchers/schedule-moves.ts";
import type { WatcherName } from "../../src/store/work/watchers/schedules.ts";
import { record, type SlotRecord } from "../../src/store/work/watchers/slot-rows.ts";
import { slotRunId } from "../../src/values/ids.ts";
import { useDatabase } from "../support/database.ts";
import { isLong } from "../support/long.ts";
import { seedDevice, seedWatcher } from "../support/rows.ts";
import { checkFor } from "../support/timed-property.ts";

const database = useDatabase({ per: "file" });
const timeLimitMs = isLong ? 30_000 : 4_000;
const watchersMax = 6;

const hourMs = 3_600_000;
const start = Date.parse("2026-01-01T00:00:00Z");
const hour = (index: number) => new Date(start + index * hourMs);

/** The plan of one watcher: what becomes of each due slot, and where its schedule moves. */
const plan = fc.record({
  skipReasons: fc.array(fc.constantFrom("missed", "no_executor"), { maxLength: 4 }),
  hasRun: fc.boolean(),
  hasNext: fc.boolean(),
  lastRunAt: fc.option(fc.nat({ max: 3 })),
  position: fc.record({
    last_slot_at: fc.option(fc.constantFrom("2025-01-01T00:00:00Z", "2026-01-01T02:00:00Z")),
    last_run_at: fc.option(fc.constant("2025-06-01T00:00:00Z")),
    unrunnable_slots: fc.nat({ max: 5 }),
  }),
});
type Plan = typeof plan extends fc.Arbitrary<infer Value> ? Value : never;

class Undone extends Error {}

test("schedules are moved by what their slots say as by the rows that the slots became", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const watchers: WatcherName[] = [];
  for (let index = 0; index < watchersMax; index++) {
    watchers.push(await seedWatcher(db, device, { schedule: "0 * * * *" }));
  }
  await checkFor(
    { name: "schedule moves", limitMs: timeLimitMs },
    fc.array(plan, { minLength: 1, maxLength: watchersMax }),
    async (plans) => {
      const planned = plans.map((one, index) => plannedOf(watchers[index] as WatcherName, one));
      const [slots, moves] = [planned.flatMap((one) => one.slots), planned.map((one) => one.move)];
      expect(toldMoves(moves, slots)).toBeDefined();
      const asTold = await rowsAfter(db, watchers, plans, { slots, moves });
      const looked = slots.map((slot) => ({ ...slot, isNew: false }));
      expect(asTold).toEqual(await rowsAfter(db, watchers, plans, { slots: looked, moves }));
    },
  );
});

test("slots that do not follow the order of their moves are left to the rows", async () => {
  const [first, second] = ["a", "b"].map((watcherId) =>
    plannedOf({ orgId: "org", watcherId }, { skipReasons: ["missed"], hasRun: true, hasNext: true } as Plan),
  ) as [Planned, Planned];
  const moves = [first.move, second.move];
  expect(toldMoves(moves, [...first.slots, ...second.slots])).toHaveLength(2);
  expect(toldMoves(moves, [...second.slots, ...first.slots])).toBeUndefined();
  expect(toldMoves([first.move], [...first.slots, ...second.slots])).toBeUndefined();
  expect(toldMoves([first.move, first.move], first.slots)).toBeUndefined();
});

type Planned = { slots: SlotRecord[]; move: ScheduleMove };

function plannedOf({ orgId, watcherId }: WatcherName, one: Plan): Planned {
  const reasons = [...one.skipReasons, ...(one.hasRun ? [null] : [])];
  const slots = reasons.map((skipReason, index): SlotRecord => {
    const scheduledFor = hour(index);
    return {
      ...{ orgId, watcherId, runId: slotRunId({ orgId, watcherId, scheduledFor }), scheduledFor },
      ...{ source: "scheduled", isNew: true, dueAt: scheduledFor, windowStart: hour(index - 1) },
      ...{ windowEnd: scheduledFor, skipReason, reason: "", retryOf: null, isGated: false },
    };
  });
  const next = one.hasNext ? hour(reasons.length) : null;
  const lastRunAt = typeof one.lastRunAt === "number" ? hour(one.lastRunAt) : null;
  return { slots, move: { orgId, watcherId, nextSlotAt: next, nextDueAt: next, lastRunAt } };
}

/** What the statement leaves in a transaction that is rolled back. */
async function rowsAfter(
  db: Db,
  watchers: readonly WatcherName[],
  plans: readonly Plan[],
  { slots, moves }: { slots: readonly SlotRecord[]; moves: readonly ScheduleMove[] },
): Promise<unknown> {
  let found: unknown;
  await db
    .transaction()
    .execute(async (tx) => {
      for (const [index, { position }] of plans.entries()) {
        const { watcherId } = watchers[index] as WatcherName;
        await sql`update schedule_position set last_slot_at = ${position.last_slot_at}, last_run_at = ${position.last_run_at},
          unrunnable_slots = ${position.unrunnable_slots} where watcher_id = ${watcherId}`.execute(tx);
      }
      const written = await undoOnFailure(tx, () => record(tx, slots, moves));
      if ("error" in written) throw written.error;
      const rows = async (text: string) => (await sql.raw(text).execute(tx)).rows;
      found = {
        written: written.value.toSorted((a, b) => (a.runId < b.runId ? -1 : 1)),
        positions: await rows("select * from schedule_position order by watcher_id"),
        runs: await rows("select id, watcher_id, scheduled_for, due_at, status from run order by id"),
        skipped: await rows("select id, scheduled_for, skip_reason from run_finished order by id"),
      };
      throw new Undone();
    })
    .catch((error: unknown) => {
      if (!(error instanceof Undone)) throw error;
    });
  return found;
}
