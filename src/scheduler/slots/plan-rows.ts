import { fullText, type Quotas } from "../../store/people/orgs/quotas.ts";
import type { Db } from "../../store/pg/database.ts";
import { takingData } from "../../store/pg/failures.ts";
import * as alerts from "../../store/work/messages/alerts.ts";
import type { NewEvent } from "../../store/work/service/events.ts";
import * as slotRows from "../../store/work/watchers/slot-rows.ts";
import { alertsOfSlot } from "../endings/notices.ts";
import type { Plan } from "./plan.ts";

/** Plans become rows: held to the quota of their org, written, and each with its event. */

/** A slot to be recorded, with the pin of its watcher; null: no pin, or the run is placed first. */
export type PlannedSlot = { slot: slotRows.SlotRecord; deviceId: string | null };

/** Reserves the sessions of the replica whose devices may have these runs at once. */
export type Claim = (slots: readonly PlannedSlot[]) => void;

/**
 * Turns runs beyond their org's limit of active runs into skipped runs, so that each slot has its
 * row (R2) and the schedule moves on (R3). Changes the plans in place, first come, first served.
 */
export async function keepWithin(tx: Db, quotas: Quotas, plans: readonly Plan[]): Promise<void> {
  const wanted = plans.flatMap((plan) =>
    plan.slots.filter(({ skipReason }) => skipReason === null).map((slot) => ({ plan, slot })),
  );
  if (wanted.length === 0) return;
  const found = await quotas.find(tx, "runs", [...new Set(wanted.map(({ slot }) => slot.orgId))]);
  const taken = new Map<string, number>();
  for (const { plan, slot } of wanted) {
    const { max, room } = found.get(slot.orgId)!;
    const before = taken.get(slot.orgId) ?? 0;
    if (before < room) {
      taken.set(slot.orgId, before + 1);
      continue;
    }
    slot.skipReason = "limit";
    slot.reason = fullText(max);
    plan.move.lastRunAt = null;
  }
  for (const [orgId, made] of taken) quotas.add("runs", orgId, made);
}

/** Writes plans of locked watchers; returns the rows, whose events the caller appends last. */
export async function write(tx: Db, plans: readonly Plan[]): Promise<slotRows.RecordedRun[]> {
  if (plans.length === 0) return [];
  const written = await takingData(async () => {
    await slotRows.putAside(
      tx,
      plans.flatMap((plan) => plan.aside),
    );
    return slotRows.record(
      tx,
      plans.flatMap((plan) => plan.slots),
      plans.map((plan) => plan.move),
    );
  });
  await alerts.alert(tx, written.flatMap(alertsOfSlot));
  return written;
}

/** The event of a recorded run. */
export function eventOf(run: slotRows.RecordedRun): NewEvent {
  return {
    orgId: run.orgId,
    kind: run.status === "skipped" ? "run.skipped" : "run.created",
    actor: "pinion",
    runId: run.runId,
    watcherId: run.watcherId,
    deviceId: run.deviceId,
    data: {
      ...(run.scheduledFor ? { scheduled_for: run.scheduledFor.toISOString() } : {}),
      ...(run.skipReason ? { skip_reason: run.skipReason, reason: run.reason } : {}),
    },
  };
}
