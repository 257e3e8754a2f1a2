import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { JsonObject, MessageInitShape } from "@bufbuild/protobuf";
import { onTestFinished } from "vitest";
import type { AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import type { Assignment, AssignmentSchema, Completion } from "#gen/pinion/v1/device_pb.js";
import type { AgentName, RealAgent } from "../../support/agents.ts";
import { type Model, startModel } from "../../support/model.ts";
import type { Peer } from "../../support/peer.ts";
import type { PeerSession } from "../../support/peer-session.ts";
import {
  scriptedVariables,
  writeCodexConfig,
  writeGeminiSettings,
  writeOpencodeConfig,
} from "../../support/scripted-home.ts";
import { makeStateDir, settledSession, startDaemon, startPeer, type TestDaemon } from "../client/harness.ts";

/** The executor settings by which a device runs a real agent. */
const EXECUTORS: Record<AgentName, { type: string; more: string }> = {
  claude: { type: "claude-code", more: "" },
  codex: { type: "codex", more: "" },
  "claude-agent-acp": { type: "acp", more: 'preset = "claude-agent-acp"' },
  "codex-acp": { type: "acp", more: 'preset = "codex-acp"' },
  opencode: { type: "acp", more: 'preset = "opencode"' },
  gemini: { type: "acp", more: 'preset = "gemini"' },
};

export interface Stage {
  name: AgentName;
  model: Model;
  peer: Peer;
  daemon: TestDaemon;
  session: PeerSession;
  stateDir: string;
  /** The agent's home; the agent writes nothing outside of the home. */
  home: string;
  config: string;
  env: NodeJS.ProcessEnv;
  /** Assigns a run and waits for its completion. */
  run(asked?: Asked): Promise<Done>;
  assign(asked?: Asked): Assignment;
}

export interface Asked {
  prompt?: string;
  timeoutMs?: number;
  settings?: MessageInitShape<typeof AgentSettingsSchema>;
  schema?: Record<string, unknown>;
  more?: MessageInitShape<typeof AssignmentSchema>;
}

export interface Done {
  completion: Completion;
  assignment: Assignment;
}

/** A daemon with one real agent, a scripted server above and a scripted model below. */
export async function stage(
  name: AgentName,
  agent: RealAgent,
  options: { executor?: string; config?: string; capabilities?: string[]; path?: string } = {},
): Promise<Stage> {
  const model = await startModel();
  onTestFinished(() => model.close());
  const peer = await startPeer({
    capabilities: options.capabilities ?? ["activity", "questions"],
    patienceMs: 60_000,
  });
  const stateDir = makeStateDir();
  const home = makeHome(model.url);
  const variables = variablesOf({ home, modelUrl: model.url });
  const config = configOf(name, agent, { ...options, variables });
  const env = { PATH: options.path ?? process.env.PATH };
  const daemon = startDaemon(peer.url, config, { stateDir, env });
  const session = await settledSession(peer);
  const assign = (asked: Asked = {}) => {
    const prompt = asked.prompt ?? "Do the thing.";
    const about: MessageInitShape<typeof AssignmentSchema> = {
      agent: { id: "reviewer", name: "Reviewer", version: 1, settings: asked.settings ?? {} },
      watcher: {
        id: "w",
        slug: "daily",
        name: "Daily",
        version: 1,
        prompt,
        ...(asked.schema === undefined ? {} : { extractionSchema: asked.schema as JsonObject }),
      },
    };
    return made.session.assign({
      prompt,
      ...(asked.timeoutMs === undefined ? {} : { timeoutMs: asked.timeoutMs }),
      more: Object.assign(about, asked.more),
    });
  };
  const made: Stage = {
    name,
    model,
    peer,
    daemon,
    session,
    stateDir,
    home,
    config,
    env,
    assign,
    run: async (asked) => {
      const assignment = assign(asked);
      const completion = await made.session.next(
        "complete",
        ({ attemptToken }) => attemptToken === assignment.attemptToken,
      );
      return { completion, assignment };
    },
  };
  return made;
}

/** A home folder with the agents' own settings: the scripted model, and no retries. */
function makeHome(modelUrl: string): string {
  const home = join(makeStateDir(), "home");
  mkdirSync(join(home, ".codex"), { recursive: true });
  mkdirSync(join(home, "tmp"));
  writeCodexConfig({ home, modelUrl }, "request_max_retries = 0\nstream_max_retries = 0\n");
  writeOpencodeConfig({ home, modelUrl });
  writeGeminiSettings(home);
  return home;
}

function variablesOf({ home, modelUrl }: { home: string; modelUrl: string }): Record<string, string> {
  return {
    ...scriptedVariables({ home, modelUrl }),
    CLAUDE_CODE_MAX_RETRIES: "0",
    GOOGLE_GEMINI_BASE_URL: modelUrl,
    GEMINI_API_KEY: "k",
    GEMINI_MODEL: "scripted-1",
    // Opencode has a list of models of its own, and would ask the network for a newer one.
    OPENCODE_DISABLE_MODELS_FETCH: "1",
    // Gemini is a script of 16 MB, and starts itself again in a second process.
    GEMINI_CLI_NO_RELAUNCH: "true",
    ...compileCache(),
  };
}

/** The daemon's configuration, in TOML. */
function configOf(
  name: AgentName,
  agent: RealAgent,
  options: { variables: Record<string, string>; executor?: string; config?: string },
): string {
  const { type, more } = EXECUTORS[name];
  const variables = Object.entries(options.variables).map(
    ([key, value]) => `${key} = ${JSON.stringify(value)}`,
  );
  return `
[device]
default_executor = "${name}"
[executors.${name}]
type = "${type}"
${more}
command = ${JSON.stringify(agent.command)}
kill_grace = "500ms"
set_env = { ${variables.join(", ")} }
${options.executor ?? ""}
${options.config ?? ""}
`;
}

/** Node's cache of compiled code, for agents in JavaScript. */
function compileCache(): Record<string, string> {
  const folder = process.env.NODE_COMPILE_CACHE;
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: folder };
}

/**
 * The living processes of a group: ended processes that were not waited for (zombies) do not count.
 */
export function livingInGroup(group: number): string[] {
  return readdirSync("/proc").filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      // After the name in brackets: state, parent, group.
      const [state, , groupId] = readFileSync(`/proc/${name}/stat`, "utf8")
        .replace(/^.*\) /s, "")
        .split(" ");
      return groupId === String(group) && state !== "Z";
    } catch {
      return false;
    }
  });
}
