/**
 * Starts of a watcher without a slot: a trigger, a delivery to a hook, the end of another run. Each
 * start becomes a run, a skipped run with its reason, or a place in the watcher's queue, or finds
 * an equal start; never a second active run (R1).
 */
import { newId } from "../ids.ts";
import type { JsonValue } from "../json.ts";
import type { Quotas } from "../store/people/quotas.ts";
import type { Db } from "../store/pg/database.ts";
import type { NewEvent } from "../store/work/events.ts";
import * as runs from "../store/work/runs.ts";
import * as schedules from "../store/work/schedules.ts";
import * as slotRows from "../store/work/slot-rows.ts";
import * as starts from "../store/work/starts.ts";
import { type Plan, planBacklog, planSkipped, planStart } from "./plan.ts";
import { eventOf } from "./recorded-event.ts";
import { keepWithin } from "./run-limit.ts";

/** Maximum starts that wait for a watcher; further starts are recorded as skipped. */
export const startsWaitingMax = 100;
/** Maximum places of the queue that a start advances past places without a run. */
const headsMax = 5;

export type Start = schedules.WatcherName & {
  actor: string;
  source: schedules.StartSource;
  /** Undefined: none. */
  input: JsonValue | undefined;
  origin: starts.Origin;
};

export type Started = {
  outcome: "started" | "already_queued" | "queued" | "skipped";
  /** The run of the start, now or later, or the run with an equal input. */
  runId: string;
  /** The watcher's active run, if the start did not become the active run. */
  activeRunId: string | null;
  reason: string;
  /** For the doorbell, after the commit. */
  written: slotRows.RecordedRun[];
  /** For the caller to append, as the last statement. */
  events: NewEvent[];
};

/**
 * Starts the watcher, whose row is locked by the caller. The input was checked against the prompt
 * before.
 */
export async function startLocked(
  tx: Db,
  locked: schedules.DueWatcher,
  start: Start,
  options: { quotas?: Quotas | undefined } = {},
): Promise<Started> {
  const events: NewEvent[] = [];
  const written: slotRows.RecordedRun[] = [];
  const record = async (plans: Plan[], actor?: string) => {
    if (options.quotas) await keepWithin(tx, options.quotas, plans);
    const rows = await slotRows.record(
      tx,
      plans.flatMap((plan) => plan.slots),
      plans.map((plan) => plan.move),
    );
    written.push(...rows);
    events.push(...rows.map((row) => ({ ...eventOf(row), ...(actor ? { actor } : {}) })));
    return rows;
  };
  let watcher = locked;
  const queues = watcher.overlap !== "skip";
  // Earlier starts go first, also in the moment between two runs.
  for (let heads = 0; queues && !watcher.hasActiveRun && watcher.backlogRunId && heads < headsMax; heads++) {
    await record([planBacklog(watcher)]);
    watcher = (await schedules.lockOne(tx, watcher))!;
  }
  const active = watcher.hasActiveRun ? await runs.findActive(tx, watcher) : undefined;
  const activeRunId = active?.id ?? null;
  const runId = newId(watcher.now.getTime());
  const done = (outcome: Started["outcome"], more: Partial<Started> = {}): Started => ({
    ...{ outcome, runId, activeRunId, reason: "", written, events },
    ...more,
  });
  if (active) {
    const waiting = await starts.listWaiting(tx, watcher);
    const equal = await starts.findEqual(tx, {
      orgId: start.orgId,
      runIds: [active.id, ...waiting.map((one) => one.runId)],
      input: start.input,
    });
    if (equal) return done("already_queued", { runId: equal });
    if (!(await insert(tx, start, runId))) return done("already_queued");
    const isFull = watcher.overlap === "queue_all" && waiting.length >= startsWaitingMax;
    if (!queues || isFull) {
      const reason = isFull
        ? `${startsWaitingMax} starts of the watcher wait already`
        : "another run of the watcher was active, with another input";
      const { source } = start;
      const plan = planSkipped(watcher, { source, runId, skipReason: "overlap", reason });
      await recordOwn(plan);
      return done("skipped", { reason });
    }
    if (watcher.overlap === "queue_one" && waiting.length > 0) {
      const reason = "a later start took its place in the queue";
      await record(waiting.map((one) => planSkipped(watcher, { ...one, skipReason: "overlap", reason })));
    }
    const { orgId, watcherId, source } = start;
    await starts.wait(tx, { orgId, watcherId, runId, source });
    return done("queued", { reason: `it waits for the end of run ${active.id}` });
  }
  if (!(await insert(tx, start, runId))) return done("already_queued");
  const [row] = await recordOwn(
    planStart(watcher, {
      ...{ source: start.source, runId },
      ...(start.source === "manual" ? { askedBy: start.actor } : {}),
    }),
  );
  if (row?.status === "skipped") return done("skipped", { reason: row.reason });
  return done("started");

  async function recordOwn(plan: Plan) {
    const before = events.length;
    const rows = await record([plan], start.actor);
    for (const event of events.slice(before)) event.data = { ...event.data, ...dataOf(start) };
    return rows;
  }
}

/** A plain trigger stores only its run. */
function insert(tx: Db, start: Start, runId: string): Promise<boolean> {
  const { orgId, watcherId, actor, input, origin } = start;
  if (start.source === "manual" && input === undefined) return Promise.resolve(true);
  return starts.insert(tx, { orgId, watcherId, actor, input, origin, runId });
}

function dataOf({ source, origin }: Start): Record<string, unknown> {
  return {
    source,
    ...(origin.hookId
      ? { hook_id: origin.hookId, hook: origin.hookSlug, delivery: origin.hookDeliveryId }
      : {}),
    ...(origin.afterRunId ? { after_run_id: origin.afterRunId } : {}),
  };
}
