/**
 * Each blow at each moment, by one of three agents; a killed daemon at all moments of claude. The
 * other cells are in crashes.long.test.ts.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { realAgents } from "../../support/agents.ts";
import { crashTests, momentsOf } from "./crashes.ts";
import { stage } from "./harness.ts";

const agents = await realAgents("claude", "codex", "codex-acp");
const patience = 90_000;

crashTests("claude", agents.claude, {
  daemon: momentsOf("claude"),
  agent: ["a question"],
  cancel: ["a stream"],
  timeout: ["a question"],
});
crashTests("codex", agents.codex, {
  daemon: ["a tool call"],
  agent: ["a stream"],
  cancel: ["a tool call"],
  timeout: ["a stream"],
});
crashTests("codex-acp", agents["codex-acp"], {
  daemon: ["a question"],
  agent: ["a tool call"],
  cancel: ["a question"],
  timeout: ["a tool call"],
});

test.skipIf(agents.claude === undefined)(
  "a follow-up goes on in its session also when the worktree of the first run is gone",
  { timeout: patience },
  async () => {
    if (agents.claude === undefined) return;
    const path = mkdtempSync(join(tmpdir(), "pinion-repository-"));
    mkdirSync(join(path, "src"));
    writeFileSync(join(path, "src/file"), "x");
    const git = (...args: string[]) =>
      execFileSync("git", ["-c", "user.name=T", "-c", "user.email=t@example.org", ...args], { cwd: path });
    git("init", "--quiet");
    git("add", ".");
    git("commit", "--quiet", "-m", "first");
    const on = await stage("claude", agents.claude, {
      config: `[workspaces.app]\npath = "${path}"\nmode = "worktree"`,
    });
    on.model.replies({ text: "Forty-two." });
    const first = await on.run({ prompt: "What is the answer?", more: { workspace: "app" } });
    expect(first.completion.keptWorkspace).toBeUndefined();
    expect(readdirSync(join(on.stateDir, "workspaces/app"))).toEqual([]);
    const { sessionId, workId } = first.completion;
    const more = { workspace: "app", session: { sessionId, runId: workId, isRequired: true } };
    const second = await on.run({ prompt: "And the question?", more });
    expect(second.completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      resultText: "Forty-two.",
      attention: [],
    });
    expect(on.model.requests.at(-1)?.conversation).toContain("What is the answer?");
  },
);
