import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type BulkCount,
  BulkCountSchema,
  BulkKind,
  type BulkOperation,
  BulkOperationSchema,
  BulkState,
  type RunFilter,
  RunFilterSchema,
  type RunService,
  RunStatus,
} from "#gen/pinion/v1/run_pb.js";
import { refuse } from "../../errors.ts";
import { countBulk, startBulk, stopBulk } from "../../scheduler/starts/bulks.ts";
import type { Db } from "../../store/pg/database.ts";
import * as bulks from "../../store/work/runs/bulks.ts";
import * as watchers from "../../store/work/watchers/watchers.ts";
import { principalOf } from "../access/principal.ts";
import { runStatuses } from "../enums.ts";
import type { EventAnnouncer } from "./events.ts";
import { spanOf, timestampOf } from "./messages/moments.ts";
import { idKey, page } from "./page.ts";

/** Bulk operations, a part of RunService. */
type Served = Pick<
  ServiceImpl<typeof RunService>,
  "startBulkOperation" | "getBulkOperation" | "listBulkOperations" | "stopBulkOperation"
>;

const kinds: Record<BulkKind, bulks.BulkKind | undefined> = {
  [BulkKind.UNSPECIFIED]: undefined,
  [BulkKind.CANCEL]: "cancel",
  [BulkKind.RETRY]: "retry",
  [BulkKind.REPLAY]: "replay",
};
const kindMessages: Record<bulks.BulkKind, BulkKind> = {
  cancel: BulkKind.CANCEL,
  retry: BulkKind.RETRY,
  replay: BulkKind.REPLAY,
};
const stateMessages: Record<bulks.BulkState, BulkState> = {
  running: BulkState.RUNNING,
  finished: BulkState.FINISHED,
  stopped: BulkState.STOPPED,
};

/** Maximum counts by status, and by watcher, in an answer. */
const countsMax = 20;

export function bulkRpcs(deps: {
  db: Db;
  feed: EventAnnouncer;
  /** Requests work on a started operation. */
  pokeBulks: () => void;
}): Served {
  const { db, feed } = deps;

  async function get(orgId: string, id: string): Promise<BulkOperation> {
    const [row] = await bulks.list(db, { orgId, id, limit: 1 });
    return row ? bulkMessage(row) : refuse("not_found", `there is no bulk operation ${id}`);
  }

  return {
    async startBulkOperation(request, context) {
      const { orgId, actor } = principalOf(context);
      const kind = kinds[request.kind] ?? refuse("invalid_argument", "kind: name one", { field: "kind" });
      const filter = await filterOf(db, orgId, request.filter ?? create(RunFilterSchema));
      const counted = await countBulk(db, { orgId, kind, filter, actor });
      const { matched, notAllowed } = counted;
      const counts = [
        ...counted.byStatus.map(([name, count]) => countMessage({ status: statusOf(name), count })),
        ...counted.byWatcher
          .slice(0, countsMax)
          .map(([watcherSlug, count]) => countMessage({ watcherSlug, count })),
      ];
      if (request.dryRun) return { matched, notAllowed, counts };
      const { reason, requestId } = request;
      const id = await startBulk(db, { orgId, kind, filter, actor, reason, requestId, counted });
      feed.eventsAppended(orgId);
      deps.pokeBulks();
      return { operation: await get(orgId, id), matched, notAllowed, counts };
    },

    async getBulkOperation({ operationId }, context) {
      return { operation: await get(principalOf(context).orgId, operationId) };
    },

    async listBulkOperations(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: bulks.Bulk) => [row.id],
        fetch: (before, limit) => bulks.list(db, { orgId, limit, beforeId: before?.[0] }),
      });
      return { operations: rows.map(bulkMessage), nextPageToken };
    },

    async stopBulkOperation({ operationId }, context) {
      const { orgId, actor } = principalOf(context);
      await get(orgId, operationId);
      if (await stopBulk(db, { orgId, id: operationId, actor })) feed.eventsAppended(orgId);
      return { operation: await get(orgId, operationId) };
    },
  };
}

async function filterOf(db: Db, orgId: string, filter: RunFilter): Promise<bulks.RunFilter> {
  const wanted = new Set(filter.statuses);
  const { watcherId, deviceId, labels } = filter;
  const { since, until } = spanOf(filter, "filter.");
  return {
    statuses: Object.entries(runStatuses).flatMap(([name, status]) => (wanted.has(status) ? [name] : [])),
    ...(watcherId ? { watcherId: (await watchers.get(db, { orgId, watcher: watcherId })).id } : {}),
    ...(deviceId ? { deviceId: deviceId.toLowerCase() } : {}),
    ...(labels.length > 0 ? { labels } : {}),
    ...(since ? { since: since.toISOString() } : {}),
    ...(until ? { until: until.toISOString() } : {}),
  };
}

const statuses = new Map<string, RunStatus>(Object.entries(runStatuses));

function statusOf(name: string): RunStatus {
  return statuses.get(name) ?? RunStatus.UNSPECIFIED;
}

function countMessage(init: { status?: number; watcherSlug?: string; count: number }): BulkCount {
  return create(BulkCountSchema, init);
}

function bulkMessage(row: bulks.Bulk): BulkOperation {
  const { filter } = row;
  return create(BulkOperationSchema, {
    ...{ id: row.id, actor: row.actor, reason: row.reason, matched: row.matched, done: row.done },
    ...{ passedOver: row.passedOver, failed: row.failed, left: row.left, problems: row.problems },
    kind: kindMessages[row.kind],
    state: stateMessages[row.state],
    filter: {
      statuses: filter.statuses.map(statusOf),
      watcherId: filter.watcherId ?? "",
      deviceId: filter.deviceId ?? "",
      labels: filter.labels ?? [],
      since: filter.since ? timestampOf(new Date(filter.since)) : undefined,
      until: filter.until ? timestampOf(new Date(filter.until)) : undefined,
    },
    createdAt: timestampOf(row.createdAt),
    finishedAt: timestampOf(row.finishedAt),
  });
}
