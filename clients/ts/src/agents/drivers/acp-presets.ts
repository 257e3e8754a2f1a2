import type { AgentHost } from "./driver.ts";

/** Arguments added to the command by a preset. */
export function argumentsOf({ executor, task }: AgentHost): string[] {
  if (executor.preset !== "codex-acp") return [];
  const args: string[] = [];
  if (task.systemPrompt !== "")
    args.push("-c", `developer_instructions=${JSON.stringify(task.systemPrompt)}`);
  const model = task.model || executor.model;
  if (model) args.push("-c", `model=${JSON.stringify(model)}`);
  return args;
}

/** Fields of claude-agent-acp beyond the protocol. */
export function metaOf({ executor, task }: AgentHost): { _meta?: Record<string, unknown> } {
  if (executor.preset !== "claude-agent-acp") return {};
  const model = task.model || executor.model;
  return {
    _meta: {
      ...(task.systemPrompt === "" ? {} : { systemPrompt: { append: task.systemPrompt } }),
      claudeCode: {
        options: {
          // No person sees the suggestions, and each suggestion is a request to the model.
          promptSuggestions: false,
          ...(model ? { model } : {}),
          ...(executor.maxTurns === undefined ? {} : { maxTurns: executor.maxTurns }),
          ...(task.approvedTools.length === 0 ? {} : { allowedTools: task.approvedTools }),
        },
      },
    },
  };
}

/**
 * The agent's mode with questions before harmful actions; without a mode an agent may choose
 * another.
 */
export function modeOf(
  preset: string | undefined,
  permissions: "ask" | "deny" | "bypass",
): string | undefined {
  if (preset === "claude-agent-acp") return permissions === "bypass" ? "bypassPermissions" : "default";
  if (preset === "codex-acp") return permissions === "bypass" ? "full-access" : "auto";
  return undefined;
}
