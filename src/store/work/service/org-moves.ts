/**
 * Orgs that leave this cell, arrive here, or have left (docs/scaling.md, src/store/moves). The rows
 * of such an org are hidden by a fence; callers get an answer from here instead of an empty one.
 */
import { sql } from "kysely";
import { Refusal } from "../../../errors.ts";
import { secretHash } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";

/** `cell`: the org's new cell, where it has arrived; undefined while the org moves. */
export type Leaving = { cell: string | undefined };

/** Milliseconds until a caller of an org that moves tries again. */
const retryMs = 2_000;

/** {@link leavingOf} as the database answers it. */
export type LeavingColumn = { cell: string | null } | null;

/** Of a row `m` of org_move. */
export const leavingOfRow = sql<NonNullable<LeavingColumn>>`
  jsonb_build_object('cell', case when m.state = 'moved' then m.cell end)`;

/** As a column: null for an org that is here. */
export const leavingOf = (orgId: string) => sql<LeavingColumn>`
  (select ${leavingOfRow} from org_move m where m.org_id = ${sql.ref(orgId)})`;

export function leavingIn(column: LeavingColumn | undefined): Leaving | undefined {
  return column ? { cell: column.cell ?? undefined } : undefined;
}

export async function find(db: Db, { orgId }: { orgId: string }): Promise<Leaving | undefined> {
  return one(db, sql`select ${orgId}::text as org_id`);
}

/** By ids of hooks, of any org, in the order of the ids. */
export async function findOfHooks(db: Db, ids: readonly string[]): Promise<(Leaving | undefined)[]> {
  const { rows } = await sql<{ id: string; leaving: LeavingColumn }>`
    select h.id, ${leavingOf("h.org_id")} as leaving from hook h where h.id = any(${[...ids]}::uuid[])`.execute(
    db,
  );
  const found = new Map(rows.map(({ id, leaving }) => [id, leavingIn(leaving)]));
  return ids.map((id) => found.get(id));
}

/** By a join code, of any org. */
export function findOfJoinCode(db: Db, code: string): Promise<Leaving | undefined> {
  return one(db, sql`select org_id from join_code where sha256 = ${secretHash(code.trim().toUpperCase())}`);
}

/** Refuses unless the org is here: what was not found may only be hidden. */
export async function requireHere(db: Db, org: { orgId: string }): Promise<void> {
  const leaving = await find(db, org);
  if (leaving) throw refusalOf(leaving);
}

/** `unavailable` while the org moves; `failed_precondition`, with the cell, when it has moved. */
export function refusalOf({ cell }: Leaving): Refusal {
  if (cell === undefined) {
    const message = "the org moves to another cell and takes no calls meanwhile; try again";
    return new Refusal("unavailable", message, { retryAfterMs: retryMs });
  }
  return new Refusal(
    "failed_precondition",
    `the org moved to the cell "${cell}": put ${cell} in the place of the cell's name in the token ` +
      `(pin_…_${cell}_…; nothing else of the token changes), or send the header pinion-cell: ${cell}`,
    { cell },
  );
}

/**
 * Whether the fence of a move kept a row out: the call was let in before the fence stood. Known by
 * the name of the policy, because messages are translated.
 */
export function isFenced(error: unknown): boolean {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  // insufficient_privilege
  return code === "42501" && typeof message === "string" && /\borg_move_[0-9a-f]{32}_/.test(message);
}

async function one(db: Db, org: ReturnType<typeof sql>): Promise<Leaving | undefined> {
  const { rows } = await sql<{ cell: string | null }>`
    select case when m.state = 'moved' then m.cell end as cell
    from org_move m where m.org_id = (${org})`.execute(db);
  return leavingIn(rows[0]);
}
