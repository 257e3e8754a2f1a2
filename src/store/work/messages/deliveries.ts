import { type RawBuilder, sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { storableJson, storableText } from "../../pg/values/storable.ts";
import { unnest } from "../../pg/values/unnest.ts";

/**
 * The outbox of destinations. A delivery is written in the transaction of the change it reports, is
 * sent by any replica under a lease, and keeps its id through all tries.
 *
 *   pending → delivered            the receiver accepted the message
 *   pending → pending              a try failed, or its replica died: again after a delay
 *   pending → dead                 not accepted for 3 days, or refused for good by the receiver
 *   delivered, dead → pending      a person replays the delivery
 *
 * - X1 A row exists exactly if the change it reports was committed.
 * - X2 Of a lane (a watcher's deliveries to one destination) only the oldest pending row is tried,
 *   so messages arrive in order.
 * - X3 The end of a try is written only under the try's lease; after a lease has run out, any
 *   replica may claim the row.
 */

export type NotifyReason = "always" | "failure" | "recovery" | "change" | "attention" | "question";

/** An entry in a watcher's row. */
export type NotifyEntry = { to: string; when: NotifyReason };

/** A notice for a destination. */
export type Notice = {
  orgId: string;
  /** The destination's slug; a missing destination receives nothing. */
  to: string;
  watcherId: string;
  runId: string;
  kind: string;
  reason: NotifyReason;
  subject?: Record<string, unknown>;
  /**
   * Sent only if the run's result differs from the window's; null: no window, and the result counts
   * as different.
   */
  ifUnlike?: { windowId: string | null };
};

/** The part of a result used for comparison: its data, else its answer, else its output. */
const gist = (data: string): RawBuilder<unknown> =>
  sql.raw(`coalesce(${data}->'structured', ${data}->'result', ${data}->'output')`);

/**
 * Writes notices in the caller's transaction, at most one row per destination; returns the number
 * of rows.
 */
export async function write(tx: Db, notices: readonly Notice[]): Promise<number> {
  if (notices.length === 0) return 0;
  const input = unnest("i", notices, {
    org_id: ["text", (n) => n.orgId],
    slug: ["text", (n) => n.to],
    watcher_id: ["uuid", (n) => n.watcherId],
    run_id: ["uuid", (n) => n.runId],
    kind: ["text", (n) => n.kind],
    reason: ["text", (n) => n.reason],
    subject: ["text", (n) => storableJson(n.subject ?? {})],
    is_compared: ["boolean", (n) => n.ifUnlike !== undefined],
    prior_id: ["uuid", (n) => n.ifUnlike?.windowId ?? null],
  });
  const { numAffectedRows } = await sql`
    insert into delivery (org_id, destination_id, lane, watcher_id, run_id, kind, reason, subject)
    select i.org_id, d.id, i.watcher_id, i.watcher_id, i.run_id, i.kind, i.reason, i.subject::jsonb
    from ${input} join destination d on d.org_id = i.org_id and d.slug = i.slug
    where not i.is_compared or (
      select ${gist("n.extracted_data")} from "window" n where n.org_id = i.org_id and n.id = i.run_id
    ) is distinct from (
      select ${gist("p.extracted_data")} from "window" p where p.org_id = i.org_id and p.id = i.prior_id
    )
    order by i.ord
  `.execute(tx);
  return Number(numAffectedRows ?? 0);
}

/** Maximum waiting tests of a destination. */
const testsWaitingMax = 20;

/**
 * Writes a test message, which waits for no other delivery; returns its id. Refuses with
 * `resource_exhausted`.
 */
export async function test(
  tx: Db,
  options: { orgId: string; destinationId: string; actor: string },
): Promise<string> {
  const { orgId, destinationId } = options;
  const { rows } = await sql<{ id: string }>`
    insert into delivery (org_id, id, destination_id, lane, kind, subject)
    select ${orgId}, n.id, ${destinationId}, n.id, 'destination.test', ${storableJson({ by: options.actor })}::jsonb
    from (select uuid_v7() as id) n
    where (select count(*) from delivery
      where org_id = ${orgId} and destination_id = ${destinationId} and state = 'pending' and kind = 'destination.test') < ${testsWaitingMax}
    returning id
  `.execute(tx);
  return (
    rows[0]?.id ??
    refuse("resource_exhausted", `${testsWaitingMax} tests of this destination wait already`, {
      retryAfterMs: 10_000,
    })
  );
}

/** How a try ended. */
export type Ending = {
  orgId: string;
  id: string;
  leaseToken: string;
  destinationId: string;
  state: "delivered" | "dead" | "pending";
  /** For `pending`: milliseconds until the next try. */
  delayMs?: number;
  /** The delivery was given back without a try; the try does not count. */
  isGivenBack?: boolean;
  status: number;
  error: string;
};

/**
 * Writes the end of a try if the lease is still the caller's (X3); returns whether it was. The
 * destination is locked before the delivery, as in a removal of the destination, which deletes the
 * deliveries after the destination.
 */
export async function end(tx: Db, ending: Ending): Promise<boolean> {
  const { orgId, id, state } = ending;
  const error = storableText(ending.error);
  const { rows } = await sql<{ id: string }>`
    with held as materialized (
      select from destination where org_id = ${orgId} and id = ${ending.destinationId} for no key update
    ),
    ended as (
      update delivery set state = ${state}, lease_token = null, lease_until = null,
        next_at = now() + ${ending.delayMs ?? 0} * interval '1 ms', last_status = ${ending.status}, last_error = ${error},
        attempts = attempts - ${ending.isGivenBack ? 1 : 0},
        ended_at = case when ${state} = 'pending' then null else now() end
      where org_id = ${orgId} and id = ${id} and lease_token = ${ending.leaseToken} and exists (select from held)
      returning id
    ),
    told as (
      update destination d set last_error = ${error},
        last_delivered_at = case when ${state} = 'delivered' then now() else d.last_delivered_at end
      from ended e where d.org_id = ${orgId} and d.id = ${ending.destinationId}
        and not ${ending.isGivenBack ?? false}::boolean
        and (${state} = 'delivered' or d.last_error <> ${error})
    )
    select id from ended
  `.execute(tx);
  return rows.length > 0;
}

export type DeliveryRow = {
  id: string;
  destinationId: string;
  destinationSlug: string;
  watcherId: string | null;
  watcherSlug: string | null;
  runId: string | null;
  kind: string;
  reason: NotifyReason | "";
  state: "pending" | "delivered" | "dead";
  attempts: number;
  lastStatus: number;
  lastError: string;
  createdAt: Date;
  nextAt: Date;
  endedAt: Date | null;
};

const columns = sql`
  d.id, d.destination_id as "destinationId", t.slug as "destinationSlug", d.watcher_id as "watcherId",
  w.slug as "watcherSlug", d.run_id as "runId", d.kind, d.reason, d.state, d.attempts, d.last_status as "lastStatus",
  d.last_error as "lastError", d.created_at as "createdAt", d.next_at as "nextAt", d.ended_at as "endedAt"`;

const joined = sql`
  delivery d join destination t on t.org_id = d.org_id and t.id = d.destination_id
    left join watcher w on w.org_id = d.org_id and w.id = d.watcher_id`;

/** The delivery; undefined if the org has no such delivery. */
export async function find(db: Db, which: { orgId: string; id: string }): Promise<DeliveryRow | undefined> {
  const { rows } = await sql<DeliveryRow>`
    select ${columns} from ${joined} where d.org_id = ${which.orgId} and d.id = ${which.id}
  `.execute(db);
  return rows[0];
}

/** The org's deliveries, the newest first, from before `beforeId`. */
export async function list(
  db: Db,
  filter: {
    orgId: string;
    destinationId?: string | undefined;
    state?: DeliveryRow["state"] | undefined;
    runId?: string | undefined;
    beforeId?: string | undefined;
    limit: number;
  },
): Promise<DeliveryRow[]> {
  const where = [sql`d.org_id = ${filter.orgId}`];
  if (filter.destinationId) where.push(sql`d.destination_id = ${filter.destinationId}`);
  if (filter.state) where.push(sql`d.state = ${filter.state}`);
  if (filter.runId) where.push(sql`d.run_id = ${filter.runId}`);
  if (filter.beforeId) where.push(sql`d.id < ${filter.beforeId}`);
  const { rows } = await sql<DeliveryRow>`
    select ${columns} from ${joined} where ${sql.join(where, sql` and `)} order by d.id desc limit ${filter.limit}
  `.execute(db);
  return rows;
}

/** Maximum dead deliveries of a destination replayed by one call. */
const replayedMax = 1_000;

/**
 * Marks ended deliveries for sending again: the named deliveries, or a destination's dead
 * deliveries, oldest first; returns them. Pending deliveries stay unchanged. Refuses with
 * `not_found` for an unknown id.
 */
export async function replay(
  tx: Db,
  which: { orgId: string; destinationId: string } | { orgId: string; ids: readonly string[] },
): Promise<{ id: string; destinationId: string }[]> {
  const { orgId } = which;
  if ("ids" in which) {
    const { rows } = await sql<{ id: string }>`
      select id from delivery where org_id = ${orgId} and id = any(${which.ids as string[]}::uuid[])
    `.execute(tx);
    const known = new Set(rows.map((row) => row.id));
    const missing = which.ids.find((id) => !known.has(id.toLowerCase()));
    if (missing) refuse("not_found", `there is no delivery ${missing}`);
  }
  const match =
    "ids" in which
      ? sql`id = any(${which.ids as string[]}::uuid[]) and state in ('dead', 'delivered')`
      : sql`destination_id = ${which.destinationId} and state = 'dead'`;
  const { rows } = await sql<{ id: string; destinationId: string }>`
    update delivery set state = 'pending', attempts = 0, since = now(), next_at = now(), ended_at = null
    from (select id as replayed_id from delivery where org_id = ${orgId} and ${match}
      order by seq limit ${replayedMax} for update skip locked) r
    where org_id = ${orgId} and id = r.replayed_id
    returning id, destination_id as "destinationId"
  `.execute(tx);
  return rows;
}
