/**
 * Start deadlines: a run without a start by its deadline is skipped with
 * offline_expired.
 */
import { expect, test, vi } from "vitest";
import { expireOnce, startExpirer } from "../../../src/scheduler/endings/reaper.ts";
import { trigger } from "../../../src/scheduler/starts/triggers.ts";
import * as runs from "../../../src/store/work/runs/runs.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { hold } from "../../support/locks.ts";
import {
  ageRun,
  claim,
  findRun,
  listKinds,
  openDevice,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();
const expire = () => expireOnce(database.db, { policy });

async function seedWaiting(startDeadlineMs: number | null) {
  const { db } = database;
  const device = await seedDevice(db);
  const { id } = await triggerRun(db, await seedWatcher(db, device, { startDeadlineMs }));
  return { device, run: { orgId: device.orgId, runId: id } };
}

test("a run that waits for its device has no deadline by default", async () => {
  const { db } = database;
  const { run } = await seedWaiting(null);
  await ageRun(db, run, { due_at: 86_400_000 * 20, created_at: 86_400_000 * 20 });
  expect(await expire()).toEqual([]);
  expect(await runs.findNextExpiryMs(db)).toBeUndefined();
  expect((await findRun(db, run)).status).toBe("pending");
});

test("a run that did not start by its deadline is skipped, once, and no device gets it any more", async () => {
  const { db } = database;
  const { device, run } = await seedWaiting(60_000);
  expect(await expire()).toEqual([]);
  expect(await runs.findNextExpiryMs(db)).toBeGreaterThan(50_000);
  await ageRun(db, run, { start_deadline_at: 0 });
  const { epoch } = await openDevice(db, device);
  expect(await claim(db, device, epoch)).toEqual([]);
  expect(await expire()).toMatchObject([{ runId: run.runId, status: "skipped" }]);
  expect(await expire()).toEqual([]);
  expect(await findRun(db, run)).toMatchObject({ status: "skipped", skipReason: "offline_expired" });
  expect(await listKinds(db, run)).toEqual(["run.created", "run.skipped"]);
});

test("a run that is being claimed at its deadline is passed over, and runs", async () => {
  const { db } = database;
  const { device, run } = await seedWaiting(60_000);
  const { epoch } = await openDevice(db, device);
  await using claiming = await hold(db);
  expect(await claim(claiming.tx, device, epoch)).toHaveLength(1);
  await ageRun(claiming.tx, run, { start_deadline_at: 1_000 });
  expect(await expire()).toEqual([]);
  await claiming.commit();
  expect(await expire()).toEqual([]);
  expect((await findRun(db, run)).status).toBe("claimed");
});

test("a run that started in time and is tried again is not held to its start deadline", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { startDeadlineMs: 60_000, maxAttempts: 2 });
  await ageRun(db, run, { start_deadline_at: 1_000 });
  await storeOnce(db, [reportOf(run, { status: "failed", reason: "no" })], policy);
  expect(await expire()).toEqual([]);
  await ageRun(db, run, { not_before: 0 });
  expect(await claim(db, device, epoch)).toMatchObject([{ runId: run.runId, attempt: 2 }]);
});

test("a run whose deadline is nearer than the expirer's next look wakes it", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const watcher = await seedWatcher(db, device, { startDeadlineMs: 200 });
  const skipped: string[] = [];
  const settled = vi.fn((runs: readonly { runId: string }[]) => {
    skipped.push(...runs.map((run) => run.runId));
  });
  const expirer = startExpirer({
    ...{ db, policy, log: createLogger({ name: "test", level: "silent" }), clock: Date },
    sweepMs: 600_000,
    doorbell: { ...noteDoorbell(), settled },
  });
  // The first pass finds nothing, and would look again in ten minutes.
  await vi.waitFor(() => expect(settled).toHaveBeenCalled());
  const doorbell = noteDoorbell();
  const { run } = await trigger(
    db,
    { ...watcher, actor: "pinion" },
    { doorbell: { ...doorbell, recorded: (written) => expirer.expect(written) } },
  );
  await vi.waitFor(() => expect(skipped).toEqual([run.id]));
  await expirer.stop();
});
