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

/**
 * The oldest pending delivery of every lane, by as many steps through the index as there are lanes
 * (X2).
 */
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

/** The running tries of a destination. */
export type Busy = { orgId: string; destinationId: string; count: number };

/** How many deliveries a claim takes, with the running tries of the replica. */
export type Places = {
  /** Maximum deliveries of the claim. */
  limit: number;
  /** Of `limit`, the places that only orgs with at most `perOrgFew` tries get. */
  reserve: number;
  /** Maximum tries of a destination, and of an org. */
  perDestinationMax: number;
  perOrgMax: number;
  perOrgFew: number;
  busy: readonly Busy[];
};

/**
 * The due lanes, each with its place: among the tries of its destination, of its org, and of all. An
 * org with few tries comes before an org with many.
 */
const placedLanes = ({ busy, perDestinationMax }: Places) => sql`
  busy as materialized (
    select * from ${unnest("b", busy, {
      org_id: ["text", (b) => b.orgId],
      destination_id: ["uuid", (b) => b.destinationId],
      count: ["int", (b) => b.count],
    })}
  ),
  due as (
    select h.org_id, h.id, h.next_at, coalesce(b.count, 0)
      + row_number() over (partition by h.org_id, h.destination_id order by h.next_at, h.id) as place
    from head h left join busy b on b.destination_id = h.destination_id
    where h.next_at <= now() and (h.lease_until is null or h.lease_until < now())
  ),
  within_org as (
    select d.org_id, d.id, d.next_at, coalesce(b.count, 0)
      + row_number() over (partition by d.org_id order by d.next_at, d.id) as org_place
    from due d left join (select org_id, sum(count)::int as count from busy group by org_id) b on b.org_id = d.org_id
    where d.place <= ${perDestinationMax}
  ),
  placed as (
    select org_id, id, org_place, row_number() over (order by org_place, next_at, org_id, id) as place from within_org
  )`;

/**
 * Claims due deliveries within the places, each under a lease. Rows locked by other replicas are
 * skipped, so all replicas may claim at once.
 */
export async function claim(db: Db, places: Places, leaseMs: number): Promise<Claimed[]> {
  const { limit, reserve, perOrgMax, perOrgFew } = places;
  const { rows } = await sql<Claimed>`
    ${heads},
    ${placedLanes(places)},
    taken as materialized (
      select d.org_id, d.id from (
          select * from placed where place <= ${limit} and org_place <= ${perOrgMax}
            and (org_place <= ${perOrgFew} or place <= ${limit - reserve})
        ) u
        cross join lateral (
          select org_id, id from delivery x
          where x.org_id = u.org_id and x.id = u.id and x.state = 'pending' and x.next_at <= now()
            and (x.lease_until is null or x.lease_until < now())
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
