import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { isUuid } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import { ofFew } from "../../pg/values/unnest.ts";

/** The id and the pin of a watcher, for calls that lock and read the watcher themselves. */
export type WatcherPin = { id: string; deviceId: string | null };

/** The pin of the watcher by id or slug; undefined if the org has no such watcher. */
export async function find(
  db: Db,
  { orgId, watcher }: { orgId: string; watcher: string },
): Promise<WatcherPin | undefined> {
  const { rows } = await sql<WatcherPin>`${ofFew}
    select id, device_id as "deviceId" from watcher
    where org_id = ${orgId} and ${sql.ref(isUuid(watcher) ? "id" : "slug")} = ${watcher}`.execute(db);
  return rows[0];
}

/** Like {@link find}. Refuses with `not_found`, also for another org's watcher. */
export async function get(db: Db, options: { orgId: string; watcher: string }): Promise<WatcherPin> {
  return (await find(db, options)) ?? refuse("not_found", `there is no watcher "${options.watcher}"`);
}
