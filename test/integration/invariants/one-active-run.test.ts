/** R1: at most one active run per watcher. */
import { expect, test } from "vitest";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { retry, trigger } from "../../../src/scheduler/starts/triggers.ts";
import * as schedules from "../../../src/store/work/watchers/schedules.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
  findWatcher,
  hourly,
  listRuns,
  putSchedule,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });
const pass = () => materializeOnce(database.db, { doorbell: noteDoorbell(), log });

test("R1: two triggers in the same millisecond give one run, and both callers its id", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const watcher = await seedWatcher(db, device);
  const asked = { ...watcher, actor: "pinion" };
  const doorbell = noteDoorbell();
  await using first = await hold(db);
  const started = await trigger(first.tx, asked, { doorbell });
  const second = trigger(db, asked, { doorbell });
  await untilBlocked(db);
  await first.commit();
  expect(started.alreadyQueued).toBe(false);
  expect(await second).toMatchObject({ alreadyQueued: true, run: { id: started.run.id } });
  expect(await listRuns(db, watcher)).toHaveLength(1);
  expect(doorbell.noted.recorded).toHaveLength(1);
});

test("R1: ten triggers at once give one run", async () => {
  const { db } = database;
  const watcher = await seedWatcher(db, await seedDevice(db));
  const answers = await Promise.all(
    Array.from({ length: 10 }, () =>
      trigger(db, { ...watcher, actor: "pinion" }, { doorbell: noteDoorbell() }),
    ),
  );
  expect(new Set(answers.map(({ run }) => run.id)).size).toBe(1);
  expect(answers.filter(({ alreadyQueued }) => !alreadyQueued)).toHaveLength(1);
});

test("R1: a slot that falls due while a trigger commits is skipped as overlap, and its run is the trigger's", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(0));
  await using asking = await hold(db);
  const { run } = await trigger(asking.tx, { ...watcher, actor: "pinion" }, { doorbell: noteDoorbell() });
  // The watcher's row is locked at this moment, so the pass skips the watcher without waiting.
  expect(await pass()).toBe(0);
  await asking.commit();
  expect(await pass()).toBe(1);
  expect(await listRuns(db, watcher)).toMatchObject([
    { id: run.id, status: "pending", source: "manual" },
    { status: "skipped", skipReason: "overlap", scheduledFor: slot(0) },
  ]);
});

test("R1: a trigger while the materializer commits answers with the slot's run", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(0));
  await using materializer = await hold(db);
  await materializeOnce(materializer.tx, { doorbell: noteDoorbell(), log });
  const triggered = trigger(db, { ...watcher, actor: "pinion" }, { doorbell: noteDoorbell() });
  await untilBlocked(db);
  await materializer.commit();
  expect(await triggered).toMatchObject({ alreadyQueued: true, run: { scheduledFor: slot(0) } });
  expect(await listRuns(db, watcher)).toHaveLength(1);
});

test("R1: a retry is refused while another run of the watcher is active, and names it", async () => {
  const { db } = database;
  const { watcher, run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run, { status: "failed" })], policy);
  const active = await triggerRun(db, watcher);
  await expect(
    retry(db, { orgId: run.orgId, runId: run.runId, actor: "pinion" }, { doorbell: noteDoorbell() }),
  ).rejects.toMatchObject({ reason: "failed_precondition", message: expect.stringContaining(active.id) });
  expect(await listRuns(db, watcher)).toHaveLength(2);
});

test("R1: the database itself refuses a second active run", async () => {
  const { db } = database;
  const watcher = await seedWatcher(db, await seedDevice(db));
  await triggerRun(db, watcher);
  const { id, ...rest } = await db.selectFrom("run").selectAll().executeTakeFirstOrThrow();
  await expect(
    db
      .insertInto("run")
      .values({ ...rest, id: crypto.randomUUID(), past_attempts: "[]" })
      .execute(),
  ).rejects.toThrow(/run_one_active/);
  expect(id).toBeDefined();
});

test("R1: a watcher's row is locked by whoever writes a run of it", async () => {
  const { db } = database;
  const watcher = await seedWatcher(db, await seedDevice(db));
  await using writer = await hold(db);
  await schedules.lockOne(writer.tx, watcher);
  const triggered = trigger(db, { ...watcher, actor: "pinion" }, { doorbell: noteDoorbell() });
  await untilBlocked(db);
  await writer.commit();
  expect((await triggered).alreadyQueued).toBe(false);
  expect((await findWatcher(db, watcher)).active_run_id).toBe((await triggered).run.id);
});
