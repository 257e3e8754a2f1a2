import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type EventService,
  type WatchEventsRequest,
  type WatchEventsResponse,
  WatchEventsResponseSchema,
  WatchEventsResyncSchema,
} from "#gen/pinion/v1/event_pb.js";
import { refuse } from "../../errors.ts";
import type { Db } from "../../store/pg/database.ts";
import * as events from "../../store/work/service/events.ts";
import { Bell } from "../../time/abort.ts";
import { expect } from "../access/expected.ts";
import { principalOf } from "../access/principal.ts";
import type { Transient } from "../cluster/bus.ts";
import type { OrgViewer } from "../cluster/transients.ts";
import { eventMessage, transientMessage } from "./messages/event-message.ts";
import { page } from "./page.ts";

/**
 * A source of hints that events of an org were committed, on any replica. A lost hint costs
 * seconds.
 */
export interface EventFeed {
  /** Calls `wake` after events of the org were committed, until the returned function is called. */
  subscribe(orgId: string, wake: () => void): () => void;
  /** Reports the org's transient events until the returned function is called. */
  watchOrg(orgId: string, viewer: OrgViewer): () => void;
}

/** The target of hints from other services, after a commit, that events of an org were written. */
export interface EventAnnouncer {
  eventsAppended(orgId: string): void;
}

/**
 * Maximum events held for one reader. The reader reads events from the database at its own pace, so
 * a slow reader holds no more.
 */
const batchMax = 200;
/** Milliseconds between reads without a wake-up, in case a wake-up was lost. */
const rereadMs = 5_000;
/** Maximum transient events held for one reader. A slower reader is told to resync. */
const transientsMax = 500;
/** As documented in the .proto. */
const keepaliveMs = 15_000;

export function eventService(deps: { db: Db; feed: EventFeed }): ServiceImpl<typeof EventService> {
  return {
    watchEvents: (request, context) => watch(deps, request, context),

    async listEvents(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([z.number().int()]),
        keyOf: (row: events.EventRow) => [row.seq],
        fetch: (before, limit) =>
          events.list(deps.db, {
            orgId,
            limit,
            beforeSeq: before?.[0],
            runId: request.runId || undefined,
            kinds: request.kinds,
          }),
      });
      return { events: rows.map(eventMessage), nextPageToken };
    },
  };
}

async function* watch(
  deps: { db: Db; feed: EventFeed },
  request: WatchEventsRequest,
  context: HandlerContext,
): AsyncGenerator<WatchEventsResponse> {
  const { orgId } = principalOf(context);
  const { signal } = context;
  const bell = new Bell();
  let mayHaveEvents = true;
  // Subscribes before the first read, so that no event falls between the two.
  const unsubscribe = deps.feed.subscribe(orgId, () => {
    mayHaveEvents = true;
    bell.ring();
  });
  const transients = request.includeTransient ? holdTransients(deps.feed, orgId, bell) : undefined;
  try {
    let seq =
      request.afterCursor === "" ? await events.head(deps.db, { orgId }) : requireSeq(request.afterCursor);
    await requireKept(deps.db, { orgId, seq });
    yield cursorUpdate(seq);
    let isCatchingUp = true;
    let saidAt = performance.now();
    let readAt = 0;
    while (!signal.aborted) {
      const updates: WatchEventsResponse[] = [];
      if (mayHaveEvents || performance.now() - readAt >= rereadMs) {
        mayHaveEvents = false;
        readAt = performance.now();
        const batch = await events.listAfter(deps.db, { orgId, afterSeq: seq, limit: batchMax });
        // Checked after the read: events deleted during the read are missing, too.
        if (isCatchingUp) await requireKept(deps.db, { orgId, seq });
        isCatchingUp = batch.length === batchMax;
        if (isCatchingUp) mayHaveEvents = true;
        for (const event of batch) {
          seq = event.seq;
          if (!isWanted(event.kind, request.kinds)) continue;
          updates.push(
            create(WatchEventsResponseSchema, { update: { case: "event", value: eventMessage(event) } }),
          );
        }
      }
      updates.push(...(transients?.take(request.kinds) ?? []));
      expect(context, updates);
      yield* updates;
      const now = performance.now();
      if (updates.length > 0) saidAt = now;
      else if (now - saidAt >= keepaliveMs) {
        yield cursorUpdate(seq);
        saidAt = now;
      }
      if (!mayHaveEvents) await bell.wait(Math.min(rereadMs, keepaliveMs - (now - saidAt)), signal);
    }
  } finally {
    unsubscribe();
    transients?.stop();
  }
}

/** Holds the org's transient events for one reader, until the reader takes them. */
function holdTransients(feed: EventFeed, orgId: string, bell: Bell) {
  let held: Transient[] = [];
  let isResync = false;
  const stop = feed.watchOrg(orgId, {
    onTransient(event) {
      held.push(event);
      if (held.length > transientsMax) {
        held = [];
        isResync = true;
      }
      bell.ring();
    },
    onResync() {
      isResync = true;
      bell.ring();
    },
  });
  return {
    stop,
    /**
     * The updates since the last call. A resync comes first, because the missed events were
     * earlier.
     */
    take(kinds: readonly string[]): WatchEventsResponse[] {
      const updates: WatchEventsResponse["update"][] = [];
      if (isResync) updates.push({ case: "resync", value: create(WatchEventsResyncSchema) });
      for (const event of held) {
        if (isWanted(event.kind, kinds)) updates.push({ case: "transient", value: transientMessage(event) });
      }
      held = [];
      isResync = false;
      return updates.map((update) => create(WatchEventsResponseSchema, { update }));
    },
  };
}

function cursorUpdate(seq: number): WatchEventsResponse {
  return create(WatchEventsResponseSchema, { update: { case: "cursor", value: String(seq) } });
}

function isWanted(kind: string, prefixes: readonly string[]): boolean {
  return prefixes.length === 0 || prefixes.some((prefix) => kind.startsWith(prefix));
}

/**
 * Refuses to continue over a gap: events after `seq` are past their retention. 0 asks for all kept
 * events, without a check.
 */
async function requireKept(db: Db, { orgId, seq }: { orgId: string; seq: number }): Promise<void> {
  if (seq === 0) return;
  const deleted = await events.deletedThrough(db, { orgId });
  if (seq >= deleted) return;
  refuse(
    "failed_precondition",
    `after_cursor: events after ${seq} are past their retention and gone, up to ${deleted}; read again what you keep up by them, and resume after "0" (from the oldest that is kept) or without a cursor (from now on)`,
    { field: "after_cursor" },
  );
}

function requireSeq(cursor: string): number {
  const seq = Number(cursor);
  if (!Number.isSafeInteger(seq)) {
    refuse("invalid_argument", "after_cursor: no event has this cursor", { field: "after_cursor" });
  }
  return seq;
}
