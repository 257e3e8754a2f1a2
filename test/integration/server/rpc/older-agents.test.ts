/** Default agents of orgs that an older version of Pinion made. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import * as agentEdits from "../../../../src/store/agents/agent-edits.ts";
import * as agents from "../../../../src/store/agents/agents.ts";
import * as defaultAgents from "../../../../src/store/people/orgs/default-agents.ts";
import * as orgs from "../../../../src/store/people/orgs/orgs.ts";
import { useDatabase } from "../../../support/database.ts";
import { startTestReplica } from "../../../support/server.ts";

const database = useDatabase();

test("an older default agent gets its owner and providers when a replica starts, and keeps what a person changed", async () => {
  const { db } = database;
  const bootstrap = await orgs.ensureBootstrap(db);
  // The state left by an older version.
  await sql`update org set metadata = metadata - 'default_agent_at'`.execute(db);
  await sql`update agent set owner_id = null, name = 'Mine'`.execute(db);
  await sql`update agent_revision set name = 'Mine', settings = '{"identity": "changed", "model": "m"}'`.execute(
    db,
  );
  const started = await Promise.all(
    [1, 2].map(() => startTestReplica(database.url, { ANTHROPIC_API_KEY: "x" })),
  );
  const read = async () =>
    (
      await sql`
      select a.owner_id, a.version, r.name, r.settings from agent a
      join agent_revision r on (r.org_id, r.agent_id, r.version) = (a.org_id, a.id, a.version)`.execute(db)
    ).rows;
  const healed = {
    owner_id: bootstrap!.userId,
    version: 2,
    name: "Mine",
    settings: { identity: "changed", model: "m", installedProviders: ["anthropic"] },
  };
  expect(await read()).toEqual([healed]);
  const { events } = await started[0]!.clients.events.listEvents({ kinds: ["agent."] });
  expect(events).toMatchObject([{ actor: "pinion", data: { changed: ["owner_id", "installed_providers"] } }]);

  // Providers and agents removed by a person afterwards stay removed.
  await sql`update agent_revision set settings = settings - 'installedProviders'`.execute(db);
  expect(
    await defaultAgents.provisionDefaultAgents(db, { installedProviders: ["anthropic", "openai"] }),
  ).toBe(0);
  await sql`delete from agent`.execute(db);
  expect(await defaultAgents.provisionDefaultAgents(db, { installedProviders: ["anthropic"] })).toBe(0);
  expect(await read()).toEqual([]);
});

test("providers that a person took out of an older default agent stay out", async () => {
  const { db } = database;
  await orgs.ensureBootstrap(db, { installedProviders: ["openai"] });
  // The state left by an older version, which did not note that the providers had been filled in.
  await sql`update org set metadata = metadata - 'default_providers_at'`.execute(db);
  const { agent } = await agentEdits.update(db, {
    orgId: "local",
    agentId: "pinion-default",
    actor: "user:me",
    expectedVersion: 0,
    isDryRun: false,
    change: (current) => ({ ...current, settings: { ...current.settings, installedProviders: [] } }),
  });
  expect(agent.version).toBe(2);
  expect(await defaultAgents.provisionDefaultAgents(db, { installedProviders: ["anthropic"] })).toBe(0);
  const after = await agents.get(db, { orgId: "local", agentId: "pinion-default" });
  expect(after).toMatchObject({ version: 2, settings: { installedProviders: [] } });
});

test("an org without a default agent that no version has provided for gets one, once", async () => {
  const { db } = database;
  const bootstrap = await orgs.ensureBootstrap(db);
  await sql`insert into org (id, name) values ('older', 'Older')`.execute(db);
  await sql`insert into member (org_id, user_id, role) values ('older', ${bootstrap!.userId}, 'owner')`.execute(
    db,
  );
  const provision = () => defaultAgents.provisionDefaultAgents(db, { installedProviders: [] });
  expect((await Promise.all([provision(), provision()])).sort()).toEqual([0, 1]);
  const agent = await db
    .selectFrom("agent")
    .selectAll()
    .where("org_id", "=", "older")
    .executeTakeFirstOrThrow();
  expect(agent).toMatchObject({ id: "pinion-default", owner_id: bootstrap!.userId });
  expect(await defaultAgents.findDefaultAgentId(db, { orgId: "older" })).toBe("pinion-default");
  await db.deleteFrom("agent").where("org_id", "=", "older").execute();
  expect(await provision()).toBe(0);
});
