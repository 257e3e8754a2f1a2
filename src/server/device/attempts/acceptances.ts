import { type Batcher, createBatcher } from "../../../batches/batcher.ts";
import { Refusal } from "../../../errors.ts";
import { mayBeOfOneRow } from "../../../store/pg/failures.ts";
import type * as attempts from "../../../store/work/attempts/attempts.ts";
import type { Telemetry } from "../../telemetry.ts";
import type { Acceptance, AcceptResult } from "./work.ts";

const acceptancesPerBatchMax = 1_000;
/**
 * Milliseconds. No caller waits for an accept's row: the device has begun. An attempt that ends
 * within this time is written only as ended.
 */
const acceptancesGatherMs = 20;
const waitingMax = 50_000;

type Options = {
  /** Writes accepts, and answers each in order. */
  write: (acceptances: readonly attempts.Acceptance[]) => Promise<("running" | "gone")[]>;
  telemetry: Pick<Telemetry, "batch">;
};

/**
 * Writes the accepts of attempts in batches, and leaves out the attempts that have ended meanwhile.
 */
export function createAcceptances({ write, telemetry }: Options): Batcher<Acceptance, AcceptResult> {
  return createBatcher({
    async run(items) {
      const open = items.filter(({ attempt }) => attempt.state !== "reporting");
      const accepted = await write(open.map(agedOf));
      // The open items in their order, with the others between them.
      let next = 0;
      return items.map((item): AcceptResult => (item === open[next] ? accepted[next++]! : "moot"));
    },
    itemsMax: acceptancesPerBatchMax,
    gatherMs: acceptancesGatherMs,
    queueMax: waitingMax,
    overflow: () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 }),
    mayIsolate: mayBeOfOneRow,
    onBatch: telemetry.batch("acceptances"),
  });
}

function agedOf({ orgId, deviceId, workId, attemptToken, attempt }: Acceptance): attempts.Acceptance {
  const now = performance.now();
  const [pushedAgoMs, acceptedAgoMs] = [now - attempt.pushedAt, now - attempt.acceptedAt];
  return { orgId, deviceId, workId, attemptToken, pushedAgoMs, acceptedAgoMs };
}
