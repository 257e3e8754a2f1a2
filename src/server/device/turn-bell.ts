import type { TurnBell } from "../../scheduler/turn-bell.ts";
import type { BusMessage } from "../cluster/bus.ts";
import type { Feed } from "../cluster/feed.ts";

/** Rings for turns, with the bells of a replica: for a device, for the fleet workers of an org, now or at a moment. */
export function createTurnBell(bells: {
  feed: Feed;
  ring(message: Extract<BusMessage, { deviceId: string }>): void;
  ringFleet(orgId: string, isTurn: boolean): void;
  later(ringIt: () => void, at: Date): void;
}): TurnBell {
  const { feed, ring } = bells;

  function work(orgId: string, deviceId: string | null): void {
    if (deviceId) ring({ kind: "work", orgId, deviceId, isTurn: true });
    else bells.ringFleet(orgId, true);
  }

  return {
    turnStarted: ({ orgId, deviceId }) => work(orgId, deviceId),
    turnsEnded(ended) {
      for (const { orgId, turnId, attemptToken, holderId, next } of ended) {
        feed.runChanged({ orgId, runId: turnId, isEnded: true });
        if (attemptToken && holderId) ring({ kind: "settled", orgId, deviceId: holderId, attemptToken });
        if (next) work(orgId, next.deviceId);
      }
      for (const orgId of new Set(ended.map((turn) => turn.orgId))) feed.eventsAppended(orgId);
    },
    repliesKept(replies) {
      for (const { orgId, turnId } of replies) feed.runChanged({ orgId, runId: turnId, isEnded: false });
      for (const orgId of new Set(replies.map((reply) => reply.orgId))) feed.eventsAppended(orgId);
    },
    turnsWithdrawn(withdrawn) {
      for (const { orgId, turnId, attemptToken, holderId, deviceId, notBefore } of withdrawn) {
        feed.runChanged({ orgId, runId: turnId, isEnded: false });
        ring({ kind: "settled", orgId, deviceId: holderId, attemptToken });
        bells.later(() => work(orgId, deviceId), notBefore);
      }
    },
  };
}
