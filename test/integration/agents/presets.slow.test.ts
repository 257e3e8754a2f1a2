/** Gemini CLI and opencode, by the Agent Client Protocol and with the presets of their names. */
import { expect, test } from "vitest";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { realAgents } from "../../support/agents.ts";
import { stage } from "./harness.ts";

const agents = await realAgents("gemini", "opencode");
/** The presets, with the tool that runs a command of a shell. */
const presets = [
  { type: "gemini", shell: "run_shell_command" },
  { type: "opencode", shell: "bash" },
] as const;
const patience = 90_000;

for (const { type, shell } of presets) {
  const agent = agents[type];
  test.skipIf(agent === undefined)(
    `${type}: the model is told who it is and what was asked, and its answer is the result`,
    { timeout: patience },
    async () => {
      if (agent === undefined) return;
      const on = await stage(type, agent);
      on.model.script(({ tools }) => ({ text: tools.length > 3 ? "All is well." : "A title" }));
      const { completion } = await on.run({
        prompt: "Summarise the repository.",
        settings: { identity: "You are the careful REVIEWER." },
      });
      expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "All is well." });
      expect(completion.sessionId).not.toBe("");
      const own = on.model.requests.find(({ tools }) => tools.length > 3);
      const heard = `${own?.system}\n${own?.conversation}`;
      expect(heard).toContain("You are the careful REVIEWER.");
      expect(heard).toContain("Summarise the repository.");
      expect(on.peer.violations).toEqual([]);
    },
  );

  test.skipIf(agent === undefined)(
    `${type}: what is not permitted is asked, and done when a person allows it`,
    { timeout: patience },
    async () => {
      if (agent === undefined) return;
      const on = await stage(type, agent);
      on.model.script(({ tools, isAfterTool }) => {
        if (tools.length <= 3) return { text: "A title" };
        const input = { command: "echo made-$((40+2)) > made-it", description: "try it" };
        return isAfterTool ? { text: "Made." } : { calls: [{ name: shell, input }] };
      });
      const assignment = on.assign();
      const { question } = await on.session.next("question");
      const allow = question?.options.find(({ kind }) => kind === QuestionOptionKind.ALLOW_ONCE);
      on.session.answer(assignment, question?.id ?? "", { optionId: allow?.id ?? "" });
      const completion = await on.session.next("complete");
      expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "Made.", denials: [] });
      expect(on.peer.violations).toEqual([]);
    },
  );
}
