import type { Db } from "../../store/pg/database.ts";
import * as placements from "../../store/work/runs/placements.ts";
import { knowing } from "./placing-pass.ts";

/** The facts for ExplainRun about a run that waits to be placed. */
export type PlacementExplained = {
  /** The reason for waiting; empty: the run is about to be placed. */
  waits: string;
  selector: string | null;
  groupName: string | null;
  rateKey: string | null;
  /** Devices and the reasons against them, matching devices first. Empty for a run of the fleet. */
  candidates: { deviceId: string; label: string; matches: boolean; reason: string | null }[];
  /** Number of further devices of the org. */
  notShown: number;
};

/** Maximum devices in an answer. */
const candidatesMax = 200;

/**
 * The reasons why a held run waits, by device; undefined for a run that is not held. Reads only.
 */
export async function explainPlacement(
  db: Db,
  options: { orgId: string; runId: string; ttlMs: number },
): Promise<PlacementExplained | undefined> {
  const { orgId, runId, ttlMs } = options;
  const [run] = await placements.listHeld(db, { orgId, runId, limit: 1 });
  if (!run) return undefined;
  const all = await placements.listCandidates(db, { orgId, ttlMs, onlineOnly: false });
  const know = await knowing(db, { orgId, ttlMs, devices: all });
  const plan = await know.planFor([run], undefined);
  const eligible = new Set(run.selector === null ? [] : plan.eligible(run).map(({ deviceId }) => deviceId));
  const shown = all
    .filter(({ isWorker, deviceId }) => (run.selector === null ? deviceId === run.deviceId : !isWorker))
    .map((device) => ({
      deviceId: device.deviceId,
      label: device.label,
      matches: run.selector === null || eligible.has(device.deviceId),
      reason: plan.whyNot(run, device),
    }))
    .sort((a, b) => Number(b.matches) - Number(a.matches) || (a.label < b.label ? -1 : 1));
  const verdict = plan.next(run);
  return {
    // The reason of the last pass also accounts for earlier runs in the queue.
    waits: run.reason || ("waits" in verdict ? verdict.waits : ""),
    ...{ selector: run.selector, groupName: run.groupName, rateKey: run.rateKey },
    candidates: shown.slice(0, candidatesMax),
    notShown: Math.max(0, shown.length - candidatesMax),
  };
}
