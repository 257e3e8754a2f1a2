import type { DatabaseClock } from "../../database-clock.ts";
import type { Subscriber } from "../../scheduler/publisher.ts";
import type { Bus } from "../cluster/bus.ts";
import type { Hub } from "./hub.ts";
import { answerMessage } from "./questions.ts";
import type { Rings } from "./rings.ts";

/**
 * Notifies sessions after a commit: of new work, of a freed slot, of a requested cancel, of an
 * answer. Every notification is a hint.
 */
export function createDoorbell(options: {
  rings: Rings;
  replicaId: string;
  hub: Pick<Hub, "at">;
  bus: Pick<Bus, "send">;
  clock: Pick<DatabaseClock, "now">;
}): Subscriber {
  const { hub, clock } = options;
  const { ring, ringFleet, later } = options.rings;

  /** A turn waits: for its device, or for any of the org's fleet workers. */
  function turnWaits(orgId: string, deviceId: string | null): void {
    if (deviceId) ring({ kind: "work", orgId, deviceId, isTurn: true });
    else ringFleet(orgId, true);
  }

  return {
    recorded(runs) {
      const fleets = new Set<string>();
      for (const { status, orgId, deviceId, attemptToken, dueAt, isHeld } of runs) {
        // A held run is the placer's.
        if (status !== "pending" || attemptToken || isHeld) continue;
        if (deviceId) ring({ kind: "work", orgId, deviceId });
        // Workers do not reserve slots for runs that are not yet due.
        else if (dueAt.getTime() > clock.now()) hub.at(dueAt, () => ringFleet(orgId));
        else fleets.add(orgId);
      }
      for (const orgId of fleets) ringFleet(orgId);
    },
    placed(runs) {
      const fleets = new Set<string>();
      for (const { orgId, deviceId } of runs) {
        if (deviceId) ring({ kind: "work", orgId, deviceId });
        else fleets.add(orgId);
      }
      for (const orgId of fleets) ringFleet(orgId);
    },
    settled(settled) {
      for (const { orgId, deviceId, attemptToken, notBefore, isPinned } of settled) {
        if (!deviceId) continue;
        if (attemptToken) ring({ kind: "settled", orgId, deviceId, attemptToken });
        const again = isPinned ? () => ring({ kind: "work", orgId, deviceId }) : () => ringFleet(orgId);
        if (notBefore) later(again, notBefore);
      }
    },
    cancelling(attempts) {
      for (const attempt of attempts) ring({ kind: "cancel", ...attempt });
    },
    answered(rows) {
      for (const row of rows) if (row.state !== "withdrawn") ring(answerMessage(row));
    },
    turnStarted: ({ orgId, deviceId }) => turnWaits(orgId, deviceId),
    turnsEnded(ended) {
      for (const { orgId, attemptToken, holderId, next } of ended) {
        if (attemptToken && holderId) ring({ kind: "settled", orgId, deviceId: holderId, attemptToken });
        if (next) turnWaits(orgId, next.deviceId);
      }
    },
    turnsWithdrawn(withdrawn) {
      for (const { orgId, attemptToken, holderId, deviceId, notBefore } of withdrawn) {
        ring({ kind: "settled", orgId, deviceId: holderId, attemptToken });
        later(() => turnWaits(orgId, deviceId), notBefore);
      }
    },
    replaced({ replicaId, ...session }) {
      if (replicaId !== options.replicaId) options.bus.send(replicaId, { kind: "replaced", ...session });
    },
  };
}
