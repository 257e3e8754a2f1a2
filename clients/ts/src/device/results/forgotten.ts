import { type Assignment, type Completion, Outcome } from "../../gen/pinion/v1/device_pb.js";

/** An attempt at a run or turn, counted from 1. */
export type WorkAttempt = Pick<Assignment, "workId" | "attempt" | "watcher" | "event">;

/** A result of a run or turn that is here, waiting or kept. */
export interface ResultHere {
  workId: string;
  /** The server's database may have lost the result. */
  isLost: boolean;
  /** The server may have lost the result moments ago, and not have noticed. */
  isFresh: boolean;
  read(): Promise<Completion | undefined>;
}

/** Whether two ids differ in the time alone: runs of one start do (protocol.md, 3). */
export const isNamed = (workId: string, other: string) =>
  workId.slice(20).toLowerCase() === other.slice(20).toLowerCase();

/**
 * Whether a result may be of the assigned work: it has the work's id, or the name in the id of a
 * run without a slot. A start that its sender repeated after a failover has a run of another time.
 */
export function mayAnswer({ workId, event }: WorkAttempt, result: Omit<ResultHere, "read">): boolean {
  if (result.workId === workId) return true;
  if (event === undefined || event.scheduledFor !== undefined) return false;
  return isNamed(result.workId, workId) && (result.isLost || result.isFresh);
}

/**
 * The result that answers an assignment of `attempt`; undefined for an assignment to run, such as a
 * retry.
 */
export async function forgottenOf(
  results: readonly ResultHere[],
  { workId, attempt, watcher }: WorkAttempt,
): Promise<Completion | undefined> {
  for (const { workId: of, isLost, read } of results) {
    const completion = await read();
    // Of another id, the run must be the same watcher's.
    if (of !== workId && completion?.reoffer?.watcherId.toLowerCase() !== watcher?.id.toLowerCase()) continue;
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
