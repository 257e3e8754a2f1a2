import type { Entry } from "../history.ts";
import type { Span } from "./spans.ts";

/**
 * A failover to a standby that lagged loses commits, and with them answers that were true: what was
 * answered within these spans may be undone. What a program has finished is never lost (R10).
 */
export function lossesOf(history: readonly Entry[]): Span[] {
  const spans = new Map<number, Span>();
  for (const entry of history) {
    if (entry.kind !== "fault" || entry.name !== "database_failover") continue;
    if (entry.phase === "begin") spans.set(entry.fault, { from: entry.at, to: Number.POSITIVE_INFINITY });
    else Object.assign(spans.get(entry.fault) ?? {}, { to: entry.at });
  }
  return [...spans.values()];
}

/** A message may be so late: networks, hosts and replicas stand still for a while. */
const lateMs = 20_000;

/** Whether a call that was open in this time may be undone. */
export function mayBeUndone(
  { losses }: { losses: readonly Span[] },
  from: number,
  to: number | undefined,
): boolean {
  return losses.some((span) => from <= span.to && (to ?? Number.POSITIVE_INFINITY) >= span.from);
}

/** Whether a message that a device saw at this moment may be of the database that is gone. */
export function mayBeOfBefore({ losses }: { losses: readonly Span[] }, at: number): boolean {
  return losses.some(({ from, to }) => at >= from && at <= to + lateMs);
}
