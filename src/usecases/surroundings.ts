import type { Doorbell } from "../scheduler/doorbell.ts";
import { announce, type Cancellation, cancelIn } from "../scheduler/endings/cancels.ts";
import type { Hold } from "../scheduler/slots/recording.ts";
import type { Quotas } from "../store/people/orgs/quotas.ts";
import type { Db } from "../store/pg/database.ts";
import type { FailurePolicy } from "../store/work/attempts/settlements.ts";
import type { Logger } from "../telemetry/log.ts";

/**
 * The parts that a use-case needs beside the database: the quotas of orgs, the policy for failures,
 * and the listeners after a commit.
 */
export type Surroundings = {
  policy: FailurePolicy;
  /** Without quotas, an org may have any number of active runs. */
  quotas?: Quotas | undefined;
  doorbell: Doorbell;
  /** The sessions of the replica that claim runs as they are recorded; see Dispatcher.hold. */
  hold?: Hold | undefined;
  /**
   * Tells the materializer that a slot may be due sooner than known. A hint, given after the
   * commit.
   */
  scheduleChanged(): void;
  log?: Logger | undefined;
};

/** Cancels live runs of a watcher in the caller's transaction, in which only events may follow. */
export function cancelOfWatcher(
  tx: Db,
  watcher: { orgId: string; watcherId: string },
  options: { reason: string; only?: "ahead" },
  { policy }: Pick<Surroundings, "policy">,
): Promise<Cancellation> {
  return cancelIn(tx, watcher, { ...options, policy, mode: "ask" });
}

/** Announces cancellations after their commit. */
export function announceAll(
  { doorbell }: Pick<Surroundings, "doorbell">,
  cancellations: readonly Cancellation[],
): void {
  for (const cancellation of cancellations) announce(doorbell, cancellation);
}
