/**
 * Watchers that stand on a right which is gone: the grant of their sponsor (the actor who edited or resumed them last) was
 * taken back, or the sponsor left the org or lost the role. They are paused with the reason, and their live runs end.
 */
import { sql } from "kysely";
import * as grants from "../people/grants.ts";
import type { Db } from "../pg/database.ts";
import * as events from "./events.ts";
import type { CancelRuns, RecordDue } from "./watchers.ts";

type Candidate = { watcherId: string; deviceId: string; deviceLabel: string; sponsor: string };

export type Stranded = {
  watcherIds: string[];
  runsCancelled: number;
  /** Announces the ends of the runs; to be called after the commit. */
  announce: () => void;
};

/** What pausing asks of the scheduler. */
export type Pausing = { recordDue: RecordDue; cancelRuns: CancelRuns<() => void> };

/**
 * Pauses the active watchers of a device, or of a sponsor, whose sponsor may not use their device, each with the event
 * `watcher.paused`, and ends their live runs by `cancelRuns`. In the caller's transaction, in which only events may
 * follow.
 */
export async function pauseAll(
  tx: Db,
  options: {
    orgId: string;
    of: { deviceId: string } | { sponsor: string };
    actor: string;
  } & Pausing,
): Promise<Stranded> {
  const { orgId, actor } = options;
  const stranded = await findStranded(tx, options);
  if (stranded.length === 0) return { watcherIds: [], runsCancelled: 0, announce() {} };
  const ids = stranded.map(({ watcherId }) => watcherId);
  // Runs by id and then watchers by id, as a completion does, so that neither waits for the other.
  const { rows: live } = await sql<{ id: string }>`
    select id from run where org_id = ${orgId} and watcher_id = any(${ids}::uuid[]) order by id for update`.execute(
    tx,
  );
  await sql`
    select id from watcher where org_id = ${orgId} and id = any(${ids}::uuid[]) order by id for update`.execute(
    tx,
  );
  const written: Omit<events.NewEvent, "orgId">[] = [];
  for (const { watcherId, deviceId, deviceLabel, sponsor } of stranded) {
    written.push(...(await options.recordDue(tx, orgId, watcherId)));
    const reason =
      `${sponsor} may not use device "${deviceLabel}" any more; ` +
      "its owner, or an owner or admin of the org, may resume the watcher";
    await tx
      .updateTable("watcher")
      .set({ status: "paused", paused_reason: reason, next_slot_at: null, next_due_at: null })
      .where("org_id", "=", orgId)
      .where("id", "=", watcherId)
      .execute();
    written.push({ kind: "watcher.paused", actor, watcherId, deviceId, data: { reason } });
  }
  const announcements: (() => void)[] = [];
  for (const { watcherId, deviceLabel } of stranded) {
    const reason = `the right to use device "${deviceLabel}" was taken back`;
    announcements.push(await options.cancelRuns(tx, { orgId, watcherId, reason }));
  }
  await events.append(tx, orgId, written);
  return {
    watcherIds: ids,
    runsCancelled: live.length,
    announce() {
      for (const announce of announcements) announce();
    },
  };
}

async function findStranded(
  tx: Db,
  { orgId, of }: { orgId: string; of: { deviceId: string } | { sponsor: string } },
): Promise<Candidate[]> {
  const { rows: candidates } = await sql<Candidate>`
    select w.id as "watcherId", d.id as "deviceId", d.label as "deviceLabel", w.sponsor
    from watcher w join device d on d.org_id = w.org_id and d.id = w.device_id
    where w.org_id = ${orgId} and w.status = 'active' and not d.is_worker
      and ${"deviceId" in of ? sql`w.device_id = ${of.deviceId}` : sql`w.sponsor = ${of.sponsor}`}
      and split_part(w.sponsor, ':', 1) in ('user', 'service')
    order by w.id`.execute(tx);
  const bySponsor = Map.groupBy(candidates, ({ sponsor }) => sponsor);
  const stranded: Candidate[] = [];
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
