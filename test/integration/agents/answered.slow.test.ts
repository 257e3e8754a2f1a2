/**
 * Agents that have answered, and whose program has not ended yet: the answer is the result,
 * whatever ends the program. And agents that are ended while they ask.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { parseConfig } from "../../../clients/ts/src/index.ts";
import { silentLogger } from "../../../clients/ts/src/logger.ts";
import { Runner } from "../../../clients/ts/src/runner/runner.ts";
import {
  makeStateDir,
  settledSession,
  startDaemon,
  startDevice,
  startPeer,
  until,
} from "../client/harness.ts";

/**
 * Answers, tells by a file that its input has ended, which is after the answer was read, and goes
 * on until it is killed, or for a minute.
 */
const program = (type: string, file: string) => `
if (process.argv.includes("--version")) process.exit();
process.on("SIGTERM", () => {});
setTimeout(() => {}, 60_000);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
const lines = require("node:readline").createInterface({ input: process.stdin });
lines.on("close", () => require("node:fs").writeFileSync(${JSON.stringify(file)}, ""));
const answers = {
  "claude-code": () => say({ type: "result", subtype: "success", is_error: false, result: "42", session_id: "s" }),
  acp: ({ id, method }) => {
    const result = (value) => say({ jsonrpc: "2.0", id, result: value });
    if (method === "initialize") return result({ protocolVersion: 1, agentCapabilities: {} });
    if (method === "session/new") return result({ sessionId: "s" });
    if (method !== "session/prompt") return;
    const update = { sessionUpdate: "agent_message_chunk", messageId: "m", content: { type: "text", text: "42" } };
    say({ jsonrpc: "2.0", method: "session/update", params: { sessionId: "s", update } });
    result({ stopReason: "end_turn" });
  },
};
lines.on("line", (line) => answers[${JSON.stringify(type)}](JSON.parse(line)));
`;

/** The configuration of a device with the agent, and a wait for the agent's answer. */
function agentOf(type: string, more: string) {
  const directory = mkdtempSync(join(tmpdir(), "pinion-answered-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, "answered");
  const script = join(directory, "agent.cjs");
  writeFileSync(script, program(type, file));
  const command = JSON.stringify([process.execPath, script]);
  return {
    config: `[executors.agent]\ntype = "${type}"\ncommand = ${command}\n${more}\n`,
    untilAnswered: () => until(() => existsSync(file), "it has answered"),
  };
}

async function start(type: string, more: string) {
  const { config, untilAnswered } = agentOf(type, more);
  const peer = await startPeer({ patienceMs: 100_000 });
  startDaemon(peer.url, config, { env: { PATH: process.env.PATH } });
  return { session: await settledSession(peer), untilAnswered };
}

const types = ["claude-code", "acp"];

/**
 * Asks a person, and answers as soon as anything at all comes back, also while it is being ended.
 */
const asker = (type: string) => `
if (process.argv.includes("--version")) process.exit();
process.on("SIGTERM", () => {});
setTimeout(() => {}, 60_000);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
const lines = require("node:readline").createInterface({ input: process.stdin });
const answers = {
  "claude-code": ({ type }) => {
    if (type === "control_response") say({ type: "result", subtype: "success", is_error: false, result: "42", session_id: "s" });
    else say({ type: "control_request", request_id: "r", request: { subtype: "can_use_tool", tool_name: "Bash", input: {} } });
  },
  acp: ({ id, method }) => {
    const result = (value) => say({ jsonrpc: "2.0", id, result: value });
    if (method === "initialize") return result({ protocolVersion: 1, agentCapabilities: {} });
    if (method === "session/new") return result({ sessionId: "s" });
    if (method === "session/prompt") {
      const options = [{ optionId: "yes", name: "Yes", kind: "allow_once" }, { optionId: "no", name: "No", kind: "reject_once" }];
      const toolCall = { toolCallId: "t", title: "Bash" };
      say({ jsonrpc: "2.0", id: "r", method: "session/request_permission", params: { sessionId: "s", toolCall, options } });
      globalThis.prompt = id;
    } else if (id === "r") say({ jsonrpc: "2.0", id: globalThis.prompt, result: { stopReason: "end_turn" } });
  },
};
lines.on("line", (line) => answers[${JSON.stringify(type)}](JSON.parse(line)));
`;

test.each(types)(
  "%s: a run that is cancelled in the middle of a question is cancelled, and its agent told no answer",
  async (type) => {
    const directory = mkdtempSync(join(tmpdir(), "pinion-asking-"));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const script = join(directory, "agent.cjs");
    writeFileSync(script, asker(type));
    const peer = await startPeer({ capabilities: ["activity", "questions"], patienceMs: 30_000 });
    const config = `[executors.agent]\ntype = "${type}"\ncommand = ${JSON.stringify([process.execPath, script])}\nkill_grace = "1s"\n`;
    startDaemon(peer.url, config, { env: { PATH: process.env.PATH } });
    const session = await settledSession(peer);
    const assignment = session.assign();
    await session.next("question");
    session.cancel(assignment);
    await session.next("questionClosed");
    expect(await session.next("cancelled")).toMatchObject({ attemptToken: assignment.attemptToken });
    expect(session.all("complete")).toEqual([]);
  },
);

test.each(types)("%s: a run that is cancelled after its answer was read is completed", async (type) => {
  const { session, untilAnswered } = await start(type, 'kill_grace = "2s"');
  const assignment = session.assign();
  await untilAnswered();
  session.cancel(assignment);
  const { attemptToken } = assignment;
  expect(await session.next("complete")).toMatchObject({
    ...{ attemptToken, outcome: Outcome.COMPLETED, resultText: "42" },
  });
  expect(session.all("cancelled")).toEqual([]);
});

test("a run whose time is over after its answer was read, while its program ends, is completed", {
  timeout: 120_000,
}, async () => {
  // The program ends 11 s after its answer at the earliest, so its time is over before.
  const { session, untilAnswered } = await start("acp", 'kill_grace = "9s"');
  session.assign({ timeoutMs: 10_000 });
  await untilAnswered();
  const completion = await session.next("complete");
  expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, resultText: "42", reason: "" });
});

test.each(types)(
  "%s: a run whose program outlives the grace of a stop, after its answer, is completed",
  async (type) => {
    const { config, untilAnswered } = agentOf(type, 'kill_grace = "2s"');
    const peer = await startPeer();
    const runner = new Runner({
      ...{
        config: parseConfig(config),
        stateDir: makeStateDir(),
        installId: "install-0001",
        token: "pin_dev_test",
      },
      ...{ hidden: [], env: { PATH: process.env.PATH }, logger: silentLogger, notifier: undefined },
      onStart: () => {},
    });
    const { device } = startDevice(peer.url, {
      onAssignment: (assignment, context) => runner.run(assignment, context),
    });
    const session = await peer.session();
    const { attemptToken } = session.assign();
    await untilAnswered();
    await device.close({ graceMs: 50 });
    expect(session.all("complete")).toMatchObject([
      { attemptToken, outcome: Outcome.COMPLETED, resultText: "42", reason: "" },
    ]);
  },
);
