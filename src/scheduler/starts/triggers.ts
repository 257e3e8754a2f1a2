import { setImmediate as nextTurn } from "node:timers/promises";
import { refuse } from "../../errors.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import * as requests from "../../store/people/requests.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import type { Json } from "../../store/pg/schema/schema-columns.ts";
import * as runs from "../../store/work/runs/runs.ts";
import * as starts from "../../store/work/runs/starts.ts";
import * as events from "../../store/work/service/events.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import * as slotRows from "../../store/work/watchers/slot-rows.ts";
import { nameOfRun, requestedRunId } from "../../values/ids.ts";
import { problemOf } from "../../values/input.ts";
import type { JsonValue } from "../../values/json.ts";
import type { Doorbell } from "../doorbell.ts";
import { nextSlot } from "../schedule/schedule.ts";
import { planManual, spentBudget } from "../slots/plan.ts";
import { type Claim, eventOf, type Hold, recording, type WrittenRuns } from "../slots/recording.ts";
import { type Started, startLocked } from "./starts.ts";

/**
 * Runs requested by people. No request moves a schedule (R3) or creates a second active run (R1).
 */

type Asked = {
  orgId: string;
  watcherId: string;
  actor: string;
  /** The run's input; undefined: none. */
  input?: JsonValue | undefined;
};

/**
 * Starts a run now, or returns the active run if its input is equal; while a run with another input
 * is active, the watcher's overlap decides. Refuses with `invalid_argument` an input without the
 * values that the prompt needs; `not_found` for the watcher; `failed_precondition` if no device can
 * run it and, for a retry, if a run is active; `resource_exhausted` for a new run beyond the org's
 * quota. A repeated request returns the first answer, with the run's current state.
 */
export async function trigger(db: Db, asked: Asked, options: TriggerOptions): Promise<Triggered> {
  const { orgId } = asked;
  // Announced before the answer is read, so that the push does not wait for the read.
  const { written: _, ...begun } = await recording(db, options, (tx, claim) =>
    triggerIn(tx, asked, options, claim),
  );
  const { runId } = begun;
  // Node writes to its sockets at the end of a turn of the event loop: the frame leaves before the
  // answer is made.
  await nextTurn();
  const run = await runs.find(db, { orgId, runId });
  return { ...begun, run: run ?? refuse("not_found", `there is no run ${runId} any more`) };
}

type TriggerOptions = {
  doorbell: Doorbell;
  retryOf?: { runId: string; windowStart: Date; windowEnd: Date };
  request?: requests.Request;
  /** Asked only where a new run would be made; without, the org may have any number. */
  quotas?: Quotas;
  /** Without it, the run is claimed by a statement of its own. */
  hold?: Hold | undefined;
};

type Begun = Omit<Triggered, "run"> & {
  runId: string;
  written: WrittenRuns;
};

async function triggerIn(tx: Db, asked: Asked, options: TriggerOptions, claim: Claim): Promise<Begun> {
  const { orgId } = asked;
  const { retryOf } = options;
  const request = options.request && namingItsRun(options.request);
  if (request) await requests.note(tx, request);
  const watcher = await schedules.lockToStart(tx, asked, request && requests.madeOf(request));
  const made = watcher ? (watcher.beside as Json | null) : request && (await requests.findMade(tx, request));
  if (made) {
    return {
      runId: made.run_id as string,
      alreadyQueued: made.already_queued as boolean,
      queuedRunId: (made.queued_run_id as string | undefined) ?? "",
      written: () => [],
    };
  }
  if (!watcher) refuse("not_found", `there is no watcher "${asked.watcherId}"`);
  const active = watcher.hasActiveRun ? await runs.findActive(tx, asked) : undefined;
  // A start that waits goes first, also in the moment between two runs.
  const isNextWaiting = watcher.backlogRunId !== null && watcher.overlap !== "skip";
  if (retryOf) requireNoOther(watcher, active, isNextWaiting);
  const repeated = retryOf && (await starts.find(tx, { orgId, runId: retryOf.runId }));
  const input = repeated ? repeated.input : asked.input;
  requireAsked(watcher, input);
  const runId = request?.requestId ? requestedRunId(request, watcher.now.getTime()) : undefined;
  return active || isNextWaiting
    ? startBeside(tx, watcher, { ...asked, input, runId }, options)
    : startNew(tx, watcher, { ...asked, input, runId, repeated }, { ...options, claim });
}

/**
 * A request with an id names its run, which may have come back from its device after a failover.
 */
function namingItsRun(request: requests.Request): requests.Request {
  return request.requestId ? { ...request, startName: nameOfRun(requestedRunId(request)) } : request;
}

/** Refuses a retry while another run of the watcher is active, or about to begin. */
function requireNoOther(
  watcher: schedules.DueWatcher,
  active: { id: string; status: string } | undefined,
  isNextWaiting: boolean,
): void {
  if (active) {
    refuse(
      "failed_precondition",
      `run ${active.id} of the watcher is ${active.status}; wait for its end, or cancel it`,
    );
  }
  if (isNextWaiting) {
    refuse(
      "failed_precondition",
      `run ${watcher.backlogRunId} of the watcher is about to begin; wait for its end, or cancel it`,
    );
  }
}

/** Starts while a run is active: the watcher's overlap decides. */
async function startBeside(
  tx: Db,
  watcher: schedules.DueWatcher,
  asked: Asked & { runId: string | undefined },
  { quotas, request }: TriggerOptions,
): Promise<Begun> {
  const start = { ...asked, input: asked.input, source: "manual", origin: starts.noOrigin } as const;
  const started = await startLocked(tx, watcher, start, { quotas });
  const answer = answerOf(started);
  if (request) {
    await requests.record(tx, request, {
      run_id: answer.runId,
      already_queued: answer.alreadyQueued,
      queued_run_id: answer.queuedRunId,
    });
  }
  await events.appendAll(tx, started.events);
  return { ...answer, written: () => started.written };
}

/**
 * Starts a run of a watcher without an active run. All that is written is sent with the commit: the
 * watcher is locked and has no run, so the row is certain, and the event can name it before.
 */
async function startNew(
  tx: Db,
  watcher: schedules.DueWatcher,
  { orgId, watcherId, actor, input, ...start }: Asked & { repeated: Repeated; runId: string | undefined },
  { quotas, request, retryOf, claim }: TriggerOptions & { claim: Claim },
): Promise<Begun> {
  requireStartable(watcher);
  await quotas?.requireRoom(tx, "runs", orgId);
  const { repeated } = start;
  const plan = planManual(watcher, { ...(retryOf ? { retryOf } : {}), runId: start.runId, askedBy: actor });
  const [slot] = plan.slots;
  if (!slot) throw new Error("a manual plan has a slot");
  const { runId } = slot;
  if (repeated || input !== undefined) {
    const { origin } = repeated ?? { origin: starts.noOrigin };
    const isRetry = repeated !== undefined;
    await starts.insertNew(tx, { orgId, watcherId, runId, actor, input, origin, isRetry });
  }
  const { deviceId } = watcher;
  claim([{ slot, deviceId }]);
  const written = await slotRows.recordLate(tx, plan.slots, [plan.move]);
  if (request) await requests.record(tx, request, { run_id: runId, already_queued: false });
  await events.append(tx, orgId, [{ ...eventOf({ ...slot, deviceId, status: "pending" }), actor }]);
  const isPlain = repeated === undefined && input === undefined;
  return { runId, alreadyQueued: false, queuedRunId: "", isPlain, written };
}

type Repeated = Awaited<ReturnType<typeof starts.find>>;

/** Refuses with `failed_precondition` a watcher that cannot run now. */
function requireStartable(watcher: schedules.DueWatcher): void {
  if (!watcher.hasAgent) {
    refuse(
      "failed_precondition",
      "the watcher's agent does not exist; make an agent with its id again, or give the watcher another one",
    );
  }
  if (watcher.status === "no_executor") {
    refuse("failed_precondition", "the watcher's device was deleted; pin it to another device, or unpin it");
  }
  const spent = spentBudget(watcher);
  if (spent) {
    refuse("failed_precondition", `${spent}; raise day_budget, or wait until 00:00 UTC`, {
      field: "spec.day_budget",
    });
  }
}

/**
 * The result of a trigger: the run and, if its input waits for the end of the run, the id of the
 * later run.
 */
export type Triggered = {
  run: runs.RunRow;
  alreadyQueued: boolean;
  queuedRunId: string;
  /** The run is known to have neither an input nor an origin: it has no start to read. */
  isPlain?: boolean;
};

function answerOf({ outcome, runId, activeRunId }: Started): Omit<Triggered, "run"> & { runId: string } {
  // An equal input that waits is named beside the run it waits for.
  const waits = outcome === "queued" || (outcome === "already_queued" && runId !== activeRunId);
  const waitedFor = (waits && activeRunId) || undefined;
  return {
    runId: waitedFor ?? runId,
    alreadyQueued: outcome === "already_queued",
    queuedRunId: waitedFor ? runId : "",
  };
}

/** Refuses with `invalid_argument` an input without the values that the watcher's prompt needs. */
function requireAsked({ prompt }: schedules.DueWatcher, input: JsonValue | undefined): void {
  const problem = prompt && problemOf(prompt, input);
  if (problem) refuse("invalid_argument", `input: ${problem}`, { field: "input" });
}

/**
 * A new run with an ended run's window. Refuses with `failed_precondition` if the run or another
 * run of its watcher is live.
 */
export async function retry(
  db: Db,
  asked: { orgId: string; runId: string; actor: string; requestId?: string },
  options: Pick<TriggerOptions, "doorbell" | "quotas" | "hold">,
): Promise<runs.RunRow> {
  const ended = await runs.find(db, asked);
  if (!ended) refuse("not_found", `no run ${asked.runId}`);
  if (!ended.finishedAt) {
    refuse(
      "failed_precondition",
      `run ${asked.runId} is ${ended.status}; only a run that has ended can be retried`,
    );
  }
  const { orgId, watcherId } = ended;
  const { actor, requestId = "" } = asked;
  const { run } = await trigger(
    db,
    { orgId, watcherId, actor },
    {
      ...options,
      retryOf: { runId: ended.id, windowStart: ended.windowStart, windowEnd: ended.windowEnd },
      request: { orgId, actor, requestId, rpc: "RunService/RetryRun" },
    },
  );
  return run;
}

/** Maximum slots of a backfill. */
export const backfillSlotsMax = 500;

/**
 * Requests the slots of a span without a row; they run one after another, oldest first. Refuses
 * with `invalid_argument` (fields `start`, `end`) a span that is empty, in the future or too long.
 */
export async function backfill(
  db: Db,
  asked: Asked & { start: Date; end: Date },
): Promise<{ slotsAccepted: number; slotsPresent: number }> {
  return transaction(db, async (tx) => {
    const watcher = await schedules.lockOne(tx, asked);
    if (!watcher) refuse("not_found", `there is no watcher "${asked.watcherId}"`);
    if (watcher.schedule === null)
      refuse("failed_precondition", "the watcher has no schedule, so it has no slots");
    if (asked.start >= asked.end) refuse("invalid_argument", "end must be after start", { field: "end" });
    if (asked.end > watcher.now)
      refuse("invalid_argument", "end must not be in the future", { field: "end" });
    const slots: Date[] = [];
    // The start is inclusive, and nextSlot is not.
    const schedule = { schedule: watcher.schedule, timeZone: watcher.timeZone, watcherId: watcher.watcherId };
    let slot = nextSlot(schedule, new Date(asked.start.getTime() - 1));
    // The materializer records all slots from here on.
    const bound = watcher.nextSlotAt && watcher.nextSlotAt < asked.end ? watcher.nextSlotAt : asked.end;
    while (slot && slot < bound) {
      if (slots.push(slot) > backfillSlotsMax) {
        refuse(
          "invalid_argument",
          `the span holds more than ${backfillSlotsMax} slots; ask for less at once`,
          {
            field: "end",
          },
        );
      }
      slot = nextSlot(schedule, slot);
    }
    const accepted = await slotRows.putAside(
      tx,
      slots.map((scheduledFor) => ({ ...asked, scheduledFor, source: "backfill" as const })),
    );
    await events.append(tx, asked.orgId, [
      {
        kind: "watcher.backfilled",
        actor: asked.actor,
        watcherId: asked.watcherId,
        data: { start: asked.start.toISOString(), end: asked.end.toISOString(), slots: accepted },
      },
    ]);
    return { slotsAccepted: accepted, slotsPresent: slots.length - accepted };
  });
}
