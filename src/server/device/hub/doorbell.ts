import type { DatabaseClock } from "../../../database-clock.ts";
import type { Subscriber } from "../../../scheduler/publisher.ts";
import type { WorkKind } from "../../../store/work/attempts/active.ts";
import type { RecordedRun } from "../../../store/work/watchers/slot-rows.ts";
import type { Bus } from "../../cluster/bus.ts";
import { answerMessage } from "../session/questions.ts";
import type { Hub } from "./hub.ts";
import type { Rings } from "./rings.ts";

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
