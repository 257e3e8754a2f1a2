/**
 * A replica is killed while real agents are in the middle of something: nothing is lost, and
 * nothing is done twice.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClients, enroll, Os, parseConfig, runDaemon } from "@pinion/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { QuestionState, type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { realAgents } from "../support/agents.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { type Model, type ModelReply, startModel } from "../support/model.ts";
import { type PinionProcess, startPinion } from "../support/processes.ts";
import { freePort } from "../support/programs.ts";
import { ownerToken } from "../support/server.ts";

const agents = await realAgents("claude");
const patience = 90_000;
const home = mkdtempSync(join(tmpdir(), "pinion-replica-killed-"));
const work = join(home, "state/work/claude-code");
const stop = new AbortController();
let database: TestDatabase;
let model: Model;
let clients: ReturnType<typeof createClients>;
let port: string;
let daemon: Promise<void>;

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
  if (agents.claude === undefined) return;
  database = await createTestDatabase();
  model = await startModel();
  port = String(await freePort());
  clients = createClients({ url: `http://127.0.0.1:${port}`, token: await ownerToken(database.url) });
  mkdirSync(join(home, "tmp"));
}, 60_000);

afterAll(async () => {
  stop.abort();
  await daemon?.catch(() => {});
  clients?.close();
  await model?.close();
  await database?.drop();
  rmSync(home, { recursive: true, force: true });
}, 60_000);

/** Enrols a device with claude and starts its daemon, at the first replica. */
async function startDaemon(): Promise<void> {
  if (agents.claude === undefined) return;
  const url = `http://127.0.0.1:${port}`;
  const { joinCode } = await clients.fleet.createJoinCode({});
  const stateDir = join(home, "state");
  const { token } = await enroll({ url, joinCode, label: "mac-7", stateDir });
  const variables = {
    HOME: home,
    TMPDIR: join(home, "tmp"),
    ANTHROPIC_BASE_URL: model.url,
    ANTHROPIC_API_KEY: "sk-scripted",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    IS_SANDBOX: "1",
  };
  const set = Object.entries(variables).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  const config = `[device]\nmax_concurrency = 3\n[executors.claude-code]\ntype = "claude-code"\ncommand = ${JSON.stringify(agents.claude.command)}\nset_env = { ${set.join(", ")} }\n`;
  const connected = Promise.withResolvers<void>();
  daemon = runDaemon({
    ...{ url, token, stateDir, config: parseConfig(config), signal: stop.signal },
    os: Os.LINUX,
    env: { PATH: process.env.PATH },
    timing: { backoffBaseMs: 50, backoffCapMs: 500 },
    onEvent: ({ type }) => {
      if (type === "connected") connected.resolve();
    },
  });
  daemon.catch(() => {});
  await connected.promise;
}

const bash = (command: string): ModelReply => ({
  calls: [{ name: "Bash", input: { command, description: "try" } }],
});

/** A run of the watcher `slug`, whose prompt for the agent is `slug`. */
async function startRun(slug: string, preApprovedTools: string[]): Promise<Run> {
  await clients.agents.createAgent({ agentId: slug, settings: { preApprovedTools } });
  const { devices } = await clients.fleet.listDevices({});
  const deviceId = devices[0]?.id ?? "";
  await clients.watchers.createWatcher({
    slug,
    spec: { name: slug, prompt: `Do ${slug}.`, agentId: slug, agentKind: "claude-code", deviceId },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: slug });
  if (run === undefined) throw new Error("no run");
  return run;
}

const get = async ({ id }: Run) => (await clients.runs.getRun({ runId: id })).run;

test.skipIf(agents.claude === undefined)(
  "a replica that is killed in the middle of a tool call, a question and a stream loses none of them, and each run ends once",
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
        return bash("echo begun >> tool-call; while [ ! -e go ]; do sleep 0.1; done");
      }
      if (conversation.includes("Do a-question")) return bash("echo begun >> question");
      streaming.resolve();
      await goOn.promise;
      return { text: "All done." };
    });
    const runs = {
      tool: await startRun("a-tool-call", ["Bash"]),
      question: await startRun("a-question", []),
      stream: await startRun("a-stream", []),
    };
    await expect.poll(() => existsSync(join(work, "tool-call")), { timeout: 30_000 }).toBe(true);
    await expect.poll(async () => (await get(runs.question))?.openQuestions, { timeout: 30_000 }).toBe(1);
    await streaming.promise;

    await first.kill("SIGKILL");
    await startReplica();
    writeFileSync(join(work, "go"), "");
    goOn.resolve();
    const { questions } = await clients.runs.listQuestions({ runId: runs.question.id });
    expect(questions).toMatchObject([{ state: QuestionState.OPEN }]);
    const asked = questions[0]?.question;
    const answer = (kind: QuestionOptionKind) =>
      clients.runs.answerQuestion({
        runId: runs.question.id,
        questionId: asked?.id ?? "",
        optionId: asked?.options.find((option) => option.kind === kind)?.id ?? "",
      });
    // Two people at once: one answer is accepted, and the other person gets an error.
    const answers = await Promise.allSettled([
      answer(QuestionOptionKind.ALLOW_ONCE),
      answer(QuestionOptionKind.ALLOW_ONCE),
    ]);
    expect(answers.filter(({ status }) => status === "fulfilled").length).toBeGreaterThanOrEqual(1);

    for (const [what, run] of Object.entries(runs)) {
      await expect
        .poll(async () => (await get(run))?.status, { timeout: 60_000, message: what })
        .toBe(RunStatus.COMPLETED);
      expect(await get(run)).toMatchObject({ attempt: 1, attention: [], openQuestions: 0, denials: [] });
      const { windows } = await clients.runs.listWindows({ watcherId: run.watcherId });
      expect(windows).toMatchObject([{ runId: run.id, result: "All done." }]);
    }
    for (const file of ["tool-call", "question"]) {
      expect(readFileSync(join(work, file), "utf8")).toBe("begun\n");
    }
  },
);
