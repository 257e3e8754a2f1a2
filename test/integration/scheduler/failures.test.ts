/** Failures in a row back a watcher off, and then pause the watcher. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { cancelRun } from "../../../src/scheduler/endings/cancels.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import * as devices from "../../../src/usecases/devices.ts";
import * as watchers from "../../../src/usecases/watchers.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
  findWatcher,
  hourly,
  listKinds,
  listRuns,
  openDevice,
  putSchedule,
  reportOf,
  seedDevice,
  seedWatcher,
  startRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce, surroundings } from "../../support/surroundings.ts";

const database = useDatabase();
const minute = 60_000;

/** A watcher on a device, and a function that ends its runs. */
async function begin() {
  const { db } = database;
  const { schedule } = hourly();
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device, { schedule });
  const end = async (status: "completed" | "failed" | "timeout", reason = "no") => {
    const run = await startRun(db, { device, epoch, watcher });
    return transaction(db, (tx) => storeOnce(tx, [reportOf(run, { status, reason })], policy));
  };
  return { db, device, epoch, watcher, end };
}

test("the third failure in a row backs a watcher off; slots until then are skipped, and the back-off doubles", async () => {
  const { db, watcher, end } = await begin();
  await end("failed");
  await end("timeout");
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 2, backoff_until: null });
  const backoffMs: number[] = [];
  for (const _ of [3, 4, 5]) {
    await end("failed");
    const { backoff_until } = await findWatcher(db, watcher);
    backoffMs.push(Math.round((backoff_until!.getTime() - Date.now()) / minute) * minute);
  }
  expect(backoffMs).toEqual([15 * minute, 30 * minute, 60 * minute]);
  const slot = new Date();
  await putSchedule(db, watcher, slot);
  await materializeOnce(db, {
    doorbell: noteDoorbell(),
    log: createLogger({ name: "test", level: "silent" }),
  });
  expect((await listRuns(db, watcher)).find((run) => run.scheduledFor)).toMatchObject({
    scheduledFor: slot,
    skipReason: "cooldown",
    reason: expect.stringContaining("backed off after failures until"),
  });
});

test("a success ends the back-off and the count; a cancelled run counts neither way", async () => {
  const { db, device, epoch, watcher, end } = await begin();
  for (const _ of [1, 2, 3]) await end("failed");
  const run = await startRun(db, { device, epoch, watcher });
  await cancelRun(db, run, { reason: "stop", policy, doorbell: noteDoorbell() });
  await storeOnce(db, [reportOf(run, { status: "cancelled" })], policy);
  expect((await findWatcher(db, watcher)).consecutive_failures).toBe(3);
  await end("completed");
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 0, backoff_until: null });
});

test("the tenth failure in a row pauses the watcher, says so in its reason and in an event, and resuming forgets them", async () => {
  const { db, watcher, end } = await begin();
  for (let i = 1; i < 10; i++) await end("failed");
  expect((await findWatcher(db, watcher)).status).toBe("active");
  const { settled } = await end("failed", "no such command");
  expect(settled).toMatchObject([{ isWatcherPaused: true, consecutiveFailures: 10 }]);
  expect(await findWatcher(db, watcher)).toMatchObject({
    status: "paused",
    paused_reason: "10 failures in a row; the last: no such command",
    next_slot_at: null,
    next_due_at: null,
  });
  expect((await listKinds(db, { watcherId: watcher.watcherId })).slice(-2)).toEqual([
    "run.failed",
    "watcher.paused",
  ]);
  // The failure of a manual run while the watcher is paused does not pause the watcher again.
  await end("failed");
  const kinds = await listKinds(db, { watcherId: watcher.watcherId });
  expect(kinds.filter((kind) => kind === "watcher.paused")).toHaveLength(1);
  const asked = { orgId: watcher.orgId, watcher: watcher.watcherId, actor: "pinion" };
  const resumed = await watchers.resume(db, asked, surroundings);
  expect(resumed).toMatchObject({
    status: "active",
    consecutive_failures: 0,
    next_slot_at: hourly().slot(-1),
  });
});

test("a slot that was due when the tenth failure paused its watcher is recorded as skipped", async () => {
  const { db, watcher, end } = await begin();
  const { slot } = hourly();
  for (let i = 1; i < 10; i++) await end("failed");
  await putSchedule(db, watcher, slot(0));
  await end("failed");
  expect(await findWatcher(db, watcher)).toMatchObject({ status: "paused", next_slot_at: slot(0) });
  await materializeOnce(db, {
    doorbell: noteDoorbell(),
    log: createLogger({ name: "test", level: "silent" }),
  });
  expect((await listRuns(db, watcher)).filter((run) => run.scheduledFor)).toMatchObject([
    { scheduledFor: slot(0), status: "skipped", skipReason: "cooldown" },
  ]);
  expect(await findWatcher(db, watcher)).toMatchObject({ next_slot_at: null, next_due_at: null });
});

test("a person who resumes a watcher while its tenth failure is stored has resumed it", async () => {
  const { db, device, epoch, watcher, end } = await begin();
  for (let i = 1; i < 10; i++) await end("failed");
  const run = await startRun(db, { device, epoch, watcher });
  await using person = await hold(db);
  const { orgId, watcherId } = watcher;
  await watchers.resume(person.tx, { orgId, watcher: watcherId, actor: "pinion" }, surroundings);
  const failing = transaction(db, (tx) =>
    storeOnce(tx, [reportOf(run, { status: "failed", reason: "no" })], policy),
  );
  await untilBlocked(db);
  await person.commit();
  expect((await failing).settled).toMatchObject([{ isWatcherPaused: false, consecutiveFailures: 1 }]);
  expect(await findWatcher(db, watcher)).toMatchObject({
    status: "active",
    consecutive_failures: 1,
    backoff_until: null,
  });
  expect(await listKinds(db, { watcherId })).not.toContain("watcher.paused");
});

test("a watcher that loses its device while the tenth failure of another one's run is stored says so, and is not paused", async () => {
  const { db, device, epoch, watcher, end } = await begin();
  for (let i = 1; i < 10; i++) await end("failed");
  const run = await startRun(db, { device, epoch, watcher });
  const { deviceId } = await seedDevice(db);
  await db.updateTable("watcher").set({ device_id: deviceId }).where("id", "=", watcher.watcherId).execute();
  await using person = await hold(db);
  await devices.remove(person.tx, { orgId: watcher.orgId, deviceId, actor: "pinion" }, surroundings);
  const failing = transaction(db, (tx) =>
    storeOnce(tx, [reportOf(run, { status: "failed", reason: "no" })], policy),
  );
  await untilBlocked(db);
  const orphaned = await person.tx
    .selectFrom("watcher")
    .select(["status", "paused_reason"])
    .where("id", "=", watcher.watcherId)
    .executeTakeFirstOrThrow();
  await person.commit();
  expect((await failing).settled).toMatchObject([{ isWatcherPaused: false }]);
  expect(orphaned.status).not.toBe("active");
  expect(await findWatcher(db, watcher)).toMatchObject({ ...orphaned, device_id: null });
});

test("batches that settle runs of the same watchers, in whatever order, wait for each other and both end", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const rows = [];
  for (let i = 0; i < 8; i++) {
    const watcher = await seedWatcher(db, device, { maxAttempts: 2 });
    rows.push({ watcher, run: await startRun(db, { device, epoch, watcher }) });
  }
  // Another transaction locks the watcher that is last in order: the settling transaction has
  // locked all the others by then.
  const last = rows.toSorted((a, b) => (a.watcher.watcherId < b.watcher.watcherId ? -1 : 1)).at(-1)!;
  await using person = await hold(db);
  await sql`select from watcher where id = ${last.watcher.watcherId} for update`.execute(person.tx);
  const reports = rows.map(({ run }) => reportOf(run));
  const both = [reports, reports.toReversed()].map((some) =>
    transaction(db, (tx) => storeOnce(tx, some, policy)),
  );
  await untilBlocked(db, 2);
  const free =
    await sql`select id from watcher where id = any(${rows.map(({ watcher }) => watcher.watcherId)}::uuid[])
    for update skip locked`.execute(person.tx);
  expect(free.rows).toEqual([{ id: last.watcher.watcherId }]);
  await person.commit();
  const verdicts = (await Promise.all(both)).map((stored) => stored.verdicts.map(({ verdict }) => verdict));
  expect(verdicts.map((some) => new Set(some).size)).toEqual([1, 1]);
  expect(verdicts.map((some) => some[0]!).toSorted()).toEqual(["already_stored", "stored"]);
});
