import { fullText, type Quotas } from "../store/people/quotas.ts";
import type { Db } from "../store/pg/database.ts";
import type { Plan } from "./plan.ts";

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
