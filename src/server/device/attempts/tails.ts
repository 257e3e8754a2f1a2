import { createBatcher } from "../../../batches/batcher.ts";
import { Refusal } from "../../../errors.ts";
import type { Subscriber } from "../../../scheduler/publisher.ts";
import type { Db } from "../../../store/pg/database.ts";
import * as tails from "../../../store/work/attempts/tails.ts";
import type { Logger } from "../../../telemetry/log.ts";
import type { Bus } from "../../cluster/bus.ts";
import type { Feed } from "../../cluster/feed.ts";
import type { InboxReader } from "../../cluster/inbox.ts";

/** Tails of 8,000 characters: a batch is at most some MiB. */
const tailsPerBatchMax = 200;
const tailsWaitingMax = 2_000;

/** An ended attempt of a run or a turn. */
type Ended = tails.Subject & { attempt: number };

/**
 * Keeps the end of a lost or cancelled program's output, if a replica relayed the output and the
 * device did not send it. The replica that ends the attempt asks the other replicas, if it has no
 * output itself: the output is where the device was connected. Subscribes before the feed, because
 * the feed forgets the output of an ended run.
 */
export function createTails(options: {
  db: Db;
  log: Logger;
  feed: Pick<Feed, "tailOf">;
  bus: Pick<Bus, "broadcast">;
}): Subscriber & InboxReader & { idle(): Promise<void> } {
  const { db, log, feed, bus } = options;
  const writer = createBatcher<tails.OutputTail, void>({
    run: async (items) => {
      await tails.keep(db, items);
      return items.map(() => undefined);
    },
    itemsMax: tailsPerBatchMax,
    queueMax: tailsWaitingMax,
    overflow: () => new Refusal("unavailable", "too many tails of outputs wait"),
  });

  /** Returns whether the replica has output of the attempt. */
  function keep({ attempt, ...subject }: Ended): boolean {
    const text = feed.tailOf({ ...subject, attempt });
    if (text === "") return false;
    writer.add({ ...subject, text }).catch((error: unknown) => {
      log.warn({ err: error, ...subject }, "the end of a lost program's output was not kept");
    });
    return true;
  }

  /** `isElsewhere`: another replica may have the output. */
  function keepSomewhere({ kind: of, ...ended }: Ended, isElsewhere: boolean): void {
    if (!keep({ ...ended, kind: of }) && isElsewhere) bus.broadcast({ ...ended, kind: "tail", of });
  }

  return {
    settled(settled) {
      for (const { orgId, runId: workId, attempt, action, windowId, status, attemptToken } of settled) {
        // The device has sent no output for an attempt that was taken away.
        if (action !== "finished" || windowId !== null || attemptToken === null) continue;
        keepSomewhere({ orgId, workId, attempt, kind: "run" }, isTakenAway(status));
      }
    },
    turnsEnded(ended) {
      for (const { orgId, turnId: workId, attempt, status, attemptToken } of ended) {
        if (status === "completed" || attemptToken === null) continue;
        keepSomewhere({ orgId, workId, attempt, kind: "turn" }, true);
      }
    },
    receive(message) {
      if (message.kind !== "tail") return false;
      const { orgId, workId, attempt, of } = message;
      keep({ orgId, workId, attempt, kind: of });
      return true;
    },
    idle: () => writer.idle(),
  };
}

/** A device that reports an end itself sends the output with it. */
const isTakenAway = (status: string) => status === "timeout" || status === "cancelled";
