/**
 * Watchers that lost their right: the grant of their sponsor (the actor of the last edit or resume)
 * was revoked, or the sponsor left the org or lost the role.
 */
import { sql } from "kysely";
import * as grants from "../people/grants.ts";
import type { Db } from "../pg/database.ts";

export type StrandedWatcher = { watcherId: string; deviceId: string; deviceLabel: string; sponsor: string };

/** The watchers to check: of a device, or of a sponsor. */
export type Whose = { deviceId: string } | { sponsor: string };

/**
 * The active watchers of a device, or of a sponsor, whose sponsor may not use their device; by id.
 */
export async function find(tx: Db, { orgId, of }: { orgId: string; of: Whose }): Promise<StrandedWatcher[]> {
  const { rows: candidates } = await sql<StrandedWatcher>`
    select w.id as "watcherId", d.id as "deviceId", d.label as "deviceLabel", w.sponsor
    from watcher w join device d on d.org_id = w.org_id and d.id = w.device_id
    where w.org_id = ${orgId} and w.status = 'active' and not d.is_worker
      and ${"deviceId" in of ? sql`w.device_id = ${of.deviceId}` : sql`w.sponsor = ${of.sponsor}`}
      and split_part(w.sponsor, ':', 1) in ('user', 'service')
    order by w.id`.execute(tx);
  const bySponsor = Map.groupBy(candidates, ({ sponsor }) => sponsor);
  const stranded: StrandedWatcher[] = [];
  for (const [sponsor, theirs] of bySponsor) {
    const who = grants.whoOf(sponsor)!;
    const deviceIds = [...new Set(theirs.map(({ deviceId }) => deviceId))];
    const found = await grants.standings(tx, { orgId, who, deviceIds });
    const lost = new Set(
      found.filter((standing) => !grants.rightTo("use", standing)).map(({ deviceId }) => deviceId),
    );
    stranded.push(...theirs.filter(({ deviceId }) => lost.has(deviceId)));
  }
  return stranded.sort((a, b) => (a.watcherId < b.watcherId ? -1 : 1));
}

/**
 * Locks watchers and their live runs, runs first, each by id, as a completion does; answers how
 * many runs there are.
 */
export async function lock(
  tx: Db,
  { orgId, watcherIds }: { orgId: string; watcherIds: readonly string[] },
): Promise<number> {
  const ids = watcherIds as string[];
  const { rows: live } = await sql`
    select id from run where org_id = ${orgId} and watcher_id = any(${ids}::uuid[]) order by id for update`.execute(
    tx,
  );
  await sql`
    select id from watcher where org_id = ${orgId} and id = any(${ids}::uuid[]) order by id for update`.execute(
    tx,
  );
  return live.length;
}
