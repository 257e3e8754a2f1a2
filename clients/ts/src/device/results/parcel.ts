import { create } from "@bufbuild/protobuf";
import { type Completion, CompletionSchema } from "../../gen/pinion/v1/device_pb.js";
import type { Kept } from "../../outbox/kept.ts";
import type { OutboxEntry } from "../../outbox/outbox.ts";
import type { Timing } from "../timing.ts";

/** A completion on its way to the server. */
export interface Parcel {
  readonly entry: OutboxEntry;
  readonly watcher: string;
  /** Held in memory until the write to disk succeeds. */
  unsaved: Completion | undefined;
  /**
   * Time of the last send on the current stream, by the monotonic clock; undefined: not sent on
   * this stream.
   */
  sentAt: number | undefined;
  /** Number of sends, over all streams. */
  sends: number;
  suspicions: number;
  /** After a failed read: earliest time of the next read, by the monotonic clock. */
  readableAt: number | undefined;
  /** A read from disk or a unary call is in progress. */
  isBusy: boolean;
  /** Set if another database acknowledged the result before and the result is offered again. */
  kept: Kept | undefined;
  /**
   * The server did not know the attempt: the result is sent once more with its run, which the
   * server's database may have lost.
   */
  bringsItsRun: boolean;
  /**
   * Number of sends without the run on the current stream that have no answer yet: so many verdicts
   * UNKNOWN say nothing about the send with the run.
   */
  plainSends: number;
}

/** A parcel that was not sent yet. */
export function parcelOf(entry: OutboxEntry, watcher: string): Parcel {
  const unsent = { sentAt: undefined, sends: 0, suspicions: 0 };
  return {
    entry,
    watcher,
    ...unsent,
    unsaved: undefined,
    readableAt: undefined,
    isBusy: false,
    kept: undefined,
    bringsItsRun: false,
    plainSends: 0,
  };
}

/** An acknowledged result, for its offer to another database. */
export function parcelOfKept(kept: Kept): Parcel {
  const { workId, attemptToken, acknowledgedAtMs: finishedAtMs } = kept;
  return { ...parcelOf({ workId, attemptToken, finishedAtMs }, ""), kept, bringsItsRun: true };
}

/** `reoffer` and `turnReoffer` are sent only where the server's database may have lost the work. */
export function asSent({ bringsItsRun }: Parcel, completion: Completion): Completion {
  if (bringsItsRun || (completion.reoffer ?? completion.turnReoffer) === undefined) return completion;
  const { reoffer: _, turnReoffer: __, ...rest } = completion;
  return create(CompletionSchema, rest);
}

/** Whether the acknowledgement is overdue at `now`, by the monotonic clock. */
export function isOverdue({ sentAt, sends }: Parcel, now: number, timing: Timing): boolean {
  const deadlineMs = Math.min(timing.ackDeadlineCapMs, timing.ackDeadlineMs * 2 ** Math.max(0, sends - 1));
  return sentAt !== undefined && now - sentAt >= deadlineMs;
}

/** Number of parcels sent on the current stream and not acknowledged. */
export function countOnTheirWay(parcels: Iterable<Parcel>): number {
  let count = 0;
  for (const parcel of parcels) if (parcel.sentAt !== undefined) count += 1;
  return count;
}
