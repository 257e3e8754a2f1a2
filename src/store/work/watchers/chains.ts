/** The followers of watchers: no cycles, and no chain above the maximum length. */
import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { isUuid } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";

/** Maximum number of watchers in a row, without the first. */
export const chainDepthMax = 10;

const field = "spec.after";

/**
 * Sets the watchers that a watcher follows, by id or slug; returns their slugs in order. Refuses
 * with `invalid_argument` a missing watcher, a cycle, and a chain of more than {@link
 * chainDepthMax}. Edits of an org are serialized by a lock, so that two edits cannot create a cycle
 * together.
 */
export async function follow(
  tx: Db,
  options: { orgId: string; watcherId: string; after: readonly string[] },
): Promise<string[]> {
  const { orgId, watcherId, after } = options;
  await sql`select pg_advisory_xact_lock(hashtextextended('chains ' || ${orgId}, 0))`.execute(tx);
  // A watcher that is being deleted is missing, and not a reference that PostgreSQL refuses later.
  await sql`select from watcher
    where org_id = ${orgId} and (slug = any(${after as string[]}::text[]) or id = any(${after.filter(isUuid)}::uuid[]))
    order by id for key share`.execute(tx);
  const found = await sql<{ name: string; id: string | null; slug: string }>`
    select n.name, w.id, w.slug from unnest(${after as string[]}::text[]) n(name)
      left join watcher w on w.org_id = ${orgId} and (w.slug = n.name or w.id::text = lower(n.name))`.execute(
    tx,
  );
  for (const { name, id } of found.rows) {
    if (id === null) refuse("invalid_argument", `${field}: there is no watcher "${name}"`, { field });
    if (id === watcherId) refuse("invalid_argument", `${field}: a watcher cannot follow itself`, { field });
  }
  const ids = [...new Set(found.rows.flatMap(({ id }) => id ?? []))];
  await sql`delete from watcher_after where org_id = ${orgId} and watcher_id = ${watcherId}
    and after_id <> all(${ids}::uuid[])`.execute(tx);
  await sql`
    insert into watcher_after (org_id, watcher_id, after_id)
    select ${orgId}, ${watcherId}, id from unnest(${ids}::uuid[]) t(id) on conflict do nothing`.execute(tx);
  await requireChain(tx, { orgId, watcherId });
  return [...new Set(found.rows.map(({ slug }) => slug))].sort();
}

async function requireChain(tx: Db, { orgId, watcherId }: { orgId: string; watcherId: string }) {
  const { rows } = await sql<{ watcherId: string; afterId: string; slug: string }>`
    select a.watcher_id as "watcherId", a.after_id as "afterId", w.slug
    from watcher_after a join watcher w on w.org_id = a.org_id and w.id = a.watcher_id
    where a.org_id = ${orgId}`.execute(tx);
  const slugs = new Map(rows.map((row) => [row.watcherId, row.slug]));
  const edges = (from: "watcherId" | "afterId", to: "watcherId" | "afterId") => {
    const map = new Map<string, string[]>();
    for (const row of rows) map.set(row[from], [...(map.get(row[from]) ?? []), row[to]]);
    return map;
  };
  const before = edges("watcherId", "afterId");
  const circle = findPath(before, watcherId);
  if (circle) {
    const name = (id: string) => slugs.get(id) ?? id;
    refuse(
      "invalid_argument",
      `${field}: "${circle.map(name).join('" follows "')}": a circle, which would never end`,
      { field },
    );
  }
  const length = depthOf(before, watcherId) + depthOf(edges("afterId", "watcherId"), watcherId);
  if (length > chainDepthMax) {
    refuse(
      "invalid_argument",
      `${field}: a chain of ${length} watchers after the first; at most ${chainDepthMax}`,
      {
        field,
      },
    );
  }
}

/** The path from a watcher back to itself; undefined for none. */
function findPath(edges: ReadonlyMap<string, string[]>, watcherId: string): string[] | undefined {
  const cameFrom = new Map<string, string>();
  const open = [watcherId];
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    for (const next of edges.get(id) ?? []) {
      if (next === watcherId) {
        const path = [watcherId];
        for (let at = id; at !== watcherId; at = cameFrom.get(at) ?? watcherId) path.unshift(at);
        return [watcherId, ...path];
      }
      if (cameFrom.has(next)) continue;
      cameFrom.set(next, id);
      open.push(next);
    }
  }
  return undefined;
}

/** The longest way from a watcher, in edges of a graph without circles. */
function depthOf(edges: ReadonlyMap<string, string[]>, watcherId: string): number {
  const known = new Map<string, number>();
  function depth(id: string): number {
    const seen = known.get(id);
    if (seen !== undefined) return seen;
    const longest = Math.max(0, ...(edges.get(id) ?? []).map((next) => depth(next) + 1));
    known.set(id, longest);
    return longest;
  }
  return depth(watcherId);
}
