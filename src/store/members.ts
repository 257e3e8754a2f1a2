import { sql } from "kysely";
import { refuse } from "../errors.ts";
import type { Db } from "./database.ts";
import { transaction } from "./database.ts";
import * as devices from "./devices.ts";
import * as events from "./events.ts";
import * as runs from "./runs.ts";
import type { Role } from "./schema.ts";
import * as tokens from "./tokens.ts";
import * as watchers from "./watchers.ts";

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

/** The member, if the person is one. */
export function find(db: Db, options: { orgId: string; userId: string }): Promise<Member | undefined> {
  return select(db)
    .where("m.org_id", "=", options.orgId)
    .where("m.user_id", "=", options.userId)
    .executeTakeFirst();
}

/** The org's members by id, which is the order in which Pinion got to know them, at most `limit`; those after `afterId`. */
export function list(
  db: Db,
  options: { orgId: string; limit: number; afterId?: string | undefined },
): Promise<Member[]> {
  let query = select(db).where("m.org_id", "=", options.orgId).orderBy("m.user_id").limit(options.limit);
  if (options.afterId !== undefined) query = query.where("m.user_id", ">", options.afterId);
  return query.execute();
}

/** The person with the email address, made if Pinion does not know it. People are of no org, so this knows none. */
export async function ensureUser(db: Db, options: { email: string; name: string }): Promise<string> {
  const email = options.email.toLowerCase();
  const { rows } = await sql<{ id: string }>`
    insert into "user" (name, email) values (${options.name || email}, ${email})
    -- Nothing changes, but the row is locked and returned.
    on conflict (email) do update set email = excluded.email
    returning id`.execute(db);
  return rows[0]!.id;
}

/**
 * Takes a person into the org, or gives a member another role, with the event `member.added` or `member.updated` and,
 * where scopes are given, a first token. Refuses with `failed_precondition` to leave the org without an owner.
 */
export function add(
  db: Db,
  options: {
    orgId: string;
    email: string;
    name: string;
    role: Role;
    tokenScopes: readonly string[];
    actor: string;
  },
): Promise<{ member: Member; secret: string | undefined }> {
  const { orgId, role, actor } = options;
  return transaction(db, async (tx) => {
    const userId = await ensureUser(tx, options);
    const owners = await lockOwners(tx, orgId);
    const before = await find(tx, { orgId, userId });
    if (role !== "owner" && owners.length === 1 && owners[0] === userId) refuseLastOwner();
    await tx
      .insertInto("member")
      .values({ org_id: orgId, user_id: userId, role })
      .onConflict((conflict) => conflict.columns(["org_id", "user_id"]).doUpdateSet({ role }))
      .execute();
    const issued =
      options.tokenScopes.length > 0
        ? await tokens.issue(tx, {
            orgId,
            kind: "pat",
            label: "first token",
            scopes: options.tokenScopes,
            userId,
          })
        : undefined;
    const member = (await find(tx, { orgId, userId }))!;
    const entries: Omit<events.NewEvent, "orgId">[] = [];
    if (before?.role !== role) {
      entries.push({
        kind: before ? "member.updated" : "member.added",
        actor,
        data: { user_id: userId, role, ...(before ? { from: before.role } : {}) },
      });
    }
    if (issued) {
      entries.push({
        kind: "token.created",
        actor,
        data: { token_id: issued.token.id, kind: "pat", user_id: userId, scopes: [...options.tokenScopes] },
      });
    }
    await events.append(tx, orgId, entries);
    return { member, secret: issued?.secret };
  });
}

export type Departure<Cancelled> = {
  tokenIds: string[];
  watchersUnpinned: number;
  /** What `cancelRuns` said, by device. */
  cancelled: Cancelled[];
  /** Streams that are to be closed. */
  sessions: (devices.Session & { deviceId: string })[];
};

/**
 * Takes a person out of the org, with the event `member.removed`: their tokens and unused join codes end, the watchers
 * pinned to their devices are unpinned and show as no_executor, and the live runs there are ended by `cancelRuns`. The
 * devices stay on the list; nothing can be pinned to them until another member enrols them. Refuses with `not_found`,
 * and with `failed_precondition` for the last owner.
 */
export function remove<Cancelled>(
  db: Db,
  options: { orgId: string; userId: string; actor: string; cancelRuns: devices.CancelRuns<Cancelled> },
): Promise<Departure<Cancelled>> {
  const { orgId, userId, actor } = options;
  return transaction(db, async (tx) => {
    const owners = await lockOwners(tx, orgId);
    // The member before the devices, as whoever pins or enrols does: they wait here, and then see that the member left.
    const member = await tx
      .selectFrom("member")
      .select("role")
      .where("org_id", "=", orgId)
      .where("user_id", "=", userId)
      .forUpdate()
      .executeTakeFirst();
    if (!member) refuse("not_found", `there is no member ${userId}`);
    if (owners.length === 1 && owners[0] === userId) refuseLastOwner();
    await tx.deleteFrom("member").where("org_id", "=", orgId).where("user_id", "=", userId).execute();
    await tx
      .deleteFrom("join_code")
      .where("org_id", "=", orgId)
      .where("user_id", "=", userId)
      .where("used_at", "is", null)
      .execute();
    const revoked = await tx
      .updateTable("token")
      .set({ revoked_at: sql<Date>`now()` })
      .where("org_id", "=", orgId)
      .where("revoked_at", "is", null)
      .where((eb) =>
        eb.or([
          eb("user_id", "=", userId),
          eb(
            "device_id",
            "in",
            eb.selectFrom("device").select("id").where("org_id", "=", orgId).where("owner_id", "=", userId),
          ),
        ]),
      )
      .returning("id")
      .execute();
    const owned = await devices.lockOwnedBy(tx, { orgId, userId });

    // For all devices: first the runs, then the watchers, as a completion does, so that neither waits for the other.
    for (const { id } of owned) await runs.lockForCancel(tx, { orgId, deviceId: id });
    const unpinned: { watcherId: string; deviceId: string }[] = [];
    for (const { id, label } of owned) {
      const reason = `the owner of device "${label}" left the org`;
      const watcherIds = await watchers.unpinAll(tx, { orgId, deviceId: id, reason });
      unpinned.push(...watcherIds.map((watcherId) => ({ watcherId, deviceId: id })));
    }
    const cancelled: Cancelled[] = [];
    for (const { id } of owned) {
      cancelled.push(
        await options.cancelRuns(tx, { orgId, deviceId: id, reason: "the device's owner left the org" }),
      );
    }
    await events.append(tx, orgId, [
      ...unpinned.map(({ watcherId, deviceId }) => ({
        kind: "watcher.updated",
        actor,
        watcherId,
        deviceId,
        data: { changed: ["device_id"], status: "no_executor" },
      })),
      {
        kind: "member.removed",
        actor,
        data: {
          user_id: userId,
          role: member.role,
          tokens_revoked: revoked.length,
          watchers_unpinned: unpinned.length,
        },
      },
    ]);
    return {
      tokenIds: revoked.map((row) => row.id),
      watchersUnpinned: unpinned.length,
      cancelled,
      sessions: owned.flatMap(({ id, session }) => (session ? [{ ...session, deviceId: id }] : [])),
    };
  });
}

/**
 * Holds, until the commit, that the person is a member: whoever removes them waits. False for who is none.
 */
export async function hold(tx: Db, options: { orgId: string; userId: string }): Promise<boolean> {
  const row = await tx
    .selectFrom("member")
    .select("role")
    .where("org_id", "=", options.orgId)
    .where("user_id", "=", options.userId)
    .forKeyShare()
    .executeTakeFirst();
  return row !== undefined;
}

/** The owners' ids; of two who change them at once, the second waits and sees what the first one left. */
async function lockOwners(tx: Db, orgId: string): Promise<string[]> {
  // Their own rows are not enough: two owners who remove each other would each lock the other's first.
  await sql`select pg_advisory_xact_lock(hashtextextended(${`members ${orgId}`}, 0))`.execute(tx);
  const rows = await tx
    .selectFrom("member")
    .select("user_id")
    .where("org_id", "=", orgId)
    .where("role", "=", "owner")
    .execute();
  return rows.map((row) => row.user_id);
}

function refuseLastOwner(): never {
  refuse("failed_precondition", "this is the org's last owner; make another member its owner first");
}
