import { type Batcher, createBatcher } from "../../../batches/batcher.ts";
import { Refusal } from "../../../errors.ts";
import type { Subscriber } from "../../../scheduler/publisher.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { WorkKind } from "../../../store/work/attempts/active.ts";
import * as presence from "../../../store/work/service/presence.ts";
import type { RecordedRun } from "../../../store/work/watchers/slot-rows.ts";
import type { Logger } from "../../../telemetry/log.ts";
import type { DatabaseClock } from "../../../time/database-clock.ts";
import type { Bus, BusMessage } from "../../cluster/bus.ts";
import type { Telemetry } from "../../telemetry.ts";
import { answerMessage } from "../session/questions.ts";
import type { Hub } from "./hub.ts";

type Options = {
  rings: Rings;
  replicaId: string;
  hub: Pick<Hub, "at">;
  bus: Pick<Bus, "send">;
  clock: Pick<DatabaseClock, "now">;
};

/**
 * Notifies sessions after a commit: of new work, of a freed slot, of a requested cancel, of an
 * answer. Every notification is a hint.
 */
export function createDoorbell(options: Options): Subscriber {
  const { ring } = options.rings;
  return {
    ...bellsOfRuns(options),
    ...bellsOfTurns(options),
    cancelling(attempts) {
      for (const attempt of attempts) ring({ kind: "cancel", ...attempt });
    },
    answered(rows) {
      for (const row of rows) if (row.state !== "withdrawn") ring(answerMessage(row));
    },
    replaced({ replicaId, ...session }) {
      if (replicaId !== options.replicaId) options.bus.send(replicaId, { kind: "replaced", ...session });
    },
  };
}

/** Rings for waiting work: its device, or, for null, all fleet workers of the org. */
function bellOf(of: WorkKind, { ring, ringFleet }: Rings) {
  return (orgId: string, deviceId: string | null): void => {
    if (deviceId) ring({ kind: "work", of, orgId, deviceId });
    else ringFleet(of, orgId);
  };
}

function bellsOfRuns({ rings, hub, clock }: Options): Subscriber {
  const waits = bellOf("run", rings);

  /** Rings for runs that may be claimed, once for each org's fleet. */
  function runsWait(runs: readonly { orgId: string; deviceId: string | null }[]): void {
    const fleets = new Set<string>();
    for (const { orgId, deviceId } of runs) {
      if (deviceId) waits(orgId, deviceId);
      else fleets.add(orgId);
    }
    for (const orgId of fleets) waits(orgId, null);
  }

  return {
    recorded(runs) {
      // The placer rings for a held run.
      const free = runs.filter((run) => run.status === "pending" && !run.attemptToken && !run.isHeld);
      // Workers do not reserve slots for runs that are not yet due.
      const isEarly = ({ deviceId, dueAt }: RecordedRun) => !deviceId && dueAt.getTime() > clock.now();
      for (const { orgId, dueAt } of free.filter(isEarly)) hub.at(dueAt, () => waits(orgId, null));
      runsWait(free.filter((run) => !isEarly(run)));
    },
    placed: (runs) => runsWait(runs),
    settled(settled) {
      for (const { orgId, deviceId, attemptToken, notBefore, isPinned } of settled) {
        if (!deviceId) continue;
        if (attemptToken) rings.ring({ kind: "settled", orgId, deviceId, attemptToken });
        if (notBefore) rings.later(() => waits(orgId, isPinned ? deviceId : null), notBefore);
      }
    },
  };
}

function bellsOfTurns({ rings }: Options): Subscriber {
  const waits = bellOf("turn", rings);
  return {
    turnStarted: ({ orgId, deviceId }) => waits(orgId, deviceId),
    turnsEnded(ended) {
      for (const { orgId, attemptToken, holderId, next } of ended) {
        if (attemptToken && holderId)
          rings.ring({ kind: "settled", orgId, deviceId: holderId, attemptToken });
        if (next) waits(orgId, next.deviceId);
      }
    },
    turnsWithdrawn(withdrawn) {
      for (const { orgId, attemptToken, holderId, deviceId, notBefore } of withdrawn) {
        rings.ring({ kind: "settled", orgId, deviceId: holderId, attemptToken });
        rings.later(() => waits(orgId, deviceId), notBefore);
      }
    },
  };
}

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

type RingOptions = {
  db: Db;
  log: Logger;
  replicaId: string;
  hub: Pick<Hub, "receive">;
  bus: Bus;
  telemetry: Pick<Telemetry, "batch">;
};

export function createRings(options: RingOptions): Rings {
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

function ringElsewhere({ db, bus, replicaId, telemetry }: RingOptions): Batcher<DeviceMessage, void> {
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
function ringFleetsElsewhere({ db, bus, replicaId }: RingOptions): Batcher<FleetRing, void> {
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
