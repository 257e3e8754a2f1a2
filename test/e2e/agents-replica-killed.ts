/**
 * A replica is killed while real agents are in the middle of something: nothing is lost, and
 * nothing is done twice.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClients, enroll } from "@pinion/client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { QuestionState, type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { AgentName, RealAgent } from "../support/agents.ts";
import { type ConnectedDaemon, connectDaemon } from "../support/connected-daemon.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { type Model, startModel } from "../support/model.ts";
import type { ModelReply } from "../support/model-dialects.ts";
import { type PinionProcess, startPinion } from "../support/processes.ts";
import { freePort } from "../support/programs.ts";
import { scriptedVariables, writeCodexConfig } from "../support/scripted-home.ts";
import { ownerToken } from "../support/server.ts";

const patience = 90_000;

/** The device's executor of each agent. */
const EXECUTORS = {
  claude: 'type = "claude-code"',
  codex: 'type = "codex"',
  "codex-acp": 'type = "acp"\npreset = "codex-acp"',
} satisfies Partial<Record<AgentName, string>>;

/** Defines the test of one agent. */
export function replicaKilledTest(name: keyof typeof EXECUTORS, agent: RealAgent | undefined): void {
  describe(name, () => testOf(name, agent));
}

function testOf(kind: keyof typeof EXECUTORS, agent: RealAgent | undefined): void {
  const executor = EXECUTORS[kind];
  // `codex exec` asks no questions.
  const asks = kind !== "codex";
  /** The agent's call of its tool for commands; `isOutside`: outside of the agent's sandbox. */
  const shell = (command: string, isOutside = false): ModelReply => {
    if (kind === "claude") return { calls: [{ name: "Bash", input: { command, description: "try" } }] };
    const escalation = { sandbox_permissions: "require_escalated", justification: "It needs to." };
    const input = { cmd: command, command, ...(isOutside ? escalation : {}) };
    return { calls: [{ name: kind === "codex" ? "exec_command" : "shell_command", input }] };
  };
  const home = mkdtempSync(join(tmpdir(), "pinion-replica-killed-"));
  const work = join(home, "state/work", kind);
  let database: TestDatabase;
  let model: Model;
  let clients: ReturnType<typeof createClients>;
  let port: string;
  let daemon: ConnectedDaemon | undefined;

  /** A replica in its own process, at the address shared by all replicas of the test. */
  async function startReplica(): Promise<PinionProcess> {
    const server = startPinion(["serve", "--json", "--port", port, "--data", join(home, "server")], {
      // Longer than a replica takes to start on a busy machine: nothing is to be reaped.
      PINION_HEARTBEAT_TTL_MS: "60000",
      DATABASE_URL: database.url,
    });
    await server.line(/"url"/);
    return server;
  }

  beforeAll(async () => {
    if (agent === undefined) return;
    database = await createTestDatabase();
    model = await startModel();
    port = String(await freePort());
    clients = createClients({ url: `http://127.0.0.1:${port}`, token: await ownerToken(database.url) });
    mkdirSync(join(home, "tmp"));
    mkdirSync(join(home, ".codex"));
    writeCodexConfig({ home, modelUrl: model.url });
  }, 60_000);

  afterAll(async () => {
    await daemon?.stop();
    clients?.close();
    await model?.close();
    await database?.drop();
    rmSync(home, { recursive: true, force: true });
  }, 60_000);

  /** Enrols a device with the agent and starts its daemon, at the first replica. */
  async function startDaemon(): Promise<void> {
    if (agent === undefined) return;
    const url = `http://127.0.0.1:${port}`;
    const { joinCode } = await clients.fleet.createJoinCode({});
    const stateDir = join(home, "state");
    const { token } = await enroll({ url, joinCode, label: "mac-7", stateDir });
    const variables = scriptedVariables({ home, modelUrl: model.url });
    const set = Object.entries(variables).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
    const config = `[device]\nmax_concurrency = 3\n[executors.${kind}]\n${executor}\ncommand = ${JSON.stringify(agent.command)}\nset_env = { ${set.join(", ")} }\n`;
    daemon = await connectDaemon({
      ...{ url, token, stateDir, config },
      timing: { backoffBaseMs: 50, backoffCapMs: 500 },
    });
  }

  /** A run of the watcher `slug`, whose prompt for the agent is `slug`. */
  async function startRun(slug: string, preApprovedTools: string[]): Promise<Run> {
    await clients.agents.createAgent({ agentId: slug, settings: { preApprovedTools } });
    const { devices } = await clients.fleet.listDevices({});
    const deviceId = devices[0]?.id ?? "";
    await clients.watchers.createWatcher({
      slug,
      spec: { name: slug, prompt: `Do ${slug}.`, agentId: slug, agentKind: kind, deviceId },
    });
    const { run } = await clients.watchers.triggerWatcher({ watcherId: slug });
    if (run === undefined) throw new Error("no run");
    return run;
  }

  /** Two people at once: one answer is accepted, and the other person gets an error. */
  async function answerTwice({ id: runId }: Run): Promise<void> {
    const { questions } = await clients.runs.listQuestions({ runId });
    expect(questions).toMatchObject([{ state: QuestionState.OPEN }]);
    const asked = questions[0]?.question;
    const allow = asked?.options.find(({ kind }) => kind === QuestionOptionKind.ALLOW_ONCE);
    const answer = () =>
      clients.runs.answerQuestion({ runId, questionId: asked?.id ?? "", optionId: allow?.id ?? "" });
    const answers = await Promise.allSettled([answer(), answer()]);
    expect(answers.filter(({ status }) => status === "fulfilled").length).toBeGreaterThanOrEqual(1);
  }

  const get = async ({ id }: Run) => (await clients.runs.getRun({ runId: id })).run;

  test.skipIf(agent === undefined)(
    `a replica that is killed in the middle of a tool call${asks ? ", a question" : ""} and a stream loses none of them, and each run ends once`,
    { timeout: patience },
    async () => {
      const first = await startReplica();
      await startDaemon();
      const streaming = Promise.withResolvers<void>();
      const goOn = Promise.withResolvers<void>();
      model.script(async ({ isAfterTool, tools, conversation }) => {
        if (tools.length <= 3) return { text: "A title" };
        if (isAfterTool) return { text: "All done." };
        if (conversation.includes("Do a-tool-call")) {
          return shell("echo begun >> tool-call; while [ ! -e go ]; do sleep 0.1; done");
        }
        if (conversation.includes("Do a-question")) return shell("echo begun >> question", true);
        streaming.resolve();
        await goOn.promise;
        return { text: "All done." };
      });
      const runs = {
        tool: await startRun("a-tool-call", ["Bash"]),
        ...(asks ? { question: await startRun("a-question", []) } : {}),
        stream: await startRun("a-stream", []),
      };
      await expect.poll(() => existsSync(join(work, "tool-call")), { timeout: 30_000 }).toBe(true);
      const { question } = runs;
      if (question !== undefined) {
        await expect.poll(async () => (await get(question))?.openQuestions, { timeout: 30_000 }).toBe(1);
      }
      await streaming.promise;

      await first.kill("SIGKILL");
      await startReplica();
      writeFileSync(join(work, "go"), "");
      goOn.resolve();
      if (question !== undefined) await answerTwice(question);

      for (const [what, run] of Object.entries(runs)) {
        await expect
          .poll(async () => (await get(run))?.status, { timeout: 60_000, message: what })
          .toBe(RunStatus.COMPLETED);
        expect(await get(run)).toMatchObject({ attempt: 1, attention: [], openQuestions: 0, denials: [] });
        const { windows } = await clients.runs.listWindows({ watcherId: run.watcherId });
        expect(windows).toMatchObject([{ runId: run.id, result: "All done." }]);
      }
      for (const file of question === undefined ? ["tool-call"] : ["tool-call", "question"]) {
        expect(readFileSync(join(work, file), "utf8")).toBe("begun\n");
      }
    },
  );
}
