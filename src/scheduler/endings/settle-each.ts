import { bisect } from "../../batches/batcher.ts";
import { type Db, undoable } from "../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../store/pg/failures.ts";
import {
  type FailurePolicy,
  type Settled,
  type Settlement,
  settle,
} from "../../store/work/attempts/settlements.ts";
import type { Logger } from "../../telemetry/log.ts";
import { appendSettled } from "./run-endings.ts";

/**
 * Like `settleWithEvents` (run-endings.ts), but a refused settlement is left (see {@link
 * settleEach}).
 */
export async function settleEachWithEvents(
  tx: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
  options: { log?: Logger | undefined; rules?: ReadonlyMap<string, string> } = {},
): Promise<{ settled: Settled[]; refused: Settlement[] }> {
  const { settled, refused } = await settleEach(tx, settlements, policy, options.log);
  await appendSettled(tx, settlements, settled, { rules: options.rules, quotas: policy.quotas });
  return { settled, refused };
}

/**
 * Settles attempts locked by the caller, without their events (see {@link appendSettled}). A
 * settlement that the database refuses is logged, returned and left unchanged (R9). `tx` must be an
 * open transaction; an error not caused by a single row (see mayBeOfOneRow) is thrown.
 */
export async function settleEach(
  tx: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
  log: Logger | undefined,
): Promise<{ settled: Settled[]; refused: Settlement[] }> {
  if (settlements.length === 0) return { settled: [], refused: [] };
  const refused: Settlement[] = [];
  const settled = await bisect(settlements, (part) => undoable(tx, () => settle(tx, part, policy)), {
    mayIsolate: mayBeOfOneRow,
    onSplit: (part, error) =>
      log?.error({ err: error, runs: part.length }, "a batch could not be settled; by halves now"),
    onBad(settlement, error) {
      const { orgId, workId, action, status } = settlement;
      log?.error(
        { err: error, orgId, runId: workId, action, status },
        "a run cannot be settled and was left",
      );
      refused.push(settlement);
      return [];
    },
  });
  return { settled, refused };
}
