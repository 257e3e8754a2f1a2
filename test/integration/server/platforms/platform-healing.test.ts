/** Platforms as an older version stored them. */
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { createKeyring, newKey } from "../../../../src/secrets.ts";
import { secretKeys } from "../../../../src/server/platforms/kinds.ts";
import { healSecretSettings } from "../../../../src/store/agents/platform-healing.ts";
import { runCommand } from "../../../support/command.ts";
import { useDatabase } from "../../../support/database.ts";
import { webhookPlatform } from "../../../support/platforms.ts";
import { startTestReplica } from "../../../support/server.ts";

const database = useDatabase();
const address = "https://hooks.example.org/T0/very-secret";

/** The rows of the previous version: a webhook's address among the settings. */
async function addOldWebhooks(count: number): Promise<void> {
  await sql`
    insert into platform (org_id, stable_id, agent_id, kind, config, secrets, status)
    select 'local', 'hook-' || n, 'pinion-default', 'webhook',
      jsonb_build_object('url', ${address}::text, 'channel', 'ops'), '{}', 'running'
    from generate_series(1, ${count}) n`.execute(database.db);
}

test("a webhook's address that an older version listed is sealed at the next start, once, and still starts it", async () => {
  const env = { PINION_SECRET_KEYS: newKey() };
  const first = await startTestReplica(database.url, env);
  await addOldWebhooks(450);
  // Lists show the value as a secret from the first moment on, regardless of the row's author.
  const before = await first.clients.agents.listPlatforms({ pageSize: 500 });
  expect(JSON.stringify(before.platforms.map(({ config, secrets }) => ({ config, secrets })))).not.toContain(
    "very-secret",
  );
  await startTestReplica(database.url, env);
  await startTestReplica(database.url, env);
  const { rows } = await sql<{ config: object; secrets: { url: string }; version: number }>`
    select config, secrets, version from platform`.execute(database.db);
  expect(rows).toHaveLength(450);
  for (const { config, secrets, version } of rows) {
    expect(config).toEqual({ channel: "ops" });
    expect(secrets.url).toMatch(/^enc:v1:/);
    expect(version).toBe(2);
  }
  const { platforms } = await first.clients.agents.listPlatforms({ pageSize: 1 });
  expect(platforms[0]).toMatchObject({ config: { channel: "ops" }, secrets: [{ name: "url" }] });
  const events = await first.clients.events.listEvents({ kinds: ["platform.updated"], pageSize: 500 });
  expect(events.events).toHaveLength(450);
  expect(JSON.stringify(events.events.map(({ data }) => data))).not.toContain("very-secret");
  const pulled = await runCommand({ PINION_URL: first.url, PINION_TOKEN: first.token }, "pull", "-f", "-");
  const { platform } = await first.clients.agents.upsertPlatform({
    ...{ ...webhookPlatform, stableId: "hook-1", agentId: "pinion-default", config: { channel: "ops" } },
    secrets: { ...webhookPlatform.secrets, url: { kind: { case: "keep", value: true } } },
  });
  expect(platform?.status).toBe(PlatformStatus.RUNNING);
  expect(pulled.code).toBe(0);
  expect(pulled.out).not.toContain("very-secret");
});

test("without a key nothing is lost and nothing is shown", async () => {
  const replica = await startTestReplica(database.url);
  await addOldWebhooks(1);
  const again = await startTestReplica(database.url);
  const clients = createClients({ url: again.url, token: replica.token });
  onTestFinished(() => clients.close());
  const { platforms } = await clients.agents.listPlatforms({});
  expect(platforms[0]).toMatchObject({
    config: { channel: "ops" },
    secrets: [{ name: "url", reference: "" }],
  });
  const { rows } = await sql<{ config: { url: string } }>`select config from platform`.execute(database.db);
  expect(rows[0]!.config.url).toBe(address);
});

test("a secret that is there already is not overwritten by what was listed", async () => {
  const keyring = createKeyring(newKey());
  await startTestReplica(database.url);
  await addOldWebhooks(1);
  await sql`update platform set secrets = '{"url": "secret://HOOK"}'`.execute(database.db);
  expect(await healSecretSettings(database.db, { keyring, secretKeys })).toEqual({ healed: 1, left: 0 });
  const { rows } = await sql`select config, secrets from platform`.execute(database.db);
  expect(rows).toEqual([{ config: { channel: "ops" }, secrets: { url: "secret://HOOK" } }]);
});
