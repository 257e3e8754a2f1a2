/**
 * Features specific to the Agent Client Protocol; the other tests are in acp.long.test.ts, because
 * each start of these agents takes seconds.
 */
import { expect, test } from "vitest";
import { QuestionOptionKind, ToolStatus } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { realAgents } from "../../support/agents.ts";
import { stage } from "./harness.ts";

const agents = await realAgents("claude-agent-acp", "codex-acp");
const patience = 90_000;

test.skipIf(agents["claude-agent-acp"] === undefined)(
  "claude by ACP: system prompt, model, schema and the result before reach the model; its answer is data",
  { timeout: patience },
  async () => {
    if (agents["claude-agent-acp"] === undefined) return;
    const on = await stage("claude-agent-acp", agents["claude-agent-acp"]);
    on.model.script(({ tools }) => ({ text: tools.length > 3 ? '{"severity":2}' : "A title" }));
    const { completion } = await on.run({
      settings: { identity: "You are the REVIEWER.", model: "claude-haiku-4-5" },
      schema: { type: "object", properties: { severity: { type: "integer" } }, required: ["severity"] },
      more: { context: { priorWindow: { result: "Yesterday: 1." } } },
    });
    expect(completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      structured: '{"severity":2}',
      attention: [],
    });
    const own = on.model.requests.find(({ tools }) => tools.length > 3);
    expect(own?.model).toContain("claude-haiku-4-5");
    expect(own?.system).toContain("You are the REVIEWER.");
    expect(own?.conversation).toContain("severity");
    expect(own?.conversation).toContain("Yesterday: 1.");
    expect(on.peer.violations).toEqual([]);
  },
);

test.skipIf(agents["codex-acp"] === undefined)(
  "codex by ACP: what it wants to do outside of its sandbox is asked, and done when a person allows it",
  { timeout: patience },
  async () => {
    if (agents["codex-acp"] === undefined) return;
    const on = await stage("codex-acp", agents["codex-acp"]);
    const input = {
      cmd: "echo outside-$((40+2))",
      command: "echo outside-$((40+2))",
      sandbox_permissions: "require_escalated",
      justification: "It needs to.",
    };
    on.model.replies({ calls: [{ name: "shell_command", input }] }, { text: "Done." });
    const assignment = on.assign();
    const asked = await on.session.next("question");
    expect(asked.question?.title).toContain("echo outside");
    const allow = asked.question?.options.find(({ kind }) => kind === QuestionOptionKind.ALLOW_ONCE);
    on.session.answer(assignment, asked.question?.id ?? "", { optionId: allow?.id ?? "" });
    const completion = await on.session.next("complete");
    expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "Done.", denials: [] });
    const [call] =
      completion.transcript?.entries.flatMap(({ body }) => (body.case === "toolCall" ? [body.value] : [])) ??
      [];
    expect(call).toMatchObject({
      status: ToolStatus.COMPLETED,
      result: expect.stringContaining("outside-42"),
    });
    expect(on.peer.violations).toEqual([]);
  },
);
