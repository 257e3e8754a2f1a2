/**
 * From the page to a real agent: the commands of "docs/first-agent.md" as they stand there, on a
 * real server, with the real `claude` and a scripted model. The recipes and the other agents are in
 * agents.slow.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { realAgents } from "../support/agents.ts";
import { documentedCommands } from "../support/docs.ts";
import { type AgentHome, openAgentHome, patience, reviewer } from "./agent-home.ts";

const agents = await realAgents("claude");

let at: AgentHome;
beforeAll(async () => {
  at = await openAgentHome(agents);
}, 120_000);
afterAll(() => at.close(), 60_000);

describe.skipIf(agents.claude === undefined)("claude, by the commands of the page", () => {
  const commands = documentedCommands().filter(({ page }) => page === "docs/first-agent.md");

  test.for(commands)("$page:$line $command", { timeout: patience }, async ({ command }) => {
    reviewer(at.model);
    const printed = await at.run(command);
    expect(printed).not.toMatch(/^error:|\bundefined\b|\[object Object\]/m);
  });

  test("the model was told what the org configured, and the window has the data", {
    timeout: patience,
  }, async () => {
    const told = at.model.requests.filter(({ system }) => system.includes("You review a repository."));
    expect(told[0]?.system).toContain("Never push.");
    expect(told.some(({ conversation }) => conversation.includes("What changed in the last day"))).toBe(true);
    expect(told.some(({ tools }) => tools.includes("StructuredOutput"))).toBe(true);
    expect(await at.window("digest")).toMatchObject({
      agentKind: "claude-code",
      extractedData: { kind: "device_cli_output", structured: { severity: 2 } },
    });
    const run = await at.lastRun("digest");
    expect(run).toMatchObject({ status: RunStatus.COMPLETED, attention: [], workspace: "app" });
    expect(run?.sessionId).not.toBe("");
    expect(run?.usage?.isCostAgentsOwn).toBe(true);
    // A second run receives the findings of the first run.
    reviewer(at.model);
    await at.again("digest");
    expect(at.model.requests.findLast(({ tools }) => tools.length > 3)?.conversation).toContain(
      "nothing dangerous",
    );
  });
});
