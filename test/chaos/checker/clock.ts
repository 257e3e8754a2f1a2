import { iso } from "./slots.ts";
import { linesOf, type Violation, type World } from "./world.ts";

/** A wrong clock of the database decides nothing. */

/** Decisions that were under way when the clock jumped. */
const underWayMs = 1_000;
/** Rules of the reaper that measure time. */
const measured = new Set(["stream_broken", "silent", "never_beat", "overdue"]);

export function checkWrongClock(world: World): Violation | undefined {
  const jumps = world.history.flatMap((entry) =>
    entry.kind === "fault" && entry.name === "database_clock" && entry.phase === "begin" ? [entry.at] : [],
  );
  for (const { kind, run, watcher, rule, scheduledFor, committedAt, isByWrongClock } of world.rows.events) {
    if (!isByWrongClock || !run) continue;
    const isOfTime =
      kind === "run.skipped" ||
      (kind === "run.created" && scheduledFor !== null) ||
      (rule !== null && measured.has(rule));
    // A skip was decided at its run's end: on a busy machine the commit comes seconds later.
    const decidedAt = (kind === "run.skipped" ? world.runs.get(run)?.finishedAt : undefined) ?? committedAt;
    if (!isOfTime || jumps.some((at) => committedAt >= at && decidedAt <= at + underWayMs)) continue;
    const what = `${kind}${rule === null ? "" : ` (${rule})`} of run ${run} was committed at ${iso(committedAt)}, while the database's clock was wrong`;
    return {
      rule: "a wrong clock decides nothing",
      what,
      lines: linesOf(world, watcher === null ? { run } : { run, watcher }),
    };
  }
  return undefined;
}
