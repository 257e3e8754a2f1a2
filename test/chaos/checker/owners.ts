import { iso } from "./slots.ts";
import { merge, type Span, subtract } from "./spans.ts";
import { type Bounds, linesOf, type Violation, type World } from "./world.ts";

/** An attempt without a live owner is taken away in time, and not before. */

/** The time after the end of a fault until all affected parts have recovered. */
export const recoveryMs = ({ ttlMs, slackMs }: Bounds): number => ttlMs + slackMs / 2;

const databaseFaults = new Set([
  ...["postgres_restart", "postgres_outage", "backends_terminated"],
  // While the clock is in doubt nothing is reaped.
  ...["database_clock", "database_failover"],
]);

/**
 * The spans in which some replica could reap: the replica up and undisturbed for one TTL, and its
 * database available for one TTL.
 */
function reapingSpans(world: World): Span[] {
  const { ttlMs } = world.bounds;
  const end = (world.history.at(-1)?.at ?? 0) + 1;
  const begun = new Map<number, number>();
  const away: Span[] = [];
  const awayFor = new Map<string, Span[]>();
  const upSince = new Map<string, number>();
  const up = new Map<string, Span[]>();
  const add = (spans: Map<string, Span[]>, name: string, span: Span) =>
    spans.set(name, [...(spans.get(name) ?? []), span]);
  for (const entry of world.history) {
    if (entry.kind === "fault" && entry.phase === "begin") begun.set(entry.fault, entry.at);
    if (entry.kind === "fault" && entry.phase === "end") {
      const span = { from: begun.get(entry.fault) ?? entry.at, to: entry.at + recoveryMs(world.bounds) };
      if (databaseFaults.has(entry.name)) away.push(span);
      else if (entry.name.startsWith("database")) add(awayFor, entry.targets[0]!.replace(linkOf, ""), span);
    }
    if (entry.kind !== "replica") continue;
    const { replica, at } = entry;
    if (entry.phase === "serving" || entry.phase === "continued") upSince.set(replica, at + ttlMs);
    else {
      const from = upSince.get(replica);
      upSince.delete(replica);
      if (from !== undefined && from < at) add(up, replica, { from, to: at });
    }
  }
  for (const [replica, from] of upSince) add(up, replica, { from, to: end });
  const able = [...up].flatMap(([replica, spans]) => subtract(spans, merge(awayFor.get(replica) ?? [])));
  return subtract(merge(able), merge(away));
}

/** The link between a replica and the database is named after the replica. */
const linkOf = "'s database";

function overlapMs(spans: readonly Span[], from: number, to: number): number {
  return spans.reduce((sum, span) => sum + Math.max(0, Math.min(span.to, to) - Math.max(span.from, from)), 0);
}

/**
 * No attempt stays without a live owner for longer than its TTL while some replica could have
 * reaped the attempt.
 */
export function checkOwners(world: World): Violation | undefined {
  const { ttlMs, silentAttemptMs, slackMs } = world.bounds;
  const spans = reapingSpans(world);
  const begunAt = world.history[0]?.at ?? 0;
  for (const entry of world.history) {
    if (entry.kind !== "sample") continue;
    for (const { run, token, deviceSilentMs, attemptSilentMs } of entry.silent) {
      // A connection may have the wrong clock for a moment longer than the fault.
      if (deviceSilentMs > entry.at - begunAt) continue;
      const late = [
        { silentMs: deviceSilentMs, afterMs: ttlMs, who: "its device" },
        { silentMs: attemptSilentMs ?? 0, afterMs: silentAttemptMs, who: "the attempt" },
      ].find(
        ({ silentMs, afterMs }) => overlapMs(spans, entry.at - (silentMs - afterMs), entry.at) > slackMs,
      );
      if (!late) continue;
      const what = `attempt ${token} of run ${run} was out at ${iso(entry.at)}, though ${late.who} had not been heard of for ${Math.round(late.silentMs)} ms`;
      return { rule: "nothing stays out without an owner", what, lines: [...linesOf(world, { run }), entry] };
    }
  }
  return undefined;
}

const reapedFor = new Set(["stream_broken", "silent", "never_beat", "not_listed", "overdue"]);
/**
 * A shorter absence may have passed between two passes of a reaper; nothing looks stale afterwards.
 */
const noticedMs = 2_000;
/**
 * Between the moment at which PostgreSQL takes connections and the rig's knowledge of that moment.
 */
const noticeMs = 1_000;

/**
 * For one TTL after an absence of the database nothing is reaped, because every attempt looks stale
 * then.
 */
export function checkReaperGrace(world: World): Violation | undefined {
  const begun = new Map<number, number>();
  const back: number[] = [];
  for (const entry of world.history) {
    if (entry.kind !== "fault" || entry.name !== "postgres_outage") continue;
    if (entry.phase === "begin") begun.set(entry.fault, entry.at);
    else if (entry.at - (begun.get(entry.fault) ?? entry.at) >= noticedMs) back.push(entry.at);
  }
  for (const { run, rule, committedAt } of world.rows.events) {
    if (!run || rule === null || !reapedFor.has(rule)) continue;
    const since = back.find((at) => committedAt >= at && committedAt < at + world.bounds.ttlMs - noticeMs);
    if (since === undefined) continue;
    const what = `run ${run} was reaped (${rule}) ${Math.round(committedAt - since)} ms after the database came back`;
    return { rule: "nothing is reaped within the grace", what, lines: linesOf(world, { run }) };
  }
  return undefined;
}
