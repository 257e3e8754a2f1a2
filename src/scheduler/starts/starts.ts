/**
 * Starts of a watcher without a slot: a trigger, a delivery to a hook, the end of another run. Each
 * start becomes a run, a skipped run with its reason, or a place in the watcher's queue, or finds
 * an equal start; never a second active run (R1).
 */

import type { Quotas } from "../../store/people/orgs/quotas.ts";
import type { Db } from "../../store/pg/database.ts";
import * as runs from "../../store/work/runs/runs.ts";
import * as starts from "../../store/work/runs/starts.ts";
import type { NewEvent } from "../../store/work/service/events.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import * as slotRows from "../../store/work/watchers/slot-rows.ts";
import { newId } from "../../values/ids.ts";
import type { JsonValue } from "../../values/json.ts";
import { type Plan, planBacklog, planSkipped, planStart } from "../slots/plan.ts";
import { type Claim, eventOf, keepWithin } from "../slots/recording.ts";

/** Maximum starts that wait for a watcher; further starts are recorded as skipped. */
const startsWaitingMax = 100;
/** Maximum places of the queue that a start advances past places without a run. */
const headsMax = 5;

export type Start = schedules.WatcherName & {
  /** The id of the run; undefined: a new one. */
  runId?: string | undefined;
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

export type StartOptions = {
  quotas?: Quotas | undefined;
  /** Asked for the start's own run; without it, the run is claimed by a statement of its own. */
  claim?: Claim | undefined;
};

/**
 * Starts the watcher, whose row is locked by the caller. The input was checked against the prompt
 * before.
 */
export async function startLocked(
  tx: Db,
  locked: schedules.DueWatcher,
  start: Start,
  options: StartOptions = {},
): Promise<Started> {
  const recorder = new Recorder(tx, start, options);
  const watcher = await startEarlier(tx, locked, recorder);
  const runId = start.runId ?? newId(watcher.now.getTime());
  const active = watcher.hasActiveRun ? await runs.findActive(tx, watcher) : undefined;
  const decided = active
    ? await startBeside(tx, { watcher, start, runId, active, recorder })
    : await startAlone(tx, { watcher, start, runId, recorder });
  const { written, events } = recorder;
  return { runId, activeRunId: active?.id ?? null, reason: "", ...decided, written, events };
}

/** Writes runs, and keeps their rows for the doorbell and their events for the log. */
class Recorder {
  readonly written: slotRows.RecordedRun[] = [];
  readonly events: NewEvent[] = [];
  readonly #tx: Db;
  readonly #start: Start;
  readonly #options: StartOptions;

  constructor(tx: Db, start: Start, options: StartOptions) {
    this.#tx = tx;
    this.#start = start;
    this.#options = options;
  }

  /** Writes runs of other starts. */
  async record(plans: Plan[]): Promise<void> {
    await this.#keepWithin(plans);
    const rows = await this.#write(plans);
    this.events.push(...rows.map((row) => eventOf(row)));
  }

  /** Writes the run of the start itself: its events name the actor and the start's origin. */
  async recordOwn(plan: Plan, deviceId: string | null): Promise<slotRows.RecordedRun[]> {
    await this.#keepWithin([plan]);
    this.#options.claim?.(plan.slots.map((slot) => ({ slot, deviceId })));
    const rows = await this.#write([plan]);
    for (const row of rows) {
      const event = eventOf(row);
      const data = { ...event.data, ...dataOf(this.#start) };
      this.events.push({ ...event, ...(this.#start.actor ? { actor: this.#start.actor } : {}), data });
    }
    return rows;
  }

  async #keepWithin(plans: Plan[]): Promise<void> {
    const { quotas } = this.#options;
    if (quotas) await keepWithin(this.#tx, quotas, plans);
  }

  async #write(plans: Plan[]): Promise<slotRows.RecordedRun[]> {
    const rows = await slotRows.record(
      this.#tx,
      plans.flatMap((plan) => plan.slots),
      plans.map((plan) => plan.move),
    );
    this.written.push(...rows);
    return rows;
  }
}

/**
 * Starts that wait go first, also in the moment between two runs. Returns the watcher after them.
 */
async function startEarlier(
  tx: Db,
  locked: schedules.DueWatcher,
  recorder: Recorder,
): Promise<schedules.DueWatcher> {
  let watcher = locked;
  if (watcher.overlap === "skip") return watcher;
  for (let heads = 0; !watcher.hasActiveRun && watcher.backlogRunId && heads < headsMax; heads++) {
    await recorder.record([planBacklog(watcher)]);
    watcher = (await schedules.lockOne(tx, watcher)) ?? watcher;
  }
  return watcher;
}

type Decided = Pick<Started, "outcome"> & Partial<Pick<Started, "runId" | "reason">>;

type Starting = { watcher: schedules.DueWatcher; start: Start; runId: string; recorder: Recorder };

/** A start while no run of the watcher is active: a run, or a skipped run. */
async function startAlone(tx: Db, { watcher, start, runId, recorder }: Starting): Promise<Decided> {
  if (!(await insert(tx, start, runId))) return { outcome: "already_queued" };
  const { source, actor } = start;
  const [row] = await recorder.recordOwn(
    planStart(watcher, { source, runId, ...(source === "manual" ? { askedBy: actor } : {}) }),
    watcher.deviceId,
  );
  return row?.status === "skipped" ? { outcome: "skipped", reason: row.reason } : { outcome: "started" };
}

/**
 * A start while another run of the watcher is active: equal to another start, queued or skipped.
 */
async function startBeside(
  tx: Db,
  { watcher, start, runId, active, recorder }: Starting & { active: { id: string } },
): Promise<Decided> {
  const { orgId, watcherId, source, input } = start;
  const waiting = await starts.listWaiting(tx, watcher);
  const runIds = [active.id, ...waiting.map((one) => one.runId)];
  const equal = await starts.findEqual(tx, { orgId, runIds, input });
  if (equal) return { outcome: "already_queued", runId: equal };
  if (!(await insert(tx, start, runId))) return { outcome: "already_queued" };
  const isFull = watcher.overlap === "queue_all" && waiting.length >= startsWaitingMax;
  if (watcher.overlap === "skip" || isFull) {
    const reason = isFull
      ? `${startsWaitingMax} starts of the watcher wait already`
      : "another run of the watcher was active, with another input";
    const plan = planSkipped(watcher, { source, runId, skipReason: "overlap", reason });
    await recorder.recordOwn(plan, watcher.deviceId);
    return { outcome: "skipped", reason };
  }
  if (watcher.overlap === "queue_one" && waiting.length > 0) {
    const reason = "a later start took its place in the queue";
    await recorder.record(
      waiting.map((one) => planSkipped(watcher, { ...one, skipReason: "overlap", reason })),
    );
  }
  await starts.wait(tx, { orgId, watcherId, runId, source });
  return { outcome: "queued", reason: `it waits for the end of run ${active.id}` };
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
