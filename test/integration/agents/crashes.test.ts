/** The daemon, or its agent, is killed in the middle of a tool call, a question and a stream. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test } from "vitest";
import { ToolStatus } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { realAgents } from "../../support/agents.ts";
import type { ModelReply } from "../../support/model.ts";
import { Events, settledSession, startDaemon } from "../client/harness.ts";
import { livingInGroup, type Stage, stage } from "./harness.ts";

const agents = await realAgents("claude");
const patience = 90_000;

const bash = (command: string): ModelReply => ({
  calls: [{ name: "Bash", input: { command, description: "try" } }],
});

/** The moments of a run at which the daemon is killed, and the sign of each moment. */
const moments: {
  name: string;
  script: ModelReply[];
  tools: string[];
  isThere: (on: Stage) => Promise<unknown>;
}[] = [
  {
    name: "a tool call",
    script: [bash("touch begun; sleep 60"), { text: "Slept." }],
    tools: ["Bash"],
    isThere: (on) =>
      expect.poll(() => existsSync(join(on.stateDir, "work/claude/begun")), { timeout: 30_000 }).toBe(true),
  },
  {
    name: "a question",
    script: [bash("touch begun"), { text: "Done." }],
    tools: [],
    isThere: (on) => on.session.next("question"),
  },
  { name: "a stream", script: [{ hangs: true }], tools: [], isThere: (on) => on.model.asked(1) },
];

for (const { name, script, tools, isThere } of moments) {
  const { claude } = agents;
  test.skipIf(claude === undefined)(
    `a daemon that is killed in the middle of ${name} leaves nothing running once it is back`,
    { timeout: patience },
    async () => {
      if (claude === undefined) return;
      // The stage's own daemon is replaced by a daemon in a separate process.
      const on = await stage("claude", claude);
      await on.daemon.stop();
      const program = join(import.meta.dirname, "../client/daemon-process.ts");
      const options = JSON.stringify({ url: on.peer.url, stateDir: on.stateDir, config: on.config });
      const child = spawn(process.execPath, [program, options], { stdio: ["ignore", "pipe", "inherit"] });
      onTestFinished(() => {
        child.kill("SIGKILL");
      });
      const events = new Events();
      createInterface({ input: child.stdout }).on("line", (line) => events.add(JSON.parse(line)));
      on.session = await settledSession(on.peer);
      on.model.replies(...script);
      on.assign({ settings: { preApprovedTools: tools } });
      await isThere(on);
      const { pid } = await events.next("started");
      expect(livingInGroup(pid).length).toBeGreaterThan(0);
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
      startDaemon(on.peer.url, on.config, { stateDir: on.stateDir, env: on.env });
      const back = await settledSession(on.peer);
      // The new daemon does not claim an attempt that it cannot resume: the server takes the
      // attempt away.
      expect(back.hello.held).toEqual([]);
      expect(livingInGroup(pid)).toEqual([]);
      expect(readdirSync(join(on.stateDir, "attempts"))).toEqual([]);
      // And the next run is as if nothing had been.
      on.model.replies({ text: "Fine." });
      back.assign();
      expect(await back.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "Fine." });
    },
  );

  test.skipIf(claude === undefined)(
    `an agent that is killed in the middle of ${name} is a failure that says so`,
    { timeout: patience },
    async () => {
      if (claude === undefined) return;
      const on = await stage("claude", claude);
      on.model.replies(...script);
      on.assign({ settings: { preApprovedTools: tools } });
      await isThere(on);
      const { pid } = await on.daemon.events.next("started");
      process.kill(pid, "SIGKILL");
      const completion = await on.session.next("complete");
      expect(completion).toMatchObject({ outcome: Outcome.FAILED, signal: "SIGKILL" });
      expect(completion.reason).toContain("SIGKILL");
      const calls =
        completion.transcript?.entries.flatMap(({ body }) =>
          body.case === "toolCall" ? [body.value] : [],
        ) ?? [];
      for (const { status } of calls) expect(status).toBe(ToolStatus.FAILED);
      if (name === "a question") expect(await on.session.next("questionClosed")).toBeDefined();
      expect(livingInGroup(pid)).toEqual([]);
      expect(on.peer.violations).toEqual([]);
    },
  );
}

for (const { name, script, tools, isThere } of moments) {
  const { claude } = agents;
  test.skipIf(claude === undefined)(
    `a cancel in the middle of ${name} is answered once nothing of the agent is left`,
    { timeout: patience },
    async () => {
      if (claude === undefined) return;
      const on = await stage("claude", claude);
      on.model.replies(...script);
      const assignment = on.assign({ settings: { preApprovedTools: tools } });
      await isThere(on);
      const { pid } = await on.daemon.events.next("started");
      on.session.cancel(assignment);
      expect(await on.session.next("cancelled")).toMatchObject({ attemptToken: assignment.attemptToken });
      expect(livingInGroup(pid)).toEqual([]);
      if (name === "a question") expect(on.session.all("questionClosed")).toHaveLength(1);
      expect(on.session.all("complete")).toEqual([]);
      expect(on.peer.violations).toEqual([]);
    },
  );

  test.skipIf(claude === undefined)(
    `a timeout in the middle of ${name} ends the agent and its group, and is told once`,
    { timeout: patience },
    async () => {
      if (claude === undefined) return;
      const on = await stage("claude", claude);
      on.model.replies(...script);
      // The time stands still while a person is asked, here for a second at most.
      const questions = { timeout: durationFromMs(60_000), waitMax: durationFromMs(1_000) };
      on.assign({ timeoutMs: 6_000, settings: { preApprovedTools: tools }, more: { questions } });
      await isThere(on);
      const { pid } = await on.daemon.events.next("started");
      const completion = await on.session.next("complete");
      expect(completion).toMatchObject({ outcome: Outcome.TIMEOUT });
      expect(completion.retryAfter).toBeUndefined();
      expect(completion.reason).toContain("timeout");
      if (name === "a question") expect(on.session.all("questionClosed")).toHaveLength(1);
      expect(livingInGroup(pid)).toEqual([]);
      expect(on.session.all("complete")).toHaveLength(1);
      expect(on.peer.violations).toEqual([]);
    },
  );
}

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
