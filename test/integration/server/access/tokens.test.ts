import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, test } from "vitest";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { useDatabase } from "../../../support/database.ts";
import { addTenant, type Tenant } from "../../../support/tenants.ts";
import { type Api, startApi } from "../api.ts";

const database = useDatabase();
let api: Api;
let tenant: Tenant;
let mine: ReturnType<Api["as"]>;

beforeEach(async () => {
  tenant = await addTenant(database.db, "acme");
  api = await startApi(database.db);
  mine = api.as(tenant.secret);
});
afterEach(() => api.stop());

test("a token is shown once: neither lists nor events nor logs hold its secret", async () => {
  const { token, secret } = await mine.tokens.createToken({
    kind: TokenKind.PAT,
    label: "laptop",
    scopes: ["read"],
    expiresIn: { seconds: 3_600n },
  });
  expect(token).toMatchObject({
    kind: TokenKind.PAT,
    label: "laptop",
    scopes: ["read"],
    userId: tenant.userId,
  });
  expect(Math.round((timestampDate(token!.expiresAt!).getTime() - Date.now()) / 60_000)).toBe(60);
  const told = [
    await mine.tokens.listTokens({}),
    await mine.events.listEvents({}),
    api.logged,
    await database.db.selectFrom("token").selectAll().execute(),
  ];
  expect(
    JSON.stringify(told, (_key, value) => (typeof value === "bigint" ? String(value) : value)),
  ).not.toContain(secret);
  expect((await api.as(secret).tokens.listTokens({})).tokens).toHaveLength(2);
});

test("a service has no person to make a token for", async () => {
  const { secret } = await tokens.issue(database.db, {
    orgId: "acme",
    kind: "svc",
    label: "ci",
    scopes: ["write"],
  });
  await expect(
    api.as(secret).tokens.createToken({ kind: TokenKind.PAT, label: "x", scopes: ["read"] }),
  ).rejects.toMatchObject({ code: Code.FailedPrecondition });
});

test("a device's token and its scope are not to be had here", async () => {
  const make = (kind: TokenKind, scope: string) =>
    mine.tokens.createToken({ kind, label: "x", scopes: [scope] });
  await expect(make(TokenKind.DEV, "read")).rejects.toMatchObject({ code: Code.InvalidArgument });
  await expect(make(TokenKind.SVC, "device:run")).rejects.toMatchObject({ code: Code.InvalidArgument });
});

test("tokens are listed page by page, each once", async () => {
  for (let i = 0; i < 4; i++) {
    await mine.tokens.createToken({ kind: TokenKind.SVC, label: `t${i}`, scopes: ["read"] });
  }
  const seen: string[] = [];
  let pageToken = "";
  do {
    const answer = await mine.tokens.listTokens({ pageSize: 2, pageToken });
    seen.push(...answer.tokens.map((token) => token.label));
    pageToken = answer.nextPageToken;
  } while (pageToken !== "");
  expect(seen.toSorted()).toEqual(["all", "t0", "t1", "t2", "t3"]);
});
