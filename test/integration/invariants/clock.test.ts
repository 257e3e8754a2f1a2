/** R7: liveness and due times are judged by the database's clock. */
import { afterEach, expect, test, vi } from "vitest";
import { expireOnce, reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { trigger } from "../../../src/scheduler/starts/triggers.ts";
import * as devices from "../../../src/store/people/devices/devices.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import {
  agePresence,
  claim,
  findRun,
  hourly,
  listRuns,
  putSchedule,
  reapRules,
  seedRunning,
  seedWatcher,
  sessionOf,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });
afterEach(() => void vi.useRealTimers());

/** Shifts this replica's wall clock, and no timer. */
function lie(hours: number): void {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + hours * 3_600_000 });
}

for (const hours of [-48, 48]) {
  test(`R7: a replica whose clock is ${hours} h off reaps nobody who lives`, async () => {
    const { db } = database;
    const { device, epoch, run } = await seedRunning(db);
    await presence.beat(db, [sessionOf(device, epoch)]);
    lie(hours);
    expect(await reapOnce(db, { rules: reapRules, policy })).toEqual([]);
    expect((await findRun(db, run)).status).toBe("running");
    expect((await devices.get(db, { ...device, ttlMs: reapRules.ttlMs })).liveness).toBe("online");
  });

  test(`R7: a replica whose clock is ${hours} h off reaps who is gone, expires nobody and fires nothing early`, async () => {
    const { db } = database;
    const { schedule, slot } = hourly();
    const { device, epoch, run } = await seedRunning(db);
    const watcher = await seedWatcher(db, device, { schedule, startDeadlineMs: 60_000 });
    await putSchedule(db, watcher, slot(-1));
    const deadline = await seedWatcher(db, device, { startDeadlineMs: 3_600_000 });
    const waiting = await triggerRun(db, deadline);
    await presence.close(db, [sessionOf(device, epoch)]);
    await agePresence(db, device, { last_beat_at: 61_000, connected_at: 61_000 });
    await db
      .updateTable("run")
      .set({ claimed_at: new Date(Date.now() - 61_000) })
      .execute();
    lie(hours);
    expect(await materializeOnce(db, { doorbell: noteDoorbell(), log })).toBe(0);
    expect(await expireOnce(db, { policy })).toEqual([]);
    expect(await reapOnce(db, { rules: reapRules, policy })).toMatchObject([{ runId: run.runId }]);
    expect(await listRuns(db, watcher)).toEqual([]);
    expect((await findRun(db, { ...run, runId: waiting.id })).status).toBe("pending");
  });
}

test("R7: a run that a replica with a wrong clock triggers is due now, by the database's clock", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await db.deleteFrom("run").where("id", "=", run.runId).execute();
  const before = Date.now();
  lie(48);
  const answer = await trigger(db, { ...watcher, actor: "pinion" }, { doorbell: noteDoorbell() });
  vi.useRealTimers();
  expect(answer.run.dueAt.getTime()).toBeGreaterThanOrEqual(before);
  expect(answer.run.dueAt.getTime()).toBeLessThanOrEqual(Date.now());
  expect(answer.run.windowEnd).toEqual(answer.run.dueAt);
  expect(await claim(db, device, epoch)).toHaveLength(1);
});
