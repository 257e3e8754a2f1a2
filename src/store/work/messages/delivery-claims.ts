/** Claims of deliveries (deliveries.ts) by the replicas that send. */
import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import { unnest } from "../../pg/values/unnest.ts";
import type { NotifyReason } from "./deliveries.ts";

/** A try whose lease the caller holds. */
export type Claimed = {
  orgId: string;
  id: string;
  leaseToken: string;
  destinationId: string;
  watcherId: string | null;
  runId: string | null;
  kind: string;
  reason: NotifyReason | "";
  subject: Record<string, unknown>;
  /** Number of tries, including the current try. */
  attempts: number;
  createdAt: Date;
  /** Milliseconds since the first try could start; limits further tries. */
  sinceMs: number;
};

/** The oldest pending delivery of every lane, by a step through the index for each lane (X2). */
const heads = sql`
  with recursive head as (
    (select org_id, destination_id, lane, id, next_at, lease_until from delivery where state = 'pending'
      order by org_id, destination_id, lane, seq limit 1)
    union all
    select n.* from head h cross join lateral (
      select org_id, destination_id, lane, id, next_at, lease_until from delivery d
      where d.state = 'pending' and (d.org_id, d.destination_id, d.lane) > (h.org_id, h.destination_id, h.lane)
      order by org_id, destination_id, lane, seq limit 1
    ) n
  )`;

/** A due delivery that no replica holds, the oldest of its lane. */
export type Due = { orgId: string; destinationId: string; id: string };

/** Maximum due deliveries of a walk, in all and of a destination. */
const dueMax = 10_000;
const duePerDestinationMax = 256;

/**
 * Finds due deliveries, the longest due of each destination first; destinations take turns. The
 * walk costs a step through the index for each waiting lane.
 */
export async function findDue(db: Db): Promise<Due[]> {
  const { rows } = await sql<Due>`
    ${heads},
    due as (
      select org_id, destination_id, id, next_at,
        row_number() over (partition by org_id, destination_id order by next_at, id) as turn
      from head where next_at <= now() and (lease_until is null or lease_until < now())
    )
    select org_id as "orgId", destination_id as "destinationId", id from due
    where turn <= ${duePerDestinationMax} order by turn, next_at, org_id, id limit ${dueMax}
  `.execute(db);
  return rows;
}

/**
 * Claims deliveries that a walk has found, each under a lease: the ones that are still due, free,
 * and the oldest of their lanes. Rows locked by other replicas are skipped, so all replicas may
 * claim at once.
 */
export async function claim(db: Db, found: readonly Due[], leaseMs: number): Promise<Claimed[]> {
  if (found.length === 0) return [];
  const input = unnest("i", found, {
    org_id: ["text", (d) => d.orgId],
    id: ["uuid", (d) => d.id],
  });
  const { rows } = await sql<Claimed>`
    with taken as materialized (
      select d.org_id, d.id from ${input} cross join lateral (
        select org_id, id from delivery x
        where x.org_id = i.org_id and x.id = i.id and x.state = 'pending' and x.next_at <= now()
          and (x.lease_until is null or x.lease_until < now())
          and not exists (
            select from delivery o where o.org_id = x.org_id and o.destination_id = x.destination_id
              and o.lane = x.lane and o.state = 'pending' and o.seq < x.seq
          )
        for update skip locked
      ) d
    )
    update delivery d set attempts = d.attempts + 1, lease_token = gen_random_uuid(),
      lease_until = now() + ${leaseMs} * interval '1 ms'
    from taken t where d.org_id = t.org_id and d.id = t.id
    returning d.org_id as "orgId", d.id, d.lease_token as "leaseToken", d.destination_id as "destinationId",
      d.watcher_id as "watcherId", d.run_id as "runId", d.kind, d.reason, d.subject, d.attempts, d.created_at as "createdAt",
      (extract(epoch from now() - d.since) * 1000)::float8 as "sinceMs"
  `.execute(db);
  return rows;
}

/**
 * Milliseconds until the next delivery may be claimed, by the database's clock; undefined if none
 * waits.
 */
export const nextMs: Look<number | undefined> = {
  expression: sql`
    ${heads}
    select greatest(0, extract(epoch from min(greatest(next_at, lease_until)) - clock_timestamp()) * 1000)::float8
    from head having count(*) > 0`,
  read: (ms) => (ms as number | null) ?? undefined,
};
