import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import type {
  AgentPlatform,
  AgentService,
  BatchUpsertPlatformsRequest,
  BatchUpsertPlatformsResponseSchema,
  UpsertPlatformRequest,
} from "#gen/pinion/v1/agent_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import { isReference, requireReference } from "../../secrets.ts";
import * as leases from "../../store/agents/platform-leases.ts";
import * as platforms from "../../store/agents/platforms.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Logger } from "../../telemetry/log.ts";
import { toConnectError } from "../access/interceptors/errors.ts";
import { principalOf } from "../access/principal.ts";
import { nameOf } from "../access/rules.ts";
import { checkPlatform } from "../platforms/kinds.ts";
import type { PlatformRunner, Upserted } from "../platforms/runner.ts";
import type { EventAnnouncer } from "./events.ts";
import { outcomeMessages, platformMessage } from "./messages/agent-message.ts";
import { page, textKey } from "./page.ts";

export interface PlatformDeps {
  db: Db;
  feed: EventAnnouncer;
  runner: PlatformRunner;
  log: Logger;
  /** The public URL of the server; if set, platforms have addresses. */
  publicUrl: string | undefined;
  cell: string;
}

type Served = ServiceImpl<typeof AgentService>;

/** The chat platforms of agents, a part of AgentService. */
export function platformRpcs(
  deps: PlatformDeps,
): Pick<
  Served,
  | "upsertPlatform"
  | "batchUpsertPlatforms"
  | "listPlatforms"
  | "deletePlatform"
  | "startPlatform"
  | "stopPlatform"
> {
  const { db, feed, runner } = deps;

  return {
    async upsertPlatform(request, context) {
      const { orgId, actor } = principalOf(context);
      const upserted = await runner.upsert({ orgId, ...wantedOf(request, actor) }, context.signal);
      const [platform] = await shown(deps, orgId, [upserted.platform]);
      return upsertedMessage(upserted, platform);
    },

    batchUpsertPlatforms: (request, context) => batchUpsert(deps, request, context),

    async listPlatforms(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: platforms.Platform) => [row.stable_id],
        fetch: (after, limit) =>
          platforms.list(db, { orgId, limit, afterId: after?.[0], agentId: request.agentId || undefined }),
      });
      return { platforms: await shown(deps, orgId, rows), nextPageToken };
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
      const [message] = await shown(deps, orgId, [platform]);
      return { platform: message };
    },

    async stopPlatform(request, context) {
      const { orgId, actor } = principalOf(context);
      const platform = await runner.stop({ orgId, actor, stableId: request.stableId });
      const [message] = await shown(deps, orgId, [platform]);
      return { platform: message };
    },
  };
}

/** Platforms with what their instances say of themselves. */
async function shown(
  { db, publicUrl, cell }: PlatformDeps,
  orgId: string,
  rows: readonly platforms.Platform[],
): Promise<AgentPlatform[]> {
  const stableIds = rows.map((row) => row.stable_id);
  const instances = await leases.findAll(db, { orgId, stableIds });
  return rows.map((row) => platformMessage(row, { instance: instances.get(row.stable_id), publicUrl, cell }));
}

/**
 * Each platform by itself: a refused one does not stop the others. Results are in the request's
 * order.
 */
async function batchUpsert(
  deps: PlatformDeps,
  request: BatchUpsertPlatformsRequest,
  context: HandlerContext,
): Promise<MessageInitShape<typeof BatchUpsertPlatformsResponseSchema>> {
  const { orgId, actor } = principalOf(context);
  const read = request.platforms.map((platform) => {
    try {
      return wantedOf(platform, actor);
    } catch (error) {
      return error as Error;
    }
  });
  const wanted = read.filter((one): one is ReturnType<typeof wantedOf> => !(one instanceof Error));
  const settled = wanted.length === 0 ? [] : await deps.runner.upsertAll({ orgId, wanted }, context.signal);
  const done = settled.flatMap((result) => (result.status === "fulfilled" ? [result.value.platform] : []));
  const messages = (await shown(deps, orgId, done)).values();
  const results = settled.map((result) =>
    result.status === "fulfilled"
      ? { kind: { case: "done" as const, value: upsertedMessage(result.value, messages.next().value) } }
      : refusedMessage(deps.log, result.reason, context),
  );
  const answers = results.values();
  return {
    results: read.flatMap((one) => {
      if (one instanceof Error) return [refusedMessage(deps.log, one, context)];
      const { value } = answers.next();
      return value ? [value] : [];
    }),
  };
}

function refusedMessage(log: Logger, error: unknown, context: HandlerContext) {
  const status = toConnectError(error, { log, rpc: nameOf(context.method), signal: context.signal });
  const field = error instanceof Refusal ? error.field : undefined;
  return {
    kind: {
      case: "refused" as const,
      value: { code: status.code, message: status.rawMessage, field: field ?? "" },
    },
  };
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
