/** People as a provider of OpenID Connect names them, and what becomes of them here. People are of no org, so most know none. */
import { sql } from "kysely";
import type { Db } from "../pg/database.ts";
import * as members from "./members.ts";

/**
 * The person whom an issuer means by a subject. Who signs in for the first time is the person with the verified email
 * address, or, where that is allowed, a new one; undefined where it is not.
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
  // Of two first visits at once, the second waits and finds what the first one made.
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
