/** A watcher's handling of slots that passed while no replica ran. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { slotsPerTransactionMax } from "../../../src/scheduler/slots/recording.ts";
import * as schedules from "../../../src/store/work/watchers/schedules.ts";
import type { WatcherValues } from "../../../src/store/work/watchers/watcher-values.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { hourly, listRuns, putSchedule, seedDevice, seedWatcher } from "../../support/rows.ts";
import { noteDoorbell } from "../../support/surroundings.ts";

const database = useDatabase();

async function after(slotAt: Date, values: Partial<WatcherValues>) {
  const { db } = database;
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule: hourly().schedule, ...values });
  await putSchedule(db, watcher, slotAt);
  await materializeOnce(db, {
    doorbell: noteDoorbell(),
    log: createLogger({ name: "test", level: "silent" }),
  });
  return listRuns(db, watcher);
}

test("a slot within the catch-up window is made up for, and its window ends at the slot", async () => {
  const { slot } = hourly();
  const runs = await after(slot(0), { catchupWindowMs: 3_600_000 });
  expect(runs).toMatchObject([
    { status: "pending", windowEnd: slot(0), windowStart: slot(1), dueAt: slot(0) },
  ]);
});

test("a slot that is later than the catch-up window is recorded as missed", async () => {
  const { slot } = hourly();
  const runs = await after(slot(0), { catchupWindowMs: 600_000 });
  expect(runs).toMatchObject([
    { status: "skipped", skipReason: "missed", reason: expect.stringMatching(/nobody was there.* s late/) },
  ]);
});

test("a watcher that does not catch up still runs a slot that is only seconds late", async () => {
  const justNow = new Date(Date.now() - 5_000);
  expect(await after(justNow, { catchup: "miss" })).toMatchObject([
    { status: "pending", scheduledFor: justNow },
  ]);
});

test("the materializer sleeps until the next slot, by the database's clock", async () => {
  const { db } = database;
  expect((await schedules.lookAhead(db, 0)).dueMs).toBeNull();
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  const next = await schedules.lookAhead(db, 0);
  expect(next.dueMs).toBe(slot(-1).getTime());
  expect(Math.abs(next.nowMs - Date.now())).toBeLessThan(30_000);
  await putSchedule(db, watcher, slot(0));
  expect((await schedules.lookAhead(db, 0)).dueMs).toBe(slot(0).getTime());
});

test("a long downtime of many watchers is made up for in short passes, and a slot that is due now does not wait for it", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { schedule, slot } = hourly();
  const hours = 600;
  for (let i = 0; i < 100; i++)
    await putSchedule(db, await seedWatcher(db, device, { schedule }), slot(hours - 1));
  const punctual = await seedWatcher(db, device, { schedule });
  await putSchedule(db, punctual, slot(0));
  const count = async () => (await sql`select from run_all`.execute(db)).rows.length;
  const pass = () =>
    materializeOnce(db, { doorbell: noteDoorbell(), log: createLogger({ name: "test", level: "silent" }) });
  expect(await pass()).toBe(101);
  const first = await count();
  expect(first).toBeGreaterThan(slotsPerTransactionMax / 2);
  expect(first).toBeLessThanOrEqual(slotsPerTransactionMax);
  expect(await listRuns(db, punctual)).toMatchObject([{ status: "pending", scheduledFor: slot(0) }]);
  expect(await pass()).toBe(100);
  expect(await count()).toBeLessThanOrEqual(2 * slotsPerTransactionMax);
});

test("what falls due after a herd is recorded beside the herd's oldest, each once", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { schedule, slot } = hourly();
  const herd = [];
  for (let i = 0; i < 6; i++) {
    const watcher = await seedWatcher(db, device, { schedule });
    await putSchedule(db, watcher, new Date(slot(0).getTime() + i));
    herd.push(watcher);
  }
  const late = await seedWatcher(db, device, { schedule });
  await putSchedule(db, late, new Date(slot(0).getTime() + 1_000));
  const options = { doorbell: noteDoorbell(), log: createLogger({ name: "test", level: "silent" }) };
  expect(await materializeOnce(db, { ...options, limit: 2, newest: 1 })).toBe(3);
  const recorded = async (watcher: schedules.WatcherName) => (await listRuns(db, watcher)).length;
  expect(await Promise.all(herd.map(recorded))).toEqual([1, 1, 0, 0, 0, 0]);
  expect(await recorded(late)).toBe(1);
  // Fewer are due than the two ends would take together.
  expect(await materializeOnce(db, { ...options, limit: 3, newest: 3 })).toBe(4);
  expect(await Promise.all(herd.map(recorded))).toEqual([1, 1, 1, 1, 1, 1]);
});

test("the window of a missed slot starts at the slot before it", async () => {
  const { slot } = hourly();
  const runs = await after(slot(2), {});
  const windows = runs.map((run) => [run.windowStart, run.windowEnd]);
  expect(windows).toHaveLength(3);
  for (const hours of [2, 1, 0]) expect(windows).toContainEqual([slot(hours + 1), slot(hours)]);
});
