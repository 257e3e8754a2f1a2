import { type Batcher, createBatcher } from "../../../batcher.ts";
import { Refusal } from "../../../errors.ts";
import type { Logger } from "../../../log.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { WorkKind } from "../../../store/work/attempts/active.ts";
import * as presence from "../../../store/work/service/presence.ts";
import type { Bus, BusMessage } from "../../cluster/bus.ts";
import type { Telemetry } from "../../telemetry.ts";
import type { Hub } from "./hub.ts";

/** A message for one device, on any replica. */
export type DeviceMessage = Extract<BusMessage, { deviceId: string }>;

/**
 * Delivers messages to sessions: to a local session by a call, to a session on another replica by
 * the bus, in batches that look up the replicas in one query. A device without a session receives
 * nothing.
 */
export type Rings = {
  /** To the device's session. */
  ring(message: DeviceMessage): void;
  /**
   * Announces unpinned work: every fleet worker of the org may take it, here and on other replicas.
   */
  ringFleet(of: WorkKind, orgId: string): void;
  /**
   * Calls `ringIt` at the time `at` by the local clock: for the next attempt of a run or turn that
   * was given back.
   */
  later(ringIt: () => void, at: Date): void;
  close(): Promise<void>;
};

type FleetRing = { orgId: string; of: WorkKind };

const ringsPerBatchMax = 2_000;
const ringsWaitingMax = 50_000;
/** Maximum number of retries awaited on the replica; the sweep finds further retries. */
const delayedMax = 10_000;
/** Milliseconds after the local due time until a ring, because the database's clock decides. */
const afterMomentMs = 20;

type Options = {
  db: Db;
  log: Logger;
  replicaId: string;
  hub: Pick<Hub, "receive">;
  bus: Bus;
  telemetry: Pick<Telemetry, "batch">;
};

export function createRings(options: Options): Rings {
  const { log, hub } = options;
  const delayed = new Set<NodeJS.Timeout>();
  const elsewhere = ringElsewhere(options);
  const fleetsElsewhere = ringFleetsElsewhere(options);
  return {
    ring(message) {
      if (hub.receive(message)) return;
      elsewhere.add(message).catch((error: unknown) => {
        log.debug({ err: error }, "a doorbell was not heard; the sweep makes it good");
      });
    },
    ringFleet(of, orgId) {
      hub.receive({ kind: "fleet", of, orgId });
      fleetsElsewhere.add({ orgId, of }).catch((error: unknown) => {
        log.debug({ err: error }, "a fleet's doorbell was not heard; the sweep makes it good");
      });
    },
    later(ringIt, at) {
      if (delayed.size >= delayedMax) return;
      const timer = setTimeout(
        () => {
          delayed.delete(timer);
          ringIt();
        },
        Math.max(0, at.getTime() - Date.now()) + afterMomentMs,
      );
      delayed.add(timer);
    },
    async close() {
      for (const timer of delayed) clearTimeout(timer);
      await Promise.all([elsewhere.idle(), fleetsElsewhere.idle()]);
    },
  };
}

const batch = {
  itemsMax: ringsPerBatchMax,
  queueMax: ringsWaitingMax,
  overflow: () => new Refusal("unavailable", "too many doorbells wait"),
};

function ringElsewhere({ db, bus, replicaId, telemetry }: Options): Batcher<DeviceMessage, void> {
  return createBatcher({
    ...batch,
    async run(messages) {
      const places = await presence.locate(db, messages);
      const replicaOf = new Map(places.map((place) => [place.deviceId, place.replicaId]));
      for (const message of messages) {
        const to = replicaOf.get(message.deviceId);
        if (to && to !== replicaId) bus.send(to, message);
      }
      return messages.map(() => undefined);
    },
    onBatch: telemetry.batch("rings"),
  });
}

/**
 * Notifies the replicas with fleet workers of the orgs, each once for each kind of work in the
 * batch.
 */
function ringFleetsElsewhere({ db, bus, replicaId }: Options): Batcher<FleetRing, void> {
  return createBatcher({
    ...batch,
    async run(rings) {
      const orgIds = [...new Set(rings.map((ring) => ring.orgId))];
      for (const { orgId, replicaId: to } of await presence.locateWorkers(db, orgIds)) {
        if (to === replicaId) continue;
        const kinds = new Set(rings.flatMap((ring) => (ring.orgId === orgId ? [ring.of] : [])));
        for (const of of kinds) bus.send(to, { kind: "fleet", of, orgId });
      }
      return rings.map(() => undefined);
    },
  });
}
