import { Code } from "@connectrpc/connect";
import { createClients } from "@pinion/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { find } from "../../../../src/store/agents/agents.ts";
import { ensureBootstrap } from "../../../../src/store/people/orgs/orgs.ts";
import { createTestDatabase, type TestDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { addTenant } from "../../../support/tenants.ts";

let database: TestDatabase;
let replica: TestReplica;
beforeAll(async () => {
  database = await createTestDatabase();
  replica = await openTestReplica(database.url, { PINION_PUBLIC_URL: "https://pinion.example/" });
});
afterAll(async () => {
  await replica?.stop();
  replica?.clients.close();
  await database?.drop();
});

const codeOf = async (call: Promise<unknown>) =>
  call.then(
    () => "ok",
    (error: { code?: Code }) => Code[error.code!] ?? String(error),
  );
const agents = () => replica.clients.agents;
const eventsOf = async (agentId: string) =>
  (await replica.clients.events.listEvents({ pageSize: 500 })).events
    .map(({ kind, actor, data }) => ({ kind, actor, data }))
    .filter(({ data }) => data?.agent_id === agentId)
    .reverse();

test("a new agent has Pinion's MCP server from its first version on, and whoever made it owns it", async () => {
  const { agent, created } = await agents().createAgent({
    agentId: "reviewer",
    settings: { identity: "You review.", mcpServers: [{ name: "docs", url: "https://docs.example/mcp" }] },
  });
  expect(created).toBe(true);
  expect(agent).toMatchObject({ id: "reviewer", name: "reviewer", version: 1, isDefault: false });
  expect(agent!.ownerId).not.toBe("");
  expect(agent!.settings!.mcpServers).toMatchObject([
    { name: "pinion", url: "https://pinion.example/mcp", isInjected: true },
    { name: "docs", isInjected: false },
  ]);
  expect(await eventsOf("reviewer")).toMatchObject([
    { kind: "agent.created", actor: `user:${agent!.ownerId}`, data: { version: 1 } },
  ]);
});

test("the default agent of a server with a public URL has Pinion's MCP server too", async () => {
  const database = await createTestDatabase();
  await ensureBootstrap(database.db, { installedProviders: [], publicUrl: "https://pinion.example" });
  const agent = await find(database.db, { orgId: "local", agentId: "pinion-default" });
  expect(agent!.settings.mcpServers).toEqual([
    { name: "pinion", url: "https://pinion.example/mcp", isInjected: true },
  ]);
  await database.drop();
});

test("creating an agent that is there returns it, and changes nothing", async () => {
  const first = await agents().createAgent({ agentId: "same", name: "First", settings: { identity: "one" } });
  const again = await agents().createAgent({
    agentId: "same",
    name: "Second",
    settings: { identity: "two" },
  });
  expect(again).toMatchObject({ created: false });
  expect(again.agent).toEqual(first.agent);
  expect(await eventsOf("same")).toHaveLength(1);
});

test("twenty creations at once make one agent, and all see the same one", async () => {
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) => agents().createAgent({ agentId: "twenty", name: `Nr. ${i}` })),
  );
  expect(answers.filter((answer) => answer.created)).toHaveLength(1);
  expect(new Set(answers.map((answer) => answer.agent!.name)).size).toBe(1);
  expect(await eventsOf("twenty")).toHaveLength(1);
});

test("the same agent id in two orgs is two agents", async () => {
  const tenant = await addTenant(database.db, "acme");
  const theirs = createClients({ url: replica.url, token: tenant.secret });
  await agents().createAgent({ agentId: "shared", settings: { identity: "ours" } });
  const { agent, created } = await theirs.agents.createAgent({
    agentId: "shared",
    settings: { identity: "theirs" },
  });
  expect(created).toBe(true);
  expect(agent!.settings!.identity).toBe("theirs");
  await theirs.agents.deleteAgent({ agentId: "shared" });
  expect((await agents().getAgent({ agentId: "shared" })).agent!.settings!.identity).toBe("ours");
  expect(await codeOf(theirs.agents.getAgent({ agentId: "reviewer" }))).toBe("NotFound");
  expect(await codeOf(theirs.agents.updateAgentSettings({ agentId: "reviewer", name: "mine" }))).toBe(
    "NotFound",
  );
  theirs.close();
});

test.each([
  "rеviewer",
  "reviewer\u200b",
  "Reviewer",
  "re viewer",
  "-x",
  "",
  "a_b",
  "ｒeviewer",
  "a".repeat(64),
  "x\n",
])("the id %j is refused", async (agentId) => {
  expect(await codeOf(agents().createAgent({ agentId }))).toBe("InvalidArgument");
});

test("an update replaces what the mask names, clears what is named and not set, and leaves the rest", async () => {
  const agentId = "masked";
  await agents().createAgent({
    agentId,
    settings: { identity: "one", model: "m", guardrails: ["g"], preApprovedTools: ["t"] },
  });
  const { agent, changedFields } = await agents().updateAgentSettings({
    agentId,
    settings: { identity: "two", model: "not named" },
    updateMask: { paths: ["identity", "guardrails", "pre_approved_tools"] },
  });
  expect(changedFields.sort()).toEqual(["guardrails", "identity", "pre_approved_tools"]);
  expect(agent).toMatchObject({
    version: 2,
    settings: { identity: "two", model: "m", guardrails: [], preApprovedTools: [] },
  });
  expect(await codeOf(agents().updateAgentSettings({ agentId, updateMask: { paths: ["nonsense"] } }))).toBe(
    "InvalidArgument",
  );
  expect(await codeOf(agents().updateAgentSettings({ agentId }))).toBe("InvalidArgument");
});

test("no limit on hosts and no host at all are two things", async () => {
  const agentId = "egress";
  await agents().createAgent({ agentId, settings: { egressConfig: {} } });
  const read = async () => (await agents().getAgent({ agentId })).agent!;
  expect((await read()).settings!.egressConfig).toMatchObject({ allowedHosts: [] });
  await agents().updateAgentSettings({ agentId, settings: {}, updateMask: { paths: ["egress_config"] } });
  expect((await read()).settings!.egressConfig).toBeUndefined();
  expect((await read()).version).toBe(2);
});

test("an update that changes nothing makes no version and no event, and settings that were read can be sent back", async () => {
  const agentId = "still";
  const { agent } = await agents().createAgent({
    agentId,
    name: "Still",
    settings: { identity: "x", mcpServers: [{ name: "a" }], egressConfig: {} },
  });
  const answer = await agents().updateAgentSettings({
    agentId,
    settings: agent!.settings!,
    updateMask: { paths: ["*"] },
    name: "Still",
    ownerId: agent!.ownerId,
    isDefault: false,
  });
  expect(answer.changedFields).toEqual([]);
  expect(answer.agent).toEqual(agent);
  expect(await eventsOf(agentId)).toHaveLength(1);
});

test("Pinion's own MCP server cannot be taken away, replaced or forged", async () => {
  const agentId = "injected";
  await agents().createAgent({ agentId });
  const update = (mcpServers: { name: string; url?: string; isInjected?: boolean }[]) =>
    agents().updateAgentSettings({
      agentId,
      settings: { mcpServers },
      updateMask: { paths: ["mcp_servers"] },
    });
  const { agent } = await update([{ name: "evil", url: "https://evil.example", isInjected: true }]);
  expect(agent!.settings!.mcpServers).toMatchObject([{ name: "pinion", isInjected: true }]);
  expect(await codeOf(update([{ name: "pinion", url: "https://evil.example" }]))).toBe("InvalidArgument");
  expect(await codeOf(update([{ name: "a" }, { name: "a" }]))).toBe("InvalidArgument");
  expect(await codeOf(update([{ name: "a", url: "https://me:hunter2@example.org" }]))).toBe(
    "InvalidArgument",
  );
});

test("a dry run answers as if, and leaves nothing behind", async () => {
  const dry = await agents().createAgent({ agentId: "dry", settings: { identity: "x" }, dryRun: true });
  expect(dry).toMatchObject({ created: true, agent: { id: "dry", version: 1 } });
  expect(await codeOf(agents().getAgent({ agentId: "dry" }))).toBe("NotFound");
  await agents().createAgent({ agentId: "dry" });
  const answer = await agents().updateAgentSettings({
    agentId: "dry",
    settings: { model: "m" },
    updateMask: { paths: ["model"] },
    dryRun: true,
  });
  expect(answer).toMatchObject({ changedFields: ["model"], agent: { version: 2, settings: { model: "m" } } });
  expect((await agents().getAgent({ agentId: "dry" })).agent).toMatchObject({
    version: 1,
    settings: { model: "" },
  });
  expect(await eventsOf("dry")).toHaveLength(1);
});

test("different updates at once all take effect, one version after the other", async () => {
  const agentId = "busy";
  await agents().createAgent({ agentId });
  const paths = ["identity", "model", "guardrails", "pre_approved_tools", "installed_providers"];
  const settings = {
    identity: "i",
    model: "m",
    guardrails: ["g"],
    preApprovedTools: ["t"],
    installedProviders: ["p"],
  };
  await Promise.all(
    paths.map((path) => agents().updateAgentSettings({ agentId, settings, updateMask: { paths: [path] } })),
  );
  expect((await agents().getAgent({ agentId })).agent).toMatchObject({ version: 6, settings });
  expect(
    await codeOf(
      agents().updateAgentSettings({
        agentId,
        settings: { model: "late" },
        updateMask: { paths: ["model"] },
        expectedVersion: 5,
      }),
    ),
  ).toBe("Aborted");
});

test("the default agent cannot be deleted until another one is the default", async () => {
  await agents().createAgent({ agentId: "heir" });
  expect(await codeOf(agents().deleteAgent({ agentId: "pinion-default" }))).toBe("FailedPrecondition");
  expect(await codeOf(agents().updateAgentSettings({ agentId: "pinion-default", isDefault: false }))).toBe(
    "FailedPrecondition",
  );
  const { agent } = await agents().updateAgentSettings({ agentId: "heir", isDefault: true });
  expect(agent).toMatchObject({ isDefault: true, version: 1 });
  expect((await agents().getAgent({})).agent!.id).toBe("heir");
  await agents().updateAgentSettings({ agentId: "pinion-default", isDefault: true });
  await agents().deleteAgent({ agentId: "heir" });
  expect(await codeOf(agents().deleteAgent({ agentId: "heir" }))).toBe("NotFound");
});

test("a run carries the agent as it was when the run was materialized, also if the agent is gone by then", async () => {
  const { clients, url } = replica;
  const agentId = "snapshot";
  await agents().createAgent({ agentId, name: "Before", settings: { identity: "before" } });
  const device = await enrolDevice(clients);
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Snapshot", prompt: "x", agentId, deviceId: device.deviceId },
  });
  const trigger = () => clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  // The device is away: the run is there and waits.
  await trigger();
  await agents().updateAgentSettings({
    agentId,
    name: "After",
    settings: { identity: "after" },
    updateMask: { paths: ["identity"] },
  });
  await agents().deleteAgent({ agentId });
  const stream = await connect(url, device);
  const first = await stream.next("assignment");
  expect(first.agent).toMatchObject({
    id: agentId,
    name: "Before",
    version: 1,
    settings: { identity: "before" },
  });
  stream.accept(first);
  await stream.complete(first, "done");
  expect((await clients.runs.getRun({ runId: first.workId })).run!.status).toBe(RunStatus.COMPLETED);

  expect(await codeOf(trigger())).toBe("FailedPrecondition");
  const { agent } = await agents().createAgent({ agentId, name: "Again", settings: { identity: "again" } });
  // The new agent continues the version numbers of the deleted one.
  expect(agent!.version).toBe(3);
  await trigger();
  const second = await stream.next("assignment");
  expect(second.agent).toMatchObject({ name: "Again", version: 3, settings: { identity: "again" } });
});

test("without its agent a watcher's slots are skipped as no_executor, and they fire again when it is back", async () => {
  const { clients, url } = replica;
  const agentId = "gone";
  await agents().createAgent({ agentId });
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Gone", prompt: "x", agentId, deviceId: device.deviceId, schedule: "* * * * * *" },
  });
  await agents().deleteAgent({ agentId });
  const runs = async () => (await clients.runs.listRuns({ watcherId: watcher!.id })).runs;
  await expect
    .poll(async () => (await runs()).some((run) => run.skipReason === SkipReason.NO_EXECUTOR), {
      timeout: 10_000,
    })
    .toBe(true);
  await agents().createAgent({ agentId });
  const assignment = await stream.next("assignment");
  expect(assignment.watcher!.id).toBe(watcher!.id);
});

test("only an admin makes, changes and deletes agents and touches platforms", async () => {
  const secretOf = async (scopes: string[]) =>
    (await replica.clients.tokens.createToken({ label: "t", kind: TokenKind.SVC, scopes })).secret;
  const outcomes = async (scopes: string[]) => {
    const clients = createClients({ url: replica.url, token: await secretOf(scopes) });
    const { agents } = clients;
    const codes = [
      await codeOf(agents.listAgents({})),
      await codeOf(agents.listPlatforms({})),
      await codeOf(agents.createAgent({ agentId: "scoped" })),
      await codeOf(agents.updateAgentSettings({ agentId: "scoped", name: "x" })),
      await codeOf(agents.upsertPlatform({ stableId: "p", agentId: "scoped", kind: "nonsense" })),
      await codeOf(agents.startPlatform({ stableId: "none" })),
      await codeOf(agents.stopPlatform({ stableId: "none" })),
      await codeOf(agents.deletePlatform({ stableId: "none" })),
      await codeOf(agents.deleteAgent({ agentId: "none" })),
    ];
    clients.close();
    return codes;
  };
  const no = "PermissionDenied";
  expect(await outcomes(["read"])).toEqual(["ok", "ok", no, no, no, no, no, no, no]);
  expect(await outcomes(["write"])).toEqual(["ok", "ok", no, no, no, no, no, no, no]);
  const none = "NotFound";
  expect(await outcomes(["admin"])).toEqual([
    "ok",
    "ok",
    "ok",
    "ok",
    "InvalidArgument",
    none,
    none,
    none,
    none,
  ]);
});
