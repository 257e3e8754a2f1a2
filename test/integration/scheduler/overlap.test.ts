/**
 * The handling of a slot that falls due while a run is active, or too soon after a run.
 */
import { expect, test } from "vitest";
import { materializeBacklogOnce, materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { backfill, backfillSlotsMax } from "../../../src/scheduler/starts/triggers.ts";
import type { WatcherName } from "../../../src/store/work/watchers/schedules.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import {
  accept,
  claim,
  findWatcher,
  hourly,
  listRuns,
  openDevice,
  putSchedule,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();
const options = { doorbell: noteDoorbell(), log: createLogger({ name: "test", level: "silent" }) };
const pass = () => materializeOnce(database.db, options);
const takeWaiting = () => materializeBacklogOnce(database.db, options);
const rowsOf = async (watcher: WatcherName) =>
  (await listRuns(database.db, watcher)).map((run) => [run.scheduledFor, run.skipReason ?? run.status]);

test("a slot is skipped as overlap while another run of its watcher is active", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const { watcher } = await seedRunning(db, { schedule });
  await putSchedule(db, watcher, slot(0));
  await pass();
  expect(await rowsOf(watcher)).toEqual([
    [null, "running"],
    [slot(0), "overlap"],
  ]);
});

test("with queue_one the latest slot waits for the end of the active run, and the ones that it replaces are skipped", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const { device, epoch, watcher, run } = await seedRunning(db, { schedule, overlap: "queue_one" });
  for (const hoursBack of [2, 1, 0]) {
    await putSchedule(db, watcher, slot(hoursBack));
    // As if each slot had been read by a pass when due.
    await db.updateTable("watcher").set({ schedule: "0 0 1 1 *" }).execute();
    await pass();
  }
  expect(await findWatcher(db, watcher)).toMatchObject({ queued_slot_at: slot(0) });
  expect(await takeWaiting()).toBe(0);
  const { settled } = await storeOnce(db, [reportOf(run)], policy);
  expect(settled).toMatchObject([{ hasBacklog: true }]);
  expect(await takeWaiting()).toBe(1);
  expect(await takeWaiting()).toBe(0);
  expect((await rowsOf(watcher)).sort()).toEqual(
    [
      [null, "completed"],
      [slot(2), "overlap"],
      [slot(1), "overlap"],
      [slot(0), "pending"],
    ].sort(),
  );
  expect((await findWatcher(db, watcher)).queued_slot_at).toBeNull();
  const [queued] = await claim(db, device, epoch);
  expect(queued).toMatchObject({ scheduledFor: slot(0), windowEnd: slot(0) });
});

test("with queue_one one slot waits, also while older slots are being backfilled", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const { watcher } = await seedRunning(db, { schedule, overlap: "queue_one" });
  await backfill(db, { ...watcher, actor: "pinion", start: slot(9), end: slot(7) });
  for (const hoursBack of [1, 0]) {
    await putSchedule(db, watcher, slot(hoursBack));
    await db.updateTable("watcher").set({ schedule: "0 0 1 1 *" }).execute();
    await pass();
  }
  expect(await rowsOf(watcher)).toEqual([
    [null, "running"],
    [slot(1), "overlap"],
  ]);
  expect(await findWatcher(db, watcher)).toMatchObject({ queued_slot_at: slot(0) });
});

test("no run starts sooner than the cooldown after the last one; its slot is skipped with that reason", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const { watcher, run } = await seedRunning(db, { schedule, minCooldownMs: 3_600_000 });
  await storeOnce(db, [reportOf(run)], policy);
  await putSchedule(db, watcher, slot(0));
  await pass();
  expect(await rowsOf(watcher)).toEqual([
    [null, "completed"],
    [slot(0), "cooldown"],
  ]);
  await db
    .updateTable("schedule_position")
    .set({ last_run_at: new Date(slot(0).getTime() - 3_600_000) })
    .execute();
  await db.deleteFrom("run_finished").where("status", "=", "skipped").execute();
  await putSchedule(db, watcher, slot(0));
  await pass();
  expect((await rowsOf(watcher)).at(-1)).toEqual([slot(0), "pending"]);
});

test("backfilled slots run one after the other, oldest first, with the windows between them", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device, { schedule });
  const before = await findWatcher(db, watcher);
  const answer = await backfill(db, { ...watcher, actor: "pinion", start: slot(3), end: slot(0) });
  expect(answer).toEqual({ slotsAccepted: 3, slotsPresent: 0 });
  for (const hoursBack of [3, 2, 1]) {
    expect(await takeWaiting()).toBe(1);
    expect(await takeWaiting()).toBe(0);
    const [run] = await claim(db, device, epoch);
    expect(run).toMatchObject({
      source: "backfill",
      scheduledFor: slot(hoursBack),
      windowStart: slot(hoursBack + 1),
      windowEnd: slot(hoursBack),
    });
    await accept(db, run!);
    await storeOnce(db, [reportOf(run!)], policy);
  }
  expect(await takeWaiting()).toBe(0);
  expect((await findWatcher(db, watcher)).next_slot_at).toEqual(before.next_slot_at);
  expect(await backfill(db, { ...watcher, actor: "pinion", start: slot(3), end: slot(0) })).toEqual({
    slotsAccepted: 0,
    slotsPresent: 3,
  });
});

test("a backfill of an empty, future or too long span is refused with its field", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const watcher = await seedWatcher(db, device, { schedule });
  const ask = (start: Date, end: Date) => backfill(db, { ...watcher, actor: "pinion", start, end });
  const invalid = { reason: "invalid_argument", field: "end" };
  await expect(ask(slot(0), slot(0))).rejects.toMatchObject(invalid);
  await expect(ask(slot(1), slot(-2))).rejects.toMatchObject(invalid);
  await expect(ask(slot(backfillSlotsMax + 1), slot(0))).rejects.toMatchObject(invalid);
  expect(await ask(slot(backfillSlotsMax), slot(0))).toMatchObject({ slotsAccepted: backfillSlotsMax });
  const manual = await seedWatcher(db, device);
  await expect(
    backfill(db, { ...manual, actor: "pinion", start: slot(1), end: slot(0) }),
  ).rejects.toMatchObject({ reason: "failed_precondition" });
});
