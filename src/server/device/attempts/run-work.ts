import { type Batcher, createBatcher } from "../../../batcher.ts";
import { Refusal } from "../../../errors.ts";
import type { Endings } from "../../../scheduler/endings.ts";
import type { Db } from "../../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../../store/pg/failures.ts";
import * as attempts from "../../../store/work/attempts/attempts.ts";
import type { Telemetry } from "../../telemetry.ts";
import type { Acceptance, AcceptResult, Work } from "./work.ts";

const acceptancesPerBatchMax = 1_000;
/**
 * Milliseconds. No caller waits for an accept's row: the device has begun. An attempt that ends
 * within this time is written only as ended.
 */
const acceptancesGatherMs = 20;
const waitingMax = 50_000;
const overflow = () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 });

type Deps = {
  db: Db;
  endings: Endings;
  telemetry: Pick<Telemetry, "batch">;
};

export function createRunWork(deps: Deps): Work {
  const { db, endings } = deps;
  const acceptances = createAcceptances(deps);
  return {
    accept: (acceptance) => acceptances.add(acceptance),
    report: (report) => endings.report(report),
    settle: (settlement) => endings.settle(settlement),
    beat: (listed) => attempts.beat(db, listed),
    findWaited: (sessions) => attempts.findWaited(db, sessions),
    async idle() {
      await Promise.all([acceptances.idle(), endings.idle()]);
    },
  };
}

function createAcceptances({ db, telemetry }: Deps): Batcher<Acceptance, AcceptResult> {
  return createBatcher({
    async run(items) {
      const open = items.filter(({ attempt }) => attempt.state !== "reporting");
      const accepted = await attempts.accept(db, open.map(agedOf));
      // The open items in their order, with the others between them.
      let next = 0;
      return items.map((item): AcceptResult => (item === open[next] ? accepted[next++]! : "moot"));
    },
    itemsMax: acceptancesPerBatchMax,
    gatherMs: acceptancesGatherMs,
    queueMax: waitingMax,
    overflow,
    mayIsolate: mayBeOfOneRow,
    onBatch: telemetry.batch("acceptances"),
  });
}

function agedOf({ orgId, deviceId, workId, attemptToken, attempt }: Acceptance): attempts.Acceptance {
  const now = performance.now();
  const [pushedAgoMs, acceptedAgoMs] = [now - attempt.pushedAt, now - attempt.acceptedAt];
  return { orgId, deviceId, workId, attemptToken, pushedAgoMs, acceptedAgoMs };
}
