import { create } from "@bufbuild/protobuf";
import { durationMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  HookDeliverySchema,
  HookKind,
  HookOutcome,
  HookSchema,
  type HookService,
  type HookSpec,
  HookSpecSchema,
  type UpdateHookRequest,
} from "#gen/pinion/v1/hook_pb.js";
import { refuse } from "../../errors.ts";
import { isReference, type Keyring } from "../../secrets.ts";
import type { Db } from "../../store/pg/database.ts";
import * as starts from "../../store/work/runs/starts.ts";
import * as hooks from "../../store/work/watchers/hooks.ts";
import * as watchers from "../../store/work/watchers/watchers.ts";
import { take } from "../../usecases/hook-deliveries.ts";
import * as usecases from "../../usecases/hooks.ts";
import type { Surroundings } from "../../usecases/surroundings.ts";
import { withCell } from "../../values/ids.ts";
import { redactInput } from "../../values/input.ts";
import { checkMessage } from "../access/interceptors/validate.ts";
import { principalOf } from "../access/principal.ts";
import type { EventAnnouncer } from "./events.ts";
import { given } from "./messages/given.ts";
import { inputValue } from "./messages/input-message.ts";
import { timestampOf } from "./messages/moments.ts";
import { page, textKey } from "./page.ts";

/** As documented in the .proto. */
const rateDefault = 60;

const kinds: Record<hooks.HookKind, HookKind> = {
  standard: HookKind.STANDARD,
  github: HookKind.GITHUB,
  gitlab: HookKind.GITLAB,
  slack: HookKind.SLACK,
  bearer: HookKind.BEARER,
  secret_url: HookKind.SECRET_URL,
};
const kindsByMessage = new Map(
  Object.entries(kinds).map(([kind, message]) => [message, kind as hooks.HookKind]),
);
const outcomes: Record<hooks.HookOutcome, HookOutcome> = {
  started: HookOutcome.STARTED,
  already_queued: HookOutcome.ALREADY_QUEUED,
  queued: HookOutcome.QUEUED,
  skipped: HookOutcome.SKIPPED,
  filtered: HookOutcome.FILTERED,
  failed: HookOutcome.FAILED,
};

function specOf(row: hooks.HookRow): HookSpec {
  return create(HookSpecSchema, {
    watcherId: row.watcherSlug,
    kind: kinds[row.kind],
    filter: row.filter,
    mapping: row.mapping,
    ratePerMinute: row.ratePerMinute,
    isDisabled: row.isDisabled,
  });
}

function valuesOf(spec: HookSpec) {
  const kind = given(kindsByMessage.get(spec.kind), "spec.kind");
  const { watcherId: watcher, filter, mapping, isDisabled } = spec;
  return { kind, watcher, filter, mapping, isDisabled, ratePerMinute: spec.ratePerMinute || rateDefault };
}

/**
 * The spec with the fields of the request's mask replaced; an unset field is reset to its default.
 * The result must pass the message's rules.
 */
function merge(spec: HookSpec, { spec: wanted, updateMask }: UpdateHookRequest): HookSpec {
  const source = wanted ?? create(HookSpecSchema);
  for (const path of updateMask?.paths ?? []) {
    const known = HookSpecSchema.fields.find(({ name }) => name === path);
    if (!known) {
      refuse("invalid_argument", `update_mask: spec has no field "${path}"`, { field: "update_mask" });
    }
    Object.assign(spec, { [known.localName]: source[known.localName as "filter"] });
  }
  const violation = checkMessage(HookSpecSchema, spec);
  if (violation) {
    refuse("invalid_argument", `spec.${violation.message}`, { field: `spec.${violation.field}` });
  }
  return spec;
}

function deliveryMessage(row: hooks.DeliveryRow, shown: { redact: readonly string[] } | undefined) {
  return create(HookDeliverySchema, {
    id: row.id,
    hookId: row.hookId,
    deliveryId: row.key ?? "",
    receivedAt: timestampFromDate(row.receivedAt),
    event: row.event,
    outcome: outcomes[row.outcome],
    runId: row.runId ?? "",
    reason: row.reason,
    duplicates: row.duplicates,
    replayOf: row.replayOf ?? "",
    bodyBytes: row.bodyBytes,
    ...(shown && row.hasBody
      ? { body: inputValue(redactInput(row.body, shown.redact)), headers: row.headers }
      : {}),
  });
}

interface Deps {
  db: Db;
  feed: EventAnnouncer;
  keyring: Keyring;
  surroundings: Surroundings;
  publicUrl: string | undefined;
  cell: string;
}

type Served = ServiceImpl<typeof HookService>;

function urlOf({ publicUrl, cell }: Deps, id: string, secret = ""): string {
  const base = (publicUrl ?? "").replace(/\/$/, "");
  return `${base}/hooks/${withCell(id, cell)}${secret ? `/${secret}` : ""}`;
}

function hookMessage(deps: Deps, row: hooks.HookRow) {
  return create(HookSchema, {
    id: row.id,
    slug: row.slug,
    spec: specOf(row),
    url: urlOf(deps, row.id),
    version: row.version,
    ...{ createdAt: timestampOf(row.createdAt), updatedAt: timestampOf(row.updatedAt) },
    ...{ oldSecretUntil: timestampOf(row.oldSecretUntil), lastDeliveryAt: timestampOf(row.lastDeliveryAt) },
    ...{ lastRefusedAt: timestampOf(row.lastRefusedAt), lastRefusedReason: row.lastRefusedReason },
    secretReference: isReference(row.secret) ? row.secret : "",
  });
}

/** A hook with a new secret, and the address for the other system. */
function madeMessage(deps: Deps, { hook, secret }: { hook: hooks.HookRow; secret: string }) {
  const url = urlOf(deps, hook.id, hook.kind === "secret_url" ? secret : "");
  return { hook: hookMessage(deps, hook), secret, url };
}

export function hookService(deps: Deps): Served {
  return { ...hookReads(deps), ...hookEdits(deps), ...deliveryRpcs(deps) };
}

function hookReads(deps: Deps): Pick<Served, "getHook" | "listHooks"> {
  const { db } = deps;

  return {
    async getHook({ hookId: hook }, context) {
      const { orgId } = principalOf(context);
      return { hook: hookMessage(deps, await hooks.get(db, { orgId, hook })) };
    },

    async listHooks(request, context) {
      const { orgId } = principalOf(context);
      const watcherId =
        request.watcherId === ""
          ? undefined
          : (await watchers.get(db, { orgId, watcher: request.watcherId })).id;
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: hooks.HookRow) => [row.slug],
        fetch: (after, limit) => hooks.list(db, { orgId, limit, watcherId, afterSlug: after?.[0] }),
      });
      return { hooks: rows.map((row) => hookMessage(deps, row)), nextPageToken };
    },
  };
}

function hookEdits(
  deps: Deps,
): Pick<Served, "createHook" | "updateHook" | "deleteHook" | "rotateHookSecret"> {
  const { db, feed, keyring } = deps;

  return {
    async createHook({ spec, slug, secret, requestId, dryRun: isDryRun }, context) {
      const { orgId, actor } = principalOf(context);
      const asked = {
        orgId,
        actor,
        slug,
        secret,
        requestId,
        values: valuesOf(given(spec, "spec")),
        keyring,
        isDryRun,
      };
      const created = await usecases.create(db, asked);
      if (isDryRun) return madeMessage(deps, { ...created, secret: "" });
      feed.eventsAppended(orgId);
      return madeMessage(deps, created);
    },

    async updateHook(request, context) {
      const { orgId, actor } = principalOf(context);
      const hook = await usecases.update(db, {
        ...{ orgId, actor, hook: request.hookId, expectedVersion: request.expectedVersion },
        ...{ isDryRun: request.dryRun, secret: request.secret, keyring },
        change: (current) => valuesOf(merge(specOf(current), request)),
      });
      if (!request.dryRun) feed.eventsAppended(orgId);
      return { hook: hookMessage(deps, hook) };
    },

    async deleteHook({ hookId: hook }, context) {
      const { orgId, actor } = principalOf(context);
      await usecases.remove(db, { orgId, actor, hook });
      feed.eventsAppended(orgId);
      return {};
    },

    async rotateHookSecret({ hookId: hook, secret, overlap }, context) {
      const { orgId, actor } = principalOf(context);
      const overlapMs = overlap ? durationMs(overlap) : usecases.overlapMsDefault;
      const rotated = await usecases.rotate(db, { orgId, actor, hook, secret, overlapMs, keyring });
      feed.eventsAppended(orgId);
      return madeMessage(deps, rotated);
    },
  };
}

function deliveryRpcs(
  deps: Deps,
): Pick<Served, "listHookDeliveries" | "getHookDelivery" | "replayHookDelivery"> {
  const { db, feed } = deps;

  return {
    async listHookDeliveries({ hookId }, context) {
      const { orgId } = principalOf(context);
      const hook = await hooks.get(db, { orgId, hook: hookId });
      const rows = await hooks.listDeliveries(db, hook);
      return { deliveries: rows.map((row) => deliveryMessage(row, undefined)) };
    },

    async getHookDelivery({ hookId, id }, context) {
      const { orgId } = principalOf(context);
      const hook = await hooks.get(db, { orgId, hook: hookId });
      const row = await hooks.getDelivery(db, { orgId, hookId: hook.id, id });
      const asked = await starts.findAsked(db, hook);
      return { delivery: deliveryMessage(row, { redact: asked?.redact ?? [] }) };
    },

    async replayHookDelivery({ hookId, id, requestId }, context) {
      const { orgId } = principalOf(context);
      const hook = await hooks.get(db, { orgId, hook: hookId });
      const { event, headers, body, bodyBytes, hasBody } = await hooks.getDelivery(db, {
        ...{ orgId, hookId: hook.id, id },
      });
      if (!hasBody) refuse("failed_precondition", "the body of the delivery is kept no longer");
      const key = requestId === "" ? null : `replay:${id}:${requestId}`;
      const incoming = { key, event, headers, body, bodyBytes, replayOf: id };
      const taken = await take(db, hook, incoming, deps.surroundings);
      feed.eventsAppended(orgId);
      const row = await hooks.getDelivery(db, { orgId, hookId: hook.id, id: taken.id });
      return { delivery: deliveryMessage(row, undefined) };
    },
  };
}
