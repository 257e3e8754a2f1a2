import * as requests from "../store/people/requests.ts";
import type { Db } from "../store/pg/database.ts";
import { keepPlans } from "../store/pg/plans.ts";
import { sendWaiting } from "../store/pg/round-trips.ts";
import { withinOrg } from "../store/pg/tenancy.ts";
import * as attempts from "../store/work/attempts/attempts.ts";
import { complete } from "../store/work/attempts/completions.ts";
import type { FailurePolicy } from "../store/work/attempts/settlements.ts";
import { settle } from "../store/work/attempts/settlements.ts";
import * as runClaims from "../store/work/runs/run-claims.ts";
import * as runs from "../store/work/runs/runs.ts";
import * as events from "../store/work/service/events.ts";
import type { WatcherName } from "../store/work/watchers/schedules.ts";
import * as schedules from "../store/work/watchers/schedules.ts";
import * as slotRows from "../store/work/watchers/slot-rows.ts";
import { newId } from "../values/ids.ts";

/** Rolls back the transaction of the warm-up. */
class Undone extends Error {}

/**
 * Executes the statements of a run's life once, with unused ids, and rolls back, so that the first
 * run after a start is pushed as fast as later runs (connections open, code compiled, catalogs
 * read).
 */
export function warmUp(db: Db, policy: FailurePolicy): Promise<void> {
  // No org has this id.
  const orgId = "";
  const [deviceId, watcherId, runId, attemptToken] = [newId(), newId(), newId(), newId()];
  const attempt = { orgId, deviceId, workId: runId, attemptToken };
  return rehearse(db, async (tx) => {
    for (const kinds of [null, []]) {
      await runClaims.claim(tx, [{ orgId, deviceId, epoch: 0, sessionId: attemptToken, slots: 1, kinds }]);
    }
    await attempts.accept(tx, [{ ...attempt, pushedAgoMs: 0, acceptedAgoMs: 0 }]);
    await attempts.beat(tx, [attempt]);
    const completed = { ...attempt, action: "finish_or_retry", status: "completed", reason: "" } as const;
    // Sent with the next statement.
    await events.append(tx, orgId, [{ kind: "warm.up", actor: "pinion" }]);
    await complete(tx, [completed]);
    await settle(tx, [completed], policy);
    await schedules.lockDue(tx, 1);
    await schedules.lockOne(tx, { orgId, watcherId });
    const slot = {
      ...newSlot({ orgId, watcherId, runId }),
      scheduledFor: new Date(),
      source: "scheduled",
    } as const;
    await slotRows.record(tx, [slot], [stay({ orgId, watcherId })]);
  });
}

/**
 * Executes the statements of a trigger in the same way on `connections` of the pool for requests,
 * so that the first trigger on each connection is as fast as later triggers. (A tenant's statements
 * have other plans than the scheduler's statements, and each connection plans for itself.)
 */
export async function warmUpTriggers(tenantDb: Db, connections: number): Promise<void> {
  if (connections < 1) return;
  // An unused org for each connection: another connection locks the events of its own org.
  const [orgId, watcherId, runId, sessionId] = [newId(), newId(), newId(), newId()];
  await withinOrg(orgId, () =>
    rehearse(tenantDb, async (tx) => {
      const request = { orgId, actor: "pinion", rpc: "warm-up", requestId: runId, startName: runId };
      await keepPlans(tx);
      await schedules.lockToStart(tx, { orgId, watcherId }, requests.madeOf(request));
      const claimant = { orgId, deviceId: newId(), epoch: 0, sessionId };
      for (const held of [{}, { claimant }]) {
        const slot = { ...newSlot({ orgId, watcherId, runId }), ...held, source: "manual" } as const;
        await slotRows.recordLate(tx, [slot], [stay({ orgId, watcherId })]);
      }
      await requests.record(tx, request, {});
      await events.append(tx, orgId, [{ kind: "run.created", actor: "warm-up", runId, watcherId }]);
      await sendWaiting(tx);
      await runs.find(tx, { orgId, runId });
      // While this connection is in use, the pool opens the next one.
      await warmUpTriggers(tenantDb, connections - 1);
    }),
  );
}

function newSlot({ orgId, watcherId, runId }: WatcherName & { runId: string }) {
  const now = new Date();
  return {
    ...{ orgId, watcherId, runId, scheduledFor: null, isNew: true, dueAt: now, windowStart: now },
    ...{ windowEnd: now, skipReason: null, reason: "", retryOf: null, isGated: false },
  };
}

const stay = (watcher: WatcherName) => ({
  ...watcher,
  ...{ nextSlotAt: null, nextDueAt: null, lastRunAt: null },
});

/**
 * Runs `fn` in a transaction that is rolled back. The `transaction` of the store would send events
 * at its end; a rehearsal has no events.
 */
async function rehearse(db: Db, fn: (tx: Db) => Promise<void>): Promise<void> {
  try {
    await db
      .transaction()
      .setIsolationLevel("read committed")
      .execute(async (tx) => {
        await fn(tx);
        throw new Undone();
      });
  } catch (error) {
    if (!(error instanceof Undone)) throw error;
  }
}
