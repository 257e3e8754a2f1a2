import type { Triggered } from "../../../scheduler/starts/triggers.ts";
import type { Db } from "../../../store/pg/database.ts";
import * as starts from "../../../store/work/runs/starts.ts";
import { runMessage } from "./run-message.ts";

/** The result of a trigger, with the redacted input of its run. */
export async function triggeredMessage(db: Db, { run, alreadyQueued, queuedRunId, isPlain }: Triggered) {
  const start = isPlain ? undefined : await starts.findShown(db, { orgId: run.orgId, runId: run.id });
  return { run: runMessage(run, { start }), alreadyQueued, queuedRunId };
}
