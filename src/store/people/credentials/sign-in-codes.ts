/**
 * Codes valid once and for minutes: links that sign a browser in, logins of commands, and visits at
 * an OpenID Connect provider. A code belongs to no org until used, so the functions take none.
 */
import { randomInt } from "node:crypto";
import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { newCode, secretHash } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import type { SignInCodeKind } from "../../pg/schema/schema-people.ts";

/** Maximum open codes of an address: people start few, and strangers may start them. */
const openPerAddressMax = 30;
/** Consonants, so that no code is a word, without letters that are easily confused. */
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ";

/** The sign-in made by a link. */
export type LinkData = { orgId: string; userId: string; scopes: string[]; makerId: string };

/** A login, and the decision about it. */
export type LoginData = {
  clientName: string;
  decision?:
    | { isConfirmed: false }
    | { isConfirmed: true; orgId: string; userId: string; scopes: string[]; makerId: string };
};

/** A visit at a provider. */
export type OidcData = { verifier: string; nonce: string; place: string };

export type Code<Data> = {
  data: Data;
  address: string;
  createdAt: Date;
  expiresAt: Date;
  userCode: string | null;
};

/**
 * Stores a new code. Refuses with `resource_exhausted` if too many of the address ("": not counted)
 * are open. The code is returned here and kept nowhere.
 */
export async function create(
  db: Db,
  options: {
    kind: SignInCodeKind;
    address: string;
    expiresInMs: number;
    data: LinkData | LoginData | OidcData;
    hasUserCode?: boolean;
  },
): Promise<{ code: string; userCode: string; expiresAt: Date }> {
  const code = newCode();
  const userCode = options.hasUserCode ? newUserCode() : null;
  const { rows } = await sql<{ expires_at: Date }>`
    insert into sign_in_code (sha256, kind, user_code, address, data, expires_at)
    select ${secretHash(code)}, ${options.kind}, ${userCode}, ${options.address}, ${JSON.stringify(options.data)}::jsonb,
      now() + ${options.expiresInMs} * interval '1 millisecond'
    where ${options.address} = '' or (
      select count(*) from (select from sign_in_code
        where address = ${options.address} and used_at is null and expires_at > now() limit ${openPerAddressMax}) open
    ) < ${openPerAddressMax}
    returning expires_at`.execute(db);
  const row = rows[0];
  if (!row) {
    refuse("resource_exhausted", "too many sign-ins from this address were begun and not finished; wait", {
      retryAfterMs: 60_000,
    });
  }
  return { code, userCode: userCode ?? "", expiresAt: row.expires_at };
}

function newUserCode(): string {
  const letters = Array.from({ length: 8 }, () => userCodeLetters[randomInt(userCodeLetters.length)]);
  return `${letters.slice(0, 4).join("")}-${letters.slice(4).join("")}`;
}

/** The stored form of a typed code. */
function normalized(userCode: string): string {
  const letters = userCode.toUpperCase().replace(/[^A-Z]/g, "");
  return `${letters.slice(0, 4)}-${letters.slice(4)}`;
}

const open = sql<boolean>`used_at is null and expires_at > now()`;
const columns = [
  "address",
  "created_at as createdAt",
  "expires_at as expiresAt",
  "user_code as userCode",
  "data",
] as const;

/**
 * Consumes a code; undefined if unknown, used or expired. Of two concurrent calls only the first
 * succeeds.
 */
export async function consume<Data>(
  db: Db,
  options: { kind: SignInCodeKind; code: string },
): Promise<Code<Data> | undefined> {
  const row = await db
    .updateTable("sign_in_code")
    .set({ used_at: sql<Date>`now()` })
    .where("sha256", "=", secretHash(options.code))
    .where("kind", "=", options.kind)
    .where(open)
    .returning(columns)
    .executeTakeFirst();
  return row as Code<Data> | undefined;
}

/** Reads a code without consuming it. */
export async function find<Data>(
  db: Db,
  options: { kind: SignInCodeKind; code: string },
): Promise<Code<Data> | undefined> {
  const row = await db
    .selectFrom("sign_in_code")
    .select(columns)
    .where("sha256", "=", secretHash(options.code))
    .where("kind", "=", options.kind)
    .where(open)
    .executeTakeFirst();
  return row as Code<Data> | undefined;
}

/** A login by its typed code. */
export async function findLogin(db: Db, userCode: string): Promise<Code<LoginData> | undefined> {
  const row = await db
    .selectFrom("sign_in_code")
    .select(columns)
    .where("user_code", "=", normalized(userCode))
    .where(open)
    .executeTakeFirst();
  return row as Code<LoginData> | undefined;
}

/**
 * Records a decision about a login; false if no open login has the code, or if it was decided
 * already.
 */
export async function decide(
  db: Db,
  options: { userCode: string; decision: NonNullable<LoginData["decision"]> },
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable("sign_in_code")
    .set({ data: sql<Json>`data || ${JSON.stringify({ decision: options.decision })}::jsonb` })
    .where("user_code", "=", normalized(options.userCode))
    .where(open)
    .where(sql<boolean>`not data ? 'decision'`)
    .executeTakeFirst();
  return numUpdatedRows > 0n;
}
