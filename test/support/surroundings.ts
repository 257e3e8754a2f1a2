/** What passes and use-cases have around them in a replica: a doorbell, a policy, a completer. */
import type { CancelledAttempt, Doorbell } from "../../src/scheduler/doorbell.ts";
import type { Report, ReportVerdict } from "../../src/scheduler/endings/endings.ts";
import { storeCurrent, storeLate } from "../../src/scheduler/endings/run-endings.ts";
import { type Db, transaction } from "../../src/store/pg/database.ts";
import type { FailurePolicy, Settled } from "../../src/store/work/attempts/settlements.ts";
import type { RecordedRun } from "../../src/store/work/watchers/slot-rows.ts";
import type { Surroundings } from "../../src/usecases/surroundings.ts";

export const policy: FailurePolicy = {
  retryBackoffMs: 10_000,
  backoffAfter: 3,
  pauseAfter: 10,
  watcherBackoffMs: 900_000,
};

/** A doorbell that records its calls. */
export type NotedDoorbell = Doorbell & {
  noted: {
    recorded: RecordedRun[];
    settled: Settled[];
    kept: { orgId: string; workId: string }[];
    cancelling: CancelledAttempt[];
  };
};

export function noteDoorbell(): NotedDoorbell {
  const noted: NotedDoorbell["noted"] = { recorded: [], settled: [], kept: [], cancelling: [] };
  return {
    noted,
    recorded: (rows) => void noted.recorded.push(...rows),
    settled: (rows) => void noted.settled.push(...rows),
    kept: (rows) => void noted.kept.push(...rows),
    cancelling: (rows) => void noted.cancelling.push(...rows),
    turnStarted() {},
    turnsEnded() {},
    repliesKept() {},
    turnsWithdrawn() {},
  };
}

/** Surroundings for use-cases, without notifications. */
export const surroundings: Surroundings = {
  policy,
  doorbell: noteDoorbell(),
  scheduleChanged() {},
};

/** Stores reports like a completer: first reports of current attempts, then late reports. */
export async function storeOnce(
  db: Db,
  reports: readonly Report[],
  policy: FailurePolicy,
): Promise<{ verdicts: ReportVerdict[]; settled: Settled[] }> {
  const { verdicts, settled } = await transaction(db, (tx) => storeCurrent(tx, reports, policy));
  const late = reports.filter((_, index) => verdicts[index]!.verdict === "superseded");
  if (late.length === 0) return { verdicts, settled };
  const stored = await transaction(db, (tx) => storeLate(tx, late, policy));
  // A report beyond the maximum of late results is not stored, and has no verdict for its device.
  const rest = stored.verdicts.map(
    ({ verdict, windowId }): ReportVerdict => ({
      verdict: verdict === "full" ? "unknown" : verdict,
      windowId,
    }),
  );
  return {
    verdicts: verdicts.map((verdict) => (verdict.verdict === "superseded" ? rest.shift()! : verdict)),
    settled: [...settled, ...stored.settled],
  };
}
