import { durationMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  DeliveryState,
  type DestinationService,
  type ReplayDeliveriesRequest,
} from "#gen/pinion/v1/destination_pb.js";
import { refuse } from "../../errors.ts";
import { AddressRefused, type Reach } from "../../network/addresses.ts";
import type { Keyring } from "../../secrets.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import * as deliveries from "../../store/work/messages/deliveries.ts";
import * as destinations from "../../store/work/messages/destinations.ts";
import * as events from "../../store/work/service/events.ts";
import { sleep } from "../../time/abort.ts";
import { type Principal, principalOf } from "../access/principal.ts";
import type { EventAnnouncer } from "./events.ts";
import {
  deliveryMessage,
  destinationMessage,
  destinationValues,
  statesByMessage,
  urlsOf,
} from "./messages/destination-message.ts";
import { given } from "./messages/given.ts";
import { idKey, page, textKey } from "./page.ts";

/** As documented in the .proto. */
const overlapMsDefault = 86_400_000;
const testMsMax = 25_000;
/** Milliseconds between reads while a caller waits for a test. */
const lookMs = 100;

interface Deps {
  db: Db;
  feed: EventAnnouncer;
  keyring: Keyring;
  reach: Reach;
  hasServerSmtp: boolean;
  /** Something is to be sent. */
  onDeliveries: () => void;
}

type Served = ServiceImpl<typeof DestinationService>;

export function destinationService(deps: Deps): Served {
  return { ...destinationReads(deps), ...destinationEdits(deps), ...deliveryRpcs(deps) };
}

/**
 * Refuses forbidden addresses at once if possible; later addresses of a host name are checked at
 * each dial.
 */
async function requireReachable(reach: Reach, values: destinations.DestinationValues): Promise<void> {
  for (const { field, url } of urlsOf(values)) {
    await reach.requireHost(url.hostname).catch((error: unknown) => {
      if (!(error instanceof AddressRefused)) throw error;
      refuse("invalid_argument", `${field}: ${error.message}`, { field });
    });
  }
}

async function withCount(db: Db, row: destinations.DestinationRow) {
  const count = await destinations.counts(db, { orgId: row.orgId, ids: [row.id] });
  return destinationMessage(row, count.get(row.id));
}

function destinationReads(deps: Deps): Pick<Served, "getDestination" | "listDestinations"> {
  const { db } = deps;

  return {
    async getDestination(request, context) {
      const { orgId } = principalOf(context);
      const row = await destinations.get(db, { orgId, destination: request.destinationId });
      return { destination: await withCount(db, row) };
    },

    async listDestinations(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: destinations.DestinationRow) => [row.slug],
        fetch: (after, limit) => destinations.list(db, { orgId, limit, afterSlug: after?.[0] }),
      });
      const counts = await destinations.counts(db, { orgId, ids: rows.map((row) => row.id) });
      return { destinations: rows.map((row) => destinationMessage(row, counts.get(row.id))), nextPageToken };
    },
  };
}

function destinationEdits(
  deps: Deps,
): Pick<Served, "createDestination" | "updateDestination" | "deleteDestination" | "rotateDestinationSecret"> {
  const { db, feed, keyring, hasServerSmtp } = deps;

  return {
    async createDestination(request, context) {
      const { orgId, actor } = principalOf(context);
      const { made, ...values } = destinationValues(given(request.spec, "spec"), { hasServerSmtp });
      await requireReachable(deps.reach, values);
      const { slug, dryRun: isDryRun } = request;
      const row = await destinations.create(db, { orgId, actor, slug, values, keyring, isDryRun });
      if (!isDryRun) feed.eventsAppended(orgId);
      return { destination: destinationMessage(row), signingSecret: isDryRun ? "" : (made ?? "") };
    },

    async updateDestination(request, context) {
      const { orgId, actor } = principalOf(context);
      const named = { orgId, destination: request.destinationId };
      const before = await destinations.get(db, named);
      const { made: _, ...values } = destinationValues(given(request.spec, "spec"), {
        current: before,
        hasServerSmtp,
      });
      await requireReachable(deps.reach, values);
      const row = await destinations.update(db, {
        ...{ ...named, actor, keyring, expectedVersion: request.expectedVersion },
        isDryRun: request.dryRun,
        change: () => values,
      });
      if (!request.dryRun) feed.eventsAppended(orgId);
      return { destination: await withCount(db, row) };
    },

    async deleteDestination(request, context) {
      const { orgId, actor } = principalOf(context);
      await destinations.remove(db, { orgId, actor, destination: request.destinationId });
      feed.eventsAppended(orgId);
      return {};
    },

    async rotateDestinationSecret(request, context) {
      const { orgId, actor } = principalOf(context);
      const { destination, secret } = await destinations.rotate(db, {
        ...{ orgId, actor, keyring, destination: request.destinationId },
        overlapMs: request.overlap ? durationMs(request.overlap) : overlapMsDefault,
      });
      feed.eventsAppended(orgId);
      return { destination: await withCount(db, destination), signingSecret: secret };
    },
  };
}

function deliveryRpcs(deps: Deps): Pick<Served, "testDestination" | "listDeliveries" | "replayDeliveries"> {
  const { db } = deps;

  return {
    async testDestination(request, context) {
      const { orgId, actor } = principalOf(context);
      const { id: destinationId } = await destinations.get(db, { orgId, destination: request.destinationId });
      const id = await transaction(db, (tx) => deliveries.test(tx, { orgId, destinationId, actor }));
      deps.onDeliveries();
      // Any replica may send the test; the delivery's row has the result.
      const until = performance.now() + testMsMax;
      for (;;) {
        const delivery = await deliveries.find(db, { orgId, id });
        if (!delivery)
          refuse("not_found", `the destination "${request.destinationId}" was deleted meanwhile`);
        const isOver = delivery.state !== "pending" || performance.now() > until || context.signal.aborted;
        if (isOver) return { delivery: deliveryMessage(delivery) };
        await sleep(lookMs, context.signal);
      }
    },

    async listDeliveries(request, context) {
      const { orgId } = principalOf(context);
      const destinationId = request.destinationId
        ? (await destinations.get(db, { orgId, destination: request.destinationId })).id
        : undefined;
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: deliveries.DeliveryRow) => [row.id],
        fetch: (before, limit) =>
          deliveries.list(db, {
            ...{ orgId, limit, destinationId, beforeId: before?.[0] },
            state:
              request.state === DeliveryState.UNSPECIFIED ? undefined : statesByMessage.get(request.state),
            runId: request.runId || undefined,
          }),
      });
      return { deliveries: rows.map(deliveryMessage), nextPageToken };
    },

    replayDeliveries: (request, context) => replay(deps, request, principalOf(context)),
  };
}

/** Sends dead or named deliveries again: one event for each destination. */
async function replay(
  { db, feed, onDeliveries }: Deps,
  { destinationId, deliveryIds }: ReplayDeliveriesRequest,
  { orgId, actor }: Principal,
): Promise<{ replayed: number }> {
  if ((destinationId === "") === (deliveryIds.length === 0)) {
    const why = "name either a destination, whose dead deliveries are sent again, or deliveries";
    refuse("invalid_argument", `delivery_ids: ${why}`, { field: "delivery_ids" });
  }
  const which =
    destinationId === ""
      ? { orgId, ids: deliveryIds }
      : { orgId, destinationId: (await destinations.get(db, { orgId, destination: destinationId })).id };
  const replayed = await transaction(db, async (tx) => {
    const rows = await deliveries.replay(tx, which);
    const byDestination = Map.groupBy(rows, (row) => row.destinationId);
    await events.append(
      tx,
      orgId,
      [...byDestination].map(([id, ones]) => ({
        kind: "delivery.replayed",
        actor,
        data: {
          destination_id: id,
          count: ones.length,
          delivery_ids: ones.slice(0, 100).map((one) => one.id),
        },
      })),
    );
    return rows.length;
  });
  if (replayed > 0) {
    onDeliveries();
    feed.eventsAppended(orgId);
  }
  return { replayed };
}
