/** R9: one bad row never stops a pass. */
import { expect, test } from "vitest";
import { createLogger } from "../../../src/log.ts";
import { createCompleter } from "../../../src/scheduler/completer.ts";
import { materializeBacklogOnce, materializeOnce } from "../../../src/scheduler/materializer.ts";
import { backfill } from "../../../src/scheduler/triggers.ts";
import { useDatabase } from "../../support/database.ts";
import {
  findRun,
  findWatcher,
  hourly,
  listKinds,
  listRuns,
  listWindows,
  noteDoorbell,
  policy,
  putSchedule,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
} from "../../support/rows.ts";

const database = useDatabase();

function loggingTo(lines: string[]) {
  return createLogger({
    name: "test",
    level: "error",
    destination: { write: (line: string) => void lines.push(line) },
  });
}

test("R9: a watcher whose schedule cannot be read is set aside with its reason; the others of its batch fire", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const due = [];
  for (let i = 0; i < 5; i++) {
    const watcher = await seedWatcher(db, device, { schedule });
    await putSchedule(db, watcher, slot(0));
    due.push(watcher);
  }
  const [bad, ...good] = due;
  await db
    .updateTable("watcher")
    .set({ schedule: "every full moon" })
    .where("id", "=", bad!.watcherId)
    .execute();
  const lines: string[] = [];
  const pass = () => materializeOnce(db, { doorbell: noteDoorbell(), log: loggingTo(lines) });
  expect(await pass()).toBe(5);
  for (const watcher of good) {
    expect(await listRuns(db, watcher)).toMatchObject([{ status: "pending", scheduledFor: slot(0) }]);
  }
  expect(await findWatcher(db, bad!)).toMatchObject({
    status: "paused",
    paused_reason: expect.stringContaining("could not be recorded"),
    next_due_at: null,
  });
  expect(await listKinds(db, { watcherId: bad!.watcherId })).toEqual(["watcher.created", "watcher.paused"]);
  expect(lines.some((line) => line.includes(bad!.watcherId))).toBe(true);
  // It does not come back in the next pass.
  expect(await pass()).toBe(0);
});

test("R9: a waiting slot whose watcher cannot be read is set aside, once; the others are taken", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const bad = await seedWatcher(db, device, { schedule });
  const good = await seedWatcher(db, device, { schedule });
  for (const watcher of [bad, good]) {
    await backfill(db, { ...watcher, actor: "pinion", start: slot(1), end: slot(0) });
  }
  await db
    .updateTable("watcher")
    .set({ schedule: "every full moon" })
    .where("id", "=", bad.watcherId)
    .execute();
  const pass = () => materializeBacklogOnce(db, { doorbell: noteDoorbell(), log: loggingTo([]) });
  expect(await pass()).toBe(2);
  expect(await listRuns(db, good)).toMatchObject([{ scheduledFor: slot(1), source: "backfill" }]);
  expect((await findWatcher(db, bad)).status).toBe("paused");
  expect(await pass()).toBe(0);
  expect(await listKinds(db, { watcherId: bad.watcherId })).toEqual([
    "watcher.created",
    "watcher.backfilled",
    "watcher.paused",
  ]);
});

test("R9: a completion that the database refuses does not take the others of its batch with it", async () => {
  const { db } = database;
  const seeded = [];
  for (let i = 0; i < 5; i++) seeded.push((await seedRunning(db)).run);
  const [bad, ...good] = seeded;
  // Its window would be empty, which the database refuses.
  await db
    .updateTable("run")
    .set((eb) => ({ window_start: eb.ref("window_end") }))
    .where("id", "=", bad!.runId)
    .execute();
  const completer = createCompleter({ db, policy, log: loggingTo([]), doorbell: noteDoorbell() });
  const results = await Promise.allSettled(seeded.map((run) => completer.report(reportOf(run))));
  expect(results[0]).toMatchObject({ status: "rejected", reason: { reason: "invalid_argument" } });
  expect(results.slice(1)).toMatchObject(
    good.map(() => ({ status: "fulfilled", value: { verdict: "stored" } })),
  );
  for (const run of good) expect(await listWindows(db, run)).toHaveLength(1);
  expect((await findRun(db, bad!)).status).toBe("running");
});
