import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { LostRace } from "../../pg/failures.ts";

/** Whether a live run has not begun, and is not due yet. */
export const isAhead = sql`status <> 'running' and due_at > clock_timestamp()`;

/** The watchers of a change: by id, and those that are pinned to devices. */
type Whose = { watcherIds?: readonly string[]; deviceIds?: readonly string[] };

/** `edit` leaves room for rows that refer to a watcher: see watchers.lock. */
type Purpose = "edit" | "removal";

/**
 * Locks live runs, those of the watchers and those on the devices, and then the watchers with those
 * of the runs, each by id, as a completion does; returns the number of the runs. `only`: runs that
 * are ahead and no others, because a claim passes a locked run by.
 *
 * Throws {@link LostRace}, so that the transaction begins anew, if a watcher got another live run
 * while its lock was awaited: a lock of that run would come after the watcher's, and its completion
 * may hold the run and wait for the watcher. A locked watcher gets no further runs.
 */
export async function lockWithWatchers(
  tx: Db,
  options: {
    orgId: string;
    of: Whose;
    for: Purpose;
    only?: "ahead" | undefined;
    /** Locks that come after those of the runs. */
    beforeWatchers?: () => Promise<void>;
  },
): Promise<number> {
  const { orgId, of } = options;
  const wanted = await findWatchers(tx, options);
  const runs = await lockRuns(tx, {
    ...options,
    which: sql`(watcher_id = any(${wanted}::uuid[]) or device_id = any(${[...(of.deviceIds ?? [])]}::uuid[]))`,
  });
  await options.beforeWatchers?.();
  const watcherIds = [...new Set([...wanted, ...runs.map(({ watcherId }) => watcherId)])];
  await sql`select from watcher where org_id = ${orgId} and id = any(${watcherIds}::uuid[]) order by id
    for ${options.for === "edit" ? sql`no key update` : sql`update`}`.execute(tx);
  const { rows: late } = await sql`
    select from run where org_id = ${orgId} and watcher_id = any(${watcherIds}::uuid[])
      and id <> all(${runs.map(({ id }) => id)}::uuid[]) ${andOnly(options)} limit 1`.execute(tx);
  if (late.length > 0) throw new LostRace("a watcher got another run meanwhile");
  return runs.length;
}

async function findWatchers(tx: Db, { orgId, of }: { orgId: string; of: Whose }): Promise<string[]> {
  if (!of.deviceIds) return [...(of.watcherIds ?? [])];
  const { rows } = await sql<{ id: string }>`
    select id from watcher where org_id = ${orgId} and device_id = any(${[...of.deviceIds]}::uuid[])`.execute(
    tx,
  );
  return [...(of.watcherIds ?? []), ...rows.map(({ id }) => id)];
}

async function lockRuns(
  tx: Db,
  options: { orgId: string; which: RawBuilder<unknown>; only?: "ahead" | undefined },
): Promise<{ id: string; watcherId: string }[]> {
  const { rows } = await sql<{ id: string; watcherId: string }>`
    select id, watcher_id as "watcherId" from run where org_id = ${options.orgId} and ${options.which} ${andOnly(options)}
    order by id for update`.execute(tx);
  return rows;
}

const andOnly = ({ only }: { only?: "ahead" | undefined }) =>
  only === "ahead" ? sql`and ${isAhead}` : sql``;
