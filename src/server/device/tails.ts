import { createBatcher } from "../../batcher.ts";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Subscriber } from "../../scheduler/publisher.ts";
import type { Db } from "../../store/pg/database.ts";
import * as runs from "../../store/work/runs.ts";
import type { Feed } from "../cluster/feed.ts";

/** Tails of 8,000 characters: a batch is at most some MiB. */
const tailsPerBatchMax = 200;
const tailsWaitingMax = 2_000;

/**
 * Keeps the end of a lost or cancelled program's output, if the replica relayed the output and the
 * device did not send it. Subscribes before the feed, because the feed forgets the output of an
 * ended run.
 */
export function createTails(options: { db: Db; log: Logger; feed: Pick<Feed, "tailOf"> }): Subscriber & {
  idle(): Promise<void>;
} {
  const { db, log, feed } = options;
  const tails = createBatcher<runs.OutputTail, void>({
    run: async (items) => {
      await runs.keepTails(db, items);
      return items.map(() => undefined);
    },
    itemsMax: tailsPerBatchMax,
    queueMax: tailsWaitingMax,
    overflow: () => new Refusal("unavailable", "too many tails of outputs wait"),
  });
  return {
    settled(settled) {
      for (const { orgId, runId: workId, attempt, action, windowId } of settled) {
        // The device has sent no output for an attempt that was taken away.
        if (action !== "finished" || windowId !== null) continue;
        const text = feed.tailOf({ orgId, workId, attempt });
        if (text === "") continue;
        tails.add({ orgId, runId: workId, text }).catch((error: unknown) => {
          log.warn({ err: error, workId }, "the end of a lost program's output was not kept");
        });
      }
    },
    idle: () => tails.idle(),
  };
}
