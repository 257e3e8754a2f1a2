/** Tests for every kind of agent supported by a device, with the real agents. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { AttentionReason, QuestionOptionKind, ToolStatus } from "#gen/pinion/v1/activity_pb.js";
import { Outcome, RejectReason } from "#gen/pinion/v1/device_pb.js";
import type { AgentName, RealAgent } from "../../support/agents.ts";
import { startMcpServer } from "../../support/mcp.ts";
import type { ModelReply, ModelRequest } from "../../support/model-dialects.ts";
import { findProgram } from "../../support/programs.ts";
import { until } from "../client/harness.ts";
import { livingInGroup, type Stage, stage } from "./harness.ts";

const patience = 90_000;
const isClaude = (name: AgentName) => name.startsWith("claude");

/** A call of the agent's own tool for commands. */
function shellCall(name: AgentName, command: string): ModelReply {
  return isClaude(name)
    ? { calls: [{ name: "Bash", input: { command, description: "try it" } }] }
    : {
        calls: [
          { name: name === "codex" ? "exec_command" : "shell_command", input: { cmd: command, command } },
        ],
      };
}

/** The run's own requests: agents ask their models for titles and the like as well. */
const isOwn = (request: ModelRequest) =>
  !/title|summar/i.test(request.system.slice(0, 4000)) || request.tools.length > 3;

/** Answers the run's own requests in order, and everything else with a word. */
function script(
  { model }: Stage,
  ...replies: (ModelReply | ((request: ModelRequest) => ModelReply))[]
): ModelRequest[] {
  const own: ModelRequest[] = [];
  model.script((request) => {
    if (!isOwn(request)) return { text: "A title" };
    const reply = replies[Math.min(own.length, replies.length - 1)] ?? {};
    own.push(request);
    return typeof reply === "function" ? reply(request) : reply;
  });
  return own;
}

const schema = {
  type: "object",
  properties: { severity: { type: "integer", minimum: 0 }, note: { type: "string" } },
  required: ["severity"],
};

/** Defines the tests of one agent. */
export function testsOf(name: AgentName, agent: RealAgent | undefined): void {
  if (agent === undefined) {
    test.skip(`${name}: is not installed here`, () => {});
    return;
  }
  const start = (options: Parameters<typeof stage>[2] = {}) => stage(name, agent, options);

  test(`${name}: a run's result is its answer, with its usage, its session and a transcript`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    script(on, { text: "All is **well**.", usage: { input: 120, output: 7, cached: 20 } });
    const { completion } = await on.run();
    expect(completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      resultText: "All is **well**.",
      attention: [],
    });
    expect(completion.sessionId).not.toBe("");
    expect(completion.executor).toMatchObject({ kind: name });
    const texts = completion.transcript?.entries.filter(({ body }) => body.case === "text");
    expect(texts?.map(({ body }) => (body.case === "text" ? body.value.text : ""))).toContain(
      "All is **well**.",
    );
    expect(on.session.all("activity").length).toBeGreaterThan(0);
    expect(on.peer.violations).toEqual([]);
    // The files written for the agent are removed with the attempt.
    expect(existsSync(join(on.stateDir, "agents")) ? readdirSync(join(on.stateDir, "agents")) : []).toEqual(
      [],
    );
    if (name === "codex-acp") return; // codex-acp reports no token counts.
    expect(Number(completion.usage?.outputTokens)).toBeGreaterThanOrEqual(7);
    expect(Number(completion.usage?.inputTokens)).toBeGreaterThanOrEqual(120);
  });

  test(`${name}: the model is told who it is, the prompt, the input and the result before`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    const own = script(on, { text: "Done." });
    await on.run({
      prompt: "Summarise the repository.",
      settings: {
        identity: "You are the careful REVIEWER.",
        guardrails: ["Never push.", "Never spend money."],
      },
      more: {
        event: { input: '{"commit":{"sha":"abc123"}}' },
        context: { priorWindow: { result: "Yesterday: 3 findings.", modelUsed: "device-cli" } },
      },
    });
    const [request] = own;
    const heard = `${request?.system}\n${JSON.parse(`${request?.conversation}`)
      .map((entry: unknown) => JSON.stringify(entry))
      .join("\n")}`;
    expect(request?.system ?? "").toContain(
      "You are the careful REVIEWER.\n\nNever push.\n\nNever spend money.",
    );
    expect(heard).toContain("Summarise the repository.");
    expect(heard).toContain("abc123");
    expect(heard).toContain("Yesterday: 3 findings.");
  });

  test(`${name}: the model is the one that the agent's settings name`, { timeout: patience }, async () => {
    const on = await start();
    const own = script(on, { text: "Done." });
    const model = isClaude(name) ? "claude-haiku-4-5" : "scripted-2";
    const { completion } = await on.run({ settings: { model } });
    expect(own[0]?.model).toContain(model);
    expect(completion.modelUsed || model).toContain(model);
  });

  test(`${name}: what it does is seen while it does it, and stands in the transcript`, {
    timeout: patience,
  }, async () => {
    const on = await start({ executor: isClaude(name) ? "" : "" });
    script(on, shellCall(name, "echo seen-$((40+2))"), { text: "I looked." });
    const { completion } = await on.run({ settings: { preApprovedTools: ["Bash", "execute"] } });
    expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "I looked." });
    const calls =
      completion.transcript?.entries.flatMap(({ body }) => (body.case === "toolCall" ? [body.value] : [])) ??
      [];
    expect(calls).toHaveLength(1);
    expect(calls[0]).toMatchObject({
      status: ToolStatus.COMPLETED,
      result: expect.stringContaining("seen-42"),
    });
    expect(calls[0]?.title).toContain("echo seen");
    const live = on.session.all("activity").flatMap(({ activities }) => activities);
    expect(live.map(({ sequence }) => Number(sequence))).toEqual(live.map((_, place) => place + 1));
    expect(live.filter(({ body }) => body.case === "toolCall").length).toBeGreaterThanOrEqual(2);
    expect(on.peer.violations).toEqual([]);
  });

  test(`${name}: an answer by a schema is data; a wrong one is told so once, in the same session`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    const say = (value: unknown): ModelReply =>
      name === "claude"
        ? { calls: [{ name: "StructuredOutput", input: value as never }] }
        : { text: JSON.stringify(value) };
    const own = script(on, say({ severity: "high" }), say({ severity: 3, note: "n" }));
    const { completion } = await on.run({ schema });
    expect(completion.outcome).toBe(Outcome.COMPLETED);
    expect(JSON.parse(completion.structured)).toEqual({ severity: 3, note: "n" });
    expect(own).toHaveLength(2);
    expect(own[1]?.conversation).toContain("high");
    // The schema itself: as the agent's own structured output if supported, else in the prompt.
    expect(JSON.stringify(own[0]?.body)).toContain("severity");
  });

  test(`${name}: an answer that never matches fails the run, says why, and is kept`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    script(on, { text: '{"severity":"high"}' });
    const { completion } = await on.run({ schema });
    expect(completion.outcome).toBe(Outcome.FAILED);
    expect(completion.attention).toContain(AttentionReason.SCHEMA);
    expect(completion.structured).toBe("");
    if (name === "claude") return; // claude validates the output itself, and reports errors.
    expect(completion.reason).toMatch(/^schema: .*severity/s);
    expect(completion.resultText).toContain("high");
  });

  test.each([429, 529])(
    `${name}: HTTP %i of its provider is "later", not a failure`,
    { timeout: patience },
    async (status) => {
      const on = await start();
      const type = status === 429 ? "rate_limit_error" : "overloaded_error";
      script(on, { error: { status, type, message: status === 429 ? "Too many requests" : "Overloaded" } });
      const { completion } = await on.run();
      expect(completion.outcome).toBe(Outcome.FAILED);
      expect(
        completion.retryAfter === undefined ? 0 : durationMs(completion.retryAfter),
      ).toBeGreaterThanOrEqual(1_000);
      expect(completion.reason).not.toBe("");
    },
  );

  test(`${name}: an answer that is longer than what is kept is cut, and says so`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    script(on, { text: `It begins. ${"word ".repeat(80_000)}` });
    const { completion } = await on.run();
    expect(completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      isResultTruncated: true,
      attention: [AttentionReason.ANSWER_CUT],
    });
    expect(completion.resultText).toMatch(/^It begins\. word/);
    expect(Buffer.byteLength(completion.resultText)).toBeLessThanOrEqual(262_144);
  });

  test(`${name}: an error of its provider that does not pass is the reason of a failure`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    script(on, { error: { status: 401, type: "authentication_error", message: "that key is not good" } });
    const { completion } = await on.run();
    expect(completion.outcome).toBe(Outcome.FAILED);
    expect(completion.retryAfter).toBeUndefined();
    expect(completion.reason).toMatch(/key|401|auth|login/i);
  });

  test(`${name}: a run that was cancelled in the middle of an answer leaves no process`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    script(on, { hangs: true });
    const assignment = on.assign();
    await on.model.asked(1);
    on.session.cancel(assignment);
    await on.session.next("cancelled");
    const { pid } = await on.daemon.events.next("started");
    expect(livingInGroup(pid)).toEqual([]);
  });

  test(`${name}: a run that takes too long is a timeout`, { timeout: patience }, async () => {
    const on = await start();
    script(on, { hangs: true });
    const { completion } = await on.run({ timeoutMs: 3_000 });
    expect(completion).toMatchObject({ outcome: Outcome.TIMEOUT });
    expect(completion.retryAfter).toBeUndefined();
  });

  test(`${name}: a later run goes on in the session of an earlier one`, { timeout: patience }, async () => {
    const on = await start();
    const own = script(on, { text: "Forty-two." });
    const first = await on.run({ prompt: "What is the answer?" });
    const { sessionId, workId } = first.completion;
    const second = await on.run({
      prompt: "And the question?",
      more: { session: { sessionId, runId: workId, isRequired: true } },
    });
    expect(second.completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "Forty-two." });
    expect(own.at(-1)?.conversation).toContain("What is the answer?");
    expect(own.at(-1)?.conversation).toContain("And the question?");
    expect(second.completion.attention).toEqual([]);
  });

  test(`${name}: the turns of a conversation go on in one session, and each reply is the answer alone`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    const own = script(on, { text: "I am Ada's." }, { text: "Yes." });
    const turn = { conversationId: "a_b_c", messageId: "1", usesSnapshot: true };
    const first = on.session.assign({ turn: { ...turn, input: "Whose are you?" } });
    const reply = await on.session.next(
      "complete",
      ({ attemptToken }) => attemptToken === first.attemptToken,
    );
    expect(reply).toMatchObject({ outcome: Outcome.COMPLETED, output: "I am Ada's." });
    const snapshot = reply.nextSnapshot ?? new Uint8Array();
    on.session.assign({ turn: { ...turn, messageId: "2", input: "Sure?", snapshot, snapshotVersion: 1n } });
    expect(await on.session.next("complete")).toMatchObject({ output: "Yes.", attention: [] });
    expect(own.at(-1)?.conversation).toContain("Whose are you?");
    expect(own.at(-1)?.conversation).toContain("Sure?");
  });

  test(`${name}: a session that is gone fails who needs it, and is begun anew for who does not`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    script(on, { text: "Fresh." });
    const session = {
      sessionId: "6f1c2d3e-0000-4000-8000-000000000001",
      runId: "0190b6a0-0000-7000-8000-00000000000a",
    };
    const needed = await on.run({ more: { session: { ...session, isRequired: true } } });
    expect(needed.completion).toMatchObject({
      outcome: Outcome.FAILED,
      attention: [AttentionReason.SESSION_GONE],
    });
    expect(needed.completion.reason).toContain("session");
    const wished = await on.run({ more: { session } });
    expect(wished.completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      attention: [AttentionReason.SESSION_GONE],
    });
    expect(wished.completion.notes.join()).toContain("fresh one");
  });

  test(`${name}: it has the MCP servers of its settings, with a token for the one that Pinion adds`, {
    timeout: patience,
  }, async () => {
    const mcp = await startMcpServer();
    const on = await start();
    const tool =
      name === "codex" || name === "codex-acp"
        ? { name: "ping", namespace: "mcp__pong" }
        : { name: "mcp__pong__ping" };
    script(on, { calls: [{ ...tool, input: { word: "hello" } }] }, ({ last }) => ({
      text: `It says ${last}`,
    }));
    const { completion } = await on.run({
      settings: {
        mcpServers: [{ name: "pong", url: mcp.url, isInjected: true }],
        preApprovedTools: ["mcp__pong__ping"],
      },
      more: { agentToken: "pin_run_token" },
    });
    expect(completion.resultText).toContain("pong-42");
    expect(mcp.calls).toEqual([{ word: "hello" }]);
    expect(new Set(mcp.tokens)).toEqual(new Set(["Bearer pin_run_token"]));
    const calls =
      completion.transcript?.entries.flatMap(({ body }) => (body.case === "toolCall" ? [body.value] : [])) ??
      [];
    expect(calls.map(({ status }) => status)).toEqual([ToolStatus.COMPLETED]);
    expect(on.peer.violations).toEqual([]);
  });

  test(`${name}: hosts that it may not leave are enforced, or the run is turned down or noted, as the device says`, {
    timeout: patience,
  }, async () => {
    const settings = { egressConfig: { allowedHosts: ["example.org"] } };
    const strict = await start();
    script(strict, { text: "Done." });
    if (name === "claude" && ["bwrap", "socat"].every((tool) => findProgram(tool, undefined) !== undefined))
      return;
    // The other agents cannot restrict themselves to some hosts, nor can claude without its
    // sandbox.
    strict.assign({ settings });
    const rejected = await strict.session.next("reject");
    expect(rejected).toMatchObject({ reason: RejectReason.UNSUPPORTED });
    expect(rejected.message).toContain('egress = "advisory"');
    const lenient = await start({ executor: 'egress = "advisory"' });
    script(lenient, { text: "Done." });
    const { completion } = await lenient.run({ settings });
    expect(completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      attention: [AttentionReason.NOT_ENFORCED],
    });
    expect(completion.notes.join()).toContain("not enforced");
  });

  test(`${name}: a budget stops it`, { timeout: patience }, async () => {
    if (name !== "claude") return; // The other agents report their usage at the end of a turn.
    const on = await start();
    script(on, { ...shellCall(name, "true"), usage: { input: 900, output: 200 } }, { hangs: true });
    const { completion } = await on.run({
      settings: { preApprovedTools: ["Bash"] },
      more: { budget: { tokensMax: 500n } },
    });
    expect(completion.outcome).toBe(Outcome.FAILED);
    expect(completion.attention).toContain(AttentionReason.BUDGET);
    expect(completion.reason).toContain("budget");
  });

  test(`${name}: a budget of money stops it, where the agent tells what it costs`, {
    timeout: patience,
  }, async () => {
    if (!isClaude(name)) return; // They tell no cost.
    const on = await start();
    const usage = { input: 900_000, output: 20_000 };
    const hasEnd = name === "claude-agent-acp"; // Usage comes at the end of a turn.
    script(on, { ...shellCall(name, "true"), usage }, hasEnd ? { text: "Done.", usage } : { hangs: true });
    const { completion } = await on.run({
      settings: { preApprovedTools: ["Bash"] },
      more: { budget: { costMicrosMax: 1_000n } },
    });
    expect(completion.outcome).toBe(Outcome.FAILED);
    expect(completion.attention).toContain(AttentionReason.BUDGET);
    expect(completion.usage?.costMicros).toBeGreaterThan(1_000n);
  });

  test(`${name}: a budget of tokens that was passed when the turn ended is said`, {
    timeout: patience,
  }, async () => {
    if (name !== "codex") return; // claude is stopped too early, codex-acp reports none.
    const on = await start();
    script(on, { text: "Done.", usage: { input: 900, output: 200 } });
    const { completion } = await on.run({ more: { budget: { tokensMax: 500n } } });
    expect(completion.outcome).toBe(Outcome.FAILED);
    expect(completion.attention).toContain(AttentionReason.BUDGET);
  });

  test(`${name}: a budget that is not reached changes nothing`, { timeout: patience }, async () => {
    const on = await start();
    script(on, shellCall(name, "true"), { text: "Done." });
    const { completion } = await on.run({
      settings: { preApprovedTools: ["Bash"] },
      more: { budget: { costMicrosMax: 1_000_000n, tokensMax: 1_000_000n } },
    });
    expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "Done.", attention: [] });
  });

  if (name === "codex") return; // `codex exec` requests no permissions.

  const risky = "touch made-it";

  test(`${name}: what is not pre-approved is asked, and done when a person allows it`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    script(on, shellCall(name, "touch made-it"), { text: "Made." });
    if (name === "codex-acp") return; // The sandbox of codex-acp permits writes in its own folder.
    const assignment = on.assign();
    const asked = await on.session.next("question");
    expect(asked.question?.title).toContain("touch made-it");
    const allow = asked.question?.options.find(({ kind }) => kind === QuestionOptionKind.ALLOW_ONCE);
    expect(asked.question?.options.some(({ kind }) => kind === QuestionOptionKind.DENY_ONCE)).toBe(true);
    on.session.answer(assignment, asked.question?.id ?? "", { optionId: allow?.id ?? "" });
    const completion = await on.session.next("complete");
    expect(completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      resultText: "Made.",
      denials: [],
      attention: [],
    });
    expect(existsSync(join(on.stateDir, "work", name, "made-it"))).toBe(true);
    expect(on.peer.violations).toEqual([]);
  });

  test(`${name}: what nobody allows is a denial that people see, not a plain success`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    if (name === "codex-acp") return;
    script(on, shellCall(name, risky), { text: "I was not allowed to." });
    const assignment = on.assign();
    const asked = await on.session.next("question");
    on.session.answer(assignment, asked.question?.id ?? "", { isDefault: true });
    const completion = await on.session.next("complete");
    expect(completion.outcome).toBe(Outcome.COMPLETED);
    expect(completion.attention).toEqual(
      expect.arrayContaining([AttentionReason.PERMISSION_DENIED, AttentionReason.QUESTION_EXPIRED]),
    );
    expect(completion.denials[0]?.input).toContain(risky);
    expect(existsSync(join(on.stateDir, "work", name, "made-it"))).toBe(false);
  });

  test(`${name}: a question outlives a broken stream, and its answer is taken once`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    if (name === "codex-acp") return;
    const own = script(on, shellCall(name, risky), { text: "Made." });
    const assignment = on.assign({ more: { questions: { timeout: durationFromMs(60_000) } } });
    const first = await on.session.next("question");
    on.session.end();
    const session = await on.peer.session();
    const again = await session.next("question");
    expect(again).toMatchObject({
      attemptToken: assignment.attemptToken,
      question: { id: first.question?.id },
    });
    const allow =
      again.question?.options.find(({ kind }) => kind === QuestionOptionKind.ALLOW_ONCE)?.id ?? "";
    const deny = again.question?.options.find(({ kind }) => kind === QuestionOptionKind.DENY_ONCE)?.id ?? "";
    session.answer(assignment, again.question?.id ?? "", { optionId: allow });
    session.answer(assignment, again.question?.id ?? "", { optionId: deny });
    const completion = await session.next("complete");
    expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "Made.", denials: [] });
    expect(own.filter(({ isAfterTool }) => isAfterTool)).toHaveLength(1);
  });

  test(`${name}: a cancel in the middle of a question takes it back and leaves no process`, {
    timeout: patience,
  }, async () => {
    const on = await start();
    if (name === "codex-acp") return;
    script(on, shellCall(name, risky), { text: "Made." });
    const assignment = on.assign();
    const { question } = await on.session.next("question");
    on.session.cancel(assignment);
    expect(await on.session.next("questionClosed")).toMatchObject({ questionId: question?.id });
    await on.session.next("cancelled");
    const { pid } = await on.daemon.events.next("started");
    expect(livingInGroup(pid)).toEqual([]);
    await until(() => on.session.all("complete").length === 0, "no completion");
  });

  test(`${name}: a device that asks nobody denies what is not pre-approved`, {
    timeout: patience,
  }, async () => {
    const on = await start({ executor: 'permissions = "deny"' });
    if (name === "codex-acp") return;
    script(on, shellCall(name, risky), { text: "No." });
    const { completion } = await on.run();
    expect(completion.attention).toEqual([AttentionReason.PERMISSION_DENIED]);
    expect(on.session.all("question")).toEqual([]);
  });
}
