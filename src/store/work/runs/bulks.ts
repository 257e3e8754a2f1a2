import { sql } from "kysely";
import { newId } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import { unnest } from "../../pg/values/unnest.ts";
import { dueWithin, isOnDeviceWith, isOneOf } from "./run-filters.ts";

/** Bulk operations: their runs and their progress. Each run is an item, processed once. */

export type BulkKind = "cancel" | "retry" | "replay";
export type BulkState = "running" | "finished" | "stopped";

/** As stored and shown; times in ISO 8601. */
export type RunFilter = {
  statuses: string[];
  watcherId?: string;
  deviceId?: string;
  labels?: string[];
  since?: string;
  until?: string;
};

export type Bulk = {
  orgId: string;
  id: string;
  kind: BulkKind;
  filter: RunFilter;
  reason: string;
  actor: string;
  state: BulkState;
  createdAt: Date;
  finishedAt: Date | null;
  matched: number;
  done: number;
  passedOver: number;
  failed: number;
  left: number;
  problems: { runId: string; reason: string }[];
};

/** Maximum problems in an answer. */
const problemsMax = 10;

const dateOf = (text: string | undefined) => (text ? new Date(text) : undefined);

/** The runs `r` that match a filter; live statuses are searched in the live table alone. */
function matching(orgId: string, filter: RunFilter) {
  const isLive = filter.statuses.every((status) => ["pending", "claimed", "running"].includes(status));
  const where = [
    sql`r.org_id = ${orgId}`,
    isOneOf(filter.statuses),
    ...(filter.watcherId ? [sql`r.watcher_id = ${filter.watcherId}::uuid`] : []),
    ...(filter.deviceId ? [sql`r.device_id = ${filter.deviceId}::uuid`] : []),
    ...dueWithin({ since: dateOf(filter.since), until: dateOf(filter.until) }, { isLive }),
    ...(filter.labels?.length ? [isOnDeviceWith(filter.labels)] : []),
  ];
  return sql`${sql.table(isLive ? "run" : "run_all")} r where ${sql.join(where, sql` and `)}`;
}

export type Count = { status: string; watcherSlug: string | null; deviceId: string | null; count: number };

/** The number of runs that match a filter, by status, watcher and device. */
export async function count(db: Db, orgId: string, filter: RunFilter): Promise<Count[]> {
  const { rows } = await sql<Count>`
    select m.status, w.slug as "watcherSlug", m.device_id as "deviceId", m.count
    from (
      select r.status, r.watcher_id, r.device_id, count(*)::int as count from ${matching(orgId, filter)}
      group by r.status, r.watcher_id, r.device_id
    ) m left join watcher w on w.org_id = ${orgId} and w.id = m.watcher_id
  `.execute(db);
  return rows;
}

/**
 * Creates an operation with its items: the runs that match the filter now, except on the devices
 * `exceptDeviceIds`.
 */
export async function create(
  tx: Db,
  options: {
    orgId: string;
    kind: BulkKind;
    filter: RunFilter;
    reason: string;
    actor: string;
    exceptDeviceIds: readonly string[];
    limit: number;
  },
): Promise<{ id: string; matched: number }> {
  const { orgId, kind, filter, reason, actor } = options;
  const id = newId();
  await sql`
    insert into bulk_operation (org_id, id, kind, filter, reason, actor)
    values (${orgId}, ${id}, ${kind}, ${JSON.stringify(filter)}, ${reason}, ${actor})
  `.execute(tx);
  const result = await sql`
    insert into bulk_item (org_id, bulk_id, run_id)
    select ${orgId}, ${id}::uuid, r.id from ${matching(orgId, filter)}
      and (r.device_id is null or r.device_id <> all(${options.exceptDeviceIds as string[]}::uuid[]))
    limit ${options.limit}
  `.execute(tx);
  return { id, matched: Number(result.numAffectedRows ?? 0) };
}

/** The counts of an operation's rows of `bulk_item`, in the order that `list` reads. */
const countsOfItems = sql`count(*)::int as matched, (count(*) filter (where state = 'done'))::int as done,
  (count(*) filter (where state = 'passed_over'))::int as passed_over,
  (count(*) filter (where state = 'failed'))::int as failed`;

/** Operations of the org, newest first: the named operation, or operations before `beforeId`. */
export async function list(
  db: Db,
  options: { orgId: string; id?: string; beforeId?: string | undefined; limit: number },
): Promise<Bulk[]> {
  const { orgId, id, beforeId } = options;
  const { rows } = await sql<Bulk>`
    select o.org_id as "orgId", o.id, o.kind, o.filter, o.reason, o.actor, o.state, o.created_at as "createdAt",
      o.finished_at as "finishedAt", i.matched, i.done, i.passed_over as "passedOver", i.failed, i."left",
      case when i.failed = 0 then '[]'::jsonb else (
        select coalesce(jsonb_agg(jsonb_build_object('runId', p.run_id, 'reason', p.note)), '[]') from (
          select run_id, note from bulk_item
          where org_id = o.org_id and bulk_id = o.id and state = 'failed' order by run_id limit ${problemsMax}
        ) p
      ) end as problems
    from bulk_operation o
      cross join lateral (
        -- Of a finished operation, as counted at its end.
        select (o.counts->>'matched')::int as matched, (o.counts->>'done')::int as done,
          (o.counts->>'passed_over')::int as passed_over, (o.counts->>'failed')::int as failed, 0 as "left"
        where o.counts is not null
        union all
        select ${countsOfItems}, (count(*) filter (where state = 'pending'))::int
        from bulk_item where o.counts is null and org_id = o.org_id and bulk_id = o.id
        having o.counts is null
      ) i
    where o.org_id = ${orgId} ${id ? sql`and o.id = ${id}::uuid` : sql``} ${beforeId ? sql`and o.id < ${beforeId}::uuid` : sql``}
    order by o.id desc
    limit ${options.limit}
  `.execute(db);
  return rows;
}

/** Stops a running operation; false if the operation has ended or does not exist. */
export async function stop(tx: Db, { orgId, id }: { orgId: string; id: string }): Promise<boolean> {
  const result = await sql`
    update bulk_operation set state = 'stopped', finished_at = now()
    where org_id = ${orgId} and id = ${id} and state = 'running'
  `.execute(tx);
  return Number(result.numAffectedRows ?? 0) > 0;
}

export type Job = { orgId: string; id: string; kind: BulkKind; reason: string; actor: string };
export type Item = {
  runId: string;
  /** Null: the run is not kept any more. */
  watcherId: string | null;
  /** The run's device, and the device its watcher is pinned to now, where a retry goes. */
  deviceIds: string[];
};

/**
 * Locks the oldest running operation with an item to process now; skips operations locked by
 * another replica.
 */
export async function lockNext(tx: Db): Promise<Job | undefined> {
  const { rows } = await sql<Job>`
    select o.org_id as "orgId", o.id, o.kind, o.reason, o.actor
    from bulk_operation o
    where o.state = 'running' and (
      exists (select from bulk_item i where i.org_id = o.org_id and i.bulk_id = o.id and i.state = 'pending'
        and (i.not_before is null or i.not_before <= now()))
      or not exists (select from bulk_item i where i.org_id = o.org_id and i.bulk_id = o.id and i.state = 'pending'))
    order by o.created_at
    limit 1
    for no key update of o skip locked
  `.execute(tx);
  return rows[0];
}

/** The operation's next items, oldest runs first. The operation is locked by the caller. */
export async function listItems(tx: Db, job: Job, limit: number): Promise<Item[]> {
  const { rows } = await sql<Item>`
    select i.run_id as "runId", r.watcher_id as "watcherId",
      array_remove(array[r.device_id, w.device_id], null) as "deviceIds"
    from (
      select run_id from bulk_item where org_id = ${job.orgId} and bulk_id = ${job.id} and state = 'pending'
        and (not_before is null or not_before <= now())
      order by run_id limit ${limit}
    ) i left join run_all r on r.org_id = ${job.orgId} and r.id = i.run_id
      left join watcher w on w.org_id = ${job.orgId} and w.id = r.watcher_id
    order by i.run_id
  `.execute(tx);
  return rows;
}

export type Outcome = {
  runId: string;
  state: "pending" | "done" | "passed_over" | "failed";
  note: string;
  /** For an item that stays pending: milliseconds until it is processed again. */
  againMs?: number;
};

export async function note(tx: Db, job: Job, outcomes: readonly Outcome[]): Promise<void> {
  if (outcomes.length === 0) return;
  const input = unnest("o", outcomes, {
    run_id: ["uuid", (o) => o.runId],
    state: ["text", (o) => o.state],
    note: ["text", (o) => o.note],
    again_ms: ["bigint", (o) => o.againMs ?? null],
  });
  await sql`
    update bulk_item i set state = o.state, note = o.note, not_before = now() + o.again_ms * interval '1 ms'
    from ${input} where i.org_id = ${job.orgId} and i.bulk_id = ${job.id} and i.run_id = o.run_id
  `.execute(tx);
}

/**
 * Finishes an operation without pending items and returns its counts; undefined while items are
 * pending.
 */
export async function finish(
  tx: Db,
  job: Job,
): Promise<{ done: number; passedOver: number; failed: number } | undefined> {
  const { rows } = await sql<{ done: number; passedOver: number; failed: number }>`
    update bulk_operation o set state = 'finished', finished_at = now(),
      counts = jsonb_build_object('matched', c.matched, 'done', c.done, 'passed_over', c.passed_over, 'failed', c.failed)
    from (
      select ${countsOfItems} from bulk_item where org_id = ${job.orgId} and bulk_id = ${job.id}
    ) c
    where o.org_id = ${job.orgId} and o.id = ${job.id} and o.state = 'running'
      and not exists (select from bulk_item i where i.org_id = o.org_id and i.bulk_id = o.id and i.state = 'pending')
    returning c.done, c.passed_over as "passedOver", c.failed
  `.execute(tx);
  return rows[0];
}

/** Whether any operation of any org is running. */
export const isRunning: Look<boolean> = {
  expression: sql`exists (select from bulk_operation where state = 'running')`,
  read: Boolean,
};
