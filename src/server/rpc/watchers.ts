import { create, type JsonObject, type Message } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type UpdateWatcherRequest,
  type Watcher,
  type WatcherService,
  type WatcherSpec,
  WatcherSpecSchema,
} from "#gen/pinion/v1/watcher_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import { checkSchedule, nextSlot, type ScheduleRules } from "../../scheduler/schedule/schedule.ts";
import { backfill, trigger } from "../../scheduler/starts/triggers.ts";
import * as orgs from "../../store/people/orgs/orgs.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import * as clock from "../../store/pg/clock.ts";
import type { Db } from "../../store/pg/database.ts";
import * as runSummaries from "../../store/work/runs/run-summaries.ts";
import * as revisions from "../../store/work/watchers/revisions.ts";
import * as watcherPins from "../../store/work/watchers/watcher-pins.ts";
import * as watchers from "../../store/work/watchers/watchers.ts";
import type { Surroundings } from "../../usecases/surroundings.ts";
import * as usecases from "../../usecases/watchers.ts";
import { isUuid } from "../../values/ids.ts";
import { checkMessage } from "../access/interceptors/validate.ts";
import { principalOf } from "../access/principal.ts";
import type { EventAnnouncer } from "./events.ts";
import { given } from "./messages/given.ts";
import { inputOf } from "./messages/input-message.ts";
import { dateOf, timestampOf } from "./messages/moments.ts";
import { triggeredMessage } from "./messages/triggered-message.ts";
import { slugOf, watcherMessage, watcherSpec, watcherValues } from "./messages/watcher-message.ts";
import { page, textKey } from "./page.ts";

/** As documented in the .proto. */
const recentRunsMax = 30;
const nextSlotsMax = 3;
const int32Max = 2_147_483_647;
/** Maximum age of a backfill's first slot, in milliseconds. */
const backfillReachMs = 366 * 86_400_000;

interface Deps {
  db: Db;
  /** For the use-cases. */
  surroundings: Surroundings;
  feed: EventAnnouncer;
  quotas: Pick<Quotas, "findRoom">;
  /** Shortest time between two slots, unless the org says otherwise. */
  intervalMsMin: number;
}

type Served = ServiceImpl<typeof WatcherService>;

export function watcherService(deps: Deps): Served {
  return { ...watcherReads(deps), ...watcherEdits(deps), ...startRpcs(deps) };
}

/** The rules for a new schedule of the org. */
async function rulesOf({ db, intervalMsMin }: Deps, orgId: string): Promise<ScheduleRules> {
  const ofOrg = await orgs.findIntervalMsMin(db, { orgId });
  return { now: await clock.now(db), intervalMsMin: ofOrg ?? intervalMsMin };
}

/** Announces the event of a write, and returns the watcher's message. */
function changed({ feed }: Deps, watcher: watchers.Watcher) {
  feed.eventsAppended(watcher.org_id);
  return { watcher: watcherMessage(watcher) };
}

/** Returns watchers with the requested extras. */
async function withExtras(
  db: Db,
  orgId: string,
  rows: readonly watchers.Watcher[],
  asked: { includeRecentRuns: boolean; includeNextSlots: boolean },
): Promise<Watcher[]> {
  const watcherIds = rows.map((row) => row.id);
  const recentRuns = asked.includeRecentRuns
    ? await runSummaries.recentOfWatchers(db, { orgId, watcherIds, limit: recentRunsMax })
    : undefined;
  return rows.map((row) =>
    watcherMessage(row, {
      recentRuns: recentRuns?.get(row.id) ?? [],
      nextSlots: asked.includeNextSlots ? nextSlotsOf(row) : [],
    }),
  );
}

function watcherReads(
  deps: Deps,
): Pick<Served, "getWatcher" | "listWatchers" | "listWatcherRevisions" | "previewSchedule"> {
  const { db } = deps;

  return {
    async getWatcher(request, context) {
      const { orgId } = principalOf(context);
      const watcher = await watchers.get(db, { orgId, watcher: request.watcherId });
      const [message] = await withExtras(db, orgId, [watcher], request);
      return { watcher: message };
    },

    async listWatchers(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: watchers.Watcher) => [row.slug],
        fetch: (after, limit) =>
          watchers.list(db, {
            orgId,
            limit,
            afterSlug: after?.[0],
            deviceId: request.deviceId || undefined,
          }),
      });
      return { watchers: await withExtras(db, orgId, rows, request), nextPageToken };
    },

    async listWatcherRevisions({ watcherId: named }, context) {
      const { orgId } = principalOf(context);
      const watcher = await watchers.get(db, { orgId, watcher: named });
      const rows = await revisions.ofWatcher(db, { orgId, watcherId: watcher.id });
      return {
        revisions: rows.map(({ extractionSchema, createdAt, ...said }) => ({
          ...said,
          ...(extractionSchema ? { extractionSchema: extractionSchema as JsonObject } : {}),
          createdAt: timestampOf(createdAt),
        })),
      };
    },

    async previewSchedule(request, context) {
      const { orgId } = principalOf(context);
      const { schedule, timeZone, watcherId } = await requirePreviewed(db, { ...request, orgId });
      const slots: Date[] = [];
      let slot: Date | undefined = request.after ? dateOf(request.after, "after") : await clock.now(db);
      while (schedule !== null && slots.length < (request.count || 5)) {
        slot = nextSlot({ schedule, timeZone, watcherId }, slot);
        if (!slot) break;
        slots.push(slot);
      }
      return { slots: slots.map((at) => timestampOf(at)), timeZone };
    },
  };
}

function watcherEdits(
  deps: Deps,
): Pick<Served, "createWatcher" | "updateWatcher" | "deleteWatcher" | "pauseWatcher" | "resumeWatcher"> {
  const { db, feed, surroundings } = deps;

  return {
    async createWatcher(request, context) {
      const { orgId, actor } = principalOf(context);
      const spec = given(request.spec, "spec");
      const wanted = {
        ...{ orgId, actor, requestId: request.requestId, isDryRun: request.dryRun },
        slug: requireSlug(request.slug, spec.name),
        values: watcherValues(spec, { rules: await rulesOf(deps, orgId) }),
      };
      const watcher = await usecases.create(db, wanted, surroundings);
      if (!request.dryRun) return changed(deps, watcher);
      const { room } = await deps.quotas.findRoom(db, "watchers", orgId);
      return { watcher: watcherMessage(watcher), watchersLeft: Math.min(room, int32Max) };
    },

    async updateWatcher(request, context) {
      const { orgId, actor } = principalOf(context);
      const fields = requireFields(request);
      const rules = await rulesOf(deps, orgId);
      const edit = {
        ...{ orgId, actor, watcher: request.watcherId },
        expectedVersion: request.expectedVersion,
        change(current: watchers.Watcher) {
          const spec = merge(watcherSpec(current), request.spec, fields);
          return watcherValues(spec, { rules, current });
        },
        isPinDecided: fields.includes("deviceId"),
        isDryRun: request.dryRun,
      };
      const watcher = await usecases.update(db, edit, surroundings);
      return request.dryRun ? { watcher: watcherMessage(watcher) } : changed(deps, watcher);
    },

    async deleteWatcher({ watcherId: watcher }, context) {
      const { orgId, actor } = principalOf(context);
      await usecases.remove(db, { orgId, actor, watcher }, surroundings);
      feed.eventsAppended(orgId);
      return {};
    },

    async pauseWatcher({ watcherId: watcher, reason }, context) {
      const { orgId, actor } = principalOf(context);
      return changed(deps, await usecases.pause(db, { orgId, actor, watcher, reason }, surroundings));
    },

    async resumeWatcher({ watcherId: watcher }, context) {
      const { orgId, actor } = principalOf(context);
      return changed(deps, await usecases.resume(db, { orgId, actor, watcher }, surroundings));
    },
  };
}

function startRpcs(deps: Deps): Pick<Served, "triggerWatcher" | "backfillWatcher"> {
  const { db, surroundings } = deps;

  return {
    async triggerWatcher({ watcherId: watcher, requestId, input }, context) {
      const { orgId, actor } = principalOf(context);
      // An id is found, or not, by the trigger itself.
      const watcherId = isUuid(watcher)
        ? watcher.toLowerCase()
        : (await watcherPins.get(db, { orgId, watcher })).id;
      const request = { orgId, actor, requestId, rpc: "WatcherService/TriggerWatcher" };
      const asked = { orgId, actor, watcherId, input: inputOf(input) };
      return triggeredMessage(db, await trigger(db, asked, { ...surroundings, request }));
    },

    async backfillWatcher(request, context) {
      const { orgId, actor } = principalOf(context);
      const start = dateOf(given(request.start, "start"), "start");
      const end = dateOf(given(request.end, "end"), "end");
      const { id } = await watchers.get(db, { orgId, watcher: request.watcherId });
      if (start.getTime() < (await clock.now(db)).getTime() - backfillReachMs) {
        refuse("invalid_argument", "start: must be at most 366 days ago", { field: "start" });
      }
      const answer = await backfill(db, { orgId, actor, watcherId: id, start, end });
      surroundings.scheduleChanged();
      return answer;
    },
  };
}

/** The next slots of a watcher. An unreadable schedule has no slot beyond the stored next slot. */
function nextSlotsOf(watcher: watchers.Watcher): Date[] {
  const { schedule, time_zone: timeZone, next_slot_at: first } = watcher;
  if (!first || schedule === null || watcher.status === "paused") return [];
  const slots: Date[] = [];
  try {
    for (let slot: Date | undefined = first; slot && slots.length < nextSlotsMax; ) {
      slots.push(slot);
      slot = nextSlot({ schedule, timeZone, watcherId: watcher.id }, slot);
    }
  } catch {
    // R9: a bad row does not spoil the list; the materializer reports the row.
  }
  return slots;
}

/** The requested slug, or a slug made from the name. Refuses a slug that looks like an id. */
function requireSlug(asked: string, name: string): string {
  const slug = asked || slugOf(name);
  if (slug === "") {
    refuse("invalid_argument", "slug: none can be made from the name; give one", { field: "slug" });
  }
  if (isUuid(slug)) {
    refuse("invalid_argument", "slug: must not be a UUID; those are ids", { field: "slug" });
  }
  return slug;
}

type SpecField = Exclude<keyof WatcherSpec, keyof Message>;

/** The spec's fields in an update, by their names in TypeScript. */
function requireFields(request: UpdateWatcherRequest): SpecField[] {
  const paths = request.updateMask?.paths ?? [];
  const field = "update_mask";
  if (paths.length === 0) {
    refuse("invalid_argument", "update_mask: name at least one field of spec", { field });
  }
  return paths.map((path) => {
    const known = WatcherSpecSchema.fields.find((candidate) => candidate.name === path);
    if (!known) refuse("invalid_argument", `update_mask: spec has no field "${path}"`, { field });
    return known.localName as SpecField;
  });
}

/**
 * The spec with the named fields replaced; an unset field is reset to its default. The result must
 * pass the message's rules.
 */
function merge(
  current: WatcherSpec,
  wanted: WatcherSpec | undefined,
  fields: readonly SpecField[],
): WatcherSpec {
  const source = wanted ?? create(WatcherSpecSchema);
  const merged: WatcherSpec = {
    ...current,
    ...Object.fromEntries(fields.map((field) => [field, source[field]])),
  };
  const violation = checkMessage(WatcherSpecSchema, merged);
  if (violation) {
    const field = `spec.${violation.field}`;
    refuse("invalid_argument", `spec.${violation.message}`, { field });
  }
  return merged;
}

/** The schedule to preview: a watcher's, or the given schedule. */
async function requirePreviewed(
  db: Db,
  asked: { orgId: string; watcherId: string; schedule: string; timeZone: string },
): Promise<{ schedule: string | null; timeZone: string; watcherId: string }> {
  if (asked.watcherId !== "") {
    if (asked.schedule !== "") {
      refuse("invalid_argument", "schedule: give either a watcher or a schedule", { field: "schedule" });
    }
    const watcher = await watchers.get(db, { orgId: asked.orgId, watcher: asked.watcherId });
    return { schedule: watcher.schedule, timeZone: watcher.time_zone, watcherId: watcher.id };
  }
  const timeZone = asked.timeZone || "UTC";
  try {
    checkSchedule({ schedule: asked.schedule, timeZone });
  } catch (error) {
    // The request itself has the fields of the spec here.
    if (!(error instanceof Refusal)) throw error;
    refuse(error.reason, error.message, { field: error.field?.replace(/^spec\./, "") ?? "schedule" });
  }
  return { schedule: asked.schedule, timeZone, watcherId: "" };
}
