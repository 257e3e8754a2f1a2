/**
 * People by their OpenID Connect identities. People belong to no org, so most functions take none.
 */
import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import * as members from "../orgs/members.ts";

/**
 * The person of an issuer's subject. At the first sign-in, the person with the verified email
 * address or, if allowed, a new person; undefined if not allowed.
 */
export async function findOrEnsure(
  tx: Db,
  options: {
    issuer: string;
    subject: string;
    email: string | undefined;
    name: string;
    isNewAllowed: boolean;
  },
): Promise<string | undefined> {
  const { issuer, subject, email, name } = options;
  // Of two concurrent first visits, the second waits and finds the identity created by the first.
  await sql`select pg_advisory_xact_lock(hashtextextended(${`identity ${issuer} ${subject}`}, 0))`.execute(
    tx,
  );
  const known = await tx
    .selectFrom("user_identity")
    .select("user_id")
    .where("issuer", "=", issuer)
    .where("subject", "=", subject)
    .executeTakeFirst();
  if (known) return known.user_id;
  const byEmail = email ? await findByEmail(tx, email) : undefined;
  if (!byEmail && !options.isNewAllowed) return undefined;
  const userId =
    byEmail ?? (email ? await members.ensureUser(tx, { email, name }) : await addNameless(tx, name));
  await tx.insertInto("user_identity").values({ issuer, subject, user_id: userId }).execute();
  return userId;
}

async function findByEmail(tx: Db, email: string): Promise<string | undefined> {
  const row = await tx
    .selectFrom("user")
    .select("id")
    .where("email", "=", email.toLowerCase())
    .executeTakeFirst();
  return row?.id;
}

async function addNameless(tx: Db, name: string): Promise<string> {
  const row = await tx.insertInto("user").values({ name }).returning("id").executeTakeFirstOrThrow();
  return row.id;
}
