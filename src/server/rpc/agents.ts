import { create, type Message } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type AgentPlatform,
  type AgentService,
  type AgentSettings,
  AgentSettingsSchema,
  type McpServer,
  McpServerSchema,
  type UpdateAgentSettingsRequest,
  type UpsertPlatformRequest,
} from "#gen/pinion/v1/agent_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { isReference, requireReference } from "../../secrets.ts";
import * as agents from "../../store/agents/agents.ts";
import * as leases from "../../store/agents/platform-leases.ts";
import * as platforms from "../../store/agents/platforms.ts";
import { findDefaultAgentId } from "../../store/people/orgs.ts";
import type { Db } from "../../store/pg/database.ts";
import * as revisions from "../../store/work/revisions.ts";
import { nameOf, principalOf } from "../access/guard.ts";
import { toConnectError } from "../access/interceptors/errors.ts";
import { checkPlatform } from "../platforms/kinds.ts";
import type { PlatformRunner, Upserted } from "../platforms/runner.ts";
import {
  agentMessage,
  outcomeMessages,
  platformMessage,
  settingsJson,
  settingsMessage,
} from "./agent-message.ts";
import type { EventAnnouncer } from "./events.ts";
import { timestampOf } from "./moments.ts";
import { page } from "./page.ts";

export function agentService(deps: {
  db: Db;
  feed: EventAnnouncer;
  runner: PlatformRunner;
  log: Logger;
  /** The public URL of the server; if set, agents receive its MCP server. */
  publicUrl: string | undefined;
  cell: string;
}): ServiceImpl<typeof AgentService> {
  const { db, feed, runner, log } = deps;
  /** Platforms with what their instances say of themselves. */
  async function shown(orgId: string, rows: readonly platforms.Platform[]): Promise<AgentPlatform[]> {
    const stableIds = rows.map((row) => row.stable_id);
    const instances = await leases.findAll(db, { orgId, stableIds });
    return rows.map((row) =>
      platformMessage(row, {
        instance: instances.get(row.stable_id),
        publicUrl: deps.publicUrl,
        cell: deps.cell,
      }),
    );
  }

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
        key: z.tuple([z.string()]),
        keyOf: (row: agents.Agent) => [row.id] as [string],
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

    async updateAgentSettings(request, context) {
      const { orgId, actor } = principalOf(context);
      const fields = requireFields(request);
      const { agent, changed } = await agents.update(db, {
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

    async upsertPlatform(request, context) {
      const { orgId, actor } = principalOf(context);
      const upserted = await runner.upsert({ orgId, ...wantedOf(request, actor) }, context.signal);
      const [platform] = await shown(orgId, [upserted.platform]);
      return upsertedMessage(upserted, platform);
    },

    async batchUpsertPlatforms(request, context) {
      const { orgId, actor } = principalOf(context);
      const read = request.platforms.map((platform) => {
        try {
          return wantedOf(platform, actor);
        } catch (error) {
          return error as Error;
        }
      });
      const wanted = read.filter((one): one is ReturnType<typeof wantedOf> => !(one instanceof Error));
      const settled = wanted.length === 0 ? [] : await runner.upsertAll({ orgId, wanted }, context.signal);
      const results = settled.values();
      const done = settled.flatMap((result) =>
        result.status === "fulfilled" ? [result.value.platform] : [],
      );
      const messages = (await shown(orgId, done)).values();
      const refused = (error: unknown) => {
        const status = toConnectError(error, { log, rpc: nameOf(context.method), signal: context.signal });
        const field = error instanceof Refusal ? error.field : undefined;
        return {
          kind: {
            case: "refused" as const,
            value: { code: status.code, message: status.rawMessage, field: field ?? "" },
          },
        };
      };
      return {
        results: read.map((one) => {
          if (one instanceof Error) return refused(one);
          const result = results.next().value!;
          return result.status === "fulfilled"
            ? { kind: { case: "done" as const, value: upsertedMessage(result.value, messages.next().value) } }
            : refused(result.reason);
        }),
      };
    },

    async listPlatforms(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([z.string()]),
        keyOf: (row: platforms.Platform) => [row.stable_id] as [string],
        fetch: (after, limit) =>
          platforms.list(db, { orgId, limit, afterId: after?.[0], agentId: request.agentId || undefined }),
      });
      return { platforms: await shown(orgId, rows), nextPageToken };
    },

    async deletePlatform(request, context) {
      const { orgId, actor } = principalOf(context);
      const removed = await platforms.remove(db, { orgId, actor, stableId: request.stableId });
      feed.eventsAppended(orgId);
      await runner.endAll([removed]);
      return {};
    },

    async startPlatform(request, context) {
      const { orgId, actor } = principalOf(context);
      const platform = await runner.start({ orgId, actor, stableId: request.stableId }, context.signal);
      const [message] = await shown(orgId, [platform]);
      return { platform: message };
    },

    async stopPlatform(request, context) {
      const { orgId, actor } = principalOf(context);
      const platform = await runner.stop({ orgId, actor, stableId: request.stableId });
      const [message] = await shown(orgId, [platform]);
      return { platform: message };
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

function wantedOf(request: UpsertPlatformRequest, actor: string) {
  const { stableId, expectedVersion, dryRun: isDryRun } = request;
  return { actor, stableId, values: requireValues(request), expectedVersion, isDryRun };
}

function upsertedMessage({ outcome, willRestart, changed }: Upserted, platform: AgentPlatform | undefined) {
  return {
    platform,
    outcome: outcomeMessages[outcome],
    willRestart,
    changedFields: changed,
  };
}

/** Refuses values that are wrong by themselves, before anything is written. */
function requireValues(request: UpsertPlatformRequest): platforms.PlatformValues {
  const { agentId, kind, config } = request;
  const secrets: platforms.PlatformValues["secrets"] = {};
  for (const [name, { kind: given }] of Object.entries(request.secrets)) {
    const field = `secrets.${name}`;
    if (given.case === "keep") secrets[name] = "keep";
    else if (given.case === "value") {
      if (isReference(given.value)) requireReference(given.value, field);
      secrets[name] = { value: given.value };
    } else refuse("invalid_argument", `${field}: give a value, or keep`, { field });
  }
  checkPlatform({ kind, config, secretNames: Object.keys(secrets) });
  return { agentId, kind, config, secrets };
}
