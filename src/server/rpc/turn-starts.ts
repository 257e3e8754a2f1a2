import { AsyncLocalStorage } from "node:async_hooks";
import { type Batcher, createBatcher } from "../../batches/batcher.ts";
import { Refusal } from "../../errors.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../store/pg/failures.ts";
import { withinOrg } from "../../store/pg/tenancy.ts";
import { type ArmedTurn, armAll, type NewTurn } from "../../store/work/turns/arming.ts";

/**
 * Starts of turns by calls. Calls of one org that come while a transaction is under way share the
 * next one; orgs share none, because each transaction is confined to its org.
 */
export type TurnStarts = {
  /** Refuses like {@link armAll}. */
  start(turn: NewTurn): Promise<ArmedTurn>;
};

/** Turns per transaction: other starts in their conversations wait for it. */
const turnsPerBatchMax = 100;
/** Characters of inputs per transaction. */
const weightPerBatchMax = 4_000_000;
/** Maximum waiting turns of an org. */
const turnsWaitingMax = 5_000;

const tooMany = () =>
  new Refusal("unavailable", "too many turns of the org wait to be stored; send it again", {
    retryAfterMs: 1_000,
  });

export function createTurnStarts({ db }: { db: Db }): TurnStarts {
  const ofOrgs = new Map<string, Batcher<NewTurn, ArmedTurn | Refusal>>();
  // A batch is the work of no single call.
  const outside = AsyncLocalStorage.snapshot();
  const createFor = (orgId: string) =>
    createBatcher<NewTurn, ArmedTurn | Refusal>({
      run: (turns) => withinOrg(orgId, () => transaction(db, (tx) => armAll(tx, orgId, turns))),
      itemsMax: turnsPerBatchMax,
      weight: { of: ({ input }) => input.length, max: weightPerBatchMax },
      queueMax: turnsWaitingMax,
      overflow: tooMany,
      mayIsolate: mayBeOfOneRow,
    });
  return {
    async start(turn) {
      const { orgId } = turn;
      const batcher = ofOrgs.get(orgId) ?? outside(() => createFor(orgId));
      ofOrgs.set(orgId, batcher);
      try {
        const armed = await batcher.add(turn);
        if (armed instanceof Refusal) throw armed;
        return armed;
      } finally {
        if (batcher.depth === 0 && ofOrgs.get(orgId) === batcher) ofOrgs.delete(orgId);
      }
    },
  };
}
