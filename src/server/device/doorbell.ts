import { createBatcher } from "../../batcher.ts";
import type { DatabaseClock } from "../../database-clock.ts";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { CancelledAttempt, Doorbell, Followed } from "../../scheduler/doorbell.ts";
import type { Placer, Rung } from "../../scheduler/placer.ts";
import type { QuestionBell } from "../../scheduler/questions.ts";
import type { TurnBell } from "../../scheduler/turn-bell.ts";
import type { Db } from "../../store/pg/database.ts";
import * as presence from "../../store/work/presence.ts";
import * as runs from "../../store/work/runs.ts";
import type { RecordedRun } from "../../store/work/schedules.ts";
import type { Settled } from "../../store/work/settlements.ts";
import type { Streams } from "../access/streams.ts";
import type { Bus, BusMessage } from "../cluster/bus.ts";
import type { Feed } from "../cluster/feed.ts";
import type { Telemetry } from "../telemetry.ts";
import type { Hub } from "./hub.ts";
import { answerMessage } from "./questions.ts";
import { createTurnBell } from "./turn-bell.ts";

/**
 * Rings after commits: for a device of this replica by a call, for one of another replica by the bus, for one without a
 * stream not at all (it asks when it connects).
 */
export type ReplicaDoorbell = Doorbell &
  TurnBell &
  QuestionBell & {
    /** A device may have work. */
    work(device: { orgId: string; deviceId: string }): void;
    /** What devices of the org are, or who may use them, has changed. */
    devicesChanged(orgId: string): void;
    /** A device of the org has connected. */
    deviceOpened(orgId: string): void;
    /** Runs were placed: their devices have work. */
    placed(runs: readonly Rung[]): void;
    /** Held runs are somewhere else, or wait for something else. */
    moved(runs: readonly { orgId: string; runId: string }[]): void;
    /** Events of an org were committed. */
    eventsAppended(orgId: string): void;
    /** Drains a device's stream on the replica that holds it; the device itself may be deleted by now. */
    disconnect(device: {
      orgId: string;
      deviceId: string;
      replicaId: string;
      epoch: number;
      reason: "operator" | "revoked";
    }): void;
    /** Ends the streams that a token opened, on every replica. */
    revoke(tokenId: string): void;
    /** A device's session was replaced; the replica that held it is to let go. */
    replaced(session: presence.SessionName & { replicaId: string }): void;
    /** Resolves when all that waited was written and sent. */
    close(): Promise<void>;
  };

type FleetRing = { orgId: string; isTurn: boolean };
type Ring = { orgId: string; deviceId: string; message: BusMessage };

const ringsPerBatchMax = 2_000;
const ringsWaitingMax = 50_000;
/** Tails of 8,000 characters: a batch is at most some MiB. */
const tailsPerBatchMax = 200;
const tailsWaitingMax = 2_000;
/** Retries whose time is awaited on this replica; the sweep finds those beyond. */
const delayedMax = 10_000;

export function createDoorbell(options: {
  db: Db;
  log: Logger;
  replicaId: string;
  hub: Hub;
  clock: Pick<DatabaseClock, "now">;
  streams: Streams;
  feed: Feed;
  bus: () => Bus;
  telemetry: Pick<Telemetry, "recorded" | "settled" | "batch">;
  placer: () => Placer;
  /** Slots wait for the end of a run that has ended. */
  onBacklog: () => void;
  onRevoked: (tokenId: string) => void;
  /** A question waits, and has a deadline. */
  onAsked: () => void;
  /** Destinations may have to be told of something. */
  onDeliveries: () => void;
}): ReplicaDoorbell {
  const { db, log, hub, feed, bus, telemetry } = options;
  const delayed = new Set<NodeJS.Timeout>();

  const elsewhere = createBatcher<Ring, void>({
    async run(rings) {
      const places = await presence.locate(db, rings);
      const replicaOf = new Map(places.map((place) => [place.deviceId, place.replicaId]));
      for (const { deviceId, message } of rings) {
        const replicaId = replicaOf.get(deviceId);
        if (replicaId && replicaId !== options.replicaId) bus().send(replicaId, message);
      }
      return rings.map(() => undefined);
    },
    itemsMax: ringsPerBatchMax,
    queueMax: ringsWaitingMax,
    overflow: () => new Refusal("unavailable", "too many doorbells wait"),
    onBatch: telemetry.batch("rings"),
  });

  /** Rings the replicas that hold fleet workers of these orgs, each once for all that rang meanwhile. */
  const fleetsElsewhere = createBatcher<FleetRing, void>({
    async run(rings) {
      const orgIds = [...new Set(rings.map((ring) => ring.orgId))];
      const haveTurns = new Set(rings.flatMap((ring) => (ring.isTurn ? [ring.orgId] : [])));
      for (const { orgId, replicaId } of await presence.locateWorkers(db, orgIds)) {
        if (replicaId === options.replicaId) continue;
        bus().send(replicaId, { kind: "fleet", orgId, ...(haveTurns.has(orgId) ? { isTurn: true } : {}) });
      }
      return rings.map(() => undefined);
    },
    itemsMax: ringsPerBatchMax,
    queueMax: ringsWaitingMax,
    overflow: () => new Refusal("unavailable", "too many doorbells wait"),
  });

  /** Unpinned work: every worker of the org may have it, here and on other replicas. */
  function ringFleet(orgId: string, isTurn = false): void {
    hub.receive({ kind: "fleet", orgId, ...(isTurn ? { isTurn } : {}) });
    fleetsElsewhere.add({ orgId, isTurn }).catch((error: unknown) => {
      log.debug({ err: error }, "a fleet's doorbell was not heard; the sweep makes it good");
    });
  }

  /** Hands a message to the device's session here, or sends it to where the session is. */
  function ring(message: Extract<BusMessage, { deviceId: string }>): void {
    if (hub.receive(message)) return;
    elsewhere.add({ orgId: message.orgId, deviceId: message.deviceId, message }).catch((error: unknown) => {
      log.debug({ err: error }, "a doorbell was not heard; the sweep makes it good");
    });
  }

  function later(ringIt: () => void, at: Date): void {
    if (delayed.size >= delayedMax) return;
    // A little after the moment, which the database's clock decides.
    const timer = setTimeout(
      () => {
        delayed.delete(timer);
        ringIt();
      },
      Math.max(0, at.getTime() - Date.now()) + 20,
    );
    delayed.add(timer);
  }

  const tails = createBatcher<runs.OutputTail, void>({
    run: async (items) => {
      await runs.keepTails(db, items);
      return items.map(() => undefined);
    },
    itemsMax: tailsPerBatchMax,
    queueMax: tailsWaitingMax,
    overflow: () => new Refusal("unavailable", "too many tails of outputs wait"),
  });

  /** The end of a lost or cancelled program's output, where this replica relayed it and the device did not send it. */
  function keepTail({ orgId, runId, attempt }: Settled): void {
    const text = feed.tailOf({ orgId, runId, attempt });
    if (text === "") return;
    tails.add({ orgId, runId, text }).catch((error: unknown) => {
      log.warn({ err: error, runId }, "the end of a lost program's output was not kept");
    });
  }

  function recorded(runs: readonly RecordedRun[]): void {
    if (runs.some((run) => run.skipReason === "budget")) options.onDeliveries();
    const fleets = new Set<string>();
    for (const { status, orgId, deviceId, attemptToken, dueAt, isHeld } of runs) {
      if (status !== "pending" || attemptToken) continue;
      if (isHeld) options.placer().recorded(orgId, dueAt);
      else if (deviceId) ring({ kind: "work", orgId, deviceId });
      // No worker keeps a slot for what is not due yet.
      else if (dueAt.getTime() > options.clock.now()) options.hub.at(dueAt, () => ringFleet(orgId));
      else fleets.add(orgId);
    }
    for (const orgId of fleets) ringFleet(orgId);
    for (const orgId of new Set(runs.map((run) => run.orgId))) feed.eventsAppended(orgId);
    telemetry.recorded(runs);
  }

  return {
    recorded,
    settled(settled: readonly Followed[]) {
      for (const run of settled) {
        const { orgId, runId, deviceId, attemptToken } = run;
        // Read before the feed forgets it: an attempt that was taken away has said nothing of its output itself.
        if (run.action === "finished" && run.windowId === null) keepTail(run);
        feed.runChanged({ orgId, runId, isEnded: run.action === "finished" });
        if (run.hasBacklog) options.onBacklog();
        if (run.notify || run.isWatcherPaused) options.onDeliveries();
        if (run.notBefore) options.placer().freedAt(orgId, run.notBefore);
        options.placer().freed(orgId);
        if (!deviceId) continue;
        if (attemptToken) ring({ kind: "settled", orgId, deviceId, attemptToken });
        if (!run.notBefore) continue;
        later(
          run.isPinned ? () => ring({ kind: "work", orgId, deviceId }) : () => ringFleet(orgId),
          run.notBefore,
        );
      }
      for (const orgId of new Set(settled.map((run) => run.orgId))) feed.eventsAppended(orgId);
      telemetry.settled(settled);
      const followers = settled.flatMap((run) => run.followers ?? []);
      if (followers.length > 0) recorded(followers);
    },
    kept(results: readonly { orgId: string; runId: string }[]) {
      for (const { orgId, runId } of results) feed.runChanged({ orgId, runId, isEnded: false });
      for (const orgId of new Set(results.map((result) => result.orgId))) feed.eventsAppended(orgId);
    },
    cancelling(attempts: readonly CancelledAttempt[]) {
      for (const attempt of attempts) {
        ring({ kind: "cancel", ...attempt });
        feed.runChanged({ orgId: attempt.orgId, runId: attempt.runId, isEnded: false });
      }
    },
    asked({ orgId, runId, notify }) {
      if (notify) options.onDeliveries();
      feed.runChanged({ orgId, runId, isEnded: false });
      feed.eventsAppended(orgId);
      options.onAsked();
    },
    answered(rows) {
      for (const row of rows) {
        const { orgId, runId } = row;
        feed.runChanged({ orgId, runId, isEnded: false });
        if (row.state !== "withdrawn") ring(answerMessage(row));
      }
      for (const orgId of new Set(rows.map((row) => row.orgId))) feed.eventsAppended(orgId);
    },
    ...createTurnBell({ feed, ring, ringFleet, later }),
    work: (device) => ring({ kind: "work", ...device }),
    devicesChanged: (orgId) => options.placer().changed(orgId),
    deviceOpened: (orgId) => options.placer().freed(orgId),
    placed(runs) {
      const fleets = new Set<string>();
      for (const { orgId, deviceId } of runs) {
        if (deviceId) ring({ kind: "work", orgId, deviceId });
        else fleets.add(orgId);
      }
      for (const orgId of fleets) ringFleet(orgId);
    },
    moved(runs) {
      for (const { orgId, runId } of runs) feed.runChanged({ orgId, runId, isEnded: false });
      for (const orgId of new Set(runs.map((run) => run.orgId))) feed.eventsAppended(orgId);
    },
    eventsAppended: (orgId) => feed.eventsAppended(orgId),
    disconnect({ replicaId, orgId, deviceId, epoch, reason }) {
      const message = { kind: "disconnect" as const, orgId, deviceId, epoch, reason };
      if (!hub.receive(message)) bus().send(replicaId, message);
    },
    revoke(tokenId) {
      options.onRevoked(tokenId);
      options.streams.revoke(tokenId);
      bus().broadcast({ kind: "revoked", tokenId });
    },
    replaced({ replicaId, ...session }) {
      if (replicaId !== options.replicaId) bus().send(replicaId, { kind: "replaced", ...session });
    },
    async close() {
      for (const timer of delayed) clearTimeout(timer);
      await Promise.all([tails.idle(), elsewhere.idle(), fleetsElsewhere.idle()]);
    },
  };
}
