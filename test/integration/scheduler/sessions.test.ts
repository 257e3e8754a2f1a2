/** A device's session: the reconciliation by the hello, and the session that counts. */
import { expect, test } from "vitest";
import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import * as devices from "../../../src/store/people/devices/devices.ts";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import * as active from "../../../src/store/work/attempts/active.ts";
import { settle } from "../../../src/store/work/attempts/settlements.ts";
import * as runClaims from "../../../src/store/work/runs/run-claims.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
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
import { policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();

const heldOf = (run: runClaims.ClaimedRun, state = HeldAttemptState.RUNNING) => ({
  workId: run.runId,
  attemptToken: run.attemptToken,
  state,
});

test("a device that comes back with its run goes on with it", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db);
  const opening = await openDevice(db, device, { held: [heldOf(run)] });
  expect(opening.verdicts).toEqual([HeldVerdict.CONTINUE]);
  expect(opening.continuing).toMatchObject([{ workId: run.runId }]);
  expect(opening.settled).toEqual([]);
  expect(await findRun(db, run)).toMatchObject({ status: "running", attempt: 1 });
});

test("a device that comes back before its accept arrived goes on with the run all the same", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device));
  const [run] = await claim(db, device, epoch);
  const opening = await openDevice(db, device, { held: [heldOf(run!)] });
  expect(opening.verdicts).toEqual([HeldVerdict.CONTINUE]);
  expect(await findRun(db, run!)).toMatchObject({ status: "running", startedAt: expect.any(Date) });
});

test("a replaced session takes away nothing that a newer one goes on with, accepted or not", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device, { maxAttempts: 3 }));
  const [run] = await claim(db, device, epoch);
  const { orgId, runId, attemptToken } = run!;
  const held = [{ workId: runId, attemptToken, state: HeldAttemptState.RUNNING }];
  const newer = await openDevice(db, device, { held, replicaId: "replica-2" });
  const take = (action: "withdraw" | "finish_or_retry", by: number) =>
    settle(
      db,
      [
        {
          orgId,
          workId: runId,
          attemptToken,
          deviceId: null,
          session: sessionOf(device, by),
          action,
          status: "timeout",
          reason: "late",
        },
      ],
      policy,
    );
  expect(await take("withdraw", epoch)).toEqual([]);
  expect(await take("finish_or_retry", epoch)).toEqual([]);
  expect(await take("withdraw", newer.epoch)).toEqual([]);
  expect(await findRun(db, run!)).toMatchObject({ status: "running", attempt: 1 });
  expect(await take("finish_or_retry", newer.epoch)).toHaveLength(1);
});

test("a device that comes back with a finished run is asked for its result", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db);
  const opening = await openDevice(db, device, { held: [heldOf(run, HeldAttemptState.FINISHED)] });
  expect(opening.verdicts).toEqual([HeldVerdict.SEND_RESULT]);
  const { verdicts } = await transaction(db, (tx) => storeOnce(tx, [reportOf(run)], policy));
  expect(verdicts).toMatchObject([{ verdict: "stored" }]);
});

test("a device whose result was stored, but not acknowledged, may forget it", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run)], policy);
  const opening = await openDevice(db, device, { held: [heldOf(run, HeldAttemptState.FINISHED)] });
  expect(opening.verdicts).toEqual([HeldVerdict.ALREADY_STORED]);
});

test("a device that comes back with a run that was reaped, or was never its own, is told to end it", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db);
  const { run: others } = await seedRunning(db);
  await ageRun(db, run, { last_beat_at: 200_000 });
  await reapOnce(db, { rules: reapRules, policy });
  const unheardOf = { ...run, runId: crypto.randomUUID(), attemptToken: crypto.randomUUID() };
  const opening = await openDevice(db, device, {
    held: [heldOf(run), heldOf(others), heldOf(unheardOf), heldOf(run, HeldAttemptState.FINISHED)],
  });
  // Finished results are wanted in any case.
  expect(opening.verdicts).toEqual([...Array(3).fill(HeldVerdict.ABORT), HeldVerdict.SEND_RESULT]);
  expect((await findRun(db, others)).status).toBe("running");
});

test("a running run that its device does not list at hello is reaped at once", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db);
  const opening = await openDevice(db, device);
  expect(opening.settled).toMatchObject([{ runId: run.runId, action: "finished", status: "timeout" }]);
  expect(await findRun(db, run)).toMatchObject({
    status: "timeout",
    reason: expect.stringContaining("came back without this attempt"),
  });
  expect(await listKinds(db, run)).toEqual(["run.created", "run.timeout"]);
});

test("a claimed run that never reached its device is withdrawn at hello, without costing an attempt", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device));
  const [run] = await claim(db, device, epoch);
  const opening = await openDevice(db, device);
  expect(opening.settled).toMatchObject([{ runId: run!.runId, action: "withdrawn" }]);
  expect(await findRun(db, run!)).toMatchObject({ status: "pending", attempt: 0, claimedAt: null });
  const [again] = await claim(db, device, opening.epoch);
  expect(again).toMatchObject({ runId: run!.runId, attempt: 1 });
  expect(again!.attemptToken).not.toBe(run!.attemptToken);
});

test("a run whose end was asked for is cancelled when its device comes back without it", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db, { maxAttempts: 3 });
  await ageRun(db, run, { cancel_requested_at: 0 });
  await openDevice(db, device);
  expect((await findRun(db, run)).status).toBe("cancelled");
});

test("a newer hello wins, and names the replica whose stream it replaces", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const first = await openDevice(db, device, { replicaId: "a" });
  const second = await openDevice(db, device, { replicaId: "b" });
  expect(first).toMatchObject({ epoch: 1, replacedReplicaId: null });
  expect(second).toMatchObject({ epoch: 2, replacedReplicaId: "a" });
  await presence.close(db, [sessionOf(device, 2)]);
  expect(await openDevice(db, device, { replicaId: "c" })).toMatchObject({
    epoch: 3,
    replacedReplicaId: null,
  });
});

test("two hellos of one device at once get two epochs, and the later one is the device's session", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  await openDevice(db, device, { replicaId: "before" });
  await using first = await hold(db);
  const { epoch } = await presence.open(first.tx, { ...device, replicaId: "a", ttlMs: 60_000 });
  const second = openDevice(db, device, { replicaId: "b" });
  await untilBlocked(db);
  await first.commit();
  expect(await second).toMatchObject({ epoch: epoch + 1, replacedReplicaId: "a" });
});

test("a late close of an older session changes nothing", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const older = await openDevice(db, device, { replicaId: "a" });
  await openDevice(db, device, { replicaId: "b" });
  await presence.close(db, [sessionOf(device, older.epoch)]);
  expect(await presence.find(db, device)).toMatchObject({ replicaId: "b", disconnectedAt: null });
});

test("a beat of a replaced session is answered as stale and keeps nobody alive", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const older = await openDevice(db, device);
  const newer = await openDevice(db, device);
  const stale = sessionOf(device, older.epoch);
  expect(await presence.beat(db, [stale])).toEqual([{ ...stale, because: "replaced" }]);
  expect(await presence.beat(db, [sessionOf(device, newer.epoch)])).toEqual([]);
});

test("after a failover took the epoch back, the session before it can close, beat, claim and settle nothing of the new one", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const old = await openDevice(db, device, { replicaId: "a" });
  const oldSession = { ...device, epoch: old.epoch, sessionId: old.sessionId };
  // The state of a standby that was promoted before the session was replicated.
  await db
    .updateTable("presence")
    .set({ epoch: old.epoch - 1 })
    .where("device_id", "=", device.deviceId)
    .execute();
  const now = await openDevice(db, device, { replicaId: "b" });
  expect(now.epoch).toBe(old.epoch);
  await triggerRun(db, await seedWatcher(db, device, { maxAttempts: 3 }));
  expect(await runClaims.claim(db, [{ ...oldSession, slots: 1, kinds: null }])).toEqual([]);
  const [run] = await claim(db, device, now.epoch);
  const { orgId, runId, attemptToken } = run!;
  const late = {
    orgId,
    workId: runId,
    attemptToken,
    deviceId: null,
    status: "timeout",
    reason: "late",
  } as const;
  const action = "withdraw";
  expect(await settle(db, [{ ...late, action, session: oldSession }], policy)).toEqual([]);
  expect(await active.listClaimed(db, [oldSession], 0)).toEqual([]);
  expect(await presence.beat(db, [oldSession])).toEqual([{ ...oldSession, because: "replaced" }]);
  expect(await presence.close(db, [oldSession])).toEqual([]);
  expect(await presence.find(db, device)).toMatchObject({ replicaId: "b", disconnectedAt: null });
  const session = { ...device, epoch: now.epoch, sessionId: now.sessionId };
  expect(await settle(db, [{ ...late, action, session }], policy)).toMatchObject([{ runId }]);
});

test("a beat of a session whose end is recorded is answered, and does not open the session again", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await presence.close(db, [sessionOf(device, epoch)]);
  const session = sessionOf(device, epoch);
  expect(await presence.beat(db, [session])).toEqual([{ ...session, because: "ended" }]);
  expect((await presence.find(db, device))?.disconnectedAt).toBeInstanceOf(Date);
  await triggerRun(db, await seedWatcher(db, device));
  expect(await claim(db, device, epoch)).toEqual([]);
});

test.each([
  [
    "gone",
    (tx: Db, device: DeviceName) =>
      devices.remove(tx, { ...device, label: "", ownerId: null, isWorker: false }),
  ],
  ["ended", (tx: Db, device: DeviceName, epoch: number) => presence.close(tx, [sessionOf(device, epoch)])],
  [
    "replaced",
    (tx: Db, device: DeviceName) => presence.open(tx, { ...device, replicaId: "b", ttlMs: 60_000 }),
  ],
] as const)(
  "a beat that waits while its session ends does not guess; the next one is answered: %s",
  async (because, end) => {
    const { db } = database;
    const device = await seedDevice(db);
    const { epoch } = await openDevice(db, device);
    const session = sessionOf(device, epoch);
    await using other = await hold(db);
    await end(other.tx, device, epoch);
    const waiting = presence.beat(db, [session]);
    await untilBlocked(db);
    await other.commit();
    expect(await waiting).toEqual([]);
    expect(await presence.beat(db, [session])).toEqual([{ ...session, because }]);
  },
);
