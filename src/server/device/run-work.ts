import { type Batcher, createBatcher } from "../../batcher.ts";
import { Refusal } from "../../errors.ts";
import type { Completer } from "../../scheduler/completer.ts";
import type { Publisher } from "../../scheduler/publisher.ts";
import { settleWithEvents } from "../../scheduler/settle.ts";
import { type Db, mayBeOfOneRow, transaction } from "../../store/pg/database.ts";
import * as attempts from "../../store/work/attempts.ts";
import type { AttemptSettlement, FailurePolicy } from "../../store/work/settlements.ts";
import type { Telemetry } from "../telemetry.ts";
import type { Acceptance, AcceptResult, Work } from "./work.ts";

const acceptancesPerBatchMax = 1_000;
/**
 * Milliseconds. No caller waits for an accept's row: the device has begun. An attempt that ends
 * within this time is written only as ended.
 */
const acceptancesGatherMs = 20;
const settlementsPerBatchMax = 500;
const waitingMax = 50_000;
const overflow = () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 });

type Deps = {
  db: Db;
  policy: FailurePolicy;
  completer: Completer;
  publisher: Pick<Publisher, "settled">;
  telemetry: Pick<Telemetry, "batch">;
};

export function createRunWork(deps: Deps): Work {
  const { db } = deps;
  const acceptances = createAcceptances(deps);
  const settlements = createSettlements(deps);
  return {
    accept: (acceptance) => acceptances.add(acceptance),
    report: (report) => deps.completer.report(report),
    settle: (settlement) => settlements.add(settlement),
    beat: (listed) => attempts.beat(db, listed),
    findGone: (some) => attempts.findGone(db, some),
    listCancelling: (limit) => attempts.listCancelling(db, limit),
    listClaimed: (sessions, ageMs) => attempts.listClaimed(db, sessions, ageMs),
    findWaited: (sessions) => attempts.findWaited(db, sessions),
    async idle() {
      await Promise.all([acceptances.idle(), settlements.idle()]);
    },
  };
}

function createAcceptances({ db, telemetry }: Deps): Batcher<Acceptance, AcceptResult> {
  return createBatcher({
    async run(items) {
      const open = items.filter((item) => !item.isMoot());
      const accepted = await attempts.accept(db, open);
      const results = new Map<Acceptance, AcceptResult>(open.map((item, index) => [item, accepted[index]!]));
      return items.map((item) => results.get(item) ?? "moot");
    },
    itemsMax: acceptancesPerBatchMax,
    gatherMs: acceptancesGatherMs,
    queueMax: waitingMax,
    overflow,
    mayIsolate: mayBeOfOneRow,
    onBatch: telemetry.batch("acceptances"),
  });
}

function createSettlements({ db, policy, publisher, telemetry }: Deps): Batcher<AttemptSettlement, boolean> {
  return createBatcher({
    async run(items) {
      // An attempt may be given back twice at once: by a session's deadline, and by the sweep,
      // unaware of the deadline.
      const distinct = new Map(
        items.map((item) => [
          `${item.workId} ${item.attemptToken} ${item.session?.epoch} ${item.session?.sessionId}`,
          item,
        ]),
      );
      const settled = await transaction(db, (tx) => settleWithEvents(tx, [...distinct.values()], policy));
      publisher.settled(settled);
      const tokens = new Set(settled.map((run) => run.attemptToken));
      return items.map((item) => tokens.has(item.attemptToken));
    },
    itemsMax: settlementsPerBatchMax,
    queueMax: waitingMax,
    overflow,
    mayIsolate: mayBeOfOneRow,
    onBatch: telemetry.batch("settlements"),
  });
}
