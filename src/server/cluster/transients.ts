import { newId } from "../../ids.ts";
import type { Bus, BusMessage, Transient } from "./bus.ts";

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
 * How long another replica's interest holds, in milliseconds; it is renewed every third of the
 * time.
 */
const interestMs = 60_000;
/** Pairs of an org and a replica. Interests beyond the limit are not served. */
const interestsMax = 50_000;
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
  const watched = new Map<string, Set<OrgViewer>>();
  /**
   * The interested replicas by org and replica id, and the number of the last message sent to each.
   */
  const interests = new Map<string, Map<string, { until: number; relayId: string; sequence: number }>>();
  let interestsCount = 0;
  /** The last message received by org and replica id, for orgs watched here. */
  const heard = new Map<string, Map<string, { relayId: string; sequence: number }>>();
  const waiting = new Map<string, { events: Transient[]; isCut: boolean; timer: NodeJS.Timeout }>();
  const resyncs = new Map<string, NodeJS.Timeout>();

  const renew = setInterval(() => {
    for (const orgId of watched.keys()) announce(orgId);
    const now = performance.now();
    for (const [orgId, replicas] of interests) {
      for (const [id, { until }] of replicas) if (until < now) forget(orgId, id);
    }
  }, interestMs / 3);
  renew.unref();

  function announce(orgId: string): void {
    bus.broadcast({ kind: "watch_org", orgId, replicaId });
  }

  function forget(orgId: string, id: string): void {
    const replicas = interests.get(orgId);
    if (replicas?.delete(id)) interestsCount -= 1;
    if (replicas?.size === 0) interests.delete(orgId);
  }

  /** Notes that a client on the named replica watches the org, for the next minute. */
  function remember(orgId: string, id: string): void {
    const replicas = interests.get(orgId) ?? new Map();
    const now = performance.now();
    let interest = replicas.get(id);
    if (interest && interest.until < now) interest = undefined;
    if (!interest) {
      if (!replicas.has(id)) {
        if (interestsCount >= interestsMax) return;
        interestsCount += 1;
      }
      interest = { until: 0, relayId: newId(), sequence: 0 };
      replicas.set(id, interest);
      interests.set(orgId, replicas);
    }
    interest.until = now + interestMs;
    const { relayId, sequence } = interest;
    bus.send(id, { kind: "org_heard", orgId, from: replicaId, relayId, sequence });
  }

  function flush(orgId: string): void {
    const { events, isCut } = waiting.get(orgId)!;
    waiting.delete(orgId);
    const now = performance.now();
    for (const [id, interest] of interests.get(orgId) ?? []) {
      if (interest.until < now) continue;
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
        for (const viewer of watched.get(orgId) ?? []) viewer.onResync();
      }, coalesceMs),
    );
  }

  return {
    watch(orgId, viewer) {
      const viewers = watched.get(orgId) ?? new Set();
      watched.set(orgId, viewers.add(viewer));
      if (viewers.size === 1) announce(orgId);
      return () => {
        if (!viewers.delete(viewer) || viewers.size > 0) return;
        watched.delete(orgId);
        heard.delete(orgId);
        bus.broadcast({ kind: "unwatch_org", orgId, replicaId });
      };
    },
    tell(orgId, told) {
      const viewers = watched.get(orgId);
      const isWanted = interests.has(orgId);
      if (!viewers && !isWanted) return;
      const event = { ...told, at: Date.now(), replicaId };
      for (const viewer of viewers ?? []) viewer.onTransient(event);
      if (isWanted) relay(orgId, event);
    },
    introduce() {
      bus.broadcast({ kind: "who_watches", replicaId });
      for (const orgId of watched.keys()) announce(orgId);
    },
    resyncAll() {
      for (const orgId of watched.keys()) resync(orgId);
    },
    receive(message) {
      switch (message.kind) {
        case "watch_org":
          remember(message.orgId, message.replicaId);
          return true;
        case "unwatch_org":
          forget(message.orgId, message.replicaId);
          return true;
        case "who_watches":
          for (const orgId of watched.keys()) {
            bus.send(message.replicaId, { kind: "watch_org", orgId, replicaId });
          }
          return true;
        case "org_heard":
          if (watched.has(message.orgId)) follow(message);
          return true;
        case "transients":
          if (!watched.has(message.orgId)) return true;
          follow(message);
          for (const event of message.events) {
            for (const viewer of watched.get(message.orgId) ?? []) viewer.onTransient(event);
          }
          return true;
        default:
          return false;
      }
    },
    close() {
      clearInterval(renew);
      for (const { timer } of waiting.values()) clearTimeout(timer);
      for (const timer of resyncs.values()) clearTimeout(timer);
    },
  };
}
