/** R2: every due slot becomes exactly one row, a run or a skipped run with its reason. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { materializeBacklogOnce, materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { slotsPerPassMax } from "../../../src/scheduler/slots/plan.ts";
import { backfill } from "../../../src/scheduler/starts/triggers.ts";
import type { Db } from "../../../src/store/pg/database.ts";
import { settle } from "../../../src/store/work/attempts/settlements.ts";
import type { WatcherName } from "../../../src/store/work/watchers/schedules.ts";
import { valuesOf, type WatcherValues } from "../../../src/store/work/watchers/watcher-values.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import * as usecases from "../../../src/usecases/watchers.ts";
import { newId } from "../../../src/values/ids.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import { findWatcher, hourly, listRuns, putSchedule, seedDevice, seedWatcher } from "../../support/rows.ts";
import { noteDoorbell, policy, surroundings } from "../../support/surroundings.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });
const pass = (db: Db = database.db, limit?: number) =>
  materializeOnce(db, { doorbell: noteDoorbell(), log, ...(limit ? { limit } : {}) });

async function seedDue(slotAt: Date, values: Partial<WatcherValues> = {}): Promise<WatcherName> {
  const watcher = await seedWatcher(database.db, await seedDevice(database.db), {
    schedule: hourly().schedule,
    ...values,
  });
  await putSchedule(database.db, watcher, slotAt);
  return watcher;
}

const rowsOf = async (watcher: WatcherName) =>
  (await listRuns(database.db, watcher))
    .sort((a, b) => a.scheduledFor!.getTime() - b.scheduledFor!.getTime())
    .map((run) => [run.scheduledFor, run.skipReason ?? run.status]);

test("R2: two replicas that materialize at once write one row per slot, and neither waits for the other", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const due: WatcherName[] = [];
  for (const org of ["one", "two"]) {
    const watcher = await seedWatcher(db, await seedDevice(db, { orgId: org }), { schedule });
    await putSchedule(db, watcher, slot(0));
    due.push(watcher);
  }
  await using replica = await hold(db);
  expect(await pass(replica.tx, 1)).toBe(1);
  // The other watcher's slot, while the first replica has not committed.
  expect(await pass()).toBe(1);
  expect(await pass()).toBe(0);
  await replica.commit();
  expect(await pass()).toBe(0);
  for (const watcher of due) expect(await rowsOf(watcher)).toEqual([[slot(0), "pending"]]);
});

test("R2: a slot that has a row already is left alone when a schedule comes upon it again", async () => {
  const { slot } = hourly();
  const { db } = database;
  const watcher = await seedDue(slot(0));
  await pass();
  const again = async () => {
    await putSchedule(db, watcher, slot(0));
    expect(await pass()).toBe(1);
    expect((await findWatcher(db, watcher)).next_slot_at).toEqual(slot(-1));
    return rowsOf(watcher);
  };
  // The slot's run is live, or has ended.
  expect(await again()).toEqual([[slot(0), "pending"]]);
  const [run] = await listRuns(db, watcher);
  await settle(
    db,
    [
      {
        ...{ orgId: watcher.orgId, workId: run!.id, attemptToken: null, deviceId: null },
        ...{ action: "finish", status: "cancelled", reason: "" },
      },
    ],
    policy,
  );
  expect(await again()).toEqual([[slot(0), "cancelled"]]);
  // The slot's run has an id not derived from the slot, like a backfilled run.
  await sql`delete from run_finished`.execute(db);
  const { orgId, watcherId } = watcher;
  await db
    .insertInto("slot")
    .values({ org_id: orgId, watcher_id: watcherId, scheduled_for: slot(0), run_id: newId() })
    .execute();
  expect(await again()).toEqual([]);
});

test("R2: an edit of the schedule while a slot is due records the slot first, under the old schedule", async () => {
  const { slot } = hourly();
  const watcher = await seedDue(slot(0), { prompt: "old" });
  const edited = await usecases.update(
    database.db,
    {
      orgId: watcher.orgId,
      watcher: watcher.watcherId,
      actor: "pinion",
      expectedVersion: 0,
      change: (current) => ({ ...valuesOf(current), schedule: "0 0 1 1 *", prompt: "new" }),
      isPinDecided: false,
    },
    surroundings,
  );
  expect(await rowsOf(watcher)).toEqual([[slot(0), "pending"]]);
  expect((await listRuns(database.db, watcher))[0]?.watcherVersion).toBe(1);
  expect(edited.next_slot_at!.getTime()).toBeGreaterThan(Date.now());
  expect(await pass()).toBe(0);
});

test("R2: an edit waits for a materializer that holds the watcher, and records nothing twice", async () => {
  const { db } = database;
  const { slot } = hourly();
  const watcher = await seedDue(slot(0));
  await using replica = await hold(db);
  await pass(replica.tx);
  const edit = usecases.update(
    db,
    {
      orgId: watcher.orgId,
      watcher: watcher.watcherId,
      actor: "pinion",
      expectedVersion: 0,
      change: (current) => ({ ...valuesOf(current), schedule: "0 0 1 1 *" }),
      isPinDecided: false,
    },
    surroundings,
  );
  await untilBlocked(db);
  await replica.commit();
  await edit;
  expect(await rowsOf(watcher)).toEqual([[slot(0), "pending"]]);
});

test("R2: pausing a watcher whose slot is due records the slot; resuming starts after now", async () => {
  const { db } = database;
  const { slot } = hourly();
  const watcher = await seedDue(slot(0));
  const named = { orgId: watcher.orgId, watcher: watcher.watcherId, actor: "pinion" };
  const paused = await usecases.pause(db, { ...named, reason: "holidays" }, surroundings);
  expect(paused).toMatchObject({ status: "paused", next_slot_at: null, next_due_at: null });
  expect(await rowsOf(watcher)).toEqual([[slot(0), "pending"]]);
  expect(await pass()).toBe(0);
  const resumed = await usecases.resume(db, named, surroundings);
  expect(resumed).toMatchObject({ status: "active", next_slot_at: slot(-1) });
  expect(await rowsOf(watcher)).toHaveLength(1);
});

test("R2: pausing a watcher that is far behind records all slots that are due, however many rounds it takes", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const watcher = await seedDue(slot(700), { schedule });
  const named = { orgId: watcher.orgId, watcher: watcher.watcherId, actor: "pinion" };
  await usecases.pause(db, { ...named, reason: "holidays" }, surroundings);
  expect(await rowsOf(watcher)).toHaveLength(701);
});

test("R2: slots that passed while nothing ran collapse into the latest, and each of the others is recorded as missed", async () => {
  const { slot } = hourly();
  const watcher = await seedDue(slot(3));
  await pass();
  expect(await rowsOf(watcher)).toEqual([
    [slot(3), "missed"],
    [slot(2), "missed"],
    [slot(1), "missed"],
    [slot(0), "pending"],
  ]);
  expect((await findWatcher(database.db, watcher)).next_slot_at).toEqual(slot(-1));
});

test("R2: a watcher that does not catch up records all slots of a downtime as missed", async () => {
  const { slot } = hourly();
  const watcher = await seedDue(slot(2), { catchup: "miss" });
  await pass();
  expect(await rowsOf(watcher)).toEqual([
    [slot(2), "missed"],
    [slot(1), "missed"],
    [slot(0), "missed"],
  ]);
});

test("R2: a downtime of more slots than one pass takes is recorded in several, without a gap or a repeat", async () => {
  const hours = slotsPerPassMax + 20;
  const { slot } = hourly();
  const watcher = await seedDue(slot(hours - 1));
  expect(await pass()).toBe(1);
  expect(await rowsOf(watcher)).toHaveLength(slotsPerPassMax);
  expect(await pass()).toBe(1);
  expect(await pass()).toBe(0);
  const rows = await rowsOf(watcher);
  expect(rows.map(([at]) => at)).toEqual(Array.from({ length: hours }, (_, i) => slot(hours - 1 - i)));
  expect(rows.filter(([, what]) => what === "pending")).toEqual([[slot(0), "pending"]]);
});

test("R2: a slot whose watcher has nobody to run it is skipped with no_executor", async () => {
  const { slot } = hourly();
  const orphan = await seedDue(slot(0));
  await database.db.updateTable("watcher").set({ status: "no_executor", device_id: null }).execute();
  const agentless = await seedDue(slot(0));
  await database.db
    .updateTable("watcher")
    .set({ agent_id: "gone" })
    .where("id", "=", agentless.watcherId)
    .execute();
  await pass();
  expect(await rowsOf(orphan)).toEqual([[slot(0), "no_executor"]]);
  expect(await rowsOf(agentless)).toEqual([[slot(0), "no_executor"]]);
});

test("R2: a backfill and the materializer never give one slot two rows", async () => {
  const { db } = database;
  const { slot } = hourly();
  const watcher = await seedDue(slot(1));
  await pass();
  const answer = await backfill(db, { ...watcher, actor: "pinion", start: slot(2), end: new Date() });
  // slot(1) and slot(0) have their rows.
  expect(answer).toEqual({ slotsAccepted: 1, slotsPresent: 2 });
  await db.deleteFrom("run").execute();
  await materializeBacklogOnce(db, { doorbell: noteDoorbell(), log });
  expect(await rowsOf(watcher)).toEqual([
    [slot(2), "pending"],
    [slot(1), "missed"],
  ]);
});

test("R2: two replicas that take the same waiting slot write it once", async () => {
  const { db } = database;
  const { slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule: hourly().schedule });
  await backfill(db, { ...watcher, actor: "pinion", start: slot(1), end: slot(0) });
  await using replica = await hold(db);
  expect(await materializeBacklogOnce(replica.tx, { doorbell: noteDoorbell(), log })).toBe(1);
  expect(await materializeBacklogOnce(db, { doorbell: noteDoorbell(), log })).toBe(0);
  await replica.commit();
  expect(await materializeBacklogOnce(db, { doorbell: noteDoorbell(), log })).toBe(0);
  expect(await rowsOf(watcher)).toEqual([[slot(1), "pending"]]);
});
