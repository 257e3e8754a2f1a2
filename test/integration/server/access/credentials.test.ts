/** The limits of a credential: a credential makes no stronger one, and nothing after its end. */
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, test } from "vitest";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { transaction } from "../../../../src/store/pg/database.ts";
import * as members from "../../../../src/usecases/members.ts";
import { useDatabase } from "../../../support/database.ts";
import { untilBlocked } from "../../../support/locks.ts";
import { surroundings } from "../../../support/surroundings.ts";
import { addDevice, addTenant, type Tenant } from "../../../support/tenants.ts";
import { type Api, startApi } from "../api.ts";

const database = useDatabase();
let api: Api;
let owner: Tenant;

beforeEach(async () => {
  owner = await addTenant(database.db, "acme");
  api = await startApi(database.db);
});
afterEach(() => api.stop());

async function addMember(name: string, scopes: string[], expiresInMs?: number) {
  const { member } = await members.add(
    database.db,
    {
      caller: null,
      requestId: "",
      orgId: "acme",
      email: `${name}@x.example`,
      name,
      role: "member",
      tokenScopes: [],
      actor: "pinion",
    },
    surroundings,
  );
  const person = { orgId: "acme", userId: member.userId };
  const { token, secret } = await tokens.issue(database.db, {
    ...person,
    kind: "pat",
    label: name,
    scopes,
    expiresInMs,
  });
  return { ...person, tokenId: token.id, secret, clients: api.as(secret) };
}

const read = { kind: TokenKind.PAT, label: "x", scopes: ["read"] };

/** The calls that create a credential, made by a person with a token. */
const makers: [string, (person: Awaited<ReturnType<typeof addMember>>) => Promise<unknown>][] = [
  ["CreateToken", ({ clients }) => clients.tokens.createToken(read)],
  ["CreateJoinCode", ({ clients }) => clients.fleet.createJoinCode({})],
  ["RotateToken", ({ clients, tokenId }) => clients.tokens.rotateToken({ tokenId })],
];

/** Valid credentials. */
async function counts() {
  const [token, code] = await Promise.all([
    database.db.selectFrom("token").select("id").where("revoked_at", "is", null).execute(),
    database.db.selectFrom("join_code").select("sha256").execute(),
  ]);
  return [token.length, code.length];
}

test.for(makers)("%s with a token that ends meanwhile waits, and makes nothing", async ([, make]) => {
  const bob = await addMember("bob", ["read", "write"]);
  await bob.clients.tokens.listTokens({}); // The guard knows the token now.
  const before = await counts();
  let made: Promise<unknown> | undefined;
  await transaction(database.db, async (tx) => {
    await tokens.revoke(tx, { orgId: "acme", tokenId: bob.tokenId, actor: "pinion" });
    made = make(bob).catch((error: unknown) => error);
    await untilBlocked(database.db);
  });
  expect(await made).toMatchObject({ code: Code.Unauthenticated });
  expect(await counts()).toEqual([before[0]! - 1, before[1]]);
});

test.for(makers)("%s by a member who leaves meanwhile waits, and makes nothing", async ([, make]) => {
  const bob = await addMember("bob", ["read", "write"]);
  await addDevice(database.db, bob);
  await bob.clients.tokens.listTokens({});
  const before = await counts();
  let made: Promise<unknown> | undefined;
  await transaction(database.db, async (tx) => {
    const leaving = { orgId: "acme", userId: bob.userId, actor: "pinion", caller: null };
    await members.remove(tx, { ...leaving, endsServices: false }, surroundings);
    made = make(bob).catch((error: unknown) => error);
    await untilBlocked(database.db);
  });
  expect(await made).toMatchObject({ code: Code.Unauthenticated });
  expect(await counts()).toEqual([before[0]! - 2, before[1]]);
});

test("a token without admin makes none that outlives it", async () => {
  const bob = await addMember("bob", ["read", "write"], 3_600_000);
  const refused = { code: Code.PermissionDenied, rawMessage: expect.stringContaining("expires_in") };
  const hours = (count: number) => durationFromMs(count * 3_600_000);
  await expect(bob.clients.tokens.createToken(read)).rejects.toMatchObject(refused);
  await expect(
    bob.clients.tokens.createToken({ ...read, kind: TokenKind.SVC, expiresIn: hours(2) }),
  ).rejects.toMatchObject(refused);
  const made = await bob.clients.tokens.createToken({ ...read, expiresIn: hours(0.5) });
  for (const tokenId of [bob.tokenId, made.token!.id]) {
    await expect(bob.clients.tokens.rotateToken({ tokenId, expiresIn: hours(2) })).rejects.toMatchObject(
      refused,
    );
  }
  await bob.clients.tokens.rotateToken({ tokenId: bob.tokenId, expiresIn: hours(0.5) });

  const admin = await addMember("ada", ["admin"], 3_600_000);
  await admin.clients.tokens.createToken(read);
});

test("a token is rotated once, also by those who do it at once", async () => {
  const bob = await addMember("bob", ["read", "write"]);
  const rotate = () => bob.clients.tokens.rotateToken({ tokenId: bob.tokenId });
  const outcomes = await Promise.allSettled([rotate(), rotate(), rotate()]);
  expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected", "rejected"]);
  await expect(rotate()).rejects.toMatchObject({
    code: Code.FailedPrecondition,
    rawMessage: expect.stringContaining("successor"),
  });
  const [first] = outcomes.filter((outcome) => outcome.status === "fulfilled");
  const next = api.as(first!.value.secret);
  await next.tokens.rotateToken({ tokenId: first!.value.token!.id });
});

test("a device's token is rotated by the device's owner alone; an admin may end it", async () => {
  const bob = await addMember("bob", ["read", "write"]);
  const eve = await addMember("eve", ["read", "write"]);
  const laptop = await addDevice(database.db, bob);
  const list = async () => (await bob.clients.tokens.listTokens({})).tokens;
  const its = (await list()).find((token) => token.deviceId === laptop.deviceId)!;
  const service = await tokens.issue(database.db, {
    orgId: "acme",
    kind: "svc",
    label: "ops",
    scopes: ["admin"],
  });
  for (const secret of [owner.secret, eve.secret, service.secret]) {
    await expect(api.as(secret).tokens.rotateToken({ tokenId: its.id })).rejects.toMatchObject({
      code: Code.PermissionDenied,
    });
  }
  const { token } = await bob.clients.tokens.rotateToken({ tokenId: its.id });
  expect(token).toMatchObject({ kind: TokenKind.DEV, deviceId: laptop.deviceId });
  await expect(eve.clients.tokens.revokeToken({ tokenId: token!.id })).rejects.toMatchObject({
    code: Code.PermissionDenied,
  });
  await api.as(owner.secret).tokens.revokeToken({ tokenId: token!.id });
});
