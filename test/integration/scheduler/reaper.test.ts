/**
 * Liveness and reaping: the rules by which an attempt is lost, and the result for its
 * run.
 */
import { expect, onTestFinished, test, vi } from "vitest";
import { cancelRun } from "../../../src/scheduler/endings/cancels.ts";
import { reapOnce, startReaper } from "../../../src/scheduler/endings/reaper.ts";
import { settleWithEvents } from "../../../src/scheduler/endings/run-endings.ts";
import { type Db, openDatabase, transaction } from "../../../src/store/pg/database.ts";
import * as attempts from "../../../src/store/work/attempts/attempts.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
  agePresence,
  ageRun,
  claim,
  type DeviceName,
  findRun,
  listKinds,
  openDevice,
  reapRules,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  sessionOf,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();
const reap = (db: Db = database.db) => reapOnce(db, { rules: reapRules, policy });
const minute = 60_000;

/** Breaks the device's stream, `ms` ago, without any later message. */
async function breakStream(device: DeviceName, epoch: number, ms: number): Promise<void> {
  await presence.close(database.db, [sessionOf(device, epoch)]);
  await agePresence(database.db, device, { connected_at: ms, disconnected_at: ms, last_beat_at: ms });
}

test("a run whose device's stream broke is left alone within the TTL, and reaped after it", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db);
  await breakStream(device, epoch, 50_000);
  await ageRun(db, run, { claimed_at: 50_000, last_beat_at: 50_000 });
  expect(await reap()).toEqual([]);
  await breakStream(device, epoch, 61_000);
  await ageRun(db, run, { claimed_at: 61_000, last_beat_at: 61_000 });
  expect(await reap()).toMatchObject([{ runId: run.runId, action: "finished", status: "timeout" }]);
  const ended = await findRun(db, run);
  expect(ended.reason).toBe("device lost: its stream broke and it was not heard of for 61 s");
  expect(ended.lastBeatAt).toBeInstanceOf(Date);
  const [event] = await db.selectFrom("event").selectAll().where("kind", "=", "run.timeout").execute();
  expect(event).toMatchObject({ run_id: run.runId, data: { rule: "stream_broken" } });
});

test("the runs of a replica that died are reaped after the TTL, and not before", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db);
  await agePresence(db, device, { connected_at: 70_000, last_beat_at: 70_000 });
  await ageRun(db, run, { claimed_at: 70_000, last_beat_at: 70_000 });
  expect(await reap()).toEqual([]);
  await db
    .updateTable("replica")
    .set({ last_beat_at: new Date(Date.now() - 61_000) })
    .execute();
  expect(await reap()).toMatchObject([{ runId: run.runId }]);
});

test("an attempt whose beats stopped for three minutes is reaped, though its device lives", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db);
  await ageRun(db, run, { claimed_at: 10 * minute, last_beat_at: 179_000 });
  await presence.beat(db, [sessionOf(device, epoch)]);
  expect(await reap()).toEqual([]);
  await ageRun(db, run, { last_beat_at: 181_000 });
  expect(await reap()).toMatchObject([{ runId: run.runId, reason: expect.stringContaining("no heartbeat") }]);
});

test("an attempt that never beat is reaped two hours after its claim, and not before", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db, { timeoutMs: 86_400_000 });
  // The device is connected, and has not listed its attempts yet.
  await agePresence(db, device, { connected_at: 121 * minute, last_beat_at: 121 * minute });
  await ageRun(db, run, { claimed_at: 119 * minute, started_at: 119 * minute, last_beat_at: null });
  expect(await reap()).toEqual([]);
  await ageRun(db, run, { claimed_at: 121 * minute, started_at: 121 * minute });
  expect(await reap()).toMatchObject([{ runId: run.runId, reason: expect.stringContaining("never beat") }]);
});

test("a run whose device is online is lost once two beats of the device have not listed it, whether or not it ever beat", async () => {
  const { db } = database;
  for (const lastBeatMs of [null, 65_000]) {
    const { device, epoch, run } = await seedRunning(db, { timeoutMs: 86_400_000 });
    const heardMs = lastBeatMs ?? 65_000;
    await ageRun(db, run, { claimed_at: heardMs, started_at: heardMs, last_beat_at: lastBeatMs });
    // One beat since, 30 s later: the interval of a large fleet.
    await agePresence(db, device, { connected_at: 5 * minute, last_beat_at: heardMs - 30_000 });
    expect(await reap()).toEqual([]);
    await presence.beat(db, [sessionOf(device, epoch)]);
    expect(await reap()).toMatchObject([
      { runId: run.runId, rule: "not_listed", reason: expect.stringContaining("did not list it") },
    ]);
  }
  // Listed attempts are held, however old; attempts not heard of since the device left fall under
  // its TTL.
  const listed = await seedRunning(db, { timeoutMs: 86_400_000 });
  await ageRun(db, listed.run, { claimed_at: 30 * minute, started_at: 30 * minute });
  await attempts.beat(db, [listed.run]);
  await presence.beat(db, [sessionOf(listed.device, listed.epoch)]);
  expect(await reap()).toEqual([]);
});

test("a run that beats is never reaped for its age, only for its own timeout", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { timeoutMs: 30 * 60 * minute });
  await ageRun(db, run, { claimed_at: 29 * 60 * minute, started_at: 29 * 60 * minute });
  await presence.beat(db, [sessionOf(device, epoch)]);
  await attempts.beat(db, [run]);
  expect(await reap()).toEqual([]);
  await ageRun(db, run, { claimed_at: 31 * 60 * minute, started_at: 31 * 60 * minute });
  expect(await reap()).toMatchObject([{ runId: run.runId, reason: expect.stringContaining("its timeout") }]);
});

test("a run that was claimed but never accepted goes back to pending when its device is lost, at no attempt's cost", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device));
  const [run] = await claim(db, device, epoch);
  await breakStream(device, epoch, 61_000);
  await ageRun(db, run!, { claimed_at: 61_000 });
  expect(await reap()).toMatchObject([{ runId: run!.runId, action: "withdrawn", status: "pending" }]);
  expect(await findRun(db, run!)).toMatchObject({ status: "pending", attempt: 0 });
  expect(await listKinds(db, run!)).toEqual(["run.created", "run.withdrawn"]);
});

test("a claim that was lost on the way to its session goes back to pending, though the device lives", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device));
  const [run] = await claim(db, device, epoch);
  await presence.beat(db, [sessionOf(device, epoch)]);
  await ageRun(db, run!, { claimed_at: 179_000 });
  expect(await reap()).toEqual([]);
  await ageRun(db, run!, { claimed_at: 181_000 });
  expect(await reap()).toMatchObject([{ runId: run!.runId, action: "withdrawn", status: "pending" }]);
});

test("a lost attempt is followed by another while attempts are left, and then by the end", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { maxAttempts: 2 });
  await ageRun(db, run, { last_beat_at: 181_000 });
  expect(await reap()).toMatchObject([{ action: "retried", status: "pending" }]);
  expect(await findRun(db, run)).toMatchObject({
    status: "pending",
    notBefore: expect.any(Date),
    pastAttempts: [{ attempt: 1, is_reported: false, reason: expect.stringContaining("no heartbeat") }],
  });
  await ageRun(db, run, { not_before: 0 });
  const [second] = await claim(db, device, epoch);
  await ageRun(db, second!, { last_beat_at: 181_000 });
  expect(await reap()).toMatchObject([{ action: "finished", status: "timeout", attempt: 2 }]);
  expect(await listKinds(db, run)).toEqual(["run.created", "run.retried", "run.timeout"]);
});

test("two reapers at once reap each attempt once", async () => {
  const { db } = database;
  const seeded = [(await seedRunning(db)).run, (await seedRunning(db)).run];
  for (const run of seeded) await ageRun(db, run, { last_beat_at: 181_000 });
  await using first = await hold(db);
  expect(await reapOnce(first.tx, { rules: reapRules, policy, limit: 1 })).toHaveLength(1);
  await first.sent();
  // The first transaction locks the org's log until its commit; the row that it locks is skipped.
  const second = reap();
  await untilBlocked(db);
  await first.commit();
  expect(await second).toHaveLength(1);
  expect(await reap()).toEqual([]);
  for (const run of seeded) expect(await listKinds(db, run)).toEqual(["run.created", "run.timeout"]);
});

test("a beat that is written while a reaper looks saves the attempt", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await ageRun(db, run, { last_beat_at: 181_000 });
  await using beating = await hold(db);
  await attempts.beat(beating.tx, [run]);
  expect(await reap()).toEqual([]);
  await beating.commit();
  expect(await reap()).toEqual([]);
  expect((await findRun(db, run)).status).toBe("running");
});

test("an attempt whose end was asked for ends cancelled when its device does not answer within the TTL", async () => {
  const { db } = database;
  const { run } = await seedRunning(db, { maxAttempts: 3 });
  const doorbell = noteDoorbell();
  expect(await cancelRun(db, run, { reason: "a person asked", policy, doorbell })).toBe(true);
  expect(doorbell.noted.cancelling).toMatchObject([{ workId: run.runId, attemptToken: run.attemptToken }]);
  expect(await reap()).toEqual([]);
  await ageRun(db, run, { cancel_requested_at: 61_000 });
  expect(await reap()).toMatchObject([{ action: "finished", status: "cancelled" }]);
  expect((await findRun(db, run)).reason).toBe("a person asked; its device did not answer");
});

test("a run whose end was asked for is cancelled, not started again, when its attempt is lost or withdrawn", async () => {
  const { db } = database;
  const lost = await seedRunning(db, { maxAttempts: 3 });
  await cancelRun(db, lost.run, { reason: "stop", policy, doorbell: noteDoorbell() });
  await breakStream(lost.device, lost.epoch, 61_000);
  await ageRun(db, lost.run, { claimed_at: 61_000, cancel_requested_at: 1_000 });
  expect(await reap()).toMatchObject([{ runId: lost.run.runId, action: "finished", status: "cancelled" }]);

  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device));
  const [claimed] = await claim(db, device, epoch);
  await cancelRun(db, claimed!, { reason: "stop", policy, doorbell: noteDoorbell() });
  const settled = await transaction(db, (tx) =>
    settleWithEvents(
      tx,
      [{ ...claimed!, deviceId: null, action: "withdraw", status: "timeout", reason: "busy" }],
      policy,
    ),
  );
  expect(settled).toMatchObject([{ action: "finished", status: "cancelled" }]);
  expect(await claim(db, device, epoch)).toEqual([]);
});

test("a run that waits is cancelled at once, and a device's report after a cancellation is what counts", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await cancelRun(db, run, { reason: "stop", policy, doorbell: noteDoorbell() });
  const { verdicts } = await transaction(db, (tx) => storeOnce(tx, [reportOf(run)], policy));
  expect(verdicts).toMatchObject([{ verdict: "stored" }]);
  expect((await findRun(db, run)).status).toBe("completed");
  const waiting = await triggerRun(db, watcher);
  const named = { orgId: run.orgId, runId: waiting.id };
  await cancelRun(db, named, { reason: "stop", policy, doorbell: noteDoorbell() });
  expect(await findRun(db, named)).toMatchObject({ status: "cancelled", reason: "stop" });
  expect(await claim(db, device, epoch)).toEqual([]);
  expect(await cancelRun(db, named, { reason: "again", policy, doorbell: noteDoorbell() })).toBe(false);
});

test("a claim and a cancellation at once end in a cancelled run or an asked device, and never in neither", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const run = await triggerRun(db, await seedWatcher(db, device));
  const doorbell = noteDoorbell();
  await using claiming = await hold(db);
  const [claimed] = await claim(claiming.tx, device, epoch);
  const cancelled = cancelRun(db, { orgId: device.orgId, runId: run.id }, { reason: "x", policy, doorbell });
  await untilBlocked(db);
  await claiming.commit();
  expect(await cancelled).toBe(true);
  expect(doorbell.noted.cancelling).toMatchObject([{ attemptToken: claimed!.attemptToken }]);
});

/**
 * A reaper with a small TTL; records the times of reaping, and of failed passes while the database
 * was away, in ms from the start.
 */
function watchReaper(db: Db, ttlMs: number) {
  const startedAt = performance.now();
  const reapedAt: number[] = [];
  const awayAt: number[] = [];
  const reaper = startReaper({
    db,
    policy,
    rules: { ...reapRules, ttlMs },
    intervalMs: 10,
    doorbell: noteDoorbell(),
    log: createLogger({
      name: "test",
      level: "warn",
      destination: {
        write: (line: string) => {
          if (line.includes("the database is away")) awayAt.push(performance.now() - startedAt);
        },
      },
    }),
    onReaped: (settled) => {
      if (settled.length > 0) reapedAt.push(performance.now() - startedAt);
    },
  });
  onTestFinished(() => reaper.stop());
  return { reapedAt, awayAt, elapsed: () => performance.now() - startedAt };
}

test("nothing is reaped for one TTL after a replica starts", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db);
  await breakStream(device, epoch, 10 * minute);
  await ageRun(db, run, { claimed_at: 10 * minute, last_beat_at: 10 * minute });
  const { reapedAt } = watchReaper(db, 400);
  await vi.waitFor(() => expect(reapedAt).toHaveLength(1), 5_000);
  expect(reapedAt[0]).toBeGreaterThanOrEqual(399);
});

test("nothing is reaped for one TTL after the database was away", async () => {
  const { db } = database;
  const seedLost = async () => {
    const { device, epoch, run } = await seedRunning(db);
    await breakStream(device, epoch, 10 * minute);
    await ageRun(db, run, { claimed_at: 10 * minute, last_beat_at: 10 * minute });
  };
  const direct = new URL(database.url);
  const proxy = await startFaultProxy({ host: direct.hostname, port: Number(direct.port) });
  onTestFinished(() => proxy.close());
  const through = new URL(direct);
  through.host = `127.0.0.1:${proxy.port}`;
  const work = openDatabase({ url: through.href, poolMax: 2 });
  onTestFinished(() => work.close());
  const { reapedAt, awayAt, elapsed } = watchReaper(work.db, 1_500);
  await seedLost();
  // The reaper's first TTL is over.
  await vi.waitFor(() => expect(reapedAt).toHaveLength(1), 5_000);
  proxy.set({ onConnect: "reset" });
  proxy.reset();
  // The second failure: the next try is 400 ms away.
  await vi.waitFor(() => expect(awayAt.length).toBeGreaterThan(1), 5_000);
  await seedLost();
  proxy.heal();
  await vi.waitFor(() => expect(proxy.open).toBeGreaterThan(0), { timeout: 5_000, interval: 5 });
  const backAt = elapsed();
  await vi.waitFor(() => expect(reapedAt).toHaveLength(2), 5_000);
  expect(reapedAt[1]! - backAt).toBeGreaterThanOrEqual(1_450);
});
