/** Managers of the operator's org whose token or membership ends while a call of theirs waits. */
import { expect, test } from "vitest";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { transaction } from "../../../../src/store/pg/database.ts";
import { remove as removeMember } from "../../../../src/usecases/members.ts";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice } from "../../../support/device.ts";
import { untilBlocked } from "../../../support/locks.ts";
import { asSeenWith, startTestReplica, type TestReplica } from "../../../support/server.ts";
import { surroundings } from "../../../support/surroundings.ts";

const database = useDatabase();
const ended = { reason: "unauthenticated" };

/** A new admin, with a token. */
async function joinAdmin(replica: TestReplica) {
  const asked = { email: "ada@x.example", role: MemberRole.ADMIN, tokenScopes: ["admin"] };
  const { member, secret } = await replica.clients.orgs.addMember(asked);
  return { userId: member!.userId, clients: asSeenWith(replica, secret).clients };
}

const managers: [string, (clients: TestReplica["clients"]) => Promise<unknown>][] = [
  ["AddMember", ({ orgs }) => orgs.addMember({ email: "new@x.example", role: MemberRole.MEMBER })],
  ["CreateOrg", ({ orgs }) => orgs.createOrg({ orgId: "late", name: "Late", ownerEmail: "new@x.example" })],
];

test.for(managers)("%s with a token that ends meanwhile waits, and makes nothing", async ([, call]) => {
  const replica = await startTestReplica(database.url);
  const ada = await joinAdmin(replica);
  const { tokens: list } = await ada.clients.tokens.listTokens({});
  const tokenId = list.find((token) => token.userId === ada.userId)!.id;
  let called: Promise<unknown> | undefined;
  await transaction(database.db, async (tx) => {
    await tokens.revoke(tx, { orgId: "local", tokenId, actor: "pinion" });
    called = call(ada.clients).catch((error: unknown) => error);
    await untilBlocked(database.db);
  });
  expect(await called).toMatchObject(ended);
  expect((await replica.clients.orgs.listMembers({})).members).toHaveLength(2);
});

test.for(managers)(
  "%s by an admin who is removed meanwhile waits, deadlocks with nobody, and makes nothing",
  async ([, call]) => {
    const replica = await startTestReplica(database.url);
    const ada = await joinAdmin(replica);
    await enrolDevice(ada.clients);
    let called: Promise<unknown> | undefined;
    await transaction(database.db, async (tx) => {
      const leaving = { orgId: "local", userId: ada.userId, actor: "pinion", caller: null };
      await removeMember(tx, { ...leaving, endsServices: false }, surroundings);
      called = call(ada.clients).catch((error: unknown) => error);
      await untilBlocked(database.db);
    });
    expect(await called).toMatchObject(ended);
    expect((await replica.clients.orgs.listMembers({})).members).toHaveLength(1);
    expect(await database.db.selectFrom("org").select("id").execute()).toEqual([{ id: "local" }]);
  },
);
