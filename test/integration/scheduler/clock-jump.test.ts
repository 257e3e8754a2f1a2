/** A wrong clock of the database erases nothing and fires nothing. */
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import { expireOnce, reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { sweepTurnsOnce } from "../../../src/scheduler/endings/turn-sweep.ts";
import { retainOnce, startRetention } from "../../../src/scheduler/retention.ts";
import { elapsedMs } from "../../../src/scheduler/slots/clock.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import * as clockJumps from "../../../src/store/work/watchers/clock-jumps.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { useDatabaseClock } from "../../support/database-clock.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import {
  findRun,
  findWatcher,
  hourly,
  listKinds,
  listRuns,
  orgId,
  putSchedule,
  reapRules,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  triggerRun,
} from "../../support/rows.ts";
import { startTestReplica } from "../../support/server.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";
import * as turns from "../../support/turns.ts";
import { startWork, takeOn } from "../../support/work.ts";

const database = useDatabase();
const clock = useDatabaseClock(database);
const log = createLogger({ name: "test", level: "silent" });
const second = 1_000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

/** Of runs, slots, windows and events. */
async function countAll(): Promise<number[]> {
  const { rows } = await sql<{ counts: number[] }>`
    select array[(select count(*) from run_finished), (select count(*) from run), (select count(*) from "window"),
      (select count(*) from event where kind not like 'clock.%')]::int[] as counts`.execute(clock.db);
  return rows[0]!.counts;
}

/**
 * The whole service, with an hourly watcher whose device is connected, a running run, and history.
 */
async function begin(env: Record<string, string> = {}) {
  const replica = await startTestReplica(clock.url, { PINION_SWEEP_INTERVAL_MS: "300", ...env });
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device, { maxConcurrency: 4 });
  await startWork(replica.clients, device);
  await stream.complete(await takeOn(stream), "history");
  const { schedule } = hourly();
  const { watcher } = await replica.clients.watchers.createWatcher({
    spec: { name: "Hourly", prompt: "do it", deviceId: device.deviceId, schedule },
  });
  await startWork(replica.clients, device);
  const working = await takeOn(stream);
  const beats = setInterval(() => stream.beat([working]).catch(() => {}), 500);
  onTestFinished(() => clearInterval(beats));
  const name = { orgId: "local", watcherId: watcher!.id };
  return { replica, device, stream, working, watcher: name };
}

const jump = () =>
  vi.waitFor(
    async () => {
      const { last } = await clockJumps.read(clock.db);
      expect(last).not.toBeNull();
      return last!;
    },
    { timeout: 15_000, interval: 50 },
  );

const doctor = (...args: string[]) =>
  runCommand(
    { PATH: process.env.PATH, HOME: "/nonexistent" },
    "doctor",
    "--database-url",
    clock.url,
    ...args,
  );

test("forty-five days ahead for some seconds: nothing is deleted, recorded or reaped, everybody is told, and all goes on after it", {
  timeout: 60_000,
}, async () => {
  const { stream, working, watcher } = await begin();
  const before = await countAll();
  const { next_slot_at: nextSlotAt } = await findWatcher(clock.db, watcher);
  await clock.set(45 * day);
  expect(await jump()).toMatchObject({ witness: "monotonic", resolution: null });
  expect((await doctor()).out).toMatch(/clock jump +the database's clock jumped forward by 4[45] d/);
  expect(await listKinds(clock.db, {})).toContain("clock.jumped");
  expect(await countAll()).toEqual(before);
  expect((await findWatcher(clock.db, watcher)).next_slot_at).toEqual(nextSlotAt);
  await clock.set(0);
  await vi.waitFor(async () => expect(await jump()).toMatchObject({ resolution: "gone" }), {
    timeout: 15_000,
  });
  await vi.waitFor(async () => expect(await listKinds(clock.db, {})).toContain("clock.resolved"));
  expect(await countAll()).toEqual(before);
  expect((await findWatcher(clock.db, watcher)).next_slot_at).toEqual(nextSlotAt);
  expect((await doctor()).out).not.toContain("clock jump");
  // The run with a working device was left alone.
  expect((await stream.complete(working)).verdict).toBe(1);
});

test("a run that was asked for while the clock was ahead is due once the clock is back", {
  timeout: 60_000,
}, async () => {
  const { replica } = await begin();
  const away = await enrolDevice(replica.clients, "away");
  await clock.set(45 * day);
  await jump();
  const { id } = await startWork(replica.clients, away);
  const before = await findRun(clock.db, { orgId: "local", runId: id });
  expect(before.dueAt.getTime()).toBeGreaterThan(Date.now() + 44 * day);
  await clock.set(0);
  await vi.waitFor(
    async () => {
      const { dueAt } = await findRun(clock.db, { orgId: "local", runId: id });
      expect(dueAt.getTime()).toBeLessThan(Date.now() + second);
    },
    { timeout: 15_000 },
  );
  const stream = await connect(replica.url, away);
  expect((await takeOn(stream)).workId).toBe(id);
});

test("a jump that a person confirms is believed, and the slots are recorded then", {
  timeout: 60_000,
}, async () => {
  const { watcher } = await begin();
  await clock.set(3 * hour);
  await jump();
  expect(await listRuns(clock.db, watcher)).toEqual([]);
  expect((await doctor("--confirm-clock")).out).toMatch(/clock jump +confirmed/);
  await vi.waitFor(async () => expect(await listRuns(clock.db, watcher)).toHaveLength(3), {
    timeout: 15_000,
  });
  expect((await jump()).resolution).toBe("confirmed");
});

test("up to an hour is believed at once; and with the policy `ignore`, any jump", async () => {
  const judged = await clock.judged();
  await clock.set(59 * minute);
  expect(await judged.check()).toMatchObject({ isInDoubt: false });
  await clock.set(0);
  const bold = await clock.judged({ policy: "ignore" });
  await clock.set(5 * day);
  expect(await bold.check()).toMatchObject({ isInDoubt: false });
  // The change of the clock resets `settledForMs`, by which silence is ignored for a while.
  expect((await bold.check()).settledForMs).toBeLessThan(minute);
});

test("an hour in all within an hour: a clock that goes ahead in steps, or too fast, is in doubt", async () => {
  let slept = 0;
  const judged = await clock.judged({ elapsed: () => elapsedMs() + slept });
  const check = async (aheadMs: number) => {
    await clock.set(aheadMs);
    return (await judged.check()).isInDoubt;
  };
  expect(await check(40 * minute)).toBe(false);
  expect(await check(80 * minute)).toBe(true);
  // It is compared with the clock before both steps.
  expect((await clockJumps.read(clock.db)).last).toMatchObject({ resolution: null });
  expect(await check(61 * minute)).toBe(true);
  expect(await check(40 * minute)).toBe(false);
  expect((await clockJumps.read(clock.db)).last).toMatchObject({ resolution: "gone" });
  // A step an hour ago counts no more.
  slept = 61 * minute;
  expect(await check(slept + 79 * minute)).toBe(false);
  // Ten times too fast.
  let ahead = slept + 79 * minute;
  for (let passed = 0; passed <= 2 * minute; passed += 5 * second) {
    slept += 5 * second;
    ahead += 50 * second;
    await check(ahead);
  }
  expect((await judged.check()).isInDoubt).toBe(false);
  for (let passed = 0; passed <= 6 * minute; passed += 5 * second) {
    slept += 5 * second;
    ahead += 50 * second;
    await check(ahead);
  }
  expect((await judged.check()).isInDoubt).toBe(true);
});

test("PINION_CLOCK_JUMP=ignore takes any jump as it is, and PINION_CLOCK_JUMP=wait leaves it in doubt at first", async () => {
  const { watcher } = await begin({ PINION_CLOCK_JUMP: "ignore" });
  await clock.set(3 * hour);
  await vi.waitFor(async () => expect(await listRuns(clock.db, watcher)).toHaveLength(3), {
    timeout: 15_000,
  });
  expect((await clockJumps.read(clock.db)).last).toBeNull();
  await clock.set(0);
  const waiting = await clock.judged({ policy: "wait" });
  await clock.set(3 * hour);
  expect(await waiting.check()).toMatchObject({ isInDoubt: true });
});

test("with the policy `wait` a jump that persists for an hour is accepted, and with `confirm` it is not", async () => {
  let slept = 0;
  const elapsed = () => elapsedMs() + slept;
  const judged = await clock.judged({ policy: "wait", elapsed });
  const strict = await clock.judged({ elapsed });
  await clock.set(2 * day);
  // Each replica notices by its own monotonic clock.
  for (const one of [judged, strict]) {
    // A single time that is told, before the clock has been checked.
    expect(one.doubts(Date.now() + 2 * day)).toBe(true);
    expect(one.doubts(Date.now())).toBe(false);
    expect(await one.check()).toMatchObject({ isInDoubt: true });
  }
  const pass = async (ms: number) => {
    slept += ms;
    await clock.set(2 * day + slept);
  };
  await pass(59 * minute);
  for (const one of [judged, strict]) expect(await one.check()).toMatchObject({ isInDoubt: true });
  await pass(20 * hour);
  expect(await strict.check()).toMatchObject({ isInDoubt: true });
  expect((await clockJumps.read(clock.db)).last).toMatchObject({ resolution: null });
  expect(await judged.check()).toMatchObject({ isInDoubt: false });
  expect((await clockJumps.read(clock.db)).last).toMatchObject({ resolution: "accepted" });
  // The others take over the answer.
  expect(await strict.check()).toMatchObject({ isInDoubt: false });
});

test("while the clock is in doubt retention deletes nothing", async () => {
  const { db } = clock;
  const { run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run)], policy);
  const judged = await clock.judged();
  // The runs would be old enough even by the newest commits.
  await sql`update run_finished set finished_at = pg_catalog.now() - interval '400 days'`.execute(db);
  await sql`update clock set retained_at = null`.execute(db);
  const before = await countAll();
  await clock.set(45 * day);
  let checks = 0;
  const check = async () => {
    checks += 1;
    return judged.check();
  };
  const loop = startRetention({ db, log, days: 30, conversationDays: 365, judge: { check } });
  onTestFinished(() => loop.stop());
  await vi.waitFor(() => expect(checks).toBeGreaterThan(0));
  await loop.stop();
  expect(await countAll()).toEqual(before);
});

test("a time that a statement took from a clock in doubt undoes its transaction: the slot is recorded once the doubt is over", async () => {
  const { db } = clock;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(-1));
  const judged = await clock.judged();
  await clock.set(40 * day);
  const pass = () => materializeOnce(db, { doorbell: noteDoorbell(), log, judge: judged });
  await expect(pass()).rejects.toThrow("in doubt");
  expect(await listRuns(db, watcher)).toEqual([]);
  await clock.set(50 * minute);
  await pass();
  expect(await listRuns(db, watcher)).toMatchObject([{ scheduledFor: slot(-1), status: "pending" }]);
});

test("attempts, waiting runs and turns that a statement judges by a clock in doubt, set after the check before it, are left", async () => {
  const { db } = clock;
  const { run: held } = await seedRunning(db);
  const watcher = await seedWatcher(db, await seedDevice(db), { startDeadlineMs: minute });
  const waiting = { orgId: watcher.orgId, runId: (await triggerRun(db, watcher)).id };
  const turn = await turns.seedTurn(db, await turns.seedWorker(db));
  const judged = await clock.judged();
  const passes = [
    () => reapOnce(db, { rules: reapRules, policy, judge: judged }),
    () => expireOnce(db, { policy, judge: judged }),
    () => sweepTurnsOnce(db, { ttlMs: turns.turnTimers.ttlMs, judge: judged }),
  ];
  await clock.set(40 * day);
  for (const pass of passes) await expect(pass()).rejects.toThrow("in doubt");
  // Such a jump is no doubt, but for one TTL all work looks silent.
  await clock.set(50 * minute);
  for (const pass of [passes[0]!, passes[2]!]) await expect(pass()).rejects.toThrow(/was set \d+ ms ago/);
  expect(await findRun(db, held)).toMatchObject({ status: "running" });
  expect(await findRun(db, waiting)).toMatchObject({ status: "pending" });
  expect(await turns.findTurn(db, turn)).toMatchObject({ status: "running" });
  await clock.set(0);
  for (const pass of passes) expect(await pass()).toEqual([]);
});

test("while it is in doubt an edit of a watcher whose slots seem to be due is refused, and says why", async () => {
  const { replica, watcher } = await begin();
  await clock.set(45 * day);
  await jump();
  const pausing = replica.clients.watchers.pauseWatcher({ watcherId: watcher.watcherId });
  await expect(pausing).rejects.toThrow(/clock jumped.*pinion doctor/s);
});

test("a replica that starts in the middle of a jump holds it for one, too; and one that starts after it, for gone", async () => {
  const { db } = clock;
  const first = await clock.judged();
  await clock.set(10 * day);
  await first.check();
  await first.stop();
  const second = await clock.judged();
  expect(await second.check()).toMatchObject({ isInDoubt: true });
  await second.stop();
  await clock.set(0);
  let backs = 0;
  const third = await clock.judged();
  third.onBack(() => backs++);
  expect(await third.check()).toMatchObject({ isInDoubt: false });
  // Told until a replica has planned the schedules again; there is no planner here.
  expect(backs).toBeGreaterThan(0);
  expect((await clockJumps.read(db)).last).toMatchObject({ resolution: "gone" });
});

test("a jump that one replica sees and another one, which watched, does not, is refuted: the first one stood still", async () => {
  const { db } = clock;
  const judged = await clock.judged();
  const { now } = await clockJumps.read(db);
  const expectedAt = new Date(now.getTime() + 1_000);
  const noticedAt = new Date(expectedAt.getTime() + 2 * hour);
  await clockJumps.open(db, { witness: "monotonic", noticedBy: "elsewhere", noticedAt, expectedAt });
  expect(await judged.check()).toMatchObject({ isInDoubt: false });
  expect((await clockJumps.read(db)).last).toMatchObject({ resolution: "refuted", resolvedBy: "here" });
});

test("after an absence of all replicas of a week the clock is in doubt at first; after one of a night it is not", async () => {
  const { db } = clock;
  const seen = (ms: number) => sql`update clock set seen_at = now() - ${ms} * interval '1 ms'`.execute(db);
  await seen(12 * hour);
  expect(await (await clock.judged()).check()).toMatchObject({ isInDoubt: false });
  await seen(8 * day);
  const judged = await clock.judged();
  expect(await judged.check()).toMatchObject({ isInDoubt: true });
  expect((await clockJumps.read(db)).last).toMatchObject({ witness: "commits" });
});

test("a replica that starts during a jump, and whose own clock saw no absence, doubts the clock, whatever the jump's length", async () => {
  const { db } = clock;
  await clockJumps.noteSeen(db);
  await clock.set(6 * day);
  expect(await (await clock.judged()).check()).toMatchObject({ isInDoubt: true });
  expect((await clockJumps.read(db)).last).toMatchObject({ witness: "commits" });
  await clock.set(0);
  expect(await (await clock.judged()).check()).toMatchObject({ isInDoubt: false });
});

test("times that were written ahead do not keep anything waiting or alive after the clock went back", async () => {
  const { db } = clock;
  const { run, device } = await seedRunning(db);
  const judged = await clock.judged({ policy: "ignore" });
  await clock.set(45 * day);
  await judged.check();
  await sql`update run set last_beat_at = moved.now(), claimed_at = moved.now()`.execute(db);
  await sql`update presence set last_beat_at = moved.now(), connected_at = moved.now()`.execute(db);
  await sql`update schedule_position set last_run_at = moved.now()`.execute(db);
  await sql`update watcher set last_fired_at = moved.now(), backoff_until = moved.now() + interval '1 hour'`.execute(
    db,
  );
  await clock.set(0);
  await judged.check();
  const { rows } = await sql<{ ahead: number }>`
    select (select count(*) from run where greatest(last_beat_at, claimed_at, started_at) > pg_catalog.now())
      + (select count(*) from presence where greatest(last_beat_at, connected_at) > pg_catalog.now())
      + (select count(*) from schedule_position where last_run_at > pg_catalog.now())
      + (select count(*) from watcher where greatest(last_fired_at, backoff_until) > pg_catalog.now()) as ahead`.execute(
    db,
  );
  expect(Number(rows[0]!.ahead)).toBe(0);
  // Null columns stay null.
  expect(await findRun(db, run)).toMatchObject({ status: "running", cancelRequestedAt: null });
  expect(await presence.find(db, device)).toMatchObject({ disconnectedAt: null });
  expect(await storeOnce(db, [reportOf(run)], policy)).toBeDefined();
});

test("times that the right clock writes during the correction stay", async () => {
  const { db } = clock;
  const { run } = await seedRunning(db);
  const beatenAt = await transaction(db, async (tx) => {
    await sql`select now()`.execute(tx);
    // Another transaction, after the correction's begin.
    const { rows } = await sql<{ at: Date }>`
      update run set last_beat_at = clock_timestamp() where id = ${run.runId} returning last_beat_at as at`.execute(
      db,
    );
    await clockJumps.takeBackTimes(tx);
    return rows[0]!.at;
  });
  expect(await findRun(db, run)).toMatchObject({ lastBeatAt: beatenAt });
});

test("messages, limits, codes and questions of a wrong clock wait no longer than others once it is right", async () => {
  const { db } = clock;
  const { run, device } = await seedRunning(db);
  const judged = await clock.judged({ policy: "ignore" });
  await clock.set(45 * day);
  await judged.check();
  await sql`
    with target as (insert into destination (org_id, slug, name, kind) values (${orgId}, 'd', 'd', 'webhook') returning id)
    insert into delivery (org_id, destination_id, lane, kind, since, next_at, lease_until)
    select ${orgId}, id, id, 'test', moved.now(), moved.now(), moved.now() from target`.execute(db);
  await sql`insert into rate_key (org_id, key, starts, paused_until, touched_at)
    values (${orgId}, 'k', array[moved.now()], moved.now() + interval '1 minute', moved.now())`.execute(db);
  await sql`insert into join_code (org_id, sha256, created_at, expires_at)
    values (${orgId}, 'x', moved.now(), moved.now() + interval '10 minutes')`.execute(db);
  await sql`insert into sign_in_code (sha256, kind, address, data, created_at, expires_at)
    values ('x', 'link', '::1', '{}', moved.now(), moved.now() + interval '5 minutes')`.execute(db);
  await sql`insert into question (org_id, work_id, attempt_token, id, attempt, device_id, question, policy, asked_at, deadline_at, option_id)
    values (${orgId}, ${run.runId}, gen_random_uuid(), 'q', 1, ${device.deviceId}, '{}', '{}', moved.now(),
      moved.now() + interval '10 minutes', '')`.execute(db);
  await clock.set(0);
  await judged.check();
  const { rows } = await sql<{ of: string; waitsS: number }>`
    select 'delivery' as of, extract(epoch from greatest(since, next_at, lease_until) - pg_catalog.now())::int as "waitsS" from delivery
    union all select 'rate key', extract(epoch from paused_until - pg_catalog.now())::int + cardinality(starts) from rate_key
    union all select 'join code', extract(epoch from expires_at - pg_catalog.now())::int from join_code where sha256 = 'x'
    union all select 'sign-in', extract(epoch from expires_at - pg_catalog.now())::int from sign_in_code
    union all select 'question', extract(epoch from deadline_at - pg_catalog.now())::int from question`.execute(
    db,
  );
  expect(rows.map((row) => row.of)).toEqual(["delivery", "rate key", "join code", "sign-in", "question"]);
  for (const { of, waitsS } of rows) expect(waitsS, of).toBeLessThanOrEqual(600);
});

test("one pass of retention goes on by a day at most, and never to what is newer than the last runs less the retention", async () => {
  const { db } = clock;
  const retain = () => retainOnce(db, { days: 30, conversationDays: 365, log });
  const { run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run)], policy);
  await retain();
  await clock.set(400 * day);
  // The jump is not judged here. Ages count from the newest run, which protects all runs of its
  // retention period.
  const { at } = await retain();
  expect(at.getTime()).toBeLessThan(Date.now() + minute);
  for (let pass = 0; pass < 50; pass++) await retain();
  expect((await countAll())[0]).toBe(1);
  // Runs that end by the wrong clock advance the deletion by at most a day per pass.
  const { run: later } = await seedRunning(db);
  await storeOnce(db, [reportOf(later)], policy);
  const first = await retain();
  const second = await retain();
  expect(second.at.getTime() - first.at.getTime()).toBeLessThanOrEqual(day);
  expect(elapsedMs()).toBeGreaterThan(0);
});
