import { appendSettled } from "../../../scheduler/endings/run-endings.ts";
import { settleEach } from "../../../scheduler/endings/settle-each.ts";
import type * as active from "../../../store/work/attempts/active.ts";
import * as attempts from "../../../store/work/attempts/attempts.ts";
import { findVerdicts } from "../../../store/work/attempts/completions.ts";
import * as lateResults from "../../../store/work/attempts/late-results.ts";
import type { Settlement } from "../../../store/work/attempts/settlements.ts";
import type { Reconciliation } from "./reconciliation.ts";

/**
 * Milliseconds that a run is not started again while a device holds its result: far more than a
 * device needs to send the result.
 */
const resultWaitMs = 30_000;

/** The reconciliation of the runs that a device holds. */
export const runs: Reconciliation = {
  adopt: (tx, { attempts: adopted }) => attempts.adopt(tx, adopted),
  findVerdicts: async (tx, names) => (await findVerdicts(tx, names)).map(({ verdict }) => verdict),
  awaitResults: (tx, orgId, held) =>
    lateResults.awaitResults(tx, { orgId, attempts: held, waitMs: resultWaitMs }),
  async endMissing(tx, { orgId, policy, log }, missing) {
    const settlements = missing.map((attempt) => settlementOf(orgId, attempt));
    const { settled } = await settleEach(tx, settlements, policy, log);
    return {
      ends: { settled },
      append: () => appendSettled(tx, settlements, settled, { quotas: policy.quotas }),
    };
  },
};

/** The settlement of an attempt that the reconnected device does not know. */
function settlementOf(orgId: string, attempt: active.HeldByServer): Settlement {
  const base = { orgId, workId: attempt.workId, attemptToken: attempt.attemptToken, deviceId: null };
  if (attempt.isCancelRequested) {
    return { ...base, action: "finish", status: "cancelled", reason: attempt.cancelReason ?? "cancelled" };
  }
  if (attempt.status === "claimed") {
    return {
      ...base,
      action: "withdraw",
      status: "timeout",
      reason: "pushed, but it never reached the device",
    };
  }
  return {
    ...base,
    action: "finish_or_retry",
    status: "timeout",
    reason: "lost by the device: it came back without this attempt",
  };
}
