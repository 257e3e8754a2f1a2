import type { AgentHost } from "./driver.ts";

/** Arguments of Claude Code for a task, with files for long or secret values. */
export async function argumentsOf(host: AgentHost): Promise<string[]> {
  const { task, executor } = host;
  const args = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"];
  if (executor.permissions === "bypass") args.push("--dangerously-skip-permissions");
  else args.push("--permission-prompt-tool", "stdio", "--permission-mode", executor.claude.permissionMode);
  if (task.systemPrompt !== "") {
    // In files: a prompt may exceed the system's argument limit, and other users can read
    // arguments.
    args.push("--append-system-prompt-file", await host.file("system-prompt.md", task.systemPrompt));
    // A resumed session would otherwise keep its first system prompt.
    if (task.session !== undefined) args.push("--system-prompt-snapshot", "off");
  }
  const model = task.model || executor.model;
  if (model) args.push("--model", model);
  if (task.mcpServers.length > 0) {
    const mcpServers = Object.fromEntries(
      task.mcpServers.map(({ name, url, bearerToken }) => [
        name,
        {
          type: "http",
          url,
          ...(bearerToken === undefined ? {} : { headers: { Authorization: `Bearer ${bearerToken}` } }),
        },
      ]),
    );
    args.push("--mcp-config", await host.file("mcp.json", JSON.stringify({ mcpServers })));
  }
  args.push("--settings", await host.file("settings.json", JSON.stringify(settingsOf(host))));
  // A repository's own settings could open closed hosts, so only the settings of the device's owner
  // apply.
  if (task.allowedHosts !== undefined && task.enforcesEgress) {
    args.push("--setting-sources", "user", "--strict-mcp-config");
  }
  if (task.schema !== undefined) args.push("--json-schema", JSON.stringify(task.schema));
  if (executor.maxTurns !== undefined) args.push("--max-turns", String(executor.maxTurns));
  if (task.budget.costMicrosMax > 0n) {
    args.push("--max-budget-usd", String(Number(task.budget.costMicrosMax) / 1_000_000));
  }
  if (task.session !== undefined) args.push("--resume", task.session.id);
  return args;
}

/** Rules and sandbox settings for this start only. */
function settingsOf({ task }: AgentHost): Record<string, unknown> {
  const allow = [...task.approvedTools];
  const deny: string[] = [];
  const hosts = task.allowedHosts;
  if (hosts === undefined) return { permissions: { allow } };
  // The provider runs the search, with any text chosen by the model.
  deny.push("WebSearch");
  if (hosts.length === 0) deny.push("WebFetch");
  else allow.push(...hosts.map((name) => `WebFetch(domain:${wildcard(name)})`));
  if (!task.enforcesEgress) return { permissions: { allow, deny } };
  return {
    permissions: { allow, deny },
    sandbox: {
      enabled: true,
      failIfUnavailable: true,
      allowUnsandboxedCommands: false,
      autoAllowBashIfSandboxed: false,
      network: {
        allowedDomains: hosts.map(wildcard),
        allowManagedDomainsOnly: false,
        allowLocalBinding: false,
      },
    },
  };
}

/** ".example.org" in Claude's notation. */
const wildcard = (name: string) => (name.startsWith(".") ? `*${name}` : name);
