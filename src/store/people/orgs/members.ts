import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import type { Role } from "../../pg/schema/schema-people.ts";
import { onlyRow } from "../../pg/values/only-row.ts";

/** A person in an org. */
export type Member = {
  userId: string;
  name: string;
  email: string | null;
  role: Role;
  createdAt: Date;
};

function select(db: Db) {
  return db
    .selectFrom("member as m")
    .innerJoin("user as u", "u.id", "m.user_id")
    .select(["m.user_id as userId", "u.name", "u.email", "m.role", "m.created_at as createdAt"]);
}

/** The member; undefined if the person is none. */
export function find(db: Db, options: { orgId: string; userId: string }): Promise<Member | undefined> {
  return select(db)
    .where("m.org_id", "=", options.orgId)
    .where("m.user_id", "=", options.userId)
    .executeTakeFirst();
}

/**
 * The org's members by id, the order of their first appearance, at most `limit`; after `afterId` if
 * given.
 */
export function list(
  db: Db,
  options: { orgId: string; limit: number; afterId?: string | undefined },
): Promise<Member[]> {
  let query = select(db).where("m.org_id", "=", options.orgId).orderBy("m.user_id").limit(options.limit);
  if (options.afterId !== undefined) query = query.where("m.user_id", ">", options.afterId);
  return query.execute();
}

/**
 * The person with the email address, created if unknown, and locked until the commit. People belong
 * to no org, so the function takes none.
 */
export async function ensureUser(db: Db, options: { email: string; name: string }): Promise<string> {
  const email = options.email.toLowerCase();
  const { rows } = await sql<{ id: string }>`
    insert into "user" (name, email) values (${options.name || email}, ${email})
    -- Nothing changes, but the row is locked and returned.
    on conflict (email) do update set email = excluded.email
    returning id`.execute(db);
  return onlyRow(rows).id;
}

/**
 * Locks a membership until the commit, so that a removal waits. False for a person who is no
 * member.
 */
export async function hold(tx: Db, options: { orgId: string; userId: string }): Promise<boolean> {
  return (await lockRole(tx, options, "key share")) !== undefined;
}

/**
 * Like {@link hold}, and also locks the role against changes. Undefined for a person who is no
 * member.
 */
export function holdRole(tx: Db, options: { orgId: string; userId: string }): Promise<Role | undefined> {
  return lockRole(tx, options, "share");
}

/**
 * The member's role, locked for a change until the commit; waits for {@link hold}. Undefined for a
 * person who is no member.
 */
export function lock(tx: Db, options: { orgId: string; userId: string }): Promise<Role | undefined> {
  return lockRole(tx, options, "update");
}

/** The member's role, under a lock until the commit; undefined for a person who is no member. */
async function lockRole(
  tx: Db,
  { orgId, userId }: { orgId: string; userId: string },
  strength: "key share" | "share" | "update",
): Promise<Role | undefined> {
  const member = tx
    .selectFrom("member")
    .select("role")
    .where("org_id", "=", orgId)
    .where("user_id", "=", userId);
  const locked =
    strength === "update"
      ? member.forUpdate()
      : strength === "share"
        ? member.forShare()
        : member.forKeyShare();
  return (await locked.executeTakeFirst())?.role;
}

/** The longest-standing owner; null for none. */
export async function findFirstOwner(db: Db, options: { orgId: string }): Promise<string | null> {
  const row = await db
    .selectFrom("member")
    .select("user_id")
    .where("org_id", "=", options.orgId)
    .where("role", "=", "owner")
    .orderBy("created_at")
    .orderBy("user_id")
    .limit(1)
    .executeTakeFirst();
  return row?.user_id ?? null;
}

/** The current owners' ids. */
export async function owners(db: Db, orgId: string): Promise<string[]> {
  const rows = await db
    .selectFrom("member")
    .select("user_id")
    .where("org_id", "=", orgId)
    .where("role", "=", "owner")
    .execute();
  return rows.map((row) => row.user_id);
}

/** The addresses of the org's owners and admins, where known, at most 50. */
export async function findAdminAddresses(db: Db, { orgId }: { orgId: string }): Promise<string[]> {
  const rows = await db
    .selectFrom("member as m")
    .innerJoin("user as u", "u.id", "m.user_id")
    .select("u.email")
    .where("m.org_id", "=", orgId)
    .where("m.role", "in", ["owner", "admin"])
    .where("u.email", "is not", null)
    .orderBy("u.email")
    .limit(50)
    .execute();
  return rows.flatMap((row) => row.email ?? []);
}

/** The owners' ids; of two concurrent changes the second waits and sees the result of the first. */
export async function lockOwners(tx: Db, orgId: string): Promise<string[]> {
  // Locks on the owners' own rows would not suffice: two owners who remove each other would each
  // lock the other's row first.
  await sql`select pg_advisory_xact_lock(hashtextextended(${`members ${orgId}`}, 0))`.execute(tx);
  return owners(tx, orgId);
}

export function refuseLastOwner(): never {
  refuse("failed_precondition", "this is the org's last owner; make another member its owner first");
}

/** Makes a person a member in a role, or changes a member's role. */
export async function setRole(
  tx: Db,
  { orgId, userId, role }: { orgId: string; userId: string; role: Role },
): Promise<void> {
  await tx
    .insertInto("member")
    .values({ org_id: orgId, user_id: userId, role })
    .onConflict((conflict) => conflict.columns(["org_id", "user_id"]).doUpdateSet({ role }))
    .execute();
}

/** Deletes a membership. */
export async function remove(tx: Db, { orgId, userId }: { orgId: string; userId: string }): Promise<void> {
  await tx.deleteFrom("member").where("org_id", "=", orgId).where("user_id", "=", userId).execute();
}
