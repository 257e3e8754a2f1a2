import { newId } from "../../ids.ts";
import type { Bus, BusMessage, Transient } from "./bus.ts";
import { createInterests, createViewers } from "./interests.ts";

/**
 * Transient events: connects and disconnects of devices and state changes of runs, for clients that
 * watch the org at the time, on any replica. No event is stored, any event may be lost, and a
 * viewer that may have lost an event is told (`onResync`).
 *
 * A replica with a viewer of an org announces its interest to all others (`watch_org`) and renews
 * the announcement. Each other replica answers with the number of its last message (`org_heard`),
 * and sends new events in numbered messages (`transients`). A gap in the numbers, or a new
 * `relayId`, means lost events. The transient events of an org without viewers cost two map
 * lookups.
 */

export type OrgViewer = {
  onTransient(event: Transient): void;
  /** Some were missed, or may have been. */
  onResync(): void;
};

export type Transients = {
  /** Tells of the org's transient events from now on. Returns how to stop. */
  watch(orgId: string, viewer: OrgViewer): () => void;
  /** Takes a transient event of the local replica; the database has the change already. */
  tell(orgId: string, event: Omit<Transient, "at" | "replicaId">): void;
  /** Asks all other replicas for their interests, and announces the local interests to them. */
  introduce(): void;
  /** Messages of others may have been missed. */
  resyncAll(): void;
  /** Takes another replica's message; false if the message concerns something else. */
  receive(message: BusMessage): boolean;
  close(): void;
};

/**
 * Milliseconds. Events within this time go to other replicas together, and resyncs within it are
 * merged.
 */
const coalesceMs = 20;
/**
 * Maximum events of one org within `coalesceMs`. A mass reconnect of a fleet exceeds it and is
 * reported by a resync.
 */
const waitingMax = 500;
/** About 5 kB, to fit into one notification. */
const eventsPerMessageMax = 20;

export function createTransients(options: { bus: Bus; replicaId: string }): Transients {
  const { bus, replicaId } = options;
  const announce = (orgId: string) => bus.broadcast({ kind: "watch_org", orgId, replicaId });
  const viewers = createViewers<OrgViewer>(announce);
  /** The state of an interest is the number of the last message sent. */
  const interests = createInterests(() => ({ relayId: newId(), sequence: 0 }));
  /** The last message received by org and replica id, for orgs watched here. */
  const heard = new Map<string, Map<string, { relayId: string; sequence: number }>>();
  const waiting = new Map<string, { events: Transient[]; isCut: boolean; timer: NodeJS.Timeout }>();
  const resyncs = new Map<string, NodeJS.Timeout>();

  /** Notes that a client on the named replica watches the org. */
  function remember(orgId: string, id: string): void {
    const interest = interests.note(orgId, id);
    if (interest) bus.send(id, { kind: "org_heard", orgId, from: replicaId, ...interest });
  }

  function flush(orgId: string): void {
    const { events = [], isCut = false } = waiting.get(orgId) ?? {};
    waiting.delete(orgId);
    for (const [id, interest] of interests.of(orgId)) {
      for (let at = 0; at < events.length; at += eventsPerMessageMax) {
        const part = events.slice(at, at + eventsPerMessageMax);
        // Skips a number: the dropped events show as a gap.
        if (at === 0 && isCut) interest.sequence += 1;
        interest.sequence += 1;
        const { relayId, sequence } = interest;
        bus.send(id, { kind: "transients", orgId, from: replicaId, relayId, sequence, events: part });
      }
    }
  }

  function relay(orgId: string, event: Transient): void {
    let batch = waiting.get(orgId);
    if (!batch) {
      batch = { events: [], isCut: false, timer: setTimeout(() => flush(orgId), coalesceMs) };
      waiting.set(orgId, batch);
    }
    if (batch.events.length < waitingMax) batch.events.push(event);
    else batch.isCut = true;
  }

  /** Notes the number of a replica's message; starts a resync if messages before it are missing. */
  function follow(message: Extract<BusMessage, { kind: "org_heard" | "transients" }>): void {
    const { orgId, from, relayId, sequence } = message;
    const replicas = heard.get(orgId) ?? new Map();
    const last = replicas.get(from);
    heard.set(orgId, replicas.set(from, { relayId, sequence }));
    const expected = message.kind === "transients" ? sequence - 1 : sequence;
    if (last?.relayId !== relayId || last.sequence !== expected) resync(orgId);
  }

  function resync(orgId: string): void {
    if (resyncs.has(orgId)) return;
    resyncs.set(
      orgId,
      setTimeout(() => {
        resyncs.delete(orgId);
        for (const viewer of viewers.of(orgId)) viewer.onResync();
      }, coalesceMs),
    );
  }

  return {
    watch(orgId, viewer) {
      const { isFirst, leave } = viewers.add(orgId, viewer);
      if (isFirst) announce(orgId);
      return () => {
        if (!leave()) return;
        heard.delete(orgId);
        bus.broadcast({ kind: "unwatch_org", orgId, replicaId });
      };
    },
    tell(orgId, told) {
      const isWanted = interests.has(orgId);
      if (!viewers.has(orgId) && !isWanted) return;
      const event = { ...told, at: Date.now(), replicaId };
      for (const viewer of viewers.of(orgId)) viewer.onTransient(event);
      if (isWanted) relay(orgId, event);
    },
    introduce() {
      bus.broadcast({ kind: "who_watches", replicaId });
      for (const orgId of viewers.subjects()) announce(orgId);
    },
    resyncAll() {
      for (const orgId of viewers.subjects()) resync(orgId);
    },
    receive(message) {
      switch (message.kind) {
        case "watch_org":
          remember(message.orgId, message.replicaId);
          return true;
        case "unwatch_org":
          interests.forget(message.orgId, message.replicaId);
          return true;
        case "who_watches":
          for (const orgId of viewers.subjects()) {
            bus.send(message.replicaId, { kind: "watch_org", orgId, replicaId });
          }
          return true;
        case "org_heard":
          if (viewers.has(message.orgId)) follow(message);
          return true;
        case "transients":
          if (!viewers.has(message.orgId)) return true;
          follow(message);
          for (const event of message.events) {
            for (const viewer of viewers.of(message.orgId)) viewer.onTransient(event);
          }
          return true;
        default:
          return false;
      }
    },
    close() {
      viewers.close();
      interests.close();
      for (const { timer } of waiting.values()) clearTimeout(timer);
      for (const timer of resyncs.values()) clearTimeout(timer);
    },
  };
}
