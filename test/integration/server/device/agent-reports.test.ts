/**
 * The reports that watchers request from agents at work, and those that agents give, from the spec
 * to the readers.
 */
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { expect, test } from "vitest";
import {
  AttentionReason,
  ContinueMode,
  QuestionDefault,
  TranscriptSchema,
  WorkspaceMode,
} from "#gen/pinion/v1/activity_pb.js";
import { CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { getRun, startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

async function begin() {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device, {
    executors: [{ kind: "test", type: "claude-code", version: "2.1.3" }],
    workspaces: [{ name: "app", mode: WorkspaceMode.WORKTREE }],
  });
  return { clients, device, stream };
}

async function answer(
  stream: DeviceStream,
  attempt: { workId: string; attemptToken: string },
  told: Record<string, unknown>,
) {
  const { workId, attemptToken } = attempt;
  stream.send({
    case: "complete",
    value: { workId, attemptToken, outcome: Outcome.COMPLETED, output: "raw lines", ...told },
  });
  return stream.next("completionAck");
}

const schema = {
  type: "object",
  properties: { severity: { type: "number" }, title: { type: "string" } },
  required: ["severity"],
  additionalProperties: false,
};

test("a device is known by its executors and workspaces, and what a watcher asks of its agent is in the assignment", async () => {
  const { clients, device, stream } = await begin();
  const { device: known } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(known).toMatchObject({
    executors: [{ kind: "test", type: "claude-code", version: "2.1.3" }],
    workspaces: [{ name: "app", mode: WorkspaceMode.WORKTREE }],
  });

  await startWork(clients, device, {
    workspace: "app",
    runBudget: { tokensMax: 5_000n },
    questions: { timeout: durationFromMs(60_000), defaultAnswer: QuestionDefault.ALLOW },
  });
  const assignment = await takeOn(stream);
  expect(assignment).toMatchObject({
    workspace: "app",
    budget: { tokensMax: 5_000n },
    questions: { defaultAnswer: QuestionDefault.ALLOW, timeout: { seconds: 60n } },
  });
  const { watcher } = await clients.watchers.getWatcher({ watcherId: assignment.watcher!.id });
  expect(watcher!.spec).toMatchObject({ workspace: "app", runBudget: { tokensMax: 5_000n } });
  await stream.complete(assignment);
});

test("an edit of the workspace is an event that says from what to what, and the next version has it", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device, { workspace: "app" });
  await stream.complete(await takeOn(stream));
  await clients.watchers.updateWatcher({
    watcherId: run.watcherId,
    spec: { workspace: "web" },
    updateMask: { paths: ["workspace"] },
  });
  const { events } = await clients.events.listEvents({ pageSize: 20, kinds: ["watcher.updated"] });
  expect(events.find((event) => event.watcherId === run.watcherId)?.data).toMatchObject({
    changes: { workspace: { from: "app", to: "web" } },
  });
  await clients.watchers.triggerWatcher({ watcherId: run.watcherId });
  expect((await stream.next("assignment")).workspace).toBe("web");
});

test("the answer, its data, what was used and how it ended are read with the run and with its window", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device, { extractionSchema: schema, agentKind: "test" });
  const transcript = create(TranscriptSchema, {
    entries: [{ sequence: 1n, body: { case: "text", value: { text: "I looked." } } }],
  });
  const { verdict, windowId } = await answer(stream, await takeOn(stream), {
    resultText: "# Found\n\nOne thing.",
    structured: JSON.stringify({ severity: 3, title: "a \u0000 in it" }),
    usage: {
      inputTokens: 1_200n,
      outputTokens: 80n,
      cachedInputTokens: 1_000n,
      costMicros: 4_200n,
      currency: "USD",
    },
    sessionId: "session-1",
    modelUsed: "model-x",
    stopReason: "end_turn",
    transcript,
    notes: ["egress is not enforced"],
    executor: { kind: "test", type: "claude-code", version: "2.1.3" },
  });
  expect(verdict).toBe(CompletionVerdict.STORED);
  expect(await getRun(clients, { workId: run.id })).toMatchObject({
    status: RunStatus.COMPLETED,
    usage: { inputTokens: 1_200n, costMicros: 4_200n },
    sessionId: "session-1",
    modelUsed: "model-x",
    stopReason: "end_turn",
    hasTranscript: true,
    notes: ["egress is not enforced"],
    executor: { version: "2.1.3" },
    attention: [],
  });
  const { windows } = await clients.runs.listWindows({ runId: run.id });
  expect(windows[0]).toMatchObject({
    id: windowId,
    result: "# Found\n\nOne thing.",
    agentKind: "test",
    usage: { outputTokens: 80n },
  });
  expect(windows[0]!.structured).toMatchObject({
    kind: { case: "structValue", value: { fields: { severity: { kind: { value: 3 } } } } },
  });
  expect(windows[0]!.extractedData).toMatchObject({
    kind: "device_cli_output",
    agent_kind: "test",
    output: "raw lines",
    result: "# Found\n\nOne thing.",
    structured: { severity: 3, title: "a \ufffd in it" },
  });
  expect(await clients.runs.getTranscript({ runId: run.id })).toMatchObject({
    transcript: { entries: [{ body: { case: "text", value: { text: "I looked." } } }] },
  });
});

test("the next run is given the last answer and its data, and goes on in its session where the watcher says so", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device, { continueMode: ContinueMode.SESSION });
  const first = await takeOn(stream);
  expect(first.session).toBeUndefined();
  await answer(stream, first, {
    resultText: "the answer",
    structured: '{"severity":1}',
    sessionId: "session-7",
  });
  await clients.watchers.triggerWatcher({ watcherId: run.watcherId });
  const next = await stream.next("assignment");
  expect(next.session).toMatchObject({ sessionId: "session-7", runId: run.id, isRequired: false });
  expect(next.context!.priorWindow!.extractedData).toMatchObject({
    output: "the answer",
    structured: { severity: 1 },
  });
});

test("an answer that does not match the schema fails its run with what is wrong, and is kept", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device, { extractionSchema: schema });
  const ack = await answer(stream, await takeOn(stream), {
    resultText: "severity is high",
    structured: JSON.stringify({ severity: "high", colour: "red" }),
  });
  expect(ack).toMatchObject({ verdict: CompletionVerdict.STORED, windowId: "" });
  const ended = await getRun(clients, { workId: run.id });
  expect(ended).toMatchObject({ status: RunStatus.FAILED, attention: [AttentionReason.SCHEMA] });
  expect(ended.reason).toMatch(/^schema: the answer does not match: .*\/severity/);
  expect(ended.result).toBe("severity is high");
});

test("a watcher that names what its device does not have says so at once, and goes on when the device has it", async () => {
  const { clients, device, stream } = await begin();
  const create = async (spec: { agentKind?: string; workspace?: string; agentId?: string }) =>
    (
      await clients.watchers.createWatcher({
        spec: { name: `lacks ${JSON.stringify(spec)}`, prompt: "p", deviceId: device.deviceId, ...spec },
      })
    ).watcher!;
  const lacksExecutor = await create({ agentKind: "codex" });
  expect(lacksExecutor.noExecutorReason).toMatch(/has no executor "codex" \(it has test\)/);
  const lacksWorkspace = await create({ agentKind: "test", workspace: "web" });
  expect(lacksWorkspace.noExecutorReason).toMatch(
    /has no workspace "web" \(it has app\); add \[workspaces.web\]/,
  );
  expect((await create({ agentKind: "test", workspace: "app" })).noExecutorReason).toBe("");

  // The agent's default workspace counts; the watcher's own goes before.
  const agentId = `webby-${device.deviceId.slice(-12)}`;
  await clients.agents.createAgent({ agentId, settings: { workspace: "web" } });
  const byAgent = await create({ agentId });
  expect(byAgent.noExecutorReason).toMatch(/has no workspace "web" \(it has app\)/);
  expect((await create({ agentId, workspace: "app" })).noExecutorReason).toBe("");

  // The watcher's slots are recorded as skipped.
  await clients.watchers.updateWatcher({
    watcherId: lacksWorkspace.id,
    spec: { schedule: "@every 1m" },
    updateMask: { paths: ["schedule"] },
  });
  await sql`update schedule_position set next_due_at = now(), next_slot_at = now() where watcher_id = ${lacksWorkspace.id}`.execute(
    database.db,
  );
  await clients.watchers.updateWatcher({
    watcherId: lacksWorkspace.id,
    spec: { name: "lacks still" },
    updateMask: { paths: ["name"] },
  });
  const { runs } = await clients.runs.listRuns({ watcherId: lacksWorkspace.id });
  expect(runs).toMatchObject([
    {
      status: RunStatus.SKIPPED,
      skipReason: SkipReason.NO_EXECUTOR,
      reason: expect.stringContaining('workspace "web"'),
    },
  ]);

  stream.end();
  await connect(replicas.here.url, device, {
    executors: [{ kind: "test", type: "claude-code" }],
    workspaces: [{ name: "web", mode: WorkspaceMode.SHARED }],
  });
  const { watcher } = await clients.watchers.getWatcher({ watcherId: lacksWorkspace.id });
  expect(watcher?.noExecutorReason).toBe("");
});

test("what people should look at is on the run, in the log, and found by it", async () => {
  const { clients, device, stream } = await begin();
  const quiet = await startWork(clients, device);
  await stream.complete(await takeOn(stream));
  const run = await startWork(clients, device);
  await answer(stream, await takeOn(stream), {
    resultText: "I was not allowed to.",
    attention: [AttentionReason.MAX_TURNS],
    denials: [{ tool: "Bash", input: "rm -rf /", reason: "not pre-approved" }],
  });
  expect(await getRun(clients, { workId: run.id })).toMatchObject({
    status: RunStatus.COMPLETED,
    attention: [AttentionReason.MAX_TURNS, AttentionReason.PERMISSION_DENIED],
    denials: [{ tool: "Bash" }],
  });
  const { events } = await clients.events.listEvents({ pageSize: 20, kinds: ["run.attention"] });
  expect(events.map((event) => event.runId)).toContain(run.id);
  const { runs } = await clients.runs.listRuns({ deviceId: device.deviceId, wantsAttention: true });
  expect(runs.map(({ id }) => id)).toEqual([run.id]);
  expect(runs.map(({ id }) => id)).not.toContain(quiet.id);
  const ofAll = await clients.runs.listRuns({ wantsAttention: true });
  expect(ofAll.runs.map(({ id }) => id)).toContain(run.id);
  expect(ofAll.runs.map(({ id }) => id)).not.toContain(quiet.id);
  const because = async (...attention: AttentionReason[]) =>
    (await clients.runs.listRuns({ deviceId: device.deviceId, attention })).runs.map(({ id }) => id);
  expect(await because(AttentionReason.SCHEMA)).toEqual([]);
  expect(await because(AttentionReason.SCHEMA, AttentionReason.PERMISSION_DENIED)).toEqual([run.id]);
});

test("what runs used is summed by watcher, agent, device and day", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device);
  const usage = { inputTokens: 100n, outputTokens: 10n, costMicros: 5n, currency: "USD" };
  await answer(stream, await takeOn(stream), { resultText: "a", usage });
  await clients.watchers.triggerWatcher({ watcherId: run.watcherId });
  await answer(stream, await takeOn(stream), { resultText: "b", usage });
  expect(await clients.runs.summarizeUsage({ watcherId: run.watcherId })).toMatchObject({
    sums: [{ runs: 2n, inputTokens: 200n, outputTokens: 20n, costMicros: 10n, runsWithCost: 2n }],
  });
});

test("slots are skipped while the day's budget is used up, and a hand is told so", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device, { dayBudget: { tokensMax: 100n } });
  await answer(stream, await takeOn(stream), {
    resultText: "a",
    usage: { inputTokens: 90n, outputTokens: 20n },
  });
  await expect(clients.watchers.triggerWatcher({ watcherId: run.watcherId })).rejects.toThrow(
    /budget of the day/,
  );
});

test("a follow-up goes to the run's device with the run's session, and the next one with that of the turn", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device);
  await answer(stream, await takeOn(stream), { resultText: "the answer", sessionId: "session-1" });
  const { turn } = await clients.turns.startTurn({ resumeRunId: run.id, messageId: "m1", input: "and why?" });
  expect(turn!.conversationId).toBe(`${run.agentId}_watcher_${run.watcherId}_run_${run.id}`);
  const first = await takeOn(stream);
  expect(first).toMatchObject({
    turn: { input: "and why?" },
    session: { sessionId: "session-1", isRequired: true },
  });
  await answer(stream, first, { resultText: "because", sessionId: "session-2" });
  const { turn: ended } = await clients.turns.getTurn({ turnId: turn!.id });
  expect(ended!.reply).toBe("because");
  await clients.turns.startTurn({ resumeRunId: run.id, messageId: "m2", input: "really?" });
  expect((await stream.next("assignment")).session).toMatchObject({ sessionId: "session-2" });
});

test("a run without a session cannot be followed up, and says why", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device);
  await stream.complete(await takeOn(stream));
  const started = clients.turns.startTurn({ resumeRunId: run.id, messageId: "m1", input: "and why?" });
  await expect(started).rejects.toThrow(/left no session to go on in: its executor keeps none/);
});
