/**
 * The permitted destinations of an agent, enforced by the agents' own sandboxes and observed from
 * the outside.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { AttentionReason } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { realAgents } from "../../support/agents.ts";
import { noticeSkipped } from "../../support/notice.ts";
import { findProgram } from "../../support/programs.ts";
import { stage } from "./harness.ts";

const agents = await realAgents("claude", "codex");
const missing = ["bwrap", "socat"].filter((name) => findProgram(name, undefined) === undefined);
const patience = 60_000;

/** A server outside, which counts the visits. */
async function startOutside() {
  const outside = { visits: 0, port: 0 };
  const server = createServer((_, response) => {
    outside.visits += 1;
    response.end("reached");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
  });
  outside.port = (server.address() as { port: number }).port;
  return outside;
}

const knock = (port: number) =>
  `exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3`;

test.skipIf(agents.codex === undefined)(
  "codex: an agent that may connect nowhere reaches nobody, and one without such a setting does",
  { timeout: patience },
  async () => {
    if (agents.codex === undefined) return;
    const outside = await startOutside();
    const call = { calls: [{ name: "exec_command", input: { cmd: knock(outside.port) } }] };
    const closed = await stage("codex", agents.codex, { executor: "" });
    closed.model.replies(call, { text: "Tried." });
    const { completion } = await closed.run({ settings: { egressConfig: { allowedHosts: [] } } });
    expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, attention: [] });
    expect(outside.visits).toBe(0);
    // Its web search, run by the model provider, is off as well.
    expect(closed.model.requests[0]?.tools).not.toContain("web_search");
    const open = await stage("codex", agents.codex, { executor: 'sandbox = "danger-full-access"' });
    open.model.replies(call, { text: "Tried." });
    await open.run();
    expect(outside.visits).toBe(1);
  },
);

/** Folders of programs with everything that the sandbox of claude needs, except for one program. */
function pathWithout(program: string): string {
  const folder = mkdtempSync(join(tmpdir(), "pinion-path-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ["bwrap", "socat"]) {
    if (name !== program) writeFileSync(join(folder, name), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
  }
  return folder;
}

test.skipIf(agents.claude === undefined).each(["socat", "bwrap"])(
  "claude without %s: the device says so in its hello, and turns a run with hosts down or runs it with a note",
  { timeout: patience },
  async (program) => {
    if (agents.claude === undefined || process.platform !== "linux") return;
    const path = pathWithout(program);
    const settings = { egressConfig: { allowedHosts: [] } };
    const strict = await stage("claude", agents.claude, { path });
    const told = strict.session.hello.executors[0];
    expect(told).toMatchObject({ kind: "claude", problem: "" });
    expect(told?.egressProblem).toBe(
      `claude's sandbox needs ${program}, which is not installed; a run whose agent has allowed hosts is turned down (egress = "enforce")`,
    );
    strict.assign({ settings });
    const rejected = await strict.session.next("reject");
    expect(rejected.message).toContain(`claude's sandbox needs ${program}, which is not installed`);
    expect(rejected.message).toContain('egress = "advisory" in [executors.claude]');
    // An agent without such a setting runs.
    strict.model.replies({ text: "Done." });
    expect((await strict.run()).completion).toMatchObject({ outcome: Outcome.COMPLETED, attention: [] });

    const lenient = await stage("claude", agents.claude, { path, executor: 'egress = "advisory"' });
    expect(lenient.session.hello.executors[0]?.egressProblem).toContain("is run with a note");
    lenient.model.replies({ text: "Done." });
    const { completion } = await lenient.run({ settings });
    expect(completion).toMatchObject({
      outcome: Outcome.COMPLETED,
      resultText: "Done.",
      attention: [AttentionReason.NOT_ENFORCED],
    });
    expect(completion.notes.join()).toContain(program);
  },
);

if (missing.length > 0) noticeSkipped("claude's sandbox", `${missing.join(" and ")} must be installed`);
test.skipIf(agents.claude === undefined || missing.length > 0)(
  "claude: an agent that may connect nowhere reaches nobody, whoever would allow it",
  { timeout: patience },
  async () => {
    if (agents.claude === undefined) return;
    const outside = await startOutside();
    const command = `(${knock(outside.port)}); curl -sS -m 5 http://example.org/`;
    const closed = await stage("claude", agents.claude);
    closed.model.replies(
      { calls: [{ name: "Bash", input: { command, description: "try" } }] },
      { text: "Tried." },
    );
    const settings = { preApprovedTools: ["Bash"], egressConfig: { allowedHosts: [] } };
    const { completion } = await closed.run({ settings });
    expect(completion.outcome).toBe(Outcome.COMPLETED);
    expect(completion.attention).toEqual([AttentionReason.PERMISSION_DENIED]);
    expect(outside.visits).toBe(0);
    expect(closed.session.all("question")).toEqual([]);
  },
);
