import { Refusal, refuse } from "../../errors.ts";
import * as rights from "../../store/people/devices/rights.ts";
import * as requests from "../../store/people/requests.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { type Looks, looksAlone } from "../../store/pg/looks.ts";
import type { FailurePolicy } from "../../store/work/attempts/settlements.ts";
import * as bulks from "../../store/work/runs/bulks.ts";
import * as runs from "../../store/work/runs/runs.ts";
import * as events from "../../store/work/service/events.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Doorbell } from "../doorbell.ts";
import { announce, cancelIn } from "../endings/cancels.ts";
import { type Loop, startLoop } from "../loop.ts";
import { retry } from "./triggers.ts";

/**
 * Bulk operations: starting an operation stores its runs as items, and any replica processes the
 * items in small batches. A cancel and the end of its item are written together; a retry uses its
 * item's name as the request id. So a replica that dies between two steps neither loses nor repeats
 * an item.
 */

/** Maximum runs of an operation. */
const bulkRunsMax = 50_000;
/** Items per transaction, and milliseconds of pause after each transaction for other work. */
const itemsPerBatch = 25;
const betweenBatchesMs = 20;
/** Milliseconds until a retry is tried again while its watcher has an active run. */
const activeAgainMs = 2_000;

const defaultStatuses: Record<bulks.BulkKind, string[]> = {
  cancel: ["pending", "claimed", "running"],
  retry: ["failed", "timeout"],
  replay: ["completed", "failed", "timeout", "cancelled"],
};
const possibleStatuses: Record<bulks.BulkKind, string[]> = {
  cancel: defaultStatuses.cancel,
  retry: ["failed", "timeout", "cancelled"],
  replay: defaultStatuses.replay,
};

export type Wanted = { orgId: string; kind: bulks.BulkKind; filter: bulks.RunFilter; actor: string };

export type Counted = {
  filter: bulks.RunFilter;
  matched: number;
  notAllowed: number;
  /** Devices that the actor may not use. */
  exceptDeviceIds: string[];
  byStatus: [string, number][];
  byWatcher: [string, number][];
};

/**
 * Counts the runs of an operation. Refuses with `invalid_argument` a status that the operation
 * cannot process.
 */
export async function countBulk(db: Db, { orgId, kind, filter, actor }: Wanted): Promise<Counted> {
  const odd = filter.statuses.find((status) => !possibleStatuses[kind].includes(status));
  if (odd) {
    refuse(
      "invalid_argument",
      `filter.statuses: a run that is ${odd} cannot be ${doneWords[kind]}; there are ${possibleStatuses[kind].join(", ")}`,
      { field: "filter.statuses" },
    );
  }
  const whole = { ...filter, statuses: filter.statuses.length > 0 ? filter.statuses : defaultStatuses[kind] };
  const counts = await bulks.count(db, orgId, whole);
  const exceptDeviceIds = await unusable(
    db,
    orgId,
    actor,
    counts.flatMap(({ deviceId }) => deviceId ?? []),
  );
  const except = new Set(exceptDeviceIds);
  const allowed = counts.filter(({ deviceId }) => deviceId === null || !except.has(deviceId));
  const sum = (some: readonly bulks.Count[]) => some.reduce((total, each) => total + each.count, 0);
  const by = (nameOf: (count: bulks.Count) => string): [string, number][] =>
    [...Map.groupBy(allowed, nameOf)]
      .map(([name, some]): [string, number] => [name, sum(some)])
      .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const matched = sum(allowed);
  return {
    filter: whole,
    ...{ matched, exceptDeviceIds, notAllowed: sum(counts) - matched },
    byStatus: by(({ status }) => status),
    byWatcher: by(({ watcherSlug }) => watcherSlug ?? ""),
  };
}

const doneWords: Record<bulks.BulkKind, string> = {
  cancel: "cancelled",
  retry: "retried",
  replay: "replayed",
};

/** The given devices that an actor may not use. */
async function unusable(
  db: Db,
  orgId: string,
  actor: string,
  deviceIds: readonly string[],
): Promise<string[]> {
  const who = rights.whoOf(actor);
  if (!who || deviceIds.length === 0) return [];
  const standings = await rights.standings(db, { orgId, who, deviceIds: [...new Set(deviceIds)] });
  return standings.flatMap((each) => (rights.rightTo("use", each) ? [] : [each.deviceId]));
}

/**
 * Starts an operation, with the event `bulk.started`; returns its id. A repeated request returns
 * the first id.
 */
export async function startBulk(
  db: Db,
  wanted: Wanted & { reason: string; requestId: string; counted: Counted },
): Promise<string> {
  const { orgId, kind, actor, reason, counted, requestId } = wanted;
  const request = { orgId, actor, requestId, rpc: "RunService/StartBulkOperation" };
  return transaction(db, async (tx) => {
    const made = await requests.begin(tx, request);
    if (made) return made.operation_id as string;
    const { filter, exceptDeviceIds } = counted;
    const { id, matched } = await bulks.create(tx, {
      ...{ orgId, kind, filter, reason, actor, exceptDeviceIds },
      limit: bulkRunsMax + 1,
    });
    if (matched > bulkRunsMax) {
      refuse(
        "failed_precondition",
        `the filter means more than ${bulkRunsMax} runs; narrow it by watcher, device or time`,
        { field: "filter" },
      );
    }
    await requests.record(tx, request, { operation_id: id });
    await events.append(tx, orgId, [
      { kind: "bulk.started", actor, data: { operation_id: id, kind, matched, filter } },
    ]);
    return id;
  });
}

/** Stops an operation, with the event `bulk.stopped`. Refuses with `not_found`. */
export async function stopBulk(
  db: Db,
  which: { orgId: string; id: string; actor: string },
): Promise<boolean> {
  const { orgId, id, actor } = which;
  return transaction(db, async (tx) => {
    const isStopped = await bulks.stop(tx, which);
    if (isStopped) {
      await events.append(tx, orgId, [{ kind: "bulk.stopped", actor, data: { operation_id: id } }]);
    }
    return isStopped;
  });
}

type PassOptions = { policy: FailurePolicy; doorbell: Doorbell; log: Logger };

/** Processes a batch of an operation; false if no batch is ready. */
export async function bulkOnce(db: Db, options: PassOptions): Promise<boolean> {
  let after: (() => void) | undefined;
  const job = await transaction(db, async (tx) => {
    const found = await bulks.lockNext(tx);
    if (!found) return undefined;
    const items = await bulks.listItems(tx, found, itemsPerBatch);
    const finished = items.length === 0 ? await bulks.finish(tx, found) : undefined;
    if (finished) {
      const { done, passedOver, failed } = finished;
      await events.append(tx, found.orgId, [
        {
          kind: "bulk.finished",
          actor: "pinion",
          data: { operation_id: found.id, kind: found.kind, done, passed_over: passedOver, failed },
        },
      ]);
      return found;
    }
    // The operation has the current rights of the actor who started it.
    const except = new Set(
      await unusable(
        tx,
        found.orgId,
        found.actor,
        items.flatMap(({ deviceIds }) => deviceIds),
      ),
    );
    const refused = items.filter(({ deviceIds }) => deviceIds.some((id) => except.has(id)));
    await bulks.note(
      tx,
      found,
      refused.map(({ runId }) => ({ runId, state: "failed", note: `${found.actor} may not use its device` })),
    );
    const allowed = items.filter((item) => !refused.includes(item));
    if (found.kind === "cancel") after = await cancelAll(tx, found, allowed, options);
    else {
      // Each retry is a transaction of its own within the outer transaction, whose lock keeps other
      // replicas from the operation.
      const outcomes: bulks.Outcome[] = [];
      for (const item of allowed) outcomes.push(await retryOne(db, found, item, options));
      await bulks.note(tx, found, outcomes);
    }
    return found;
  });
  after?.();
  return job !== undefined;
}

/**
 * Cancels runs in the caller's transaction, in which only events may follow; returns the
 * announcement.
 */
async function cancelAll(
  tx: Db,
  job: bulks.Job,
  items: readonly bulks.Item[],
  { policy, doorbell }: PassOptions,
): Promise<() => void> {
  const which = { orgId: job.orgId, runIds: items.map(({ runId }) => runId) };
  const live = new Set((await runs.lockForCancel(tx, which)).map(({ runId }) => runId));
  await bulks.note(
    tx,
    job,
    items.map(({ runId }) => ({ runId, state: live.has(runId) ? "done" : "passed_over", note: "" })),
  );
  const reason = job.reason || `cancelled by ${job.actor}, with others`;
  const cancellation = await cancelIn(tx, which, { reason, policy, mode: "ask" });
  return () => announce(doorbell, cancellation);
}

async function retryOne(
  db: Db,
  job: bulks.Job,
  { runId, watcherId }: bulks.Item,
  { doorbell, log, policy: { quotas } }: PassOptions,
): Promise<bulks.Outcome> {
  if (watcherId === null) return { runId, state: "failed", note: "the run is not kept any more" };
  try {
    await retry(
      db,
      { orgId: job.orgId, runId, actor: job.actor, requestId: `bulk ${job.id} ${runId}` },
      { doorbell, ...(quotas ? { quotas } : {}) },
    );
    return { runId, state: "done", note: "" };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    // A watcher has one live run at a time: the other retries wait for their turn.
    if (error.reason === "failed_precondition" && /wait for its end/.test(error.message)) {
      return { runId, state: "pending", note: error.message, againMs: activeAgainMs };
    }
    if (error.reason === "aborted" || error.reason === "resource_exhausted") {
      return { runId, state: "pending", note: error.message, againMs: error.retryAfterMs ?? activeAgainMs };
    }
    log.info(
      { orgId: job.orgId, bulkId: job.id, runId, err: error },
      "a run of a bulk operation was refused",
    );
    return { runId, state: "failed", note: error.message };
  }
}

/** Processes operations, batch after batch. `sweepMs`: milliseconds of sleep without a poke. */
export function startBulks(options: PassOptions & { db: Db; looks?: Looks; sweepMs: number }): Loop {
  const { looks = looksAlone(options.db) } = options;
  let waits = false;
  return startLoop({
    name: "bulks",
    log: options.log,
    async pass() {
      if (!(await looks.ask(bulks.isRunning))) {
        waits = false;
        return options.sweepMs;
      }
      if (await bulkOnce(options.db, options)) {
        waits = true;
        return betweenBatchesMs;
      }
      // Some wait for the end of others, for a while after the last batch.
      return waits ? Math.min(activeAgainMs / 4, options.sweepMs) : options.sweepMs;
    },
  });
}
