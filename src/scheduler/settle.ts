import type { Db } from "../store/database.ts";
import * as events from "../store/events.ts";
import { type FailurePolicy, type Settled, type Settlement, settle } from "../store/settlements.ts";

/**
 * Settles attempts and writes their events, in the caller's transaction (R5). Appending events takes the orgs' locks,
 * so nothing else may follow in the transaction.
 */
export async function settleWithEvents(
  tx: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
  options: { rules?: ReadonlyMap<string, string> } = {},
): Promise<Settled[]> {
  const settled = await settle(tx, settlements, policy);
  const reporters = new Map(settlements.map((s) => [s.runId, s.deviceId]));
  await events.appendAll(
    tx,
    settled.flatMap((run) => eventsOf(run, reporters.get(run.runId) ?? null, options.rules)),
  );
  return settled;
}

function eventsOf(
  run: Settled,
  reporterId: string | null,
  rules: ReadonlyMap<string, string> | undefined,
): events.NewEvent[] {
  const subject = { orgId: run.orgId, runId: run.runId, watcherId: run.watcherId, deviceId: run.deviceId };
  const rule = rules?.get(run.runId);
  const written: events.NewEvent[] = [
    {
      ...subject,
      kind: run.action === "finished" ? `run.${run.status}` : `run.${run.action}`,
      actor: reporterId ? `device:${reporterId}` : "pinion",
      data: {
        attempt: run.attempt,
        ...(run.reason ? { reason: run.reason } : {}),
        ...(run.windowId ? { window_id: run.windowId } : {}),
        ...(rule ? { rule } : {}),
      },
    },
  ];
  if (run.isWatcherPaused) {
    written.push({
      ...subject,
      kind: "watcher.paused",
      actor: "pinion",
      data: { reason: `${run.consecutiveFailures} failures in a row`, last_failure: run.reason },
    });
  }
  return written;
}
