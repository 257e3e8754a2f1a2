import { create } from "@bufbuild/protobuf";
import { type Agent, type AgentSettings, AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import type { AgentTree } from "../file/shape.ts";

/** An agent's name, device and settings in the file's terms. The device is an id, or empty. */
export type AgentFields = {
  name: string;
  device: string;
  identity: string;
  model: string;
  mcp_servers: { name: string; url: string }[];
  installed_providers: string[];
  egress_config: { allowed_hosts: string[] } | "unrestricted";
  pre_approved_tools: string[];
  guardrails: string[];
  workspace: string;
};

export const agentFieldNames = [
  "name",
  "device",
  "identity",
  "model",
  "mcp_servers",
  "installed_providers",
  "egress_config",
  "pre_approved_tools",
  "guardrails",
  "workspace",
] as const satisfies (keyof AgentFields)[];

/**
 * Fields of an agent from the file; fields missing in the file keep the server's value. `device` is
 * the file's text: a label or an id.
 */
export function fieldsOfAgentTree(tree: AgentTree): Partial<AgentFields> {
  const named = agentFieldNames.filter((name) => tree[name] !== undefined);
  return Object.fromEntries(named.map((name) => [name, tree[name]])) as Partial<AgentFields>;
}

/** Fields of an agent from the server, without the MCP servers added by Pinion. */
export function fieldsOfAgent(agent: Agent): AgentFields {
  const settings = agent.settings ?? create(AgentSettingsSchema);
  return {
    name: agent.name,
    device: agent.deviceId,
    identity: settings.identity,
    model: settings.model,
    mcp_servers: settings.mcpServers
      .filter((server) => !server.isInjected)
      .map(({ name, url }) => ({ name, url })),
    installed_providers: [...settings.installedProviders],
    egress_config: settings.egressConfig
      ? { allowed_hosts: [...settings.egressConfig.allowedHosts] }
      : "unrestricted",
    pre_approved_tools: [...settings.preApprovedTools],
    guardrails: [...settings.guardrails],
    workspace: settings.workspace,
  };
}

/** The settings message with the fields. */
export function settingsOfFields(fields: Partial<AgentFields>): AgentSettings {
  const egress = fields.egress_config;
  return create(AgentSettingsSchema, {
    identity: fields.identity ?? "",
    model: fields.model ?? "",
    mcpServers: fields.mcp_servers ?? [],
    installedProviders: fields.installed_providers ?? [],
    ...(egress === undefined || egress === "unrestricted"
      ? {}
      : { egressConfig: { allowedHosts: egress.allowed_hosts } }),
    preApprovedTools: fields.pre_approved_tools ?? [],
    guardrails: fields.guardrails ?? [],
    workspace: fields.workspace ?? "",
  });
}
