/** Finds the hooks of addresses; senders may guess any number of ids. */
import { createLookups } from "../../../batches/lookups.ts";
import type { Db } from "../../../store/pg/database.ts";
import * as orgMoves from "../../../store/work/service/org-moves.ts";
import * as hooks from "../../../store/work/watchers/hooks.ts";

/** The hook of an address, or the org's new place; neither: there is no such hook. */
export type Found = { hook?: hooks.HookRow | undefined; leaving?: orgMoves.Leaving | undefined };

export type HookLookups = {
  /** By a uuid in lower case. Refuses with `resource_exhausted` while too many wait. */
  find(id: string): Promise<Found>;
};

export function createHookLookups(crossOrgDb: Db): HookLookups {
  return { find: createLookups((ids) => findAll(crossOrgDb, ids), "deliveries") };
}

async function findAll(db: Db, ids: readonly string[]): Promise<Found[]> {
  const found = await hooks.findAddressed(db, ids);
  if (!found.includes(undefined)) return found.map((hook) => ({ hook }));
  // The rows of an org that moves are hidden by its fence.
  const leaving = await orgMoves.findOfHooks(db, ids);
  return found.map((hook, index) => (hook ? { hook } : { leaving: leaving[index] }));
}
