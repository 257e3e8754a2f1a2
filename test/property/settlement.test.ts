/**
 * A run's life against one model: in any order of claims, accepts, reports, reaps, cancellations,
 * withdrawals and reconnects, with any stale token and any replaced session, the run ends at most
 * once and every answer equals the model's.
 *
 * PINION_TEST_SEED=<seed> repeats a run of this test.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { cancelRun } from "../../src/scheduler/endings/cancels.ts";
import { reapOnce } from "../../src/scheduler/endings/reaper.ts";
import { settleWithEvents } from "../../src/scheduler/endings/run-endings.ts";
import { type Db, transaction } from "../../src/store/pg/database.ts";
import type { ClaimedRun } from "../../src/store/work/runs/run-claims.ts";
import { useDatabase } from "../support/database.ts";
import { isLong } from "../support/long.ts";
import {
  accept,
  ageRun,
  claim,
  type DeviceName,
  findRun,
  listKinds,
  listWindows,
  openDevice,
  reapRules,
  reportOf,
  seedDevice,
  seedWatcher,
  sessionOf,
  triggerRun,
} from "../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../support/surroundings.ts";
import { checkFor } from "../support/timed-property.ts";

const database = useDatabase({ per: "file" });
const maxAttempts = 2;
/** New tries start within this time; the rest is skipped. */
const timeLimitMs = isLong ? 30_000 : 5_000;

type Ended = "completed" | "failed" | "timeout" | "cancelled";

/** The expected state of the run. */
class Model {
  status: "pending" | "claimed" | "running" | Ended = "pending";
  attempt = 0;
  isWaiting = false;
  isCancelAsked = false;
  current: string | undefined;
  /**
   * The session that holds the run: the claiming session, or the latest session that resumed it.
   */
  epoch = 0;
  /**
   * Ended attempts, oldest first, with whether the device itself reported the end, and whether a
   * later report is kept.
   */
  readonly over = new Map<string, { isReported: boolean; isKept: boolean; attempt: number }>();
  isLate = false;

  get isActive(): boolean {
    return this.status === "claimed" || this.status === "running";
  }

  verdict(token: string): "current" | "already_stored" | "superseded" {
    if (token === this.current) return "current";
    return this.over.get(token)!.isReported ? "already_stored" : "superseded";
  }

  #leave(isReported: boolean): void {
    this.over.set(this.current!, { isReported, isKept: false, attempt: this.attempt });
    this.current = undefined;
  }

  finish(status: Ended, isReported: boolean): void {
    if (this.current) this.#leave(isReported);
    this.status = status;
  }

  /** An attempt failed: the next attempt, or the end. */
  fail(status: "failed" | "timeout", isReported: boolean): void {
    if (this.isCancelAsked) this.finish(isReported ? status : "cancelled", isReported);
    else if (this.attempt >= maxAttempts) this.finish(status, isReported);
    else {
      this.#leave(isReported);
      this.status = "pending";
      this.isWaiting = true;
    }
  }

  /** A report on an ended attempt: the end of its run after all, or kept as a late result. */
  late(token: string, status: "completed" | "failed" | "cancelled"): string {
    const past = this.over.get(token)!;
    if (past.isReported) return "already_stored";
    if (past.isKept) return "superseded";
    const isLatest = this.current === undefined && [...this.over.keys()].at(-1) === token;
    const isPending = this.status === "pending";
    const settles = {
      completed: true,
      failed: isPending ? past.attempt >= maxAttempts : this.status !== "cancelled",
      cancelled: this.status === "cancelled",
    };
    if (!isLatest || !settles[status]) {
      past.isKept = true;
      if (isLatest && isPending && status === "failed") this.attempt = Math.max(this.attempt, past.attempt);
      return "superseded";
    }
    past.isReported = true;
    this.status = status;
    this.attempt = past.attempt;
    this.isLate = true;
    return "stored_late";
  }

  withdraw(): void {
    if (this.isCancelAsked) {
      this.finish("cancelled", false);
      return;
    }
    this.#leave(false);
    this.status = "pending";
    this.attempt -= 1;
  }
}

type World = {
  db: Db;
  device: DeviceName;
  epoch: number;
  runId: string;
  attempts: ClaimedRun[];
  /** The session that claimed each attempt, by token. */
  claimers: Map<string, number>;
  model: Model;
};

type Step = { name: string; run: (world: World) => Promise<void> };

const step = (name: string, run: Step["run"]): Step =>
  ({ name, run, [fc.toStringMethod]: () => name }) as Step;

/** Acts on one of the attempts so far; without attempts, does nothing. */
function ofAttempt(name: string, act: (world: World, attempt: ClaimedRun) => Promise<void>) {
  return fc.nat({ max: 5 }).map((pick) =>
    step(`${name}(${pick})`, async (world) => {
      const { attempts } = world;
      // The latest attempt is chosen most often.
      const attempt = attempts[attempts.length - 1 - (pick % Math.max(1, attempts.length))];
      if (attempt) await act(world, attempt);
    }),
  );
}

type Whose = "claimed it" | "lives";

const epochOf = ({ claimers, epoch }: World, { attemptToken }: ClaimedRun, whose: Whose) =>
  whose === "lives" ? epoch : claimers.get(attemptToken)!;

const isOf = (world: World, attempt: ClaimedRun, whose: Whose) =>
  attempt.attemptToken === world.model.current && epochOf(world, attempt, whose) === world.model.epoch;

/**
 * A session takes an attempt away: the claiming session, which may be long gone, or the current
 * session.
 */
const settleAs = (
  world: World,
  attempt: ClaimedRun,
  whose: Whose,
  action: "withdraw" | "finish_or_retry",
) => {
  const { orgId, runId, attemptToken } = attempt;
  const session = sessionOf(world.device, epochOf(world, attempt, whose));
  const how = { deviceId: null, session, action, status: "timeout", reason: "busy" } as const;
  return transaction(world.db, (tx) =>
    settleWithEvents(tx, [{ orgId, workId: runId, attemptToken, ...how }], policy),
  );
};

const steps = fc.oneof(
  fc.constant(
    step("claim", async ({ db, device, epoch, attempts, claimers, model }) => {
      const claimed = await claim(db, device, epoch);
      const isOffered = model.status === "pending" && !model.isWaiting;
      expect(claimed).toHaveLength(isOffered ? 1 : 0);
      if (!isOffered) return;
      model.status = "claimed";
      model.attempt += 1;
      model.current = claimed[0]!.attemptToken;
      model.epoch = epoch;
      claimers.set(model.current, epoch);
      attempts.push(claimed[0]!);
    }),
  ),
  ofAttempt("accept", async ({ db, model }, attempt) => {
    const isCurrent = attempt.attemptToken === model.current;
    expect(await accept(db, attempt)).toEqual([isCurrent ? "running" : "gone"]);
    if (isCurrent) model.status = "running";
  }),
  fc.constantFrom("completed" as const, "failed" as const, "cancelled" as const).chain((status) =>
    ofAttempt(`report ${status}`, async ({ db, model }, attempt) => {
      const report = reportOf(attempt, { status, output: attempt.attemptToken });
      const { verdicts } = await storeOnce(db, [report], policy);
      const isCurrent = model.verdict(attempt.attemptToken) === "current";
      const expected = isCurrent ? "stored" : model.late(attempt.attemptToken, status);
      expect(verdicts[0]!.verdict).toBe(expected);
      if (!isCurrent) return;
      if (status === "failed") model.fail("failed", true);
      else model.finish(status, true);
    }),
  ),
  ...(["claimed it", "lives"] as const).flatMap((whose) => [
    ofAttempt(`withdraw by the session that ${whose}`, async (world, attempt) => {
      const { model } = world;
      const settled = await settleAs(world, attempt, whose, "withdraw");
      const isTaken = isOf(world, attempt, whose) && model.status === "claimed";
      expect(settled).toHaveLength(isTaken ? 1 : 0);
      if (isTaken) model.withdraw();
    }),
    ofAttempt(`lost by the session that ${whose}`, async (world, attempt) => {
      const settled = await settleAs(world, attempt, whose, "finish_or_retry");
      const isTaken = isOf(world, attempt, whose);
      expect(settled).toHaveLength(isTaken ? 1 : 0);
      if (isTaken) world.model.fail("timeout", false);
    }),
  ]),
  fc.constant(
    step("reap", async ({ db, runId, model }) => {
      if (model.isActive) await ageRun(db, { runId }, { last_beat_at: reapRules.silentAttemptMs + 1 });
      const reaped = await reapOnce(db, { rules: reapRules, policy });
      expect(reaped).toHaveLength(model.isActive ? 1 : 0);
      if (model.isActive) model.fail("timeout", false);
    }),
  ),
  fc.constant(
    step("cancel", async ({ db, device, runId, model }) => {
      const isLive = model.isActive || model.status === "pending";
      const answer = await cancelRun(
        db,
        { orgId: device.orgId, runId },
        { reason: "asked", policy, doorbell: noteDoorbell() },
      );
      expect(answer).toBe(isLive);
      if (model.status === "pending") model.finish("cancelled", false);
      else if (model.isActive) model.isCancelAsked = true;
    }),
  ),
  fc.constant(
    step("backoff over", async ({ db, runId, model }) => {
      await ageRun(db, { runId }, { not_before: 0 });
      model.isWaiting = false;
    }),
  ),
  fc.record({ holds: fc.boolean(), isFinished: fc.boolean() }).map(({ holds, isFinished }) =>
    step(`reconnect ${holds ? "with" : "without"} what it had`, async (world) => {
      const { db, device, attempts, model } = world;
      const state = isFinished ? HeldAttemptState.FINISHED : HeldAttemptState.RUNNING;
      const held = holds
        ? attempts.map(({ runId, attemptToken }) => ({ workId: runId, attemptToken, state }))
        : [];
      const expected = held.map(({ attemptToken }) => {
        const verdict = model.verdict(attemptToken);
        if (verdict === "current") return isFinished ? HeldVerdict.SEND_RESULT : HeldVerdict.CONTINUE;
        if (verdict === "already_stored") return HeldVerdict.ALREADY_STORED;
        return isFinished ? HeldVerdict.SEND_RESULT : HeldVerdict.ABORT;
      });
      const opening = await openDevice(db, device, { held });
      expect(opening.verdicts).toEqual(expected);
      expect(opening.epoch).toBe(world.epoch + 1);
      world.epoch = opening.epoch;
      const latest = [...model.over.values()].at(-1);
      if (model.status === "pending" && holds && isFinished && latest && !latest.isReported && !latest.isKept)
        model.isWaiting = true;
      if (!model.isActive) return;
      if (holds) {
        model.status = "running";
        model.epoch = opening.epoch;
      } else if (model.status === "claimed") model.withdraw();
      else model.fail("timeout", false);
    }),
  ),
);

const ends = new Set<string>(["completed", "failed", "timeout", "cancelled"]);

test("a run ends at most once, and every token hears the truth, in whatever order things happen", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  let cases = 0;
  await checkFor(
    { name: "settlement", limitMs: timeLimitMs },
    fc.array(steps, { minLength: 4, maxLength: 16, size: "max" }),
    async (life) => {
      cases += 1;
      const { epoch } = await openDevice(db, device);
      const watcher = await seedWatcher(db, device, { maxAttempts });
      const { id: runId } = await triggerRun(db, watcher);
      const world: World = {
        db,
        device,
        epoch,
        runId,
        attempts: [],
        claimers: new Map(),
        model: new Model(),
      };
      const { model } = world;
      const name = { orgId: device.orgId, runId };
      for (const { run } of life) {
        await run(world);
        const row = await findRun(db, name);
        expect({ status: row.status, attempt: row.attempt }).toEqual({
          status: model.status,
          attempt: model.attempt,
        });
      }
      const endings = (await listKinds(db, { runId })).filter((kind) => ends.has(kind.slice("run.".length)));
      // A late report ends the run after all, perhaps for a second time.
      if (model.isLate) expect(endings.length).toBeLessThanOrEqual(1);
      else expect(endings).toEqual(ends.has(model.status) ? [`run.${model.status}`] : []);
      const windows = await listWindows(db, { runId });
      expect(windows).toHaveLength(model.status === "completed" ? 1 : 0);
      // The next life begins without results waiting on the device.
      await db.deleteFrom("run").execute();
    },
  );
  expect(cases).toBeGreaterThan(5);
});
