import type { ReplicaConfig } from "../config.ts";
import type { Logger } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { announce, cancelIn } from "../scheduler/cancels.ts";
import { recordDue } from "../scheduler/materializer.ts";
import { backfill, trigger } from "../scheduler/triggers.ts";
import { endTurnsOfDevice } from "../scheduler/turns-of-device.ts";
import type { ReplicaDoorbell } from "../server/device/doorbell.ts";
import type { FleetScheduler } from "../server/rpc/fleet.ts";
import { runMessage } from "../server/rpc/run-message.ts";
import type { WatcherScheduler } from "../server/rpc/watchers.ts";
import type { Quotas } from "../store/people/quotas.ts";
import type { Db } from "../store/pg/database.ts";
import * as starts from "../store/work/starts.ts";

/** What the rpcs ask of the scheduler. */
export function schedulerOf(deps: {
  db: Db;
  policy: ReplicaConfig["failures"];
  doorbell: ReplicaDoorbell;
  poke: () => void;
  metrics: Pick<Metrics, "recorded">;
  quotas: Quotas;
  log: Logger;
}): WatcherScheduler & FleetScheduler {
  const { db, policy, doorbell, poke, quotas } = deps;
  return {
    async trigger({ request, ...asked }) {
      const { run, alreadyQueued, queuedRunId } = await trigger(db, asked, {
        doorbell,
        quotas,
        ...(request ? { request } : {}),
      });
      const start = await starts.findShown(db, { orgId: run.orgId, runId: run.id });
      return { run: runMessage(run, { start }), alreadyQueued, queuedRunId };
    },
    async backfill(asked) {
      const answer = await backfill(db, asked);
      poke();
      return answer;
    },
    async recordDue(tx, orgId, watcherId) {
      const events = await recordDue(tx, orgId, watcherId, quotas);
      for (const { kind, data } of events) {
        const isSkipped = kind === "run.skipped";
        deps.metrics.recorded(isSkipped ? "skipped" : "pending", String(data?.skip_reason ?? ""));
      }
      return events;
    },
    async cancelAllOfWatcher(tx, { orgId, watcherId, reason }) {
      const cancellation = await cancelIn(tx, { orgId, watcherId }, { reason, policy, mode: "ask" });
      return () => announce(doorbell, cancellation);
    },
    async cancelAheadOfWatcher(tx, { orgId, watcherId, reason }) {
      const how = { reason, policy, mode: "ask", only: "ahead" } as const;
      const cancellation = await cancelIn(tx, { orgId, watcherId }, how);
      return () => announce(doorbell, cancellation);
    },
    async cancelAllOfDevice(tx, { orgId, deviceId, reason }) {
      const turns = await endTurnsOfDevice(tx, { orgId, deviceId, reason }, { log: deps.log });
      const cancellation = await cancelIn(tx, { orgId, deviceId }, { reason, policy, mode: "at_once" });
      await turns.append();
      const cancelled = cancellation.settled.filter((run) => run.status === "cancelled").length;
      return {
        cancelled,
        announce: () => {
          announce(doorbell, cancellation);
          doorbell.turnsEnded(turns.ended);
        },
      };
    },
    scheduleChanged({ orgId, deviceId }) {
      poke();
      doorbell.eventsAppended(orgId);
      if (deviceId) doorbell.work({ orgId, deviceId });
    },
  };
}
