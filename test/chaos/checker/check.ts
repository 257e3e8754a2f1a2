import type { Entry } from "../history.ts";
import type { Rows } from "../rows.ts";
import { checkAttempts, checkFences } from "./attempts.ts";
import { checkCalls } from "./calls.ts";
import { checkWrongClock } from "./clock.ts";
import { checkCompletions, checkWindows } from "./completions.ts";
import { checkEnd } from "./end.ts";
import { checkEarliness, checkLateness } from "./lateness.ts";
import { checkOwners, checkReaperGrace } from "./owners.ts";
import { checkPrograms, checkReruns } from "./programs.ts";
import { checkScheduleMoves, checkSlotRows, checkSlots } from "./slots.ts";
import { checkTenancy } from "./tenancy.ts";
import { checkChains, checkDeliveries, checkHooks } from "./traffic.ts";
import { type Bounds, makeWorld, type Violation, type World } from "./world.ts";

/** Each rule looks for the first violation of its promise. */
export const rules: Record<string, (world: World) => Violation | undefined> = {
  checkSlots,
  checkSlotRows,
  checkScheduleMoves,
  checkAttempts,
  checkFences,
  checkCompletions,
  checkWindows,
  checkPrograms,
  checkReruns,
  checkWrongClock,
  checkTenancy,
  checkOwners,
  checkReaperGrace,
  checkEarliness,
  checkLateness,
  checkCalls,
  checkHooks,
  checkChains,
  checkDeliveries,
  checkEnd,
};

/** Checks a history against the final rows; returns the violations, at most one for each rule. */
export function check(history: readonly Entry[], rows: Rows, bounds: Bounds): Violation[] {
  const world = makeWorld(history, rows, bounds);
  return Object.values(rules).flatMap((rule) => rule(world) ?? []);
}

/** A violation as text: the description, and the lines of the history as evidence. */
export function describe({ rule, what, lines }: Violation): string {
  const first = lines[0]?.at ?? 0;
  const shown = lines.map(
    ({ at, ...rest }) => `    +${((at - first) / 1000).toFixed(3)} s ${JSON.stringify(rest)}`,
  );
  return [`${rule}: ${what}`, ...shown].join("\n");
}
