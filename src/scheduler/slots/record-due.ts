import { refuse } from "../../errors.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import type { Db } from "../../store/pg/database.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import type * as slotRows from "../../store/work/watchers/slot-rows.ts";
import { requireSure } from "./clock-doubt.ts";
import { planDue } from "./plan.ts";
import { keepWithin, write } from "./recording.ts";

/** Maximum rounds, each of at most slotsPerPassMax slots, that an edit of a watcher waits for. */
const roundsBeforeEditMax = 40;

/**
 * Records the due slots of a watcher in the caller's transaction, before its schedule is edited,
 * paused or resumed. Returns the rows, whose events (recording.ts) the caller appends as its
 * last statement. Without quotas, the org may have any number of active runs.
 */
export async function recordDue(
  tx: Db,
  orgId: string,
  watcherId: string,
  quotas?: Quotas,
): Promise<slotRows.RecordedRun[]> {
  const recorded: slotRows.RecordedRun[] = [];
  for (let round = 0; round < roundsBeforeEditMax; round++) {
    const watcher = await schedules.lockOne(tx, { orgId, watcherId });
    if (!watcher?.nextDueAt || watcher.nextDueAt > watcher.now) return recorded;
    if (round === 0) await requireSure(tx, watcher.now);
    const plan = planDue(watcher);
    if (quotas) await keepWithin(tx, quotas, [plan]);
    recorded.push(...(await write(tx, [plan])));
  }
  // All due slots have to be recorded before the schedule moves (R2).
  refuse("aborted", "the watcher is far behind its schedule and is catching up; try again in a moment", {
    retryAfterMs: 5_000,
  });
}
