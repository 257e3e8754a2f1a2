/**
 * A reader's directory with a repository, a server, this machine as a device of it, and real agents
 * with a scripted model: what docs/first-agent.md and docs/recipes.md begin with.
 */
import { execFile, execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { inject } from "vitest";
import type { realAgents } from "../support/agents.ts";
import { connectDaemon } from "../support/connected-daemon.ts";
import { createTestDatabase } from "../support/database.ts";
import { blocksOf } from "../support/docs.ts";
import { type Model, startModel } from "../support/model.ts";
import { scriptedVariables, writeCodexConfig } from "../support/scripted-home.ts";
import { openTestReplica, type TestReplica } from "../support/server.ts";

/** The time limit of a command and of a test, in milliseconds. */
export const patience = 90_000;

export type AgentHome = {
  model: Model;
  clients: TestReplica["clients"];
  /** Runs a command in a shell, in the reader's directory; returns the output. */
  run(command: string): Promise<string>;
  /** Triggers a watcher and waits for the end of its run. */
  again(watcherId: string): Promise<void>;
  lastRun(watcherId: string): ReturnType<typeof lastRunOf>;
  window(watcherId: string): ReturnType<typeof windowOf>;
  close(): Promise<void>;
};

type Agents = Awaited<ReturnType<typeof realAgents>>;

export async function openAgentHome(agents: Agents): Promise<AgentHome> {
  const home = mkdtempSync(join(tmpdir(), "pinion-first-agent-"));
  const database = await createTestDatabase();
  const replica = await openTestReplica(database.url);
  const model = await startModel();
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
  const environment: Record<string, string> = {
    PATH: `${join(home, "bin")}:${process.env.PATH}`,
    HOME: home,
    XDG_CONFIG_HOME: join(home, "config"),
    PINION_URL: replica.url,
    PINION_TOKEN: replica.token,
    NO_COLOR: "1",
  };
  const { joinCode } = await replica.clients.fleet.createJoinCode({});
  const run = (command: string) => runIn({ home, environment }, command);
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
  const daemon = await connectDaemon({
    url: replica.url,
    token: identity.token ?? "",
    stateDir: join(home, "state"),
    config,
  });
  return {
    model,
    clients: replica.clients,
    run,
    async again(watcherId) {
      await run(`pinion watchers trigger ${watcherId} --watch`);
    },
    lastRun: (watcherId) => lastRunOf(replica, watcherId),
    window: (watcherId) => windowOf(replica, watcherId),
    async close() {
      await daemon.stop();
      await model.close();
      await replica.stop();
      await database.drop();
      rmSync(home, { recursive: true, force: true });
    },
  };
}

async function lastRunOf({ clients }: TestReplica, watcherId: string) {
  const { runs } = await clients.runs.listRuns({ watcherId });
  return runs[0];
}

async function windowOf({ clients }: TestReplica, watcherId: string) {
  const { windows } = await clients.runs.listWindows({ watcherId });
  return windows[0];
}

type Place = { home: string; environment: Record<string, string> };

function runIn({ home, environment }: Place, command: string): Promise<string> {
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
export function reviewer(model: Model): void {
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
