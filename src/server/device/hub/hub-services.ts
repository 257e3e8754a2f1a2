import type { Logger } from "../../../log.ts";
import { announceEnds } from "../../../scheduler/doorbell.ts";
import { ask, closeByDevice } from "../../../scheduler/questions.ts";
import { type Db, transaction } from "../../../store/pg/database.ts";
import * as restorations from "../../../store/work/runs/restorations.ts";
import * as turnRestorations from "../../../store/work/turns/turn-restorations.ts";
import type { Opening } from "../reconcile/reconcile.ts";
import { createOpenings } from "../session/opening.ts";
import type { Session } from "../session/session.ts";
import type { SessionServices } from "../session/session-services.ts";
import type { HubDeps, Parts } from "./hub-parts.ts";
import type { Registry } from "./registry.ts";

/**
 * With more sessions on a replica the heartbeat interval is multiplied by 1.5; two heartbeats still
 * fit into the TTL.
 */
const largeFleetSessions = 5_000;

/** The services that a session uses. */
export function servicesOf(
  deps: HubDeps,
  { registry, works, wheel, timers, presence, report }: Parts,
): SessionServices<Session> {
  const { db, log, feed, telemetry, publisher, dispatcher, config } = deps;
  const { ttlMs, heartbeatIntervalMs } = config;
  const ofLargeFleet = { ...config, heartbeatIntervalMs: Math.min(heartbeatIntervalMs * 1.5, ttlMs / 2) };
  const open = createOpenings({ ...deps, ttlMs, waitingMax: config.streamsMax });
  return {
    ...{ replicaId: deps.replicaId, cell: deps.cell, clock: deps.clock },
    ...{ log, wheel, telemetry, works, report },
    after: (ms, callback) => timers.after(ms, callback),
    get timers() {
      return registry.sessionsCount < largeFleetSessions ? config : ofLargeFleet;
    },
    incarnation: deps.incarnation,
    daemonVersion: () => deps.offers.version(),
    ...restoring(db, log),
    async open(session, hello) {
      await deps.offers.refresh();
      return open(session, hello);
    },
    opened: (session, opening) => opened(deps, registry, session, opening),
    beat: (session, listed) => presence.beat(session, listed),
    output: (chunk) => feed.output(chunk),
    ask: (asked) => ask(db, asked, publisher),
    closeQuestion: (which, state) => closeByDevice(db, which, state, publisher),
    runMoved({ orgId, deviceId, epoch }, kind, { kind: what, workId, watcherId, attempt }) {
      feed.workChanged({ orgId, workId, isEnded: false });
      if (what === "run") feed.transient(orgId, { kind, deviceId, epoch, workId, watcherId, attempt });
    },
    wake: (session) => dispatcher.wake(session),
    logArrived: (excerpt) => deps.onLog(excerpt),
    closed(session, { cause, isBroken, pushed }) {
      const { orgId, deviceId, epoch } = session;
      registry.remove(session);
      telemetry.streamEnded(cause);
      log.info({ orgId, deviceId, epoch, cause }, "a device session ended");
      if (epoch > 0) presence.end(session, isBroken ? { pushed } : undefined);
    },
  };
}

function restoring(db: Db, log: Logger): Pick<SessionServices<Session>, "restore" | "restoreTurn"> {
  return {
    async restore(forgotten) {
      const runId = await transaction(db, (tx) => restorations.restore(tx, forgotten));
      const { orgId, deviceId, runId: workId } = forgotten;
      log.warn(
        { orgId, deviceId, workId, isKnown: runId !== undefined },
        "a device offers a result again that was acknowledged before",
      );
      return runId;
    },
    async restoreTurn(forgotten) {
      const isKnown = await transaction(db, (tx) => turnRestorations.restoreTurn(tx, forgotten));
      const { orgId, deviceId, turnId } = forgotten;
      log.warn(
        { orgId, deviceId, turnId, isKnown },
        "a worker offers a reply again that was acknowledged before",
      );
    },
  };
}

/**
 * Handles an opened session: announces the settlements of its opening, and registers it as the
 * device's session.
 */
function opened(
  { publisher, feed, dispatcher }: HubDeps,
  registry: Registry,
  session: Session,
  opening: Opening,
): void {
  const { orgId, deviceId, epoch, sessionId } = session;
  if (opening.replacedReplicaId) {
    publisher.replaced({ orgId, deviceId, epoch, sessionId, replicaId: opening.replacedReplicaId });
  }
  announceEnds(publisher, opening);
  if (session.state === "closed") return;
  // From here on notifications find the session; work that was announced before is claimed now.
  if (!registry.seat(session)) {
    session.part("replaced");
    return;
  }
  feed.transient(orgId, { kind: "device.connected", deviceId, epoch });
  publisher.deviceOpened(orgId);
  dispatcher.wake(session);
}
