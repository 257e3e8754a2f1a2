/**
 * The daemon, or its agent, is killed in the middle of a tool call, a question and a stream; or the
 * attempt is cancelled, or its time is over.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test } from "vitest";
import { QuestionOptionKind, ToolStatus } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import type { AgentName, RealAgent } from "../../support/agents.ts";
import type { ModelReply } from "../../support/model-dialects.ts";
import { Events, settledSession, startDaemon } from "../client/harness.ts";
import { livingInGroup, type Stage, stage } from "./harness.ts";

const patience = 120_000;

export type Moment = "a tool call" | "a question" | "a stream";
export type Blow = "daemon" | "agent" | "cancel" | "timeout";

/** The agent's call of its tool for commands; `isOutside`: outside of the agent's sandbox. */
function shellCall(name: AgentName, command: string, isOutside = false): ModelReply {
  if (name.startsWith("claude")) return { calls: [{ name: "Bash", input: { command, description: "try" } }] };
  const escalation = { sandbox_permissions: "require_escalated", justification: "It needs to." };
  const input = { cmd: command, command, ...(isOutside ? escalation : {}) };
  return { calls: [{ name: name === "codex" ? "exec_command" : "shell_command", input }] };
}

/** A moment of a run: the model's answers up to the moment, and the sign of the moment. */
const moments: Record<
  Moment,
  { script(name: AgentName): ModelReply[]; tools: string[]; isThere(on: Stage): Promise<unknown> }
> = {
  "a tool call": {
    script: (name) => [shellCall(name, "echo begun >> begun; sleep 300"), { text: "Slept." }],
    tools: ["Bash", "execute"],
    isThere: async (on) => {
      await expect.poll(() => existsSync(begunOf(on)), { timeout: 30_000 }).toBe(true);
      await seen(on, "toolCall");
    },
  },
  "a question": {
    script: (name) => [shellCall(name, "echo begun >> begun", true), { text: "Done." }],
    tools: [],
    isThere: (on) => on.session.next("question"),
  },
  "a stream": {
    script: () => [{ text: "word ".repeat(3_000), pieceMs: 100 }],
    tools: [],
    isThere: (on) => (tellsPieces(on.name) ? seen(on, "text") : on.model.asked(1)),
  },
};

/** `claude` and `codex exec` tell a text at its end alone. */
const tellsPieces = (name: AgentName) => name.endsWith("-acp");

/** Waits until the server was told of such an activity. */
const seen = (on: Stage, kind: "toolCall" | "text") =>
  on.session.next("activity", ({ activities }) => activities.some(({ body }) => body.case === kind));

const begunOf = (on: Stage) => join(on.stateDir, "work", on.name, "begun");

/** The model's answers to the run's own requests; titles and the like are answered with a word. */
function reply(on: Stage, ...replies: ModelReply[]): void {
  let place = 0;
  on.model.script(({ tools }) => {
    if (tools.length <= 3) return { text: "A title" };
    return replies[Math.min(place++, replies.length - 1)] ?? {};
  });
}

/**
 * The living processes of the agent, its group and others: tools may run in groups of their own.
 */
function livingOf(on: Stage, group: number): string[] {
  const strangers = readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      // Without the folder of a process, the home in its environment tells its agent.
      if (readlinkSync(`/proc/${pid}/cwd`).startsWith(on.stateDir)) return true;
      return readFileSync(`/proc/${pid}/environ`, "utf8").includes(`HOME=${on.home}\0`);
    } catch {
      return false;
    }
  });
  return [...new Set([...livingInGroup(group), ...strangers])].map(commandOf);
}

/** A process with its command, for the message of a failed test. */
function commandOf(pid: string): string {
  try {
    return `${pid} ${readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")}`;
  } catch {
    return `${pid} (has ended since)`;
  }
}

/** Starts a run in the middle of `moment`. */
async function begin(on: Stage, moment: Moment, asked: Parameters<Stage["assign"]>[0] = {}) {
  const { script, tools, isThere } = moments[moment];
  reply(on, ...script(on.name));
  const assignment = on.assign({ ...asked, settings: { preApprovedTools: tools } });
  await isThere(on);
  return assignment;
}

const blows: Record<
  Blow,
  { title(moment: Moment): string; strike(on: Stage, moment: Moment): Promise<void> }
> = {
  daemon: {
    title: (moment) =>
      `a daemon that is killed in the middle of ${moment} leaves nothing running once it is back`,
    strike: async (on, moment) => {
      // The stage's own daemon is replaced by a daemon in a separate process.
      await on.daemon.stop();
      const program = join(import.meta.dirname, "../client/daemon-process.ts");
      // One installation: the second daemon finds what the first one has left by its marker.
      const { installId } = on.session.hello;
      const { stateDir, config, env } = on;
      const { url } = on.peer;
      const options = JSON.stringify({ url, stateDir, config, installId });
      const child = spawn(process.execPath, [program, options], { stdio: ["ignore", "pipe", "inherit"] });
      onTestFinished(() => {
        child.kill("SIGKILL");
      });
      const events = new Events();
      createInterface({ input: child.stdout }).on("line", (line) => events.add(JSON.parse(line)));
      on.session = await settledSession(on.peer);
      await begin(on, moment);
      const { pid } = await events.next("started");
      expect(livingInGroup(pid).length).toBeGreaterThan(0);
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
      startDaemon(url, config, { stateDir, env, installId });
      const back = await settledSession(on.peer);
      // The new daemon does not claim an attempt that it cannot resume: the server takes the
      // attempt away.
      expect(back.hello.held).toEqual([]);
      expect(livingOf(on, pid)).toEqual([]);
      expect(readdirSync(join(on.stateDir, "attempts"))).toEqual([]);
      // And the next attempt is as if nothing had been; it asks anew, and the answer to its
      // question is taken once.
      on.session = back;
      const isAsked = moment === "a question";
      reply(on, ...(isAsked ? moments[moment].script(on.name) : [{ text: "Done." }]));
      const again = on.assign();
      if (isAsked) {
        const { question } = await back.next("question");
        const option = (kind: QuestionOptionKind) => ({
          optionId: question?.options.find((each) => each.kind === kind)?.id ?? "",
        });
        back.answer(again, question?.id ?? "", option(QuestionOptionKind.ALLOW_ONCE));
        back.answer(again, question?.id ?? "", option(QuestionOptionKind.DENY_ONCE));
      }
      expect(await back.next("complete")).toMatchObject({
        ...{ outcome: Outcome.COMPLETED, resultText: "Done.", attention: [] },
        attemptToken: again.attemptToken,
      });
      if (isAsked) expect(readFileSync(begunOf(on), "utf8")).toBe("begun\n");
      expect(back.all("question")).toHaveLength(isAsked ? 1 : 0);
    },
  },
  agent: {
    title: (moment) => `an agent that is killed in the middle of ${moment} is a failure that says so`,
    strike: async (on, moment) => {
      await begin(on, moment);
      const { pid } = await on.daemon.events.next("started");
      process.kill(pid, "SIGKILL");
      const completion = await on.session.next("complete");
      expect(completion).toMatchObject({ outcome: Outcome.FAILED, signal: "SIGKILL" });
      expect(completion.reason).toContain("SIGKILL");
      const entries = completion.transcript?.entries ?? [];
      const calls = entries.flatMap(({ body }) => (body.case === "toolCall" ? [body.value] : []));
      if (moment === "a tool call") expect(calls).toHaveLength(1);
      for (const { status } of calls) expect(status).toBe(ToolStatus.FAILED);
      // The text so far is kept.
      const texts = entries.flatMap(({ body }) => (body.case === "text" ? [body.value.text] : []));
      if (moment === "a stream" && tellsPieces(on.name)) expect(texts.join()).toContain("word");
      if (moment === "a question") expect(await on.session.next("questionClosed")).toBeDefined();
      expect(livingOf(on, pid)).toEqual([]);
      expect(on.session.all("complete")).toHaveLength(1);
    },
  },
  cancel: {
    title: (moment) => `a cancel in the middle of ${moment} is answered once nothing of the agent is left`,
    strike: async (on, moment) => {
      const assignment = await begin(on, moment);
      const { pid } = await on.daemon.events.next("started");
      on.session.cancel(assignment);
      expect(await on.session.next("cancelled")).toMatchObject({ attemptToken: assignment.attemptToken });
      expect(livingOf(on, pid)).toEqual([]);
      if (moment === "a question") expect(on.session.all("questionClosed")).toHaveLength(1);
      expect(on.session.all("complete")).toEqual([]);
    },
  },
  timeout: {
    title: (moment) => `a timeout in the middle of ${moment} ends the agent and its group, and is told once`,
    strike: async (on, moment) => {
      // The time stands still while a person is asked, here for a second at most.
      const questions = { timeout: durationFromMs(60_000), waitMax: durationFromMs(1_000) };
      // claude by ACP takes seconds to start.
      const timeoutMs = on.name === "claude-agent-acp" ? 12_000 : 6_000;
      await begin(on, moment, { timeoutMs, more: { questions } });
      const { pid } = await on.daemon.events.next("started");
      const completion = await on.session.next("complete");
      expect(completion).toMatchObject({ outcome: Outcome.TIMEOUT });
      expect(completion.retryAfter).toBeUndefined();
      expect(completion.reason).toContain("timeout");
      if (moment === "a question") expect(on.session.all("questionClosed")).toHaveLength(1);
      expect(livingOf(on, pid)).toEqual([]);
      expect(on.session.all("complete")).toHaveLength(1);
    },
  },
};

/** `codex exec` asks no questions. */
export const momentsOf = (name: AgentName): Moment[] =>
  name === "codex" ? ["a tool call", "a stream"] : ["a tool call", "a question", "a stream"];

/** Defines the tests of an agent: each blow at each of its moments. */
export function crashTests(
  name: AgentName,
  agent: RealAgent | undefined,
  chosen: Partial<Record<Blow, Moment[]>>,
): void {
  for (const [blow, at] of Object.entries(chosen) as [Blow, Moment[]][]) {
    for (const moment of at) {
      const { title, strike } = blows[blow];
      test.skipIf(agent === undefined)(`${name}: ${title(moment)}`, { timeout: patience }, async () => {
        if (agent === undefined) return;
        const on = await stage(name, agent);
        await strike(on, moment);
        expect(on.peer.violations).toEqual([]);
      });
    }
  }
}
