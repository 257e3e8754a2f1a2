/**
 * The commands of "docs/recipes.md" as they stand there, with the agent of "docs/first-agent.md",
 * on a real server, with the real `claude` and a scripted model; then a watcher with `codex`, and
 * by the Agent Client Protocol. agents.test.ts has the way from the page to the first agent.
 */
import { hostname } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttentionReason, QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { realAgents } from "../support/agents.ts";
import { documentedCommands } from "../support/docs.ts";
import { type AgentHome, openAgentHome, patience, reviewer } from "./agent-home.ts";

const agents = await realAgents("claude", "codex", "claude-agent-acp");

let at: AgentHome;
beforeAll(async () => {
  at = await openAgentHome(agents);
  const creation = documentedCommands().find(({ command }) =>
    command.includes("pinion agents create reviewer "),
  );
  await at.run(creation!.command);
}, 120_000);
afterAll(() => at.close(), 60_000);

describe.skipIf(agents.claude === undefined)("claude, by the commands of the recipes", () => {
  const commands = documentedCommands().filter(({ page }) => page === "docs/recipes.md");

  test.for(commands)("$page:$line $command", { timeout: patience }, async ({ command }) => {
    reviewer(at.model);
    const printed = await at.run(command);
    expect(printed).not.toMatch(/^error:|\bundefined\b|\[object Object\]/m);
  });
});

test.skipIf(agents.codex === undefined)(
  "codex: the same watcher by another executor",
  { timeout: patience },
  async () => {
    reviewer(at.model);
    await at.clients.agents.createAgent({
      agentId: "coder",
      settings: { identity: "You code.", model: "scripted-9" },
    });
    await at.run(
      `pinion watchers create by-codex --agent coder --agent-kind codex --device "${hostname()}" --workspace app --schema schema.json --prompt "Rate it."`,
    );
    await at.again("by-codex");
    expect(await at.window("by-codex")).toMatchObject({
      agentKind: "codex",
      extractedData: { structured: { severity: 2 } },
    });
    const asked = at.model.requests.findLast(({ api }) => api === "openai");
    expect(asked).toMatchObject({ model: "scripted-9", system: expect.stringContaining("You code.") });
  },
);

test.skipIf(agents["claude-agent-acp"] === undefined)(
  "acp: a tool that is not pre-approved is asked, answered on the command line, and done",
  { timeout: patience },
  async () => {
    at.model.script(({ tools, isAfterTool, last }) => {
      if (tools.length <= 3) return { text: "A title" };
      if (isAfterTool) return { text: `Done: ${last}` };
      return {
        calls: [{ name: "Bash", input: { command: "touch made-it && echo made", description: "make" } }],
      };
    });
    await at.clients.agents.createAgent({ agentId: "asker", settings: {} });
    await at.run(
      `pinion watchers create by-acp --agent asker --agent-kind by-acp --device "${hostname()}" --workspace app --prompt "Make it."`,
    );
    await at.run("pinion watchers trigger by-acp");
    await expect.poll(async () => (await at.lastRun("by-acp"))?.openQuestions, { timeout: 60_000 }).toBe(1);
    const asked = await at.run("pinion runs questions");
    expect(asked).toContain("touch made-it");
    const id = (await at.lastRun("by-acp"))?.id ?? "";
    const { questions } = await at.clients.runs.listQuestions({ runId: id });
    const allow = questions[0]?.question?.options.find(({ kind }) => kind === QuestionOptionKind.ALLOW_ONCE);
    await at.run(`pinion runs answer ${id} ${allow?.id}`);
    await expect
      .poll(async () => (await at.lastRun("by-acp"))?.status, { timeout: 60_000 })
      .toBe(RunStatus.COMPLETED);
    const done = await at.lastRun("by-acp");
    expect(done?.attention).not.toContain(AttentionReason.PERMISSION_DENIED);
    expect(done?.keptWorkspace).toMatchObject({ name: "app", changedFiles: 1 });
    expect(await at.window("by-acp")).toMatchObject({ result: expect.stringContaining("made") });
  },
);
