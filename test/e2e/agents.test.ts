/**
 * From the pages to a real agent: the commands of "docs/first-agent.md" and "docs/recipes.md" as
 * they stand there, on a real server, with the real `claude` and a scripted model; then the same
 * with `codex`, and by the Agent Client Protocol.
 */
import { execFile, execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { Os, parseConfig, runDaemon } from "@pinion/client";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { AttentionReason, QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { realAgents } from "../support/agents.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { blocksOf, documentedCommands } from "../support/docs.ts";
import { type Model, startModel } from "../support/model.ts";
import { scriptedVariables, writeCodexConfig } from "../support/scripted-home.ts";
import { openTestReplica, type TestReplica } from "../support/server.ts";

const agents = await realAgents("claude", "codex", "claude-agent-acp");
const patience = 90_000;

let database: TestDatabase;
let replica: TestReplica;
let model: Model;
const home = mkdtempSync(join(tmpdir(), "pinion-first-agent-"));
const stop = new AbortController();
let daemon: Promise<void> | undefined;
let environment: Record<string, string> = {};

beforeAll(async () => {
  database = await createTestDatabase();
  replica = await openTestReplica(database.url);
  model = await startModel();
  const app = join(home, "work/app");
  for (const folder of ["bin", "tmp", ".codex", "state"]) mkdirSync(join(home, folder));
  mkdirSync(app, { recursive: true });
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=T", "-c", "user.email=t@example.org", ...args], { cwd: app });
  git("init", "--quiet", "--initial-branch=main");
  writeFileSync(join(app, "README"), "hello\n");
  git("add", ".");
  git("commit", "--quiet", "-m", "first");
  writeCodexConfig({ home, modelUrl: model.url });
  const [schema] = blocksOf("docs/first-agent.md").filter(({ language }) => language === "json");
  writeFileSync(join(home, "schema.json"), schema?.text ?? "");
  const script = (name: string, text: string) => {
    writeFileSync(join(home, "bin", name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(home, "bin", name), 0o755);
  };
  script("pinion", `exec "${process.execPath}" "${inject("pinionMain")}" "$@"`);
  symlinkSync(join(home, "bin/pinion"), join(home, "pinion"));
  environment = {
    PATH: `${join(home, "bin")}:${process.env.PATH}`,
    HOME: home,
    XDG_CONFIG_HOME: join(home, "config"),
    PINION_URL: replica.url,
    PINION_TOKEN: replica.token,
    NO_COLOR: "1",
  };
  const { joinCode } = await replica.clients.fleet.createJoinCode({});
  await run(`pinion device enroll --join-code ${joinCode} --label "${hostname()}" --state-dir state --json`);
  const variables = { ...scriptedVariables({ home, modelUrl: model.url }), CLAUDE_CODE_MAX_RETRIES: "0" };
  const set = Object.entries(variables).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  const stanza = (kind: string, type: string, command: string[] | undefined, more = "") =>
    command === undefined
      ? ""
      : `[executors.${kind}]\ntype = "${type}"\n${more}\ncommand = ${JSON.stringify(command)}\nset_env = { ${set.join(", ")} }\n`;
  const config = [
    "[device]\nmax_concurrency = 2",
    stanza("claude-code", "claude-code", agents.claude?.command),
    stanza("codex", "codex", agents.codex?.command),
    stanza("by-acp", "acp", agents["claude-agent-acp"]?.command, 'preset = "claude-agent-acp"'),
    `[workspaces.app]\npath = "${app}"\nmode = "worktree"`,
  ].join("\n");
  const identity = JSON.parse(readFileSync(join(home, "state/identity.json"), "utf8")) as Record<
    string,
    string
  >;
  const connected = Promise.withResolvers<void>();
  daemon = runDaemon({
    url: replica.url,
    token: identity.token ?? "",
    stateDir: join(home, "state"),
    config: parseConfig(config),
    signal: stop.signal,
    os: Os.LINUX,
    env: { PATH: process.env.PATH },
    onEvent: ({ type }) => {
      if (type === "connected") connected.resolve();
    },
  });
  daemon.catch(() => {});
  await connected.promise;
}, 120_000);

afterAll(async () => {
  stop.abort();
  await daemon?.catch(() => {});
  await model.close();
  await replica.stop();
  await database.drop();
  rmSync(home, { recursive: true, force: true });
}, 60_000);

/** Runs a command in a shell; returns the output. */
function run(command: string): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      "sh",
      ["-c", command],
      { cwd: home, env: environment, timeout: patience },
      (error, stdout, stderr) => {
        if (error === null) resolve(`${stdout}${stderr}`);
        else reject(new Error(`${command}\n${stdout}${stderr}`));
      },
    );
  });
}

/** The model gives an answer that matches the page's schema, after a look at the repository. */
function reviewer(): void {
  model.script(({ tools, conversation, api, body }) => {
    if (tools.length <= 3) return { text: "A title" };
    const data = { severity: 2, summary: "One commit, nothing dangerous." };
    const isAsked = JSON.stringify(body).includes("severity");
    if (!conversation.includes("tool_result") && api === "anthropic") {
      return {
        text: "Let me look.",
        calls: [{ name: "Bash", input: { command: "git log --oneline", description: "log" } }],
      };
    }
    if (!isAsked) return { text: "One commit, nothing dangerous." };
    return tools.includes("StructuredOutput")
      ? { calls: [{ name: "StructuredOutput", input: data }] }
      : { text: JSON.stringify(data) };
  });
}

const clients = () => replica.clients;

async function lastRun(watcherId: string) {
  const { runs } = await clients().runs.listRuns({ watcherId });
  return runs[0];
}

async function window(watcherId: string) {
  const { windows } = await clients().runs.listWindows({ watcherId });
  return windows[0];
}

describe.skipIf(agents.claude === undefined)("claude, by the commands of the pages", () => {
  const pages = ["docs/first-agent.md", "docs/recipes.md"];
  const commands = documentedCommands().filter(({ page }) => pages.includes(page));

  test.for(commands)("$page:$line $command", { timeout: patience }, async ({ command }) => {
    reviewer();
    const printed = await run(command);
    expect(printed).not.toMatch(/^error:|\bundefined\b|\[object Object\]/m);
  });

  test("the model was told what the org configured, and the window has the data", {
    timeout: patience,
  }, async () => {
    const told = model.requests.filter(({ system }) => system.includes("You review a repository."));
    expect(told[0]?.system).toContain("Never push.");
    expect(told.some(({ conversation }) => conversation.includes("What changed in the last day"))).toBe(true);
    expect(told.some(({ tools }) => tools.includes("StructuredOutput"))).toBe(true);
    expect(await window("digest")).toMatchObject({
      agentKind: "claude-code",
      extractedData: { kind: "device_cli_output", structured: { severity: 2 } },
    });
    const run = await lastRun("digest");
    expect(run).toMatchObject({ status: RunStatus.COMPLETED, attention: [], workspace: "app" });
    expect(run?.sessionId).not.toBe("");
    expect(run?.usage?.isCostAgentsOwn).toBe(true);
    // A second run receives the findings of the first run.
    reviewer();
    await again("digest");
    expect(model.requests.findLast(({ tools }) => tools.length > 3)?.conversation).toContain(
      "nothing dangerous",
    );
  });
});

async function again(watcherId: string): Promise<void> {
  await run(`pinion watchers trigger ${watcherId} --watch`);
}

test.skipIf(agents.codex === undefined)(
  "codex: the same watcher by another executor",
  { timeout: patience },
  async () => {
    reviewer();
    await clients().agents.createAgent({
      agentId: "coder",
      settings: { identity: "You code.", model: "scripted-9" },
    });
    await run(
      `pinion watchers create by-codex --agent coder --agent-kind codex --device "${hostname()}" --workspace app --schema schema.json --prompt "Rate it."`,
    );
    await again("by-codex");
    expect(await window("by-codex")).toMatchObject({
      agentKind: "codex",
      extractedData: { structured: { severity: 2 } },
    });
    const asked = model.requests.findLast(({ api }) => api === "openai");
    expect(asked).toMatchObject({ model: "scripted-9", system: expect.stringContaining("You code.") });
  },
);

test.skipIf(agents["claude-agent-acp"] === undefined)(
  "acp: a tool that is not pre-approved is asked, answered on the command line, and done",
  { timeout: patience },
  async () => {
    model.script(({ tools, isAfterTool, last }) => {
      if (tools.length <= 3) return { text: "A title" };
      if (isAfterTool) return { text: `Done: ${last}` };
      return {
        calls: [{ name: "Bash", input: { command: "touch made-it && echo made", description: "make" } }],
      };
    });
    await clients().agents.createAgent({ agentId: "asker", settings: {} });
    await run(
      `pinion watchers create by-acp --agent asker --agent-kind by-acp --device "${hostname()}" --workspace app --prompt "Make it."`,
    );
    await run("pinion watchers trigger by-acp");
    await expect.poll(async () => (await lastRun("by-acp"))?.openQuestions, { timeout: 60_000 }).toBe(1);
    const asked = await run("pinion runs questions");
    expect(asked).toContain("touch made-it");
    const id = (await lastRun("by-acp"))?.id ?? "";
    const { questions } = await clients().runs.listQuestions({ runId: id });
    const allow = questions[0]?.question?.options.find(({ kind }) => kind === QuestionOptionKind.ALLOW_ONCE);
    await run(`pinion runs answer ${id} ${allow?.id}`);
    await expect
      .poll(async () => (await lastRun("by-acp"))?.status, { timeout: 60_000 })
      .toBe(RunStatus.COMPLETED);
    const done = await lastRun("by-acp");
    expect(done?.attention).not.toContain(AttentionReason.PERMISSION_DENIED);
    expect(done?.keptWorkspace).toMatchObject({ name: "app", changedFiles: 1 });
    expect(await window("by-acp")).toMatchObject({ result: expect.stringContaining("made") });
  },
);
