/**
 * The parts of the org's configuration that a command receives: the column `command` of the table
 * in docs/executors.md.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromJsonString, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test } from "vitest";
import { AttentionReason } from "#gen/pinion/v1/activity_pb.js";
import { AssignmentSchema, Outcome, RejectReason } from "#gen/pinion/v1/device_pb.js";
import { settledSession, startDaemon, startPeer } from "../client/harness.ts";

/** A device whose executors record their input in a folder of the test. */
async function startDevice(more = "") {
  const seen = mkdtempSync(join(tmpdir(), "pinion-command-"));
  onTestFinished(() => rmSync(seen, { recursive: true, force: true }));
  const peer = await startPeer({ capabilities: ["activity", "questions"] });
  const config = `
[device]
default_executor = "whole"
[executors.whole]
command = ["sh", "-c", "cat > ${seen}/assignment.json; env > ${seen}/env; echo done"]
stdin = "assignment"
${more}
[executors.prompt]
command = ["sh", "-c", "cat > ${seen}/prompt; echo done"]
stdin = "prompt"
`;
  startDaemon(peer.url, config, { env: { PATH: process.env.PATH } });
  const session = await settledSession(peer);
  return { session, read: (name: string) => readFileSync(join(seen, name), "utf8") };
}

const told: MessageInitShape<typeof AssignmentSchema> = {
  agent: {
    ...{ id: "reviewer", name: "Reviewer", version: 3 },
    settings: {
      identity: "You are the REVIEWER.",
      guardrails: ["Never push."],
      model: "opus",
      preApprovedTools: ["Bash(git status)"],
      mcpServers: [{ name: "pong", url: "https://pong.example.org/mcp" }],
    },
  },
  watcher: {
    ...{ id: "w", slug: "daily", name: "Daily", version: 2, prompt: "Summarise." },
    extractionSchema: { type: "object", required: ["severity"] },
  },
  event: {
    input: '{"sha":"abc123"}',
    windowStart: timestampFromDate(new Date("2026-11-28T09:00:00Z")),
    windowEnd: timestampFromDate(new Date("2026-11-29T09:00:00Z")),
  },
  context: { priorWindow: { result: "Yesterday: 3 findings.", modelUsed: "device-cli" } },
};

test("the assignment on standard input has all that the org configured, and the environment what a script looks for", async () => {
  const { session, read } = await startDevice();
  session.assign({ agentKind: "whole", more: told });
  expect(await session.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, output: "done\n" });
  const given = fromJsonString(AssignmentSchema, read("assignment.json"), { ignoreUnknownFields: true });
  expect(given.agent?.settings).toMatchObject({
    identity: "You are the REVIEWER.",
    guardrails: ["Never push."],
    model: "opus",
    preApprovedTools: ["Bash(git status)"],
    mcpServers: [{ name: "pong", url: "https://pong.example.org/mcp" }],
  });
  expect(given.watcher).toMatchObject({ prompt: "Summarise.", extractionSchema: { required: ["severity"] } });
  expect(given.event?.input).toBe('{"sha":"abc123"}');
  expect(given.context?.priorWindow?.result).toBe("Yesterday: 3 findings.");
  // The fence is the daemon's own secret.
  expect(given.attemptToken).toBe("");
  const environment = read("env");
  for (const line of [
    "PINION_AGENT=reviewer",
    "PINION_AGENT_IDENTITY=You are the REVIEWER.",
    'PINION_INPUT={"sha":"abc123"}',
    "PINION_WINDOW_START=2026-11-28T09:00:00.000Z",
    "PINION_WINDOW_END=2026-11-29T09:00:00.000Z",
    "PINION_WATCHER=daily",
  ]) {
    expect(environment).toContain(line);
  }
});

test("a command that takes the prompt is given the prompt alone", async () => {
  const { session, read } = await startDevice();
  session.assign({ agentKind: "prompt", prompt: "Summarise.", more: told });
  await session.next("complete");
  expect(read("prompt")).toBe("Summarise.");
});

test("hosts are noted as not enforced, or turn the run down where the device says that they must be", async () => {
  const agent = { id: "reviewer", settings: { egressConfig: { allowedHosts: ["example.org"] } } };
  const lenient = await startDevice();
  lenient.session.assign({ agentKind: "whole", more: { agent } });
  const completion = await lenient.session.next("complete");
  expect(completion).toMatchObject({
    outcome: Outcome.COMPLETED,
    attention: [AttentionReason.NOT_ENFORCED],
  });
  expect(completion.notes.join()).toContain("not enforced");
  const strict = await startDevice('egress = "enforce"');
  strict.session.assign({ agentKind: "whole", more: { agent } });
  expect(await strict.session.next("reject")).toMatchObject({
    reason: RejectReason.UNSUPPORTED,
    message: expect.stringContaining("cannot enforce it: a command is started as it is"),
  });
});
