import { create, type Message } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type AgentService,
  type AgentSettings,
  AgentSettingsSchema,
  type McpServer,
  McpServerSchema,
  type UpdateAgentSettingsRequest,
} from "#gen/pinion/v1/agent_pb.js";
import { refuse } from "../../errors.ts";
import * as agentEdits from "../../store/agents/agent-edits.ts";
import * as agents from "../../store/agents/agents.ts";
import { findDefaultAgentId } from "../../store/people/orgs/default-agents.ts";
import * as revisions from "../../store/work/watchers/revisions.ts";
import { principalOf } from "../access/principal.ts";
import { agentMessage, settingsJson, settingsMessage } from "./messages/agent-message.ts";
import { timestampOf } from "./messages/moments.ts";
import { page, textKey } from "./page.ts";
import { type PlatformDeps, platformRpcs } from "./platforms.ts";

/** `publicUrl`: if set, agents receive the server's MCP server. */
type Deps = PlatformDeps;

type Served = ServiceImpl<typeof AgentService>;

export function agentService(deps: Deps): Served {
  return { ...readRpcs(deps), ...editRpcs(deps), ...platformRpcs(deps) };
}

function readRpcs(deps: Deps): Pick<Served, "getAgent" | "listAgents" | "listAgentRevisions"> {
  const { db } = deps;

  return {
    async getAgent(request, context) {
      const { orgId } = principalOf(context);
      const agentId =
        request.agentId ||
        ((await findDefaultAgentId(db, { orgId })) ?? refuse("not_found", "the org has no default agent"));
      return { agent: agentMessage(await agents.get(db, { orgId, agentId })) };
    },

    async listAgents(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: agents.Agent) => [row.id],
        fetch: (after, limit) => agents.list(db, { orgId, limit, afterId: after?.[0] }),
      });
      return { agents: rows.map(agentMessage), nextPageToken };
    },

    async listAgentRevisions({ agentId }, context) {
      const { orgId } = principalOf(context);
      const rows = await revisions.ofAgent(db, { orgId, agentId });
      if (rows.length === 0 || !(await agents.find(db, { orgId, agentId }))) {
        refuse("not_found", `there is no agent ${agentId}`);
      }
      return {
        revisions: rows.map(({ version, name, settings, createdAt }) => ({
          version,
          name,
          settings: settingsMessage(settings),
          createdAt: timestampOf(createdAt),
        })),
      };
    },
  };
}

/** Edits of agents. The injected MCP servers come from the server, never from a request. */
function editRpcs(deps: Deps): Pick<Served, "createAgent" | "updateAgentSettings" | "deleteAgent"> {
  const { db, feed, runner } = deps;
  const injected = agents.injectedServers(deps.publicUrl).map((server) => create(McpServerSchema, server));

  return {
    async createAgent(request, context) {
      const { orgId, actor, userId } = principalOf(context);
      const settings = request.settings ?? create(AgentSettingsSchema);
      const { agent, isCreated } = await agents.create(db, {
        orgId,
        actor,
        agentId: request.agentId,
        name: request.name || request.agentId,
        ownerId: request.ownerId || userId,
        settings: settingsJson(withInjected(settings, injected)),
        isDryRun: request.dryRun,
      });
      if (isCreated && !request.dryRun) feed.eventsAppended(orgId);
      return { agent: agentMessage(agent), created: isCreated };
    },

    async updateAgentSettings(request, context) {
      const { orgId, actor } = principalOf(context);
      const fields = requireFields(request);
      const { agent, changed } = await agentEdits.update(db, {
        orgId,
        actor,
        agentId: request.agentId,
        expectedVersion: request.expectedVersion,
        isDryRun: request.dryRun,
        change: (current) => ({
          name: request.name ?? current.name,
          ownerId: request.ownerId ?? current.ownerId,
          isDefault: request.isDefault ?? current.isDefault,
          deviceId:
            request.deviceId === undefined ? current.deviceId : request.deviceId.toLowerCase() || null,
          noExecutorReason: request.deviceId === undefined ? current.noExecutorReason : "",
          settings:
            fields.length === 0 ? current.settings : merge(current.settings, request.settings, fields),
        }),
      });
      if (changed.length > 0 && !request.dryRun) feed.eventsAppended(orgId);
      return { agent: agentMessage(agent), changedFields: changed };
    },

    async deleteAgent(request, context) {
      const { orgId, actor } = principalOf(context);
      const removed = await agents.remove(db, { orgId, actor, agentId: request.agentId });
      feed.eventsAppended(orgId);
      await runner.endAll(removed.platforms);
      return {};
    },
  };
}

/**
 * The settings with exactly the given injected servers. Refuses servers with equal names or with a
 * password in the URL.
 */
function withInjected(settings: AgentSettings, injected: readonly McpServer[]): AgentSettings {
  const given = settings.mcpServers.filter((server) => !server.isInjected);
  const names = new Set(injected.map((server) => server.name));
  const field = "settings.mcp_servers";
  for (const { name, url } of given) {
    if (names.has(name)) {
      refuse("invalid_argument", `${field}: "${name}" is there twice, or is Pinion's own`, { field });
    }
    names.add(name);
    if (url === "") continue;
    const parsed = URL.parse(url);
    if (!parsed) refuse("invalid_argument", `${field}: the url of "${name}" is none`, { field });
    if (parsed.username !== "" || parsed.password !== "") {
      refuse("invalid_argument", `${field}: the url of "${name}" holds a password; settings are listed`, {
        field,
      });
    }
  }
  return { ...settings, mcpServers: [...injected, ...given] };
}

type Setting = Exclude<keyof AgentSettings, keyof Message>;

/** The settings fields of an update, by their names in TypeScript. */
function requireFields(request: UpdateAgentSettingsRequest): Setting[] {
  const paths = request.updateMask?.paths ?? [];
  const field = "update_mask";
  const { name, ownerId, isDefault, deviceId } = request;
  const isOtherwiseSet = [name, ownerId, isDefault, deviceId].some((value) => value !== undefined);
  if (paths.length === 0 && !isOtherwiseSet) {
    refuse("invalid_argument", "update_mask: name at least one field of settings", { field });
  }
  const known = AgentSettingsSchema.fields;
  if (paths.includes("*")) return known.map((candidate) => candidate.localName as Setting);
  return paths.map((path) => {
    const found = known.find((candidate) => candidate.name === path);
    if (!found) refuse("invalid_argument", `update_mask: settings have no field "${path}"`, { field });
    return found.localName as Setting;
  });
}

/**
 * The settings with the named fields replaced; an unset field is cleared. Injected servers stay.
 */
function merge(
  stored: agents.Agent["settings"],
  wanted: AgentSettings | undefined,
  fields: readonly Setting[],
) {
  const current = settingsMessage(stored);
  const source = wanted ?? create(AgentSettingsSchema);
  const merged: AgentSettings = {
    ...current,
    ...Object.fromEntries(fields.map((field) => [field, source[field]])),
  };
  const injected = current.mcpServers.filter((server) => server.isInjected);
  return settingsJson(withInjected(merged, injected));
}
