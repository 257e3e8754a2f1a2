import { type Run, type RunActivity, type RunOutput, RunStatus } from "../gen/pinion/v1/run_pb.js";
import type { Clients } from "./clients.ts";
import { follow } from "./follow.ts";

export interface WaitForRunOptions {
  signal?: AbortSignal;
  /** Called with the run at every change. */
  onRun?: (run: Run) => void;
  onOutput?: (output: RunOutput) => void;
  /** Called with the agent's activities, live; some may be missing, as for output. */
  onActivity?: (activity: RunActivity) => void;
}

/** True if a run has ended. */
export function isEnded(run: Pick<Run, "status">): boolean {
  switch (run.status) {
    case RunStatus.COMPLETED:
    case RunStatus.FAILED:
    case RunStatus.TIMEOUT:
    case RunStatus.CANCELLED:
    case RunStatus.SKIPPED:
      return true;
    case RunStatus.UNSPECIFIED:
    case RunStatus.PENDING:
    case RunStatus.CLAIMED:
    case RunStatus.RUNNING:
      return false;
  }
}

/**
 * Waits for the end of a run, over any number of streams, and returns the run. Throws a PinionError
 * without hope for a retry (not_found, unauthenticated …), or the signal's reason.
 */
export async function waitForRun(
  clients: Pick<Clients, "runs">,
  runId: string,
  options: WaitForRunOptions = {},
): Promise<Run> {
  return follow({
    signal: options.signal,
    open: (signal) => clients.runs.watchRun({ runId }, { signal }),
    onUpdate({ update }) {
      if (update.case === "output") options.onOutput?.(update.value);
      if (update.case === "activity") options.onActivity?.(update.value);
      if (update.case !== "run") return undefined;
      options.onRun?.(update.value);
      return isEnded(update.value) ? update.value : undefined;
    },
  });
}
