import { iso } from "./slots.ts";
import { linesOf, type Violation, type World } from "./world.ts";

/** DESIGN 5: what nobody answers for is taken away in time, and not before. */

type Span = { from: number; to: number };

const databaseFaults = new Set(["postgres_restart", "postgres_outage", "backends_terminated"]);

/** When some replica could reap: up and undisturbed for one TTL, and the database there for one TTL. */
function reapingSpans(world: World): Span[] {
  const { ttlMs, slackMs } = world.bounds;
  const end = (world.history.at(-1)?.at ?? 0) + 1;
  const away: Span[] = [];
  const open = new Map<number, number>();
  const upSince = new Map<string, number>();
  const up: Span[] = [];
  for (const entry of world.history) {
    if (entry.kind === "fault" && databaseFaults.has(entry.name)) {
      if (entry.phase === "begin") open.set(entry.fault, entry.at);
      else away.push({ from: open.get(entry.fault) ?? entry.at, to: entry.at + ttlMs + slackMs / 2 });
    }
    if (entry.kind !== "replica") continue;
    if (entry.phase === "serving" || entry.phase === "continued")
      upSince.set(entry.replica, entry.at + ttlMs);
    else {
      const from = upSince.get(entry.replica);
      upSince.delete(entry.replica);
      if (from !== undefined && from < entry.at) up.push({ from, to: entry.at });
    }
  }
  for (const from of upSince.values()) up.push({ from, to: end });
  return subtract(merge(up), merge(away));
}

export function merge(spans: readonly Span[]): Span[] {
  const merged: Span[] = [];
  for (const span of [...spans].sort((a, b) => a.from - b.from)) {
    const last = merged.at(-1);
    if (last && span.from <= last.to) last.to = Math.max(last.to, span.to);
    else merged.push({ ...span });
  }
  return merged;
}

export function subtract(spans: readonly Span[], holes: readonly Span[]): Span[] {
  return spans.flatMap((span) => {
    const parts: Span[] = [];
    let { from } = span;
    for (const hole of holes) {
      if (hole.to <= from || hole.from >= span.to) continue;
      if (hole.from > from) parts.push({ from, to: hole.from });
      from = Math.max(from, hole.to);
    }
    if (from < span.to) parts.push({ from, to: span.to });
    return parts;
  });
}

function overlapMs(spans: readonly Span[], from: number, to: number): number {
  return spans.reduce((sum, span) => sum + Math.max(0, Math.min(span.to, to) - Math.max(span.from, from)), 0);
}

/** No attempt is out without anybody who answers for it for longer than its TTL, while somebody could have reaped it. */
export function checkOwners(world: World): Violation | undefined {
  const { ttlMs, silentAttemptMs, slackMs } = world.bounds;
  const spans = reapingSpans(world);
  for (const entry of world.history) {
    if (entry.kind !== "sample") continue;
    for (const { run, token, deviceSilentMs, attemptSilentMs } of entry.silent) {
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

const reapedFor = new Set(["stream_broken", "silent", "never_beat", "overdue"]);
/** A shorter absence may have gone by between two passes of a reaper; nothing looks stale after it. */
const noticedMs = 2_000;
/** Between the moment at which PostgreSQL takes connections and the rig's knowledge of it. */
const noticeMs = 1_000;

/** For one TTL after the database was away nothing is reaped: everything looks stale then. */
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
