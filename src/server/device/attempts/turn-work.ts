import { type Batcher, createBatcher } from "../../../batcher.ts";
import { Refusal } from "../../../errors.ts";
import type { Endings } from "../../../scheduler/endings.ts";
import { type Db, transaction } from "../../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../../store/pg/failures.ts";
import type { AttemptName } from "../../../store/work/attempts/settlements.ts";
import * as turnAttempts from "../../../store/work/turns/turn-attempts.ts";
import type { Work } from "./work.ts";

const acceptancesPerBatchMax = 1_000;
const waitingMax = 50_000;

/** Turns behind the sessions' interface for work. */
export function createTurnWork(deps: { db: Db; endings: Endings; ttlMs: number }): Work {
  const { db, endings, ttlMs } = deps;
  const acceptances: Batcher<AttemptName, "running" | "gone"> = createBatcher({
    run: (names) => transaction(db, (tx) => turnAttempts.accept(tx, names)),
    itemsMax: acceptancesPerBatchMax,
    queueMax: waitingMax,
    overflow: () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 }),
    mayIsolate: mayBeOfOneRow,
  });

  return {
    accept: (name) => acceptances.add(name),
    report: (report) => endings.report(report),
    settle: (settlement) => endings.settle(settlement),
    beat: (listed) => turnAttempts.beat(db, listed, ttlMs),
    findWaited: (sessions) => turnAttempts.findWaited(db, sessions),
    async idle() {
      await Promise.all([acceptances.idle(), endings.idle()]);
    },
  };
}
