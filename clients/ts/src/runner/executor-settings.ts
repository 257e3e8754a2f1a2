import { z } from "zod";

/** Type of an executor: any program, or an agent with a driver. */
export type ExecutorType = "command" | "claude-code" | "codex" | "acp";

/** Known agents with the Agent Client Protocol, and their start commands. */
export const ACP_PRESETS: Record<string, [string, ...string[]]> = {
  "claude-agent-acp": ["claude-agent-acp"],
  "codex-acp": ["codex-acp"],
  gemini: ["gemini", "--acp"],
  opencode: ["opencode", "acp"],
};

const COMMANDS: Partial<Record<ExecutorType, [string, ...string[]]>> = {
  "claude-code": ["claude"],
  codex: ["codex"],
};

/** Device settings for an agent. A `command` has only `egress`. */
export interface AgentSettings {
  type: ExecutorType;
  /** For `acp`: the known agent, if any. */
  preset: string | undefined;
  /** The agent's model if its configuration in the org names none. */
  model: string | undefined;
  /** Handling of a tool without pre-approval: ask a person, deny, or permit everything. */
  permissions: "ask" | "deny" | "bypass";
  /** Handling of a run with allowed hosts on a device without enforcement of hosts. */
  egress: "enforce" | "advisory";
  /** True: the agent's thinking goes into activities and transcripts. */
  showsThinking: boolean;
  maxTurns: number | undefined;
  claude: { permissionMode: string };
  codex: { sandbox: string };
  acp: { mode: string | undefined };
  /**
   * Environment variables whose values are read at each start: from a file, a systemd credential,
   * or the keychain.
   */
  secrets: Record<string, string>;
}

/** Notation of a secret's source. */
export const SECRET = /^(file:.+|credential:[A-Za-z0-9._-]+|keychain:[^/]+(\/.+)?)$/;

const variableName = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "is not the name of an environment variable");

/** The agent keys of an executor. */
export const agentKeys = {
  type: z.enum(["command", "claude-code", "codex", "acp"]).default("command"),
  preset: z.enum(Object.keys(ACP_PRESETS) as [string, ...string[]]).optional(),
  model: z.string().min(1).max(200).optional(),
  permissions: z.enum(["ask", "deny", "bypass"]).optional(),
  egress: z.enum(["enforce", "advisory"]).optional(),
  thinking: z.boolean().optional(),
  max_turns: z.int().min(1).max(10_000).optional(),
  permission_mode: z.enum(["default", "acceptEdits", "plan", "dontAsk", "auto"]).optional(),
  sandbox: z.enum(["read-only", "workspace-write", "danger-full-access"]).optional(),
  mode: z.string().min(1).max(100).optional(),
  secrets: z
    .record(
      variableName,
      z
        .string()
        .regex(
          SECRET,
          'is not a place of a secret; write "file:PATH", "credential:NAME" or "keychain:SERVICE"',
        ),
    )
    .default({}),
};

type AgentKeys = z.output<z.ZodObject<typeof agentKeys>>;

/** Types with support for a key; other keys are for all types. */
const TYPES_OF_KEY: Partial<Record<keyof AgentKeys | "stdin", ExecutorType[]>> = {
  stdin: ["command"],
  preset: ["acp"],
  model: ["claude-code", "codex", "acp"],
  permissions: ["claude-code", "codex", "acp"],
  thinking: ["claude-code", "codex", "acp"],
  max_turns: ["claude-code", "acp"],
  permission_mode: ["claude-code"],
  sandbox: ["codex"],
  mode: ["acp"],
};

/** Problems between keys: keys without meaning for the type, and a missing command. */
export function problemsOfAgentKeys(
  keys: Partial<AgentKeys> & { type: ExecutorType; command?: unknown; stdin?: unknown },
): { key: string; message: string }[] {
  const { type } = keys;
  const problems: { key: string; message: string }[] = [];
  for (const [key, types] of Object.entries(TYPES_OF_KEY)) {
    if (keys[key as keyof AgentKeys] === undefined || types.includes(type)) continue;
    problems.push({ key, message: `means nothing for type "${type}"; it is for ${types.join(", ")}` });
  }
  if (keys.command === undefined && type === "command") {
    problems.push({
      key: "command",
      message: 'is missing; write for example ["sh", "-c", "echo hello"], or a type',
    });
  }
  if (keys.command === undefined && type === "acp" && keys.preset === undefined) {
    problems.push({
      key: "command",
      message: `is missing; write it, or preset = one of ${Object.keys(ACP_PRESETS).join(", ")}`,
    });
  }
  return problems;
}

/** The command of a type or preset. */
export function usualCommand(
  type: ExecutorType,
  preset: string | undefined,
): [string, ...string[]] | undefined {
  return type === "acp" ? ACP_PRESETS[preset ?? ""] : COMMANDS[type];
}

export function agentSettingsOf(keys: AgentKeys): AgentSettings {
  return {
    type: keys.type,
    preset: keys.preset,
    model: keys.model,
    permissions: keys.permissions ?? "ask",
    // A command gets no list of hosts, and its owner may confine the command in another way.
    egress: keys.egress ?? (keys.type === "command" ? "advisory" : "enforce"),
    showsThinking: keys.thinking ?? false,
    maxTurns: keys.max_turns,
    claude: { permissionMode: keys.permission_mode ?? "default" },
    codex: { sandbox: keys.sandbox ?? "workspace-write" },
    acp: { mode: keys.mode },
    secrets: keys.secrets,
  };
}
