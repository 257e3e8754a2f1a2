/** The state of secrets without their values, and the operator's list of orgs. */
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { SecretHolder } from "#gen/pinion/v1/org_pb.js";
import { runCommand } from "../../../support/command.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { startTelegram, type TestTelegram } from "../../../support/telegram.ts";

const database = useDatabase({ per: "file" });
let replica: TestReplica;
let telegram: TestTelegram;

beforeAll(async () => {
  telegram = await startTelegram();
  replica = await openTestReplica(database.url, {
    PINION_DESTINATION_NETWORKS: "127.0.0.1",
    PINION_SECRET_KEYS: `k1:${Buffer.alloc(32, 7).toString("base64")}`,
    PINION_SECRET_BOT: telegram.token,
  });
});
afterAll(async () => {
  await replica?.stop();
  await telegram?.[Symbol.asyncDispose]();
});

const list = async () => (await replica.clients.orgs.listSecrets({})).secrets;
const named = async (holderName: string) =>
  (await list()).find((secret) => secret.holderName === holderName)!;

test("each secret has its holder, versions and moments; its value is in no answer", async () => {
  const { destinations, hooks, agents, watchers } = replica.clients;
  const { watcher } = await watchers.createWatcher({ slug: "look", spec: { name: "Look", prompt: "look" } });
  const hook = await hooks.createHook({
    slug: "posted",
    spec: { watcherId: watcher!.id, kind: HookKind.BEARER },
  });
  await destinations.createDestination({
    slug: "ops",
    spec: { name: "Ops", kind: { case: "webhook", value: { url: "http://127.0.0.1:9/" } } },
  });
  const upsert = (value: string) =>
    agents.upsertPlatform({
      ...{ stableId: "chat", agentId: "pinion-default", kind: "telegram" },
      config: { api_url: telegram.url, allow_from: "*" },
      secrets: { bot_token: { kind: { case: "value", value } } },
    });
  await upsert(telegram.token);
  const state = (await list()).map(({ holder, holderName, name, version, keyId, problem }) => ({
    ...{ holder, holderName, name, version, keyId, problem },
  }));
  expect(state).toEqual([
    {
      ...{ holder: SecretHolder.DESTINATION, holderName: "ops", name: "signing_secret" },
      ...{ version: 1, keyId: "k1", problem: "" },
    },
    {
      ...{ holder: SecretHolder.HOOK, holderName: "posted", name: "secret" },
      ...{ version: 1, keyId: "k1", problem: "" },
    },
    {
      ...{ holder: SecretHolder.PLATFORM, holderName: "chat", name: "bot_token" },
      ...{ version: 1, keyId: "k1", problem: "" },
    },
  ]);

  // The same value again is no new version; another value is.
  const first = (await named("chat")).setAt;
  await upsert(telegram.token);
  expect(await named("chat")).toMatchObject({ version: 1, setAt: first });
  await upsert("secret://BOT");
  expect(await named("chat")).toMatchObject({
    version: 2,
    reference: "secret://BOT",
    keyId: "",
    problem: "",
  });
  const rotatedHook = await hooks.rotateHookSecret({ hookId: "posted" });
  expect(await named("posted")).toMatchObject({ version: 2, pastGoodUntil: expect.anything() });
  await destinations.rotateDestinationSecret({ destinationId: "ops" });
  expect(await named("ops")).toMatchObject({ version: 2, pastGoodUntil: expect.anything() });

  expect((await named("posted")).lastUsedAt).toBeUndefined();
  await fetch(`${replica.url}${hook.url}`, {
    ...{ method: "POST", body: "{}", headers: { authorization: `Bearer ${rotatedHook.secret}` } },
  });
  expect((await named("posted")).lastUsedAt).toBeDefined();

  const answer = JSON.stringify(await list(), (_key, value) =>
    typeof value === "bigint" ? `${value}` : value,
  );
  for (const secret of [hook.secret, rotatedHook.secret, telegram.token, "enc:v1:"]) {
    expect(answer).not.toContain(secret);
  }
  // Pages of one have the same secrets.
  const paged: string[] = [];
  let pageToken = "";
  do {
    const page = await replica.clients.orgs.listSecrets({ pageSize: 1, pageToken });
    paged.push(...page.secrets.map(({ holderName }) => holderName));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(paged).toEqual(["ops", "posted", "chat"]);
});

test("a secret whose key or reference is missing says so, and what to do", async () => {
  await sql`update destination set secrets = jsonb_build_object('signing_secret',
    replace(secrets ->> 'signing_secret', 'enc:v1:k1:', 'enc:v1:gone:')) where slug = 'ops'`.execute(
    database.db,
  );
  await sql`update platform set secrets = '{"bot_token": "secret://NOWHERE"}'`.execute(database.db);
  expect((await named("ops")).problem).toMatch(/no key "gone".*PINION_SECRET_KEYS/);
  expect((await named("chat")).problem).toMatch(/no secret:\/\/NOWHERE.*PINION_SECRET_NOWHERE/);
  const typed = await runCommand(
    { PINION_URL: replica.url, PINION_TOKEN: replica.token },
    ...["secrets", "list"],
  );
  expect(typed.out).toMatch(/signing_secret\s+destination ops\s+unusable\s+2/);
  expect(typed.err).toContain("PINION_SECRET_NOWHERE");
});

test("a device names the secrets of its executors, and no more", async () => {
  const identity = await enrolDevice(replica.clients, "box");
  await connect(replica.url, identity, {
    agentKinds: ["claude-code"],
    executors: [{ kind: "claude-code", type: "claude-code", secretNames: ["ANTHROPIC_API_KEY"] }],
  });
  const { device } = await replica.clients.fleet.getDevice({ deviceId: identity.deviceId });
  expect(device!.executors[0]!.secretNames).toEqual(["ANTHROPIC_API_KEY"]);
});

test("the operator's admins list all orgs; nobody else learns of another org", async () => {
  const { orgs } = replica.clients;
  const { secret } = await orgs.createOrg({ orgId: "acme", name: "Acme", ownerEmail: "ada@acme.example" });
  expect((await orgs.listOrgs({})).orgs.map(({ id, name }) => [id, name])).toEqual([
    ["acme", "Acme"],
    ["local", "Local"],
  ]);
  const theirs = createClients({ url: replica.url, token: secret });
  await expect(theirs.orgs.listOrgs({})).rejects.toThrow(/only an admin of the operator's org/);
  expect((await theirs.orgs.listSecrets({})).secrets).toEqual([]);
  const typed = await runCommand(
    { PINION_URL: replica.url, PINION_TOKEN: replica.token },
    ...["orgs", "list"],
  );
  expect(typed.out).toMatch(/acme\s+Acme\s+pinion-default/);
});
