/** Streams whose tokens ended without a notification, among streams that come and go. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createStreams } from "../../../../src/server/access/streams.ts";
import { secretHash } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";

const t = useDatabase();
const orgIds = ["org-a", "org-b"];

async function seedTokens(count: number): Promise<{ orgId: string; tokenId: string }[]> {
  for (const id of orgIds) await sql`insert into org (id, name) values (${id}, ${id})`.execute(t.db);
  const tokens: { orgId: string; tokenId: string }[] = [];
  for (let index = 0; index < count; index++) {
    const orgId = orgIds[index % orgIds.length] ?? "";
    const { rows } = await sql<{ id: string }>`
      insert into token (org_id, kind, label, sha256, scopes, all_devices)
      values (${orgId}, 'svc', 'test', ${secretHash(`token ${index}`)}, '{read}', true) returning id`.execute(
      t.db,
    );
    tokens.push({ orgId, tokenId: rows[0]?.id ?? "" });
  }
  return tokens;
}

test("each check asks for the tokens of the streams that are open then", async () => {
  const tokens = await seedTokens(8);
  const streams = createStreams({ db: t.db });
  const ended: number[] = [];
  const open = (index: number) => {
    const stream = { ...tokens[index]!, end: () => void ended.push(index) };
    streams.add(stream);
    return () => streams.remove(stream);
  };
  const end = (index: number) =>
    sql`update token set revoked_at = now() where id = ${tokens[index]!.tokenId}`.execute(t.db);
  const look = async () => {
    await streams.endExpired();
    return ended.splice(0).toSorted((one, other) => one - other);
  };

  expect(await look()).toEqual([]);
  for (const index of [0, 0, 1, 2, 3, 4]) open(index);
  const leave = open(5);
  expect(await look()).toEqual([]);
  await end(0);
  await end(5);
  leave();
  // Both streams of the first token, and not the stream that has left.
  expect(await look()).toEqual([0, 0]);
  expect(await look()).toEqual([]);
  await end(6);
  open(6);
  await sql`delete from token where id = ${tokens[1]!.tokenId}`.execute(t.db);
  await sql`update token set expires_at = now() where id = ${tokens[2]!.tokenId}`.execute(t.db);
  expect(await look()).toEqual([1, 2, 6]);
  streams.revoke(tokens[3]!.tokenId);
  expect(ended.splice(0)).toEqual([3]);
  await end(3);
  expect(await look()).toEqual([]);
});
