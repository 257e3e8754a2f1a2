import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type EventService,
  type WatchEventsRequest,
  type WatchEventsResponse,
  WatchEventsResponseSchema,
} from "#gen/pinion/v1/event_pb.js";
import { Bell } from "../../abort.ts";
import { refuse } from "../../errors.ts";
import type { Db } from "../../store/database.ts";
import * as events from "../../store/events.ts";
import { principalOf } from "../guard.ts";
import { eventMessage } from "./event-message.ts";
import { page } from "./page.ts";

/** Who hears that events of an org were committed, on whatever replica. A hint: losing it costs seconds. */
export interface EventFeed {
  /** Calls `wake` after events of the org were committed, until the returned function is called. */
  subscribe(orgId: string, wake: () => void): () => void;
}

/** Whom the rpcs of other services tell after a commit that events of an org were written. A hint as well. */
export interface EventAnnouncer {
  eventsAppended(orgId: string): void;
}

/** Events held for one reader. It reads them from the database at its own pace, so a slow one holds no more. */
const batchMax = 200;
/** Repairs what a lost wake-up missed. */
const rereadMs = 5_000;
/** What the .proto promises. */
const keepaliveMs = 15_000;

export function eventService(deps: { db: Db; feed: EventFeed }): ServiceImpl<typeof EventService> {
  return {
    watchEvents: (request, context) => watch(deps, request, context),

    async listEvents(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([z.number().int()]),
        keyOf: (row: events.EventRow) => [row.seq] as [number],
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
  // Before the first read, so that nothing falls between the two.
  const unsubscribe = deps.feed.subscribe(orgId, () => bell.ring());
  try {
    let seq =
      request.afterCursor === "" ? await events.head(deps.db, { orgId }) : requireSeq(request.afterCursor);
    yield cursorUpdate(seq);
    let saidAt = performance.now();
    while (!signal.aborted) {
      const batch = await events.listAfter(deps.db, { orgId, afterSeq: seq, limit: batchMax });
      for (const event of batch) {
        seq = event.seq;
        if (!isWanted(event.kind, request.kinds)) continue;
        yield create(WatchEventsResponseSchema, { update: { case: "event", value: eventMessage(event) } });
        saidAt = performance.now();
      }
      const silentMs = performance.now() - saidAt;
      if (silentMs >= keepaliveMs) {
        yield cursorUpdate(seq);
        saidAt = performance.now();
      } else if (batch.length < batchMax) {
        await bell.wait(Math.min(rereadMs, keepaliveMs - silentMs), signal);
      }
    }
  } finally {
    unsubscribe();
  }
}

function cursorUpdate(seq: number): WatchEventsResponse {
  return create(WatchEventsResponseSchema, { update: { case: "cursor", value: String(seq) } });
}

function isWanted(kind: string, prefixes: readonly string[]): boolean {
  return prefixes.length === 0 || prefixes.some((prefix) => kind.startsWith(prefix));
}

function requireSeq(cursor: string): number {
  const seq = Number(cursor);
  if (!Number.isSafeInteger(seq)) {
    refuse("invalid_argument", "after_cursor: no event has this cursor", { field: "after_cursor" });
  }
  return seq;
}
