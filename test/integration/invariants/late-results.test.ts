/**
 * R10: the result of a finished program becomes its run's result, or a late result visible to
 * people; a result is never only deleted.
 */
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { cancelRun } from "../../../src/scheduler/endings/cancels.ts";
import { createEndings } from "../../../src/scheduler/endings/endings.ts";
import { expireOnce, reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { runEndings, settleWithEvents, storeLate } from "../../../src/scheduler/endings/run-endings.ts";
import { keepLate, storeRepliesOnce, turnEndings } from "../../../src/scheduler/endings/turn-endings.ts";
import { sweepTurnsOnce } from "../../../src/scheduler/endings/turn-sweep.ts";
import { openDatabase, transaction } from "../../../src/store/pg/database.ts";
import { withinOrg } from "../../../src/store/pg/tenancy.ts";
import * as lateResults from "../../../src/store/work/attempts/late-results.ts";
import type { ClaimedRun } from "../../../src/store/work/runs/run-claims.ts";
import * as retention from "../../../src/store/work/service/retention.ts";
import * as conversations from "../../../src/store/work/turns/conversations.ts";
import { withdraw } from "../../../src/store/work/turns/turn-settlements.ts";
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
  orgId,
  reapRules,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  seedWorker,
  startRun,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../../support/surroundings.ts";
import * as turns from "../../support/turns.ts";

const database = useDatabase();
const store = (...reports: ReturnType<typeof reportOf>[]) => storeOnce(database.db, reports, policy);
const reap = () => reapOnce(database.db, { rules: reapRules, policy });
const late = (run: { runId: string }) => lateResults.list(database.db, { orgId, id: run.runId });

/** The report of an agent that says nothing. */
const noReport = {
  ...{ result: "", structured: undefined, attention: [], sessionId: "", facts: {} },
  ...{ usage: undefined, transcript: undefined },
};

/** The run's attempt is lost: its beats stopped long ago. */
async function lose(run: ClaimedRun): Promise<void> {
  await ageRun(database.db, run, { last_beat_at: reapRules.silentAttemptMs + 1 });
  expect(await reap()).toHaveLength(1);
}

test("R10: a result that comes after its run timed out is the run's after all", async () => {
  const { db } = database;
  const { watcher, run } = await seedRunning(db);
  await lose(run);
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 1, last_window_id: null });
  const { verdicts, settled } = await store(reportOf(run, { output: "42" }));
  const [window] = await listWindows(db, run);
  expect(verdicts).toEqual([{ verdict: "stored_late", windowId: window!.id }]);
  expect(settled).toMatchObject([
    { action: "finished", status: "completed", isLate: true, hasBacklog: false },
  ]);
  expect(window).toMatchObject({ extracted_data: { kind: "device_cli_output", output: "42", exit_code: 0 } });
  expect(await findRun(db, run)).toMatchObject({
    status: "completed",
    reason: "",
    windowId: window!.id,
    exitCode: 0,
    durationMs: 5,
  });
  expect(await findWatcher(db, watcher)).toMatchObject({
    consecutive_failures: 0,
    last_window_id: window!.id,
    window_cursor_at: run.windowEnd,
    last_fired_at: expect.any(Date),
  });
  expect(await listKinds(db, run)).toEqual(["run.created", "run.timeout", "run.completed_late"]);
  expect(await late(run)).toMatchObject([{ attempt: 1, outcome: "completed", hasSettled: true, output: "" }]);
});

test("R10: a repeat of a late result hears that it is stored, and changes nothing", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await lose(run);
  const { verdicts } = await store(reportOf(run, { output: "one" }), reportOf(run, { output: "one" }));
  const windowId = verdicts[0]!.windowId;
  expect(verdicts.map(({ verdict }) => verdict)).toEqual(["stored_late", "already_stored"]);
  expect((await store(reportOf(run, { output: "two" }))).verdicts).toEqual([
    { verdict: "already_stored", windowId },
  ]);
  expect(await listWindows(db, run)).toMatchObject([{ extracted_data: { output: "one" } }]);
  expect(await late(run)).toHaveLength(1);
});

test("R10: of two late copies at once, one settles the run and the other hears that it is stored", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await lose(run);
  await using first = await hold(db);
  expect((await storeLate(first.tx, [reportOf(run)], policy)).verdicts).toMatchObject([
    { verdict: "stored_late" },
  ]);
  const second = store(reportOf(run));
  await untilBlocked(db);
  await first.commit();
  expect((await second).verdicts).toMatchObject([{ verdict: "already_stored" }]);
  expect(await listWindows(db, run)).toHaveLength(1);
});

test("R10: while the next attempt waits unclaimed, a late result settles the run and that attempt is gone", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db, { maxAttempts: 2, overlap: "queue_one" });
  await lose(run);
  expect(await findRun(db, run)).toMatchObject({ status: "pending", attempt: 1 });
  const { verdicts, settled } = await store(reportOf(run, { output: "42" }));
  expect(verdicts).toMatchObject([{ verdict: "stored_late" }]);
  expect(settled).toMatchObject([{ runId: run.runId, hasBacklog: true }]);
  expect(await findRun(db, run)).toMatchObject({
    status: "completed",
    attempt: 1,
    deviceId: device.deviceId,
    pastAttempts: [],
    claimedAt: expect.any(Date),
  });
  expect(await listWindows(db, run)).toMatchObject([{ extracted_data: { output: "42" } }]);
  expect(await claim(db, device, epoch)).toEqual([]);
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 0, active_run_id: null });
  expect((await store(reportOf(run))).verdicts).toMatchObject([{ verdict: "already_stored" }]);
});

test("R10: a claim that holds the run while a late result comes keeps it; the result is kept beside it", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { maxAttempts: 2 });
  await lose(run);
  await ageRun(db, run, { not_before: 1_000 });
  await using claiming = await hold(db);
  const [second] = await claim(claiming.tx, device, epoch);
  expect(second).toMatchObject({ runId: run.runId, attempt: 2 });
  const coming = store(reportOf(run, { output: "first" }));
  await untilBlocked(db);
  await claiming.commit();
  expect((await coming).verdicts).toEqual([{ verdict: "superseded", windowId: null }]);
  expect(await findRun(db, run)).toMatchObject({ status: "claimed", attempt: 2 });
  expect(await late(run)).toMatchObject([
    { attempt: 1, deviceId: device.deviceId, outcome: "completed", hasSettled: false, output: "first" },
  ]);
  await accept(db, second!);
  expect((await store(reportOf(second!, { output: "second" }))).verdicts).toMatchObject([
    { verdict: "stored" },
  ]);
  expect(await listWindows(db, run)).toMatchObject([{ extracted_data: { output: "second" } }]);
  expect(await listKinds(db, run)).toEqual([
    "run.created",
    "run.retried",
    "run.late_result",
    "run.completed",
  ]);
});

test("R10: a claim passes over a run that a late result settles at that moment", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { maxAttempts: 2 });
  await lose(run);
  await ageRun(db, run, { not_before: 1_000 });
  await using settling = await hold(db);
  await storeLate(settling.tx, [reportOf(run)], policy);
  expect(await claim(db, device, epoch)).toEqual([]);
  await settling.commit();
  expect(await claim(db, device, epoch)).toEqual([]);
  expect(await findRun(db, run)).toMatchObject({ status: "completed", attempt: 1 });
});

test("R10: a run that a later attempt completed keeps that result, and the earlier one is kept beside it", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { maxAttempts: 3 });
  const attempts = [run];
  for (const attempt of [2, 3]) {
    await lose(attempts.at(-1)!);
    await ageRun(db, run, { not_before: 1_000 });
    const [next] = await claim(db, device, epoch);
    expect(next!.attempt).toBe(attempt);
    await accept(db, next!);
    attempts.push(next!);
  }
  await store(reportOf(attempts[2]!, { output: "3" }));
  // Both earlier attempts in one batch, one of them twice.
  const reports = [0, 1, 0].map((index) => reportOf(attempts[index]!, { output: `${index + 1}` }));
  expect((await store(...reports)).verdicts).toEqual(
    Array(3).fill({ verdict: "superseded", windowId: null }),
  );
  expect((await store(...reports)).verdicts).toEqual(
    Array(3).fill({ verdict: "superseded", windowId: null }),
  );
  expect(await late(run)).toMatchObject([
    { attempt: 1, output: "1" },
    { attempt: 2, output: "2" },
  ]);
  expect(await listWindows(db, run)).toMatchObject([{ extracted_data: { output: "3" } }]);
});

test("R10: a result of a run that was cancelled without an answer completes it", async () => {
  const { db } = database;
  const { watcher, run } = await seedRunning(db);
  await cancelRun(db, { orgId, runId: run.runId }, { reason: "enough", policy, doorbell: noteDoorbell() });
  await ageRun(db, run, { cancel_requested_at: reapRules.ttlMs + 1, last_beat_at: reapRules.ttlMs + 1 });
  expect(await reap()).toMatchObject([{ status: "cancelled" }]);
  expect((await store(reportOf(run))).verdicts).toMatchObject([{ verdict: "stored_late" }]);
  expect(await findRun(db, run)).toMatchObject({ status: "completed", windowId: expect.any(String) });
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 0 });
});

test("R10: a cancelled run stays so if its program failed, and keeps the end of what was cancelled", async () => {
  const { db } = database;
  const cancelled = async () => {
    const { run } = await seedRunning(db);
    await cancelRun(db, { orgId, runId: run.runId }, { reason: "enough", policy, doorbell: noteDoorbell() });
    await ageRun(db, run, { cancel_requested_at: reapRules.ttlMs + 1, last_beat_at: reapRules.ttlMs + 1 });
    await reap();
    return run;
  };
  const failed = await cancelled();
  const report = reportOf(failed, { status: "failed", reason: "exit 1", exitCode: 1, output: "oops" });
  expect((await store(report)).verdicts).toMatchObject([{ verdict: "superseded" }]);
  expect(await findRun(db, failed)).toMatchObject({ status: "cancelled", exitCode: null });
  expect(await late(failed)).toMatchObject([{ outcome: "failed", reason: "exit 1", output: "oops" }]);

  const ended = await cancelled();
  const partial = reportOf(ended, { status: "cancelled", output: "half of it", exitCode: undefined });
  expect((await store(partial)).verdicts).toMatchObject([{ verdict: "stored_late" }]);
  expect(await findRun(db, ended)).toMatchObject({ status: "cancelled", outputTail: "half of it" });

  // The answer to the cancel alone contains no result to keep.
  const silent = await cancelled();
  expect((await store(reportOf(silent, { status: "cancelled", output: "" }))).verdicts).toMatchObject([
    { verdict: "superseded" },
  ]);
  expect(await late(silent)).toEqual([]);
  // An agent's answer without other output is one.
  const answered = await cancelled();
  const answer = {
    status: "cancelled",
    output: "",
    agent: { ...noReport, result: "half an answer" },
  } as const;
  expect((await store(reportOf(answered, answer))).verdicts).toMatchObject([{ verdict: "superseded" }]);
  expect(await late(answered)).toMatchObject([{ answer: { result: "half an answer" } }]);
  // And a result after such an answer is stored.
  expect((await store(reportOf(silent))).verdicts).toMatchObject([{ verdict: "stored_late" }]);
});

test("R10: a late failure ends a run without attempts left, and leaves one that has some to its next", async () => {
  const { db } = database;
  const failure = { status: "failed", reason: "exit 1", exitCode: 1, output: "oops" } as const;
  const only = await seedRunning(db);
  await lose(only.run);
  expect((await store(reportOf(only.run, failure))).verdicts).toEqual([
    { verdict: "stored_late", windowId: null },
  ]);
  expect(await findRun(db, only.run)).toMatchObject({
    status: "failed",
    reason: "exit 1",
    exitCode: 1,
    outputTail: "oops",
  });
  // The failure was counted when the attempt was lost.
  expect(await findWatcher(db, only.watcher)).toMatchObject({ consecutive_failures: 1 });

  const first = await seedRunning(db, { maxAttempts: 2 });
  await lose(first.run);
  expect((await store(reportOf(first.run, failure))).verdicts).toMatchObject([{ verdict: "superseded" }]);
  expect(await findRun(db, first.run)).toMatchObject({ status: "pending", attempt: 1 });
  expect(await late(first.run)).toMatchObject([{ outcome: "failed", reason: "exit 1", output: "oops" }]);
});

test("R10: a withdrawn attempt that ran all the same counts once its failure is known", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device, { maxAttempts: 1 });
  await triggerRun(db, watcher);
  const run = (await claim(db, device, epoch))[0]!;
  const withdrawal = { action: "withdraw", status: "timeout", reason: "never accepted" } as const;
  await transaction(db, (tx) => settleWithEvents(tx, [{ ...run, deviceId: null, ...withdrawal }], policy));
  expect(await findRun(db, run)).toMatchObject({ status: "pending", attempt: 0 });
  const report = reportOf(run, { status: "failed", reason: "exit 1" });
  expect((await store(report)).verdicts).toMatchObject([{ verdict: "stored_late" }]);
  expect(await findRun(db, run)).toMatchObject({ status: "failed", attempt: 1 });
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 1 });
});

test("R10: a result of a slot that was skipped while its attempt ran unseen is the slot's", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device, { startDeadlineMs: 60_000 });
  await triggerRun(db, watcher);
  const run = (await claim(db, device, epoch))[0]!;
  const withdrawal = { action: "withdraw", status: "timeout", reason: "never accepted" } as const;
  await transaction(db, (tx) => settleWithEvents(tx, [{ ...run, deviceId: null, ...withdrawal }], policy));
  await ageRun(db, run, { start_deadline_at: 1 });
  expect(await expireOnce(db, { policy })).toHaveLength(1);
  expect((await store(reportOf(run))).verdicts).toMatchObject([{ verdict: "stored_late" }]);
  expect(await findRun(db, run)).toMatchObject({ status: "completed", skipReason: null });
});

test("R10: a late result takes back the failure that was counted for its run, and no later one", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await lose(run);
  const later: ClaimedRun[] = [];
  for (let failures = 2; failures <= 4; failures++) {
    await db.updateTable("watcher").set({ backoff_until: null }).execute();
    const next = await startRun(db, { device, epoch, watcher });
    await store(reportOf(next, { status: "failed", reason: "no" }));
    later.push(next);
  }
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 4 });
  await store(reportOf(run));
  const mended = await findWatcher(db, watcher);
  expect(mended).toMatchObject({ consecutive_failures: 3, backoff_until: expect.any(Date) });
  // A later completed run has already reset the count.
  const last = await startRun(db, { device, epoch, watcher });
  await lose(last);
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 4 });
  await store(reportOf(last));
  expect(await findWatcher(db, watcher)).toMatchObject({ consecutive_failures: 0, backoff_until: null });
});

test("R10: a late result of an earlier window does not move the watcher's position back", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await lose(run);
  const second = await startRun(db, { device, epoch, watcher });
  await db
    .updateTable("run")
    .set({ window_start: new Date(), window_end: new Date(Date.now() + 1_000) })
    .execute();
  await store(reportOf(second));
  const { last_window_id, window_cursor_at } = await findWatcher(db, watcher);
  await store(reportOf(run));
  expect(await listWindows(db, run)).toHaveLength(1);
  expect(await findWatcher(db, watcher)).toMatchObject({ last_window_id, window_cursor_at });
});

test("R10: a fleet worker's late result is kept for the worker that had the attempt, and for no other", async () => {
  const { db } = database;
  const [first, second] = [await seedWorker(db), await seedWorker(db)];
  const nowhere = { orgId, deviceId: "" };
  const watcher = await seedWatcher(db, nowhere, { deviceId: null, maxAttempts: 2 });
  await triggerRun(db, watcher);
  const [run] = await claim(db, first.worker, first.epoch, 1, first.kinds);
  await accept(db, run!);
  await lose(run!);
  expect((await store(reportOf(run!, { deviceId: second.worker.deviceId }))).verdicts).toMatchObject([
    { verdict: "unknown" },
  ]);
  await ageRun(db, run!, { not_before: 1_000 });
  const [taken] = await claim(db, second.worker, second.epoch, 1, second.kinds);
  expect(taken).toMatchObject({ attempt: 2 });
  expect((await store(reportOf(run!, { output: "first" }))).verdicts).toMatchObject([
    { verdict: "superseded" },
  ]);
  expect(await late(run!)).toMatchObject([{ deviceId: first.worker.deviceId, output: "first" }]);
});

test("R10: the device that comes back with the result of a run that waits is asked for it before the run begins again", async () => {
  const { db } = database;
  const { device, run } = await seedRunning(db, { maxAttempts: 2 });
  await lose(run);
  await ageRun(db, run, { not_before: 1_000 });
  const held = [{ ...run, state: HeldAttemptState.FINISHED }];
  const { epoch, verdicts } = await openDevice(db, device, { held });
  expect(verdicts).toEqual([HeldVerdict.SEND_RESULT]);
  expect(await claim(db, device, epoch)).toEqual([]);
  expect((await store(reportOf(run))).verdicts).toMatchObject([{ verdict: "stored_late" }]);
  // Without a report from the device, the run is offered again.
  const other = await seedRunning(db, { maxAttempts: 2 });
  await lose(other.run);
  const again = await openDevice(db, other.device, {
    held: [{ ...other.run, state: HeldAttemptState.FINISHED }],
  });
  await ageRun(db, other.run, { not_before: 1 });
  expect(await claim(db, other.device, again.epoch)).toHaveLength(1);
});

test("R10: a run has 20 late results and 2 MiB of them at most; beyond that a device keeps its own", async () => {
  const { db } = database;
  const { device, epoch, run } = await seedRunning(db, { maxAttempts: 20 });
  const attempts = [run];
  for (let attempt = 2; attempt <= 4; attempt++) {
    await lose(attempts.at(-1)!);
    await ageRun(db, run, { not_before: 1_000 });
    attempts.push((await claim(db, device, epoch))[0]!);
    await accept(db, attempts.at(-1)!);
  }
  const mebibyte = "é".repeat(510_000);
  const agent = { ...noReport, result: `${"x".repeat(10_000)} is the answer`, structured: { n: 42 } };
  await store(
    ...attempts.slice(0, 3).map((one) => reportOf(one, { output: `${mebibyte}#${one.attempt}`, agent })),
  );
  const rows = await late(run);
  expect(rows.map(({ output }) => Buffer.byteLength(output) > 1_000_000)).toEqual([true, true, false]);
  expect(rows[2]).toMatchObject({ isOutputTruncated: true, output: expect.stringMatching(/é#3$/) });
  expect(rows[2]!.answer).toEqual({ result: expect.stringMatching(/^x{7986} is the answer$/) });
  await lose(attempts[3]!);
  await ageRun(db, run, { not_before: 1_000 });
  expect(await claim(db, device, epoch)).toHaveLength(1);
  await sql`insert into late_result (org_id, subject_id, kind, attempt, attempt_token, device_id, outcome, has_settled,
      output, is_output_truncated, signal, reason)
    select org_id, subject_id, kind, attempt, gen_random_uuid(), device_id, outcome, false, '', false, '', ''
    from (select * from late_result limit 1) one cross join generate_series(1, 17)`.execute(db);
  const completer = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), {
    db,
    log: createLogger({ name: "test", level: "silent" }),
  });
  await expect(completer.report(reportOf(attempts[3]!))).rejects.toThrow(
    /20 late results.*stays at its device/,
  );
  expect(await late(run)).toHaveLength(20);
});

test("R10: late results are one org's, and are dropped by day as runs are", async () => {
  const { db } = database;
  const { run } = await seedRunning(db);
  await lose(run);
  await store(reportOf(run));
  const opened = openDatabase({ url: database.url, poolMax: 1 });
  onTestFinished(() => opened.close());
  const listed = (org: string) =>
    withinOrg(org, () => lateResults.list(opened.tenantDb, { orgId, id: run.runId }));
  expect(await listed(orgId)).toHaveLength(1);
  expect(await listed("another")).toEqual([]);
  await sql`update late_result set finished_at = now() - interval '31 days'`.execute(db);
  await retention.deleteOld(db, { days: 30, conversationDays: 30 });
  expect(await late(run)).toEqual([]);
});

test("R10: a reply that comes after its turn has ended is kept, and is no second one", async () => {
  const { db } = database;
  const turn = await turns.seedTurn(db, await turns.seedWorker(db));
  await turns.ageTurn(db, turn, { deadline_at: 1 });
  expect(await sweepTurnsOnce(db, { ttlMs: 60_000 })).toHaveLength(1);
  const noted: { orgId: string; turnId: string }[] = [];
  const deaf = { turnStarted() {}, turnsEnded() {}, turnsWithdrawn() {} };
  const endings = createEndings(
    turnEndings({ doorbell: { ...deaf, repliesKept: (kept) => void noted.push(...kept) } }),
    { db, log: createLogger({ name: "test", level: "silent" }) },
  );
  const report = reportOf(
    { ...turn, runId: turn.turnId },
    { output: "late", nextSnapshot: Buffer.from("stale") },
  );
  const superseded = { verdict: "superseded", windowId: null };
  expect(await Promise.all([endings.report(report), endings.report(report)])).toEqual([
    superseded,
    superseded,
  ]);
  expect(await endings.report(report)).toEqual(superseded);
  expect(noted).toMatchObject([{ turnId: turn.turnId }]);
  expect(await turns.findTurn(db, turn)).toMatchObject({ status: "failed", reply: "" });
  expect(await turns.findSnapshot(db, turn)).toMatchObject({ version: 0 });
  expect(await late({ runId: turn.turnId })).toMatchObject([
    { attempt: 1, outcome: "completed", hasSettled: false, output: "late" },
  ]);
  const { rows } = await sql<{
    kind: string;
  }>`select kind from event where kind like 'turn.%' order by seq`.execute(db);
  expect(rows.map(({ kind }) => kind)).toEqual(["turn.failed", "turn.late_reply"]);
});

test("R10: the reply to a turn that was withdrawn is kept, while another worker has it and after it has answered", async () => {
  const { db } = database;
  const worker = await turns.seedWorker(db);
  await turns.startTurn(db);
  const [first] = await turns.claimTurns(db, worker);
  await withdraw(db, [{ ...first!, session: worker, reason: "busy", delayMs: 0 }]);
  const keep = (reply: ReturnType<typeof turns.replyOf>) => transaction(db, (tx) => keepLate(tx, [reply]));
  const other = await turns.seedWorker(db);
  const [second] = await turns.claimTurns(db, other);
  const stale = turns.replyOf(first!, { reply: "stale" });
  expect((await keep(stale)).verdicts).toEqual(["superseded"]);
  expect((await keep({ ...stale, holderId: other.deviceId })).verdicts).toEqual(["unknown"]);
  const { verdicts } = await transaction(db, (tx) =>
    storeRepliesOnce(tx, [turns.replyOf(second!, { reply: "good" })]),
  );
  expect(verdicts).toEqual(["stored"]);
  expect((await keep(stale)).verdicts).toEqual(["superseded"]);
  expect(await turns.findTurn(db, first!)).toMatchObject({ status: "completed", reply: "good" });
  expect(await late({ runId: first!.turnId })).toMatchObject([{ attempt: 1, output: "stale" }]);
  // A person's deletion also deletes late results.
  const conversationId = (await turns.findTurn(db, first!)).conversationId;
  await conversations.remove(db, { orgId, conversationId, actor: "pinion" });
  expect(await late({ runId: first!.turnId })).toEqual([]);
});
