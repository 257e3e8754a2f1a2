/** Results of a run that came late, for its explanation: each is of a program that ran. */
import * as devices from "../../store/people/devices/devices.ts";
import type { Db } from "../../store/pg/database.ts";
import { type LateResultRow, list } from "../../store/work/attempts/late-results.ts";

export type LateKnown = Pick<LateResultRow, "attempt" | "outcome" | "hasSettled" | "storedAt"> & {
  /** The label of the device that ran the program; empty if the device does not exist any more. */
  label: string;
};

/** The run's late results, oldest first, with their devices' labels. */
export async function findLate(
  db: Db,
  { orgId, runId }: { orgId: string; runId: string },
): Promise<LateKnown[]> {
  const rows = await list(db, { orgId, id: runId });
  const labels = new Map<string, string>();
  for (const deviceId of new Set(rows.map((row) => row.deviceId))) {
    const device = await devices.find(db, { orgId, deviceId });
    labels.set(deviceId, device?.label ?? "");
  }
  return rows.map(({ attempt, outcome, hasSettled, storedAt, deviceId }) => ({
    ...{ attempt, outcome, hasSettled, storedAt },
    label: labels.get(deviceId) ?? "",
  }));
}

export function lateText({ attempt, outcome, hasSettled, label }: LateKnown): string {
  const device = label === "" ? "a device that does not exist any more" : label;
  const what = `the program of attempt ${attempt} on ${device} gave its result late (${outcome})`;
  return hasSettled ? `${what}, and the run ended with it` : `${what}; it is kept beside the run's`;
}
