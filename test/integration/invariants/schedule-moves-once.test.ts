/** R3: a schedule only moves in the transaction that records its slot. */
import { expect, test } from "vitest";
import { cancelRun } from "../../../src/scheduler/endings/cancels.ts";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { retry } from "../../../src/scheduler/starts/triggers.ts";
import type { Db } from "../../../src/store/pg/database.ts";
import type { ClaimedRun } from "../../../src/store/work/runs/run-claims.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { hold } from "../../support/locks.ts";
import {
  ageRun,
  claim,
  findWatcher,
  hourly,
  listRuns,
  openDevice,
  putSchedule,
  reapRules,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });
const pass = (db: Db = database.db) => materializeOnce(db, { doorbell: noteDoorbell(), log });

test("R3: a pass that is rolled back moves no schedule and records no slot", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(0));
  {
    await using replica = await hold(db);
    expect(await pass(replica.tx)).toBe(1);
  }
  expect((await findWatcher(db, watcher)).next_slot_at).toEqual(slot(0));
  expect(await listRuns(db, watcher)).toEqual([]);
  expect(await pass()).toBe(1);
  expect(await listRuns(db, watcher)).toHaveLength(1);
});

const ends: [what: string, end: (db: Db, run: ClaimedRun) => Promise<unknown>][] = [
  ["completion", (db, run) => storeOnce(db, [reportOf(run)], policy)],
  ["failure", (db, run) => storeOnce(db, [reportOf(run, { status: "failed" })], policy)],
  [
    "reap",
    async (db, run) => {
      await ageRun(db, run, { last_beat_at: 200_000 });
      await reapOnce(db, { rules: reapRules, policy });
    },
  ],
  ["cancelled run", (db, run) => cancelRun(db, run, { reason: "no", policy, doorbell: noteDoorbell() })],
];

for (const [what, end] of ends) {
  test(`R3: a ${what} leaves the schedule where it is`, async () => {
    const { db } = database;
    const { schedule } = hourly();
    const { watcher, run } = await seedRunning(db, { schedule });
    const before = await findWatcher(db, watcher);
    await end(db, run);
    const { next_slot_at, next_due_at } = await findWatcher(db, watcher);
    expect({ next_slot_at, next_due_at }).toEqual({
      next_slot_at: before.next_slot_at,
      next_due_at: before.next_due_at,
    });
  });
}

test("R3: a trigger and a retry leave a slot that is due to the materializer", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device, { schedule });
  await putSchedule(db, watcher, slot(0));
  await triggerRun(db, watcher);
  expect((await findWatcher(db, watcher)).next_slot_at).toEqual(slot(0));
  const [run] = await claim(db, device, epoch);
  await storeOnce(db, [reportOf(run!, { status: "failed" })], policy);
  await retry(db, { ...run!, actor: "pinion" }, { doorbell: noteDoorbell() });
  expect((await findWatcher(db, watcher)).next_slot_at).toEqual(slot(0));
});

test("R3: a watcher that fails at once fires at its slots and not in between", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device, { schedule });
  await putSchedule(db, watcher, slot(0));
  for (let second = 0; second < 20; second++) {
    await pass();
    for (const run of await claim(db, device, epoch)) {
      await storeOnce(db, [reportOf(run, { status: "failed", reason: "no such command" })], policy);
    }
  }
  expect(await listRuns(db, watcher)).toMatchObject([{ status: "failed", scheduledFor: slot(0) }]);
  expect((await findWatcher(db, watcher)).next_slot_at).toEqual(slot(-1));
});
