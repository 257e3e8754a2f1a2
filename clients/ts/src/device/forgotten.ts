import { type Completion, Outcome } from "../gen/pinion/v1/device_pb.js";

/** An attempt at a run or turn, counted from 1. */
export interface WorkAttempt {
  workId: string;
  attempt: number;
}

/** A result of a run or turn that is here, waiting or kept. */
export interface ResultHere {
  /** The server's database may have lost the result. */
  isLost: boolean;
  read(): Promise<Completion | undefined>;
}

/**
 * The result that answers an assignment of `attempt`; undefined for an assignment to run, such as a
 * retry.
 */
export async function forgottenOf(
  results: readonly ResultHere[],
  attempt: number,
): Promise<Completion | undefined> {
  for (const { isLost, read } of results) {
    const completion = await read();
    // A completed run has no later attempt, so its result answers any, also in the time between a
    // failover and the server's notice of it.
    if (completion?.outcome === Outcome.COMPLETED) return completion;
    if (!isLost) continue;
    const reoffer = completion?.reoffer ?? completion?.turnReoffer;
    const isForgotten = (reoffer?.attempt ?? 0) >= attempt && !completion?.retryAfter;
    if (isForgotten) return completion;
  }
  return undefined;
}
