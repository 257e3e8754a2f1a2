/**
 * Real agents call the tools of Pinion's own MCP endpoint, with the token of their attempt: they
 * read the result of the run before, and ask a person. The model is scripted.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { enroll } from "@pinion/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { realAgents } from "../support/agents.ts";
import { type ConnectedDaemon, connectDaemon } from "../support/connected-daemon.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { type Model, startModel } from "../support/model.ts";
import { freePort } from "../support/programs.ts";
import { scriptedVariables, writeCodexConfig } from "../support/scripted-home.ts";
import { openTestReplica, type TestReplica } from "../support/server.ts";

const agents = await realAgents("claude", "codex");
const isSkipped = agents.claude === undefined && agents.codex === undefined;
const patience = 120_000;
const home = mkdtempSync(join(tmpdir(), "pinion-agents-mcp-"));
let database: TestDatabase;
let replica: TestReplica;
let model: Model;
let deviceId: string;
let daemon: ConnectedDaemon | undefined;

beforeAll(async () => {
  if (isSkipped) return;
  database = await createTestDatabase();
  model = await startModel();
  const port = String(await freePort());
  // The address of the endpoint stands in the settings of every new agent.
  replica = await openTestReplica(database.url, {
    PINION_PORT: port,
    PINION_PUBLIC_URL: `http://127.0.0.1:${port}`,
    PINION_HEARTBEAT_TTL_MS: "60000",
  });
  for (const folder of ["tmp", ".codex"]) mkdirSync(join(home, folder));
  writeCodexConfig({ home, modelUrl: model.url });
  const variables = scriptedVariables({ home, modelUrl: model.url });
  const set = Object.entries(variables).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  const stanza = (kind: string, command: string[] | undefined) =>
    command === undefined
      ? ""
      : `[executors.${kind}]\ntype = "${kind}"\ncommand = ${JSON.stringify(command)}\nset_env = { ${set.join(", ")} }\n`;
  const config = `[device]\nmax_concurrency = 2\n${stanza("claude-code", agents.claude?.command)}${stanza("codex", agents.codex?.command)}`;
  const { joinCode } = await replica.clients.fleet.createJoinCode({});
  const stateDir = join(home, "state");
  const enrolled = await enroll({ url: replica.url, joinCode, label: "mac-7", stateDir });
  deviceId = enrolled.deviceId;
  daemon = await connectDaemon({ url: replica.url, token: enrolled.token, stateDir, config });
}, patience);

afterAll(async () => {
  await daemon?.stop();
  await model?.close();
  await replica?.stop();
  await database?.drop();
  rmSync(home, { recursive: true, force: true });
}, 60_000);

async function watcherOf(agentKind: string): Promise<string> {
  const { clients } = replica;
  const slug = `by-${agentKind}`;
  await clients.agents.createAgent({
    agentId: slug,
    settings: { identity: "You look back." },
  });
  const spec = { name: slug, prompt: "Compare with the last run.", deviceId, agentKind, agentId: slug };
  await clients.watchers.createWatcher({ slug, spec });
  return slug;
}

/** Triggers the watcher and waits for the end of the run; returns the stored answer. */
async function run(watcherId: string): Promise<string> {
  const { clients } = replica;
  const { run: started } = await clients.watchers.triggerWatcher({ watcherId });
  const runId = started!.id;
  await expect
    .poll(async () => (await clients.runs.getRun({ runId })).run!.status, { timeout: 60_000 })
    .toBe(RunStatus.COMPLETED);
  return (await clients.runs.listWindows({ watcherId })).windows[0]!.result;
}

/**
 * The model calls a tool of the endpoint once, and then says what the tool answered. Claude is told
 * the names of such tools alone, and its model loads a tool before the call.
 */
function callsTool(name: string, input: Record<string, unknown>, says: string): void {
  model.script(({ api, tools, conversation, last }) => {
    if (tools.length <= 3) return { text: "A title" };
    const [whole, load] = [`mcp__pinion__${name}`, "ToolSearch"];
    const has = (tool: string) => conversation.includes(`"name":"${tool}"`);
    if (has(whole) || has(name)) return { text: `${says}: ${last}` };
    if (api === "openai") return { calls: [{ name, namespace: "mcp__pinion", input }] };
    if (tools.includes(load) && !tools.includes(whole) && !has(load)) {
      return { calls: [{ name: load, input: { query: `select:${whole}`, max_results: 1 } }] };
    }
    return { calls: [{ name: whole, input }] };
  });
}

const cases = [
  { kind: "claude-code", isThere: agents.claude !== undefined },
  { kind: "codex", isThere: agents.codex !== undefined },
];

test.for(cases.filter(({ isThere }) => isThere))(
  "$kind reads what its watcher's last run found, by its own token",
  { timeout: patience },
  async ({ kind }) => {
    const slug = await watcherOf(kind);
    model.replies({ text: "The door is open." });
    await run(slug);
    callsTool("last_result", {}, "Last time");
    const second = await run(slug);
    expect(second).toContain("Last time: ");
    expect(second).toContain("The door is open.");
    // The model, and with it the transcript, never sees the token.
    expect(JSON.stringify(model.requests)).not.toContain("pin_run_");
  },
);

test.skipIf(agents.claude === undefined)(
  "claude asks a person by the endpoint, and goes on with the answer",
  { timeout: patience },
  async () => {
    callsTool("ask_person", { title: "Which door?", options: ["left", "right"] }, "They said");
    const { clients } = replica;
    const running = run("by-claude-code");
    await expect
      .poll(
        async () => (await clients.runs.listQuestions({ watcherId: "by-claude-code" })).questions.length,
        {
          timeout: patience,
        },
      )
      .toBe(1);
    const [asked] = (await clients.runs.listQuestions({ watcherId: "by-claude-code" })).questions;
    const { title, options } = asked!.question!;
    expect(title).toBe("Which door?");
    const left = options.find(({ label }) => label === "left")!;
    await clients.runs.answerQuestion({
      ...{ runId: asked!.runId, questionId: asked!.question!.id, optionId: left.id },
    });
    expect(await running).toMatch(/They said: .*left/s);
  },
);
