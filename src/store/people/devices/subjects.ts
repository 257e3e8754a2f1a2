/** The devices behind the resources named in a request. */
import { type RawBuilder, sql } from "kysely";
import { isUuid } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";

export type Subject =
  | { device: string }
  /** By id or slug: the watcher's pinned device. */
  | { watcher: string }
  /** By id or slug: the pinned device of the hook's watcher. */
  | { hook: string }
  /** The run's device, or its pinned device. */
  | { run: string }
  /** The device to which the run's watcher is pinned now, where a retry goes. */
  | { watcherOfRun: string }
  /** The turn's device. */
  | { turn: string }
  /** The device of the agent's turns; empty: the org's default agent. */
  | { agent: string }
  /** The devices of the conversation's turns, and the pinned device of its agent. */
  | { conversation: string }
  /** For a service: the devices with grants for its token. */
  | { token: string };

/**
 * The ids of the subject's devices, each once. A missing subject, or a subject without a device,
 * has none.
 */
export async function devicesOf(
  db: Db,
  { orgId, subject }: { orgId: string; subject: Subject },
): Promise<string[]> {
  if ("device" in subject) return [subject.device.toLowerCase()];
  const { rows } = await sql<{ id: string | null }>`${queryOf(orgId, subject)}`.execute(db);
  return [...new Set(rows.flatMap(({ id }) => id ?? []))];
}

function queryOf(orgId: string, subject: Exclude<Subject, { device: string }>): RawBuilder<unknown> {
  if ("watcher" in subject) {
    const named = sql.ref(isUuid(subject.watcher) ? "id" : "slug");
    return sql`select device_id as id from watcher where org_id = ${orgId} and ${named} = ${subject.watcher}`;
  }
  if ("hook" in subject) {
    const named = sql.ref(isUuid(subject.hook) ? "h.id" : "h.slug");
    return sql`
      select w.device_id as id from hook h join watcher w on w.org_id = h.org_id and w.id = h.watcher_id
      where h.org_id = ${orgId} and ${named} = ${subject.hook}`;
  }
  if ("run" in subject) {
    return sql`select device_id as id from run_all where org_id = ${orgId} and id = ${subject.run}`;
  }
  if ("watcherOfRun" in subject) {
    return sql`
      select w.device_id as id from run_all r join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
      where r.org_id = ${orgId} and r.id = ${subject.watcherOfRun}`;
  }
  if ("turn" in subject) {
    return sql`select device_id as id from turn_all where org_id = ${orgId} and id = ${subject.turn}`;
  }
  if ("agent" in subject) {
    return sql`
      select a.device_id as id from agent a
      where a.org_id = ${orgId}
        and a.id = coalesce(nullif(${subject.agent}, ''), (select default_agent_id from org where id = ${orgId}))`;
  }
  if ("conversation" in subject) {
    return sql`
      select a.device_id as id from conversation c join agent a on a.org_id = c.org_id and a.id = c.agent_id
        where c.org_id = ${orgId} and c.id = ${subject.conversation}
      union
      select t.device_id from conversation c
        join turn_all t on t.org_id = c.org_id and t.agent_id = c.agent_id and t.conversation_id = c.id
        where c.org_id = ${orgId} and c.id = ${subject.conversation}`;
  }
  return sql`select device_id as id from device_grant where org_id = ${orgId} and token_id = ${subject.token}`;
}

/**
 * The devices of windows' runs. A window may outlive its run, as a watcher's last result does: its
 * device then is the watcher's pinned device; null if the watcher or its pin is gone, too.
 */
export async function devicesOfWindows(
  db: Db,
  { orgId, windows }: { orgId: string; windows: readonly { runId: string; watcherId: string }[] },
): Promise<{ runId: string; deviceId: string | null; isKnown: boolean }[]> {
  const { rows } = await sql<{ runId: string; deviceId: string | null; isKnown: boolean }>`
    select i.run_id as "runId", case when r.id is not null then r.device_id else w.device_id end as "deviceId",
      r.id is not null or (w.id is not null and w.status <> 'no_executor') as "isKnown"
    from unnest(${windows.map(({ runId }) => runId)}::uuid[], ${windows.map(({ watcherId }) => watcherId)}::uuid[])
        as i(run_id, watcher_id)
      left join run_all r on r.org_id = ${orgId} and r.id = i.run_id
      left join watcher w on w.org_id = ${orgId} and w.id = i.watcher_id`.execute(db);
  return rows;
}
