/** R9: one bad row never stops a pass. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createEndings } from "../../../src/scheduler/endings/endings.ts";
import { expireOnce, reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { runEndings } from "../../../src/scheduler/endings/run-endings.ts";
import { failTurnsOfSessions, sweepTurnsOnce } from "../../../src/scheduler/endings/turn-sweep.ts";
import { materializeBacklogOnce, materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { backfill } from "../../../src/scheduler/starts/triggers.ts";
import { type Db, openDatabase, transaction } from "../../../src/store/pg/database.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import {
  ageRun,
  findRun,
  findWatcher,
  hourly,
  listKinds,
  listRuns,
  listWindows,
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
import { ageTurn, endsOf, findTurn, seedTurn, seedWorker } from "../../support/turns.ts";

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
  // The row does not come back in the next pass.
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
  // The run's window would be empty, which the database refuses.
  await db
    .updateTable("run")
    .set((eb) => ({ window_start: eb.ref("window_end") }))
    .where("id", "=", bad!.runId)
    .execute();
  const completer = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), {
    db,
    log: loggingTo([]),
  });
  const results = await Promise.allSettled(seeded.map((run) => completer.report(reportOf(run))));
  expect(results[0]).toMatchObject({ status: "rejected", reason: { reason: "invalid_argument" } });
  expect(results.slice(1)).toMatchObject(
    good.map(() => ({ status: "fulfilled", value: { verdict: "stored" } })),
  );
  for (const run of good) expect(await listWindows(db, run)).toHaveLength(1);
  expect((await findRun(db, bad!)).status).toBe("running");
});

/** From here on the database refuses the end of this run. */
const refuseEndOf = (db: Db, run: { runId: string }) =>
  sql`alter table run_finished add constraint test_refused check (id <> ${sql.lit(run.runId)})`.execute(db);

test("R9: a lost attempt that the database refuses to end does not keep the others of its batch alive", async () => {
  const { db } = database;
  const seeded = [];
  for (let i = 0; i < 4; i++) seeded.push((await seedRunning(db)).run);
  for (const run of seeded) await ageRun(db, run, { last_beat_at: reapRules.silentAttemptMs + 1_000 });
  const [bad, ...good] = seeded;
  await refuseEndOf(db, bad!);
  const lines: string[] = [];
  const reap = () => reapOnce(db, { rules: reapRules, policy, log: loggingTo(lines) });
  expect((await reap()).map((run) => run.runId).sort()).toEqual(good.map((run) => run.runId).sort());
  for (const run of good) {
    expect((await findRun(db, run)).status).toBe("timeout");
    expect(await listKinds(db, run)).toEqual(["run.created", "run.timeout"]);
  }
  expect((await findRun(db, bad!)).status).toBe("running");
  expect(await listKinds(db, bad!)).toEqual(["run.created"]);
  expect(lines.some((line) => line.includes(bad!.runId))).toBe(true);
  expect(await reap()).toEqual([]);
});

test("R9: a run whose deadline passed and that the database refuses to end does not keep the others waiting", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const waiting = [];
  for (let i = 0; i < 4; i++) {
    const { id } = await triggerRun(db, await seedWatcher(db, device, { startDeadlineMs: 60_000 }));
    waiting.push({ orgId: device.orgId, runId: id });
  }
  for (const run of waiting) await ageRun(db, run, { start_deadline_at: 0 });
  const [bad, ...good] = waiting;
  await refuseEndOf(db, bad!);
  const lines: string[] = [];
  const expired = await expireOnce(db, { policy, log: loggingTo(lines) });
  expect(expired.map((run) => run.runId).sort()).toEqual(good.map((run) => run.runId).sort());
  for (const run of good) expect((await findRun(db, run)).skipReason).toBe("offline_expired");
  expect((await findRun(db, bad!)).status).toBe("pending");
  expect(lines.some((line) => line.includes(bad!.runId))).toBe(true);
});

test("R9: a watcher that failed two thousand times, and a run on its two thousandth attempt, still fail in order", async () => {
  const { db } = database;
  const tired = await seedRunning(db);
  await db
    .updateTable("watcher")
    .set({ consecutive_failures: 2_000 })
    .where("id", "=", tired.watcher.watcherId)
    .execute();
  const stubborn = await seedRunning(db, { maxAttempts: 3 });
  await db
    .updateTable("run")
    .set({ attempt: 2_000, max_attempts: 3_000 })
    .where("id", "=", stubborn.run.runId)
    .execute();
  const { verdicts, settled } = await transaction(db, (tx) =>
    storeOnce(
      tx,
      [tired.run, stubborn.run].map((run) => reportOf(run, { status: "failed", reason: "no" })),
      policy,
    ),
  );
  expect(verdicts).toMatchObject([{ verdict: "stored" }, { verdict: "stored" }]);
  const backoffMs = (await findWatcher(db, tired.watcher)).backoff_until!.getTime() - Date.now();
  expect(Math.abs(backoffMs - 86_400_000)).toBeLessThan(60_000);
  const retried = settled.find((run) => run.runId === stubborn.run.runId);
  expect(Math.abs(retried!.notBefore!.getTime() - Date.now() - 600_000)).toBeLessThan(60_000);
});

test("R9: the halves of a refused batch are stored one after the other, over one connection", async () => {
  const { db, url } = database;
  const seeded = [];
  for (let i = 0; i < 8; i++) seeded.push((await seedRunning(db)).run);
  await refuseEndOf(db, seeded[0]!);
  const own = openDatabase({ url, poolMax: 8 });
  try {
    const completer = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), {
      db: own.db,
      log: loggingTo([]),
    });
    const results = await Promise.allSettled(seeded.map((run) => completer.report(reportOf(run))));
    expect(results.map((result) => result.status)).toEqual(["rejected", ...Array(7).fill("fulfilled")]);
    expect(own.stats().open).toBe(1);
  } finally {
    await own.close();
  }
});

test("R9: a device is let in although the database refuses to end a run that it came back without", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db);
  await refuseEndOf(db, run);
  const opening = await openDevice(db, device);
  expect(opening).toMatchObject({ epoch: epoch + 1, settled: [], continuing: [] });
  expect((await findRun(db, run)).status).toBe("running");
});

/** Three running turns of one worker; the database refuses to store the end of the first turn. */
async function seedTurnsWithBadOne(db: Db) {
  const worker = await seedWorker(db);
  const turns = [];
  for (const person of ["ada", "bob", "eve"]) {
    turns.push(await seedTurn(db, worker, { conversationId: `pinion-default_${person}_local` }));
  }
  const [bad, ...good] = turns;
  await sql`
    alter table turn_finished add constraint test_refused check (id <> ${sql.lit(bad!.turnId)})
  `.execute(db);
  const lines: string[] = [];
  const expectGoodEnded = async () => {
    for (const turn of good) {
      expect((await findTurn(db, turn)).status).toBe("failed");
      expect(await endsOf(db, turn)).toEqual(["turn.failed"]);
    }
    expect((await findTurn(db, bad!)).status).toBe("running");
    expect(await endsOf(db, bad!)).toEqual([]);
  };
  return { worker, turns, bad: bad!, lines, log: loggingTo(lines), expectGoodEnded };
}

test("R9: a turn that the database refuses to end keeps no other one alive past its deadline", async () => {
  const { db } = database;
  const { turns, bad, lines, log, expectGoodEnded } = await seedTurnsWithBadOne(db);
  for (const turn of turns) await ageTurn(db, turn, { deadline_at: 1 });
  await sweepTurnsOnce(db, { ttlMs: 60_000, log });
  await expectGoodEnded();
  expect(lines.some((line) => line.includes(bad.turnId))).toBe(true);
  expect(await sweepTurnsOnce(db, { ttlMs: 60_000, log })).toEqual([]);
});

test("R9: the fast path ends a broken stream's turns although the database refuses to end one of them", async () => {
  const { db } = database;
  const { worker, log, expectGoodEnded } = await seedTurnsWithBadOne(db);
  await failTurnsOfSessions(db, [{ ...worker, pushed: new Set() }], { log, onEnded() {} });
  await expectGoodEnded();
});

test("R9: a worker is let in although the database refuses to end a turn that it came back without", async () => {
  const { db } = database;
  const { worker, expectGoodEnded } = await seedTurnsWithBadOne(db);
  expect((await openDevice(db, worker)).turnsEnded).toHaveLength(2);
  await expectGoodEnded();
});
