/** Where schedules stand after a wrong clock of the database, and edits while it is wrong. */
import { sql } from "kysely";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { Clock } from "../../../src/scheduler/slots/clock.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { recordDue } from "../../../src/scheduler/slots/record-due.ts";
import { replanOnce, startReplanner } from "../../../src/scheduler/slots/replan.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import * as clockJumps from "../../../src/store/work/watchers/clock-jumps.ts";
import * as positions from "../../../src/store/work/watchers/positions.ts";
import { valuesOf } from "../../../src/store/work/watchers/watcher-values.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import * as usecases from "../../../src/usecases/watchers.ts";
import { useDatabase } from "../../support/database.ts";
import { useDatabaseClock } from "../../support/database-clock.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
  findWatcher,
  hourly,
  listKinds,
  listRuns,
  putSchedule,
  seedDevice,
  seedWatcher,
} from "../../support/rows.ts";
import { noteDoorbell, surroundings } from "../../support/surroundings.ts";

const database = useDatabase();
const clock = useDatabaseClock(database);
const log = createLogger({ name: "test", level: "silent" });
const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

type Name = Awaited<ReturnType<typeof seedWatcher>>;

/** `passes`: begun so far. */
function startedReplanner(judge: Pick<Clock, "check">) {
  const counts = { replanned: 0, passes: 0 };
  const counted: typeof judge = {
    check(ageMsMax) {
      counts.passes += 1;
      return judge.check(ageMsMax);
    },
  };
  const replanner = startReplanner({
    ...{ db: clock.db, log, judge: counted },
    onReplanned: () => (counts.replanned += 1),
  });
  onTestFinished(() => replanner.stop());
  return { ...replanner, counts };
}

test("a clock that goes back fires no slot twice, and one that comes forward again neither", async () => {
  const { db } = clock;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(0));
  const pass = () => materializeOnce(db, { doorbell: noteDoorbell(), log });
  await pass();
  const list = async () =>
    (await listRuns(db, watcher)).map(({ id, scheduledFor, status }) => ({ id, scheduledFor, status }));
  const fired = await list();
  expect(fired).toHaveLength(1);
  const judged = await clock.judged();
  const replanner = startedReplanner(judged);
  for (const ahead of [-3 * hour, 0, -50 * day, 0]) {
    await clock.set(ahead);
    replanner.now();
    await pass();
    expect(await list()).toEqual(fired);
  }
  await replanner.stop();
  expect(replanner.counts.replanned).toBe(0);
  await pass();
  expect(await list()).toEqual(fired);
});

test("a schedule that stands further ahead than its next slot is planned again, with an event, and fires no slot twice", async () => {
  const { db } = clock;
  const { schedule, slot } = hourly();
  const device = await seedDevice(db);
  const watcher = await seedWatcher(db, device, { schedule });
  const right = await seedWatcher(db, device, { schedule });
  await putSchedule(db, watcher, slot(-1));
  // A pass by a clock that is ten hours ahead: one slot has a run, the others were skipped.
  await clock.set(10 * hour);
  await materializeOnce(db, { doorbell: noteDoorbell(), log });
  const fired = (await listRuns(db, watcher)).filter((run) => run.status === "pending");
  expect(fired).toHaveLength(1);
  expect((await listRuns(db, watcher)).length).toBeGreaterThan(5);
  // Gone back after the loop's pass has looked at the clock, and before it plans.
  await clock.set(-3 * hour);
  expect(await replanOnce(db, { log })).toBe(0);
  await clock.set(0);
  await putSchedule(db, right, slot(-1));
  expect(await replanOnce(db, { log })).toBe(1);
  expect(await findWatcher(db, watcher)).toMatchObject({ next_slot_at: slot(-1) });
  expect(await listRuns(db, watcher)).toHaveLength(1);
  expect(await listKinds(db, {})).toContain("watcher.replanned");
  expect(await replanOnce(db, { log })).toBe(0);
  // The time of the slot with a run comes: the slot does not get another run.
  await clock.set(10 * hour);
  await materializeOnce(db, { doorbell: noteDoorbell(), log });
  const again = (await listRuns(db, watcher)).filter(
    (run) => run.scheduledFor?.getTime() === fired[0]!.scheduledFor!.getTime(),
  );
  expect(again).toHaveLength(1);
});

test("a schedule that is planned again waits for a late result of a skipped slot before the watcher", async () => {
  const { db } = clock;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(-1));
  await clock.set(10 * hour);
  await materializeOnce(db, { doorbell: noteDoorbell(), log });
  await clock.set(0);
  const listSkipped = async () => (await listRuns(db, watcher)).filter((run) => run.status === "skipped");
  const [skipped] = await listSkipped();
  const held = await hold(db);
  await sql`select from run_finished where id = ${skipped!.id} for update`.execute(held.tx);
  const replanning = replanOnce(db, { log });
  await untilBlocked(db);
  await sql`select from watcher where id = ${watcher.watcherId} for update nowait`.execute(held.tx);
  await held.commit();
  expect(await replanning).toBe(1);
  expect(await listSkipped()).toEqual([]);
});

test("before any replica has looked at a clock that jumped, an edit of a watcher records nothing by it", async () => {
  const { db } = clock;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(-1));
  const edit = () => transaction(db, (tx) => recordDue(tx, watcher.orgId, watcher.watcherId));
  await clockJumps.noteSeen(db);
  await clock.set(40 * day);
  await expect(edit()).rejects.toMatchObject({ reason: "unavailable", retryAfterMs: 5_000 });
  expect(await listRuns(db, watcher)).toEqual([]);
  await clock.set(50 * minute);
  expect(await edit()).toHaveLength(1);
});

test.each(["unchecked", "jumped"])("no schedule begins by a clock that is %s", async (doubt) => {
  const { db } = clock;
  const { schedule } = hourly();
  const device = await seedDevice(db);
  const [watcher, idle] = [await seedWatcher(db, device, { schedule }), await seedWatcher(db, device)];
  const named = ({ watcherId }: { watcherId: string }) => ({
    orgId: "local",
    actor: "pinion",
    watcher: watcherId,
  });
  const edited = (change: (values: ReturnType<typeof valuesOf>) => ReturnType<typeof valuesOf>) =>
    usecases.update(
      db,
      { ...named(idle), expectedVersion: 0, isPinDecided: false, change: (now) => change(valuesOf(now)) },
      surroundings,
    );
  await usecases.pause(db, { ...named(watcher), reason: "" }, surroundings);
  // A replica checks by itself, too: without one, nobody has seen the jump.
  const seen = doubt === "jumped" ? await clock.judged() : await clockJumps.noteSeen(db);
  await clock.set(50 * day);
  await seen?.check();
  const beginnings = {
    "a new watcher": () => seedWatcher(db, device, { schedule }),
    "a new schedule": () => edited((values) => ({ ...values, schedule })),
    "a resumed watcher": () => usecases.resume(db, named(watcher), surroundings),
    "an org's default watcher": () => seedDevice(db, { orgId: "another-org", os: "linux" }),
  };
  for (const [name, begin] of Object.entries(beginnings)) {
    const reason = doubt === "jumped" ? "failed_precondition" : "unavailable";
    await expect(begin(), name).rejects.toMatchObject({ reason });
  }
  // What names no time of the clock is as ever.
  await edited((values) => ({ ...values, name: "Another name" }));
  await seedWatcher(db, device);
  await clock.set(0);
  await seen?.check();
  for (const [name, begin] of Object.entries(beginnings)) await expect(begin(), name).resolves.toBeDefined();
  const { rows } = await sql<{
    latest: Date;
  }>`select max(next_slot_at) as latest from schedule_position`.execute(db);
  expect(rows[0]!.latest.getTime()).toBeLessThan(Date.now() + day + hour);
});

describe("schedules that stand too far ahead are planned again", () => {
  async function begin() {
    const { db } = clock;
    const { schedule, slot } = hourly();
    const device = await seedDevice(db);
    const watchers = [
      await seedWatcher(db, device, { schedule }),
      await seedWatcher(db, device, { schedule }),
    ];
    const judged = await clock.judged();
    const replanner = startedReplanner(judged);
    await vi.waitFor(async () => expect((await clockJumps.read(db)).isPlanned).toBe(true));
    const [first, second] = watchers.sort((a, b) => (a.watcherId < b.watcherId ? -1 : 1)) as [Name, Name];
    const standsRight = async (watcher: Name) =>
      expect(await findWatcher(db, watcher)).toMatchObject({ next_slot_at: slot(-1) });
    return { db, slot, judged, replanner, first, second, standsRight };
  }

  test("although the first check fails", async () => {
    const { db, slot, replanner, first, standsRight } = await begin();
    await putSchedule(db, first, slot(-9));
    await sql`alter table schedule_position rename to elsewhere`.execute(db);
    const { passes } = replanner.counts;
    replanner.now();
    await vi.waitFor(() => expect(replanner.counts.passes).toBeGreaterThan(passes + 1));
    await sql`alter table elsewhere rename to schedule_position`.execute(db);
    await vi.waitFor(() => standsRight(first), 5_000);
  });

  test("also those that the running check has passed", async () => {
    const { db, slot, replanner, first, second, standsRight } = await begin();
    await putSchedule(db, second, slot(-9));
    const held = await hold(db);
    await sql`select from watcher where id = ${second.watcherId} for update`.execute(held.tx);
    replanner.now();
    await untilBlocked(db);
    await putSchedule(db, first, slot(-9));
    replanner.now();
    await held.commit();
    for (const watcher of [first, second]) await vi.waitFor(() => standsRight(watcher), 5_000);
  });

  test("by another replica, where the one that saw the clock go back died before its check", async () => {
    const { db, slot, judged, replanner, first, standsRight } = await begin();
    await putSchedule(db, first, slot(-9));
    await transaction(db, (tx) => clockJumps.takeBackTimes(tx));
    judged.onBack(() => replanner.now());
    await judged.check();
    await vi.waitFor(() => standsRight(first), 5_000);
    await vi.waitFor(async () => expect((await clockJumps.read(db)).isPlanned).toBe(true));
  });

  test("by one replica an hour for all, and by the next one where nobody has done it", async () => {
    const { db, replanner } = await begin();
    const isDue = async () => (await positions.lastReplanning(db, hour)).isDue;
    expect(await isDue()).toBe(false);
    const { passes } = replanner.counts;
    for (const hoursAgo of [2, 3]) {
      await sql`update clock set replanned_at = now() - ${hoursAgo} * interval '1 hour 1.2345 ms'`.execute(
        db,
      );
      expect(await isDue()).toBe(true);
      replanner.now();
      await vi.waitFor(async () => expect(await isDue()).toBe(false));
    }
    expect(replanner.counts.passes).toBeGreaterThan(passes);
  });
});
