/**
 * R5: a completion is stored exactly once, only under the current attempt token, in one
 * transaction.
 */
import { expect, test } from "vitest";
import { createEndings } from "../../../src/scheduler/endings/endings.ts";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { runEndings, settleWithEvents } from "../../../src/scheduler/endings/run-endings.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
  accept,
  ageRun,
  claim,
  findRun,
  findWatcher,
  listKinds,
  listWindows,
  openDevice,
  reapRules,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  startRun,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();
const store = (...reports: ReturnType<typeof reportOf>[]) => storeOnce(database.db, reports, policy);
const reap = () => reapOnce(database.db, { rules: reapRules, policy });

test("R5: a completion writes the run, its window, its watcher and its event together", async () => {
  const { db } = database;
  const { watcher, run } = await seedRunning(db);
  const { verdicts, settled } = await store(reportOf(run, { output: "42", exitCode: 0 }));
  const [window] = await listWindows(db, run);
  expect(verdicts).toEqual([{ verdict: "stored", windowId: window!.id }]);
  expect(settled).toMatchObject([{ action: "finished", status: "completed" }]);
  expect(window).toMatchObject({
    model_used: "device-cli",
    extracted_data: { kind: "device_cli_output", output: "42", exit_code: 0, is_truncated: false },
    window_start: run.windowStart,
    window_end: run.windowEnd,
  });
  expect(await findRun(db, run)).toMatchObject({
    status: "completed",
    windowId: window!.id,
    durationMs: 5,
    exitCode: 0,
  });
  expect(await findWatcher(db, watcher)).toMatchObject({
    last_fired_at: expect.any(Date),
    last_window_id: window!.id,
    window_cursor_at: run.windowEnd,
    consecutive_failures: 0,
    active_run_id: null,
  });
  expect(await listKinds(db, run)).toEqual(["run.created", "run.completed"]);
});

test("R5: a completion that is rolled back leaves no trace", async () => {
  const { db } = database;
  const { watcher, run } = await seedRunning(db);
  {
    await using dying = await hold(db);
    await storeOnce(dying.tx, [reportOf(run)], policy);
  }
  expect((await findRun(db, run)).status).toBe("running");
  expect(await listWindows(db, run)).toEqual([]);
  expect((await findWatcher(db, watcher)).last_fired_at).toBeNull();
  expect(await listKinds(db, run)).toEqual(["run.created"]);
});

test("R5: of two completions at once the first is stored and the second hears that it is", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await using first = await hold(db);
  const one = await storeOnce(first.tx, [reportOf(run, { output: "one" })], policy);
  const second = store(reportOf(run, { output: "two" }));
  await untilBlocked(db);
  await first.commit();
  const windows = await listWindows(db, run);
  expect(windows).toMatchObject([{ extracted_data: { output: "one" } }]);
  expect(one.verdicts).toEqual([{ verdict: "stored", windowId: windows[0]!.id }]);
  expect((await second).verdicts).toEqual([{ verdict: "already_stored", windowId: windows[0]!.id }]);
  expect(await listKinds(db, run)).toEqual(["run.created", "run.completed"]);
});

test("R5: in a batch with repeats every run keeps its own output", async () => {
  const { db } = database;
  const a = await seedRunning(db);
  const b = await seedRunning(db);
  const reports = [
    reportOf(a.run, { output: "A" }),
    reportOf(a.run, { output: "A" }),
    reportOf(b.run, { output: "B" }),
  ];
  const { verdicts } = await store(...reports);
  const [windowA] = await listWindows(db, a.run);
  const [windowB] = await listWindows(db, b.run);
  expect(windowA).toMatchObject({ extracted_data: { output: "A" } });
  expect(windowB).toMatchObject({ extracted_data: { output: "B" } });
  expect(verdicts).toEqual([
    { verdict: "stored", windowId: windowA!.id },
    { verdict: "already_stored", windowId: windowA!.id },
    { verdict: "stored", windowId: windowB!.id },
  ]);
});

test("R5: many devices that report at once through one replica each get their own answer", async () => {
  const { db } = database;
  const runs = await Promise.all(Array.from({ length: 5 }, async () => (await seedRunning(db)).run));
  const completer = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), {
    db,
    log: createLogger({ name: "test", level: "silent" }),
  });
  const reports = runs.flatMap((run) => [run, run]).map((run) => reportOf(run, { output: run.runId }));
  const verdicts = await Promise.all(reports.map((report) => completer.report(report)));
  expect(verdicts.map(({ verdict }) => verdict)).toEqual(runs.flatMap(() => ["stored", "already_stored"]));
  for (const run of runs) {
    expect(await listWindows(db, run)).toMatchObject([{ extracted_data: { output: run.runId } }]);
  }
});

test("R5: a completion that reaches the row before the reaper is stored, and the reaper passes it over", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await ageRun(db, run, { last_beat_at: 200_000 });
  await using completing = await hold(db);
  await storeOnce(completing.tx, [reportOf(run)], policy);
  expect(await reap()).toEqual([]);
  await completing.commit();
  expect(await reap()).toEqual([]);
  expect((await findRun(db, run)).status).toBe("completed");
});

test("R5: a completion that comes while the reaper commits settles the run after it, once", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await ageRun(db, run, { last_beat_at: 200_000 });
  await using reaping = await hold(db);
  expect(await reapOnce(reaping.tx, { rules: reapRules, policy })).toHaveLength(1);
  const late = store(reportOf(run));
  await untilBlocked(db);
  await reaping.commit();
  expect((await late).verdicts).toEqual([{ verdict: "stored_late", windowId: expect.any(String) }]);
  expect(await findRun(db, run)).toMatchObject({ status: "completed" });
  expect(await listKinds(db, run)).toEqual(["run.created", "run.timeout", "run.completed_late"]);
  expect((await store(reportOf(run))).verdicts).toMatchObject([{ verdict: "already_stored" }]);
  expect(await listWindows(db, run)).toHaveLength(1);
});

test("R5: an attempt that another one took over cannot complete the run", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { maxAttempts: 2 });
  await ageRun(db, run, { last_beat_at: 200_000 });
  expect(await reap()).toMatchObject([{ action: "retried" }]);
  await ageRun(db, run, { not_before: 1_000 });
  const [second] = await claim(db, device, epoch);
  expect(second).toMatchObject({ runId: run.runId, attempt: 2 });
  await accept(db, second!);
  expect((await store(reportOf(run, { output: "stale" }))).verdicts).toMatchObject([
    { verdict: "superseded" },
  ]);
  expect((await store(reportOf(second!, { output: "fresh" }))).verdicts).toMatchObject([
    { verdict: "stored" },
  ]);
  expect((await store(reportOf(run, { output: "stale" }))).verdicts).toMatchObject([
    { verdict: "superseded", windowId: null },
  ]);
  expect(await listWindows(db, run)).toMatchObject([{ extracted_data: { output: "fresh" } }]);
});

test("R5: a failure stores no window, keeps the end of its output, and a repeat changes nothing", async () => {
  const { db } = database;
  const { watcher, run } = await seedRunning(db);
  const report = reportOf(run, {
    status: "failed",
    reason: "exit 1",
    exitCode: 1,
    output: `${"x".repeat(10_000)}end`,
  });
  expect((await store(report)).verdicts).toEqual([{ verdict: "stored", windowId: null }]);
  expect((await store(report)).verdicts).toEqual([{ verdict: "already_stored", windowId: null }]);
  const ended = await findRun(db, run);
  expect(ended).toMatchObject({ status: "failed", reason: "exit 1", exitCode: 1, windowId: null });
  expect(ended.outputTail).toHaveLength(8_000);
  expect(ended.outputTail.endsWith("end")).toBe(true);
  expect(await listWindows(db, run)).toEqual([]);
  expect(await findWatcher(db, watcher)).toMatchObject({
    consecutive_failures: 1,
    last_fired_at: expect.any(Date),
    window_cursor_at: null,
  });
});

test("R5: a failed attempt is repeated after a delay that doubles, until its attempts are used up", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { maxAttempts: 3 });
  let current = run;
  const delays: number[] = [];
  for (const attempt of [1, 2]) {
    const { verdicts, settled } = await store(reportOf(current, { status: "failed", reason: "no" }));
    expect(verdicts).toEqual([{ verdict: "stored", windowId: null }]);
    expect(settled).toMatchObject([{ action: "retried", status: "pending", attempt }]);
    // The same report again, while the run waits for its next attempt.
    expect((await store(reportOf(current))).verdicts).toEqual([
      { verdict: "already_stored", windowId: null },
    ]);
    expect(await claim(db, device, epoch)).toEqual([]);
    const row = await findRun(db, run);
    delays.push(row.notBefore!.getTime() - new Date(row.pastAttempts.at(-1)!.ended_at).getTime());
    await ageRun(db, run, { not_before: 0 });
    current = (await claim(db, device, epoch))[0]!;
    expect(current.attempt).toBe(attempt + 1);
    await accept(db, current);
  }
  expect(delays).toEqual([10_000, 20_000]);
  expect((await store(reportOf(current))).settled).toMatchObject([{ action: "finished", attempt: 3 }]);
  // The answer to a repeat of the failed first attempt does not contain the third attempt's window.
  expect((await store(reportOf(run))).verdicts).toEqual([{ verdict: "already_stored", windowId: null }]);
  expect((await findRun(db, run)).pastAttempts).toMatchObject([
    { attempt: 1, reason: "no", is_reported: true },
    { attempt: 2, reason: "no", is_reported: true },
  ]);
  expect(await listKinds(db, run)).toEqual(["run.created", "run.retried", "run.retried", "run.completed"]);
});

test("R5: output that PostgreSQL cannot hold as it is, is stored all the same", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  const output = "before\0after \ud83d\ude00 \u2028 \\u0000 ' \" \ud800";
  expect((await store(reportOf(run, { output, reason: "a\0b", signal: "\0" }))).verdicts).toMatchObject([
    { verdict: "stored" },
  ]);
  expect(await listWindows(db, run)).toMatchObject([
    { extracted_data: { output: "before\ufffdafter \ud83d\ude00 \u2028 \\u0000 ' \" \ufffd" } },
  ]);
});

test("R5: a result from before the last stored one does not move the next run's window back", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await store(reportOf(run));
  const { window_cursor_at: cursor, last_window_id: lastWindowId } = await findWatcher(db, watcher);
  const second = await startRun(db, { device, epoch, watcher });
  expect(second.windowStart).toEqual(cursor);
  await db
    .updateTable("run")
    .set({ window_start: new Date(0), window_end: new Date(1_000) })
    .execute();
  await store(reportOf(second));
  expect(await listWindows(db, second)).toHaveLength(1);
  expect(await findWatcher(db, watcher)).toMatchObject({
    window_cursor_at: cursor,
    last_window_id: lastWindowId,
  });
});

test("R5: a result is judged before its org's events are locked, and nothing follows their append", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await store(reportOf(run));
  const second = await startRun(db, { device, epoch, watcher });
  const statements: string[] = [];
  const noting = db.withPlugin({
    transformQuery: ({ node }) => {
      statements.push(JSON.stringify(node));
      return node;
    },
    transformResult: async ({ result }) => result,
  });
  const { verdicts } = await storeOnce(noting, [reportOf(run), reportOf(second)], policy);
  expect(verdicts).toMatchObject([{ verdict: "already_stored" }, { verdict: "stored" }]);
  expect(statements.findIndex((text) => text.includes("insert into event"))).toBe(statements.length - 1);
});

test("R5: a withdrawal and a completion of one attempt at once leave exactly one of them", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device);
  await triggerRun(db, watcher);
  const run = (await claim(db, device, epoch))[0]!;
  await using withdrawing = await hold(db);
  await settleWithEvents(
    withdrawing.tx,
    [{ ...run, deviceId: null, action: "withdraw", status: "timeout", reason: "busy" }],
    policy,
  );
  const late = store(reportOf(run));
  await untilBlocked(db);
  await withdrawing.commit();
  expect((await late).verdicts).toEqual([{ verdict: "stored_late", windowId: expect.any(String) }]);
  expect(await findRun(db, run)).toMatchObject({ status: "completed", attempt: 1, pastAttempts: [] });
  expect(await listWindows(db, run)).toHaveLength(1);
});
