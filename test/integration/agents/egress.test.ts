/** Where an agent may connect to, enforced by the agents' own sandboxes and seen from the other side. */
import { createServer } from "node:http";
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

/** Somebody outside, who counts the visits. */
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
    // Its web search, which its provider makes, is off as well.
    expect(closed.model.requests[0]?.tools).not.toContain("web_search");
    const open = await stage("codex", agents.codex, { executor: 'sandbox = "danger-full-access"' });
    open.model.replies(call, { text: "Tried." });
    await open.run();
    expect(outside.visits).toBe(1);
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
