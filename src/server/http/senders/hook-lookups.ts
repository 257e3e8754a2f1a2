/**
 * Finds the hooks of addresses. Anybody may send any number of ids, so that look-ups travel together: a
 * replica asks with one statement at a time, however many senders guess.
 */
import { createBatcher } from "../../../batches/batcher.ts";
import { Refusal } from "../../../errors.ts";
import type { Db } from "../../../store/pg/database.ts";
import * as orgMoves from "../../../store/work/service/org-moves.ts";
import * as hooks from "../../../store/work/watchers/hooks.ts";

/** Maximum look-ups of a statement, and those that wait. */
const perBatchMax = 500;
const waitingMax = 10_000;
const crowdedMs = 1_000;

/** The hook of an address, or the org's new place; neither: there is no such hook. */
export type Found = { hook?: hooks.HookRow | undefined; leaving?: orgMoves.Leaving | undefined };

export type HookLookups = {
  /** By a uuid in lower case. Refuses with `resource_exhausted` while too many wait. */
  find(id: string): Promise<Found>;
};

export function createHookLookups(crossOrgDb: Db): HookLookups {
  const { add } = createBatcher<string, Found>({
    run: (ids) => findAll(crossOrgDb, ids),
    itemsMax: perBatchMax,
    queueMax: waitingMax,
    overflow: () =>
      new Refusal("resource_exhausted", "too many deliveries at once", { retryAfterMs: crowdedMs }),
  });
  return { find: add };
}

async function findAll(db: Db, ids: readonly string[]): Promise<Found[]> {
  const found = await hooks.findAddressed(db, ids);
  if (!found.includes(undefined)) return found.map((hook) => ({ hook }));
  // The rows of an org that moves are hidden by its fence.
  const leaving = await orgMoves.findOfHooks(db, ids);
  return found.map((hook, index) => (hook ? { hook } : { leaving: leaving[index] }));
}
