/**
 * Watchers that lost their right: the grant of their sponsor (the actor of the last edit or resume)
 * was revoked, or the sponsor left the org or lost the role.
 */
import { sql } from "kysely";
import * as rights from "../../people/devices/rights.ts";
import type { Db } from "../../pg/database.ts";

export type StrandedWatcher = {
  watcherId: string;
  deviceId: string;
  deviceLabel: string;
  sponsor: string;
  /** The lost right: to use the device, or to read the results that the watcher sends. */
  deed: "use" | "read";
};

/**
 * The watchers to check: of a device, or of a sponsor. `readers`: the actors who just lost the
 * right to read; of others, only the right to use counts, because an editor may lack the right to
 * read that the author of `notify` has. A sponsor's own rights all count.
 */
export type Whose = { deviceId: string; readers?: ReadonlySet<string> | "everyone" } | { sponsor: string };

/**
 * The active watchers of a device, or of a sponsor, whose sponsor may not use their device, or may
 * not read the results that they send to destinations; by id.
 */
export async function find(tx: Db, { orgId, of }: { orgId: string; of: Whose }): Promise<StrandedWatcher[]> {
  const { rows: candidates } = await sql<StrandedWatcher & { isTold: boolean }>`
    select w.id as "watcherId", d.id as "deviceId", d.label as "deviceLabel", w.sponsor, w.notify is not null as "isTold"
    from watcher w join device d on d.org_id = w.org_id and d.id = w.device_id
    where w.org_id = ${orgId} and w.status = 'active' and not d.is_worker
      and ${"deviceId" in of ? sql`w.device_id = ${of.deviceId}` : sql`w.sponsor = ${of.sponsor}`}
      and split_part(w.sponsor, ':', 1) in ('user', 'service')
    order by w.id`.execute(tx);
  const stranded: StrandedWatcher[] = [];
  const readers = "sponsor" in of ? "everyone" : (of.readers ?? new Set<string>());
  const mustRead = (one: { sponsor: string; isTold: boolean }) =>
    one.isTold && (readers === "everyone" || readers.has(one.sponsor));
  for (const { lost, items } of await lostBy(tx, orgId, candidates)) {
    stranded.push(
      ...items.flatMap(({ isTold, ...one }): StrandedWatcher[] => {
        if (lost.use.has(one.deviceId)) return [{ ...one, deed: "use" }];
        return lost.read.has(one.deviceId) && mustRead({ ...one, isTold }) ? [{ ...one, deed: "read" }] : [];
      }),
    );
  }
  return stranded.sort((a, b) => (a.watcherId < b.watcherId ? -1 : 1));
}

/** Of each sponsor among the items: the devices that the sponsor may not use, and not read. */
async function lostBy<Item extends { sponsor: string; deviceId: string }>(
  tx: Db,
  orgId: string,
  items: readonly Item[],
): Promise<{ lost: Record<"use" | "read", Set<string>>; items: Item[] }[]> {
  const all = [];
  for (const [sponsor, theirs] of Map.groupBy(items, (item) => item.sponsor)) {
    const who = rights.whoOf(sponsor)!;
    const deviceIds = [...new Set(theirs.map(({ deviceId }) => deviceId))];
    const found = await rights.standings(tx, { orgId, who, deviceIds });
    const without = (deed: "use" | "read") =>
      new Set(found.filter((one) => !rights.rightTo(deed, one)).map(({ deviceId }) => deviceId));
    all.push({ lost: { use: without("use"), read: without("read") }, items: theirs });
  }
  return all;
}

export type StrandedHook = {
  hookId: string;
  slug: string;
  watcherId: string;
  sponsor: string;
  deviceId: string;
};

/**
 * Disables the hooks whose maker may not use the device of their watcher any more, since the secret
 * of a hook starts the watcher; returns them. Before any watcher is locked, as deliveries do.
 */
export async function disableHooks(
  tx: Db,
  { orgId, of }: { orgId: string; of: Whose },
): Promise<StrandedHook[]> {
  const { rows: candidates } = await sql<StrandedHook>`
    select h.id as "hookId", h.slug, h.watcher_id as "watcherId", h.created_by as sponsor, d.id as "deviceId"
    from hook h
      join watcher w on w.org_id = h.org_id and w.id = h.watcher_id
      join device d on d.org_id = w.org_id and d.id = w.device_id
    where h.org_id = ${orgId} and not h.is_disabled and not d.is_worker
      and ${"deviceId" in of ? sql`w.device_id = ${of.deviceId}` : sql`h.created_by = ${of.sponsor}`}
      and split_part(h.created_by, ':', 1) in ('user', 'service')
    order by h.id for no key update of h`.execute(tx);
  const found = (await lostBy(tx, orgId, candidates)).flatMap(({ lost, items }) =>
    items.filter(({ deviceId }) => lost.use.has(deviceId)),
  );
  const ids = found.map(({ hookId }) => hookId);
  if (ids.length > 0) {
    await sql`update hook set is_disabled = true, version = version + 1, updated_at = now()
      where org_id = ${orgId} and id = any(${ids}::uuid[])`.execute(tx);
  }
  return found;
}
