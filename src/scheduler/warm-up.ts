import type { Db } from "../store/pg/database.ts";
import * as attempts from "../store/work/attempts/attempts.ts";
import { complete } from "../store/work/attempts/completions.ts";
import type { FailurePolicy } from "../store/work/attempts/settlements.ts";
import { settle } from "../store/work/attempts/settlements.ts";
import * as runClaims from "../store/work/runs/run-claims.ts";
import * as events from "../store/work/service/events.ts";
import * as schedules from "../store/work/watchers/schedules.ts";
import * as slotRows from "../store/work/watchers/slot-rows.ts";
import { newId } from "../values/ids.ts";

/** Ends the warm-up's transaction without a trace. */
class Undone extends Error {}

/**
 * Executes the statements of a run's life once, with unused ids, and rolls back, so that the first
 * run after a start is pushed as fast as later runs (connections open, code compiled, catalogs
 * read).
 */
export async function warmUp(db: Db, policy: FailurePolicy): Promise<void> {
  const orgId = "";
  const [deviceId, watcherId, runId, attemptToken] = [newId(), newId(), newId(), newId()];
  const attempt = { orgId, deviceId, workId: runId, attemptToken };
  const now = new Date();
  try {
    // Not the store's `transaction`, which sends the events at its end, and this one has none.
    const undone = db.transaction().setIsolationLevel("read committed");
    await undone.execute(async (tx) => {
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
      await slotRows.record(
        tx,
        [
          {
            ...{
              orgId,
              watcherId,
              runId,
              scheduledFor: now,
              isNew: true,
              source: "scheduled",
              dueAt: now,
              windowStart: now,
            },
            ...{ windowEnd: now, skipReason: null, reason: "", retryOf: null, isGated: false },
          },
        ],
        [{ orgId, watcherId, nextSlotAt: null, nextDueAt: null, lastRunAt: null }],
      );
      throw new Undone();
    });
  } catch (error) {
    if (!(error instanceof Undone)) throw error;
  }
}
