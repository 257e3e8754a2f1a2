import { expect, test } from "vitest";
import * as agents from "../../../src/store/agents/agents.ts";
import * as credentials from "../../../src/store/people/credentials/credentials.ts";
import * as defaultAgents from "../../../src/store/people/orgs/default-agents.ts";
import * as orgs from "../../../src/store/people/orgs/orgs.ts";
import { secretHash } from "../../../src/values/ids.ts";
import { useDatabase } from "../../support/database.ts";

const database = useDatabase();

test("of replicas that start at once on an empty database, one bootstraps it and learns the token", async () => {
  const { db } = database;
  const results = await Promise.all(Array.from({ length: 6 }, () => orgs.ensureBootstrap(db)));
  const winners = results.filter((result) => result !== undefined);
  expect(winners).toHaveLength(1);

  const [credential] = await credentials.findByHashes(db, [secretHash(winners[0]!.secret)]);
  expect(credential).toMatchObject({
    orgId: "local",
    kind: "pat",
    userId: winners[0]!.userId,
    scopes: ["read", "write", "admin"],
  });
  const agentId = await defaultAgents.findDefaultAgentId(db, { orgId: "local" });
  const agent = await agents.get(db, { orgId: "local", agentId: agentId! });
  expect(agent).toMatchObject({ id: "pinion-default", version: 1, ownerId: winners[0]!.userId });
  expect(agent.settings.identity).toContain("do not invent");
  const members = await db.selectFrom("member").selectAll().execute();
  expect(members).toMatchObject([{ org_id: "local", role: "owner" }]);
});

test("a first start whose token could not be kept has not happened", async () => {
  const { db } = database;
  const failing = orgs.ensureBootstrap(db, undefined, () => {
    throw new Error("disk full");
  });
  await expect(failing).rejects.toThrow("disk full");
  const kept: string[] = [];
  const result = await orgs.ensureBootstrap(db, undefined, (secret) => kept.push(secret));
  expect(kept).toEqual([result!.secret]);
});

test("a later start changes nothing, also after a person deleted the agent", async () => {
  const { db } = database;
  await orgs.ensureBootstrap(db);
  await db.deleteFrom("agent").execute();
  expect(await orgs.ensureBootstrap(db)).toBeUndefined();
  expect(await db.selectFrom("agent").select("id").execute()).toEqual([]);
});

test("an agent that exists is left as it is", async () => {
  const { db } = database;
  await orgs.ensureBootstrap(db);
  const options = { orgId: "local", agentId: "helper", ownerId: null };
  expect(await agents.ensure(db, { ...options, name: "First", settings: { identity: "a" } })).toBe(true);
  expect(await agents.ensure(db, { ...options, name: "Second", settings: { identity: "b" } })).toBe(false);
  expect(await agents.get(db, options)).toMatchObject({ name: "First", settings: { identity: "a" } });
  await expect(agents.get(db, { ...options, orgId: "other" })).rejects.toMatchObject({ reason: "not_found" });
});
