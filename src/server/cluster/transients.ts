import { newId } from "../../values/ids.ts";
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

/**
 * Milliseconds. Events within this time go to other replicas together, and resyncs within this time
 * are merged.
 */
const coalesceMs = 20;
/**
 * Maximum events of one org within `coalesceMs`. A mass reconnect of a fleet exceeds it and is
 * reported by a resync.
 */
const waitingMax = 500;
/** About 5 kB, to fit into one notification. */
const eventsPerMessageMax = 20;

export type OrgViewer = {
  onTransient(event: Transient): void;
  /** Events were missed, or may have been missed. */
  onResync(): void;
};

export type Transients = {
  /** Tells of the org's transient events from now on. Returns how to stop. */
  watch(orgId: string, viewer: OrgViewer): () => void;
  /** Takes a transient event of the local replica; the database has the change already. */
  tell(orgId: string, event: Omit<Transient, "at" | "replicaId">): void;
  /** Asks all other replicas for their interests, and announces the local interests to them. */
  introduce(): void;
  /** Messages of other replicas may have been missed. */
  resyncAll(): void;
  /** Takes another replica's message; false if the message concerns something else. */
  receive(message: BusMessage): boolean;
  close(): void;
};

type Numbered = Extract<BusMessage, { kind: "org_heard" | "transients" }>;

/** The last message received by org and replica id, for orgs watched on this replica. */
class Heard {
  readonly #heard = new Map<string, Map<string, { relayId: string; sequence: number }>>();

  /** Notes the number of a replica's message; returns whether messages before it are missing. */
  isGap(message: Numbered): boolean {
    const { orgId, from, relayId, sequence } = message;
    const replicas = this.#heard.get(orgId) ?? new Map();
    const last = replicas.get(from);
    this.#heard.set(orgId, replicas.set(from, { relayId, sequence }));
    const expected = message.kind === "transients" ? sequence - 1 : sequence;
    return last?.relayId !== relayId || last.sequence !== expected;
  }

  forget(orgId: string): void {
    this.#heard.delete(orgId);
  }
}

/** Resyncs of the viewers of an org, merged within {@link coalesceMs}. */
class Resyncs {
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #viewersOf: (orgId: string) => Iterable<OrgViewer>;

  constructor(viewersOf: (orgId: string) => Iterable<OrgViewer>) {
    this.#viewersOf = viewersOf;
  }

  start(orgId: string): void {
    if (this.#timers.has(orgId)) return;
    const timer = setTimeout(() => {
      this.#timers.delete(orgId);
      for (const viewer of this.#viewersOf(orgId)) viewer.onResync();
    }, coalesceMs);
    this.#timers.set(orgId, timer);
  }

  close(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
  }
}

export function createTransients(options: { bus: Bus; replicaId: string }): Transients {
  const { bus, replicaId } = options;
  const announce = (orgId: string) => bus.broadcast({ kind: "watch_org", orgId, replicaId });
  const viewers = createViewers<OrgViewer>(announce);
  const relay = new TransientRelay(options);
  const heard = new Heard();
  const resyncs = new Resyncs((orgId) => viewers.of(orgId));

  function show(orgId: string, events: readonly Transient[]): void {
    for (const event of events) for (const viewer of viewers.of(orgId)) viewer.onTransient(event);
  }

  return {
    watch(orgId, viewer) {
      const { isFirst, leave } = viewers.add(orgId, viewer);
      if (isFirst) announce(orgId);
      return () => {
        if (!leave()) return;
        heard.forget(orgId);
        bus.broadcast({ kind: "unwatch_org", orgId, replicaId });
      };
    },
    tell(orgId, told) {
      const isWanted = relay.isWanted(orgId);
      if (!viewers.has(orgId) && !isWanted) return;
      const event = { ...told, at: Date.now(), replicaId };
      show(orgId, [event]);
      if (isWanted) relay.relay(orgId, event);
    },
    introduce() {
      bus.broadcast({ kind: "who_watches", replicaId });
      for (const orgId of viewers.subjects()) announce(orgId);
    },
    resyncAll() {
      for (const orgId of viewers.subjects()) resyncs.start(orgId);
    },
    receive(message) {
      switch (message.kind) {
        case "who_watches":
          for (const orgId of viewers.subjects()) {
            bus.send(message.replicaId, { kind: "watch_org", orgId, replicaId });
          }
          return true;
        case "org_heard":
        case "transients":
          if (!viewers.has(message.orgId)) return true;
          if (heard.isGap(message)) resyncs.start(message.orgId);
          if (message.kind === "transients") show(message.orgId, message.events);
          return true;
        default:
          return relay.receive(message);
      }
    },
    close() {
      for (const part of [viewers, relay, resyncs]) part.close();
    },
  };
}

type Batch = { events: Transient[]; isCut: boolean; timer: NodeJS.Timeout };

/**
 * The sending half: events of this replica go to the replicas that are interested in the org, in
 * numbered messages.
 */
class TransientRelay {
  readonly #bus: Bus;
  readonly #replicaId: string;
  /** The state of an interest is the number of the last message sent. */
  readonly #interests = createInterests(() => ({ relayId: newId(), sequence: 0 }));
  readonly #waiting = new Map<string, Batch>();

  constructor(options: { bus: Bus; replicaId: string }) {
    this.#bus = options.bus;
    this.#replicaId = options.replicaId;
  }

  /** Takes another replica's message; false if the message concerns something else. */
  receive(message: BusMessage): boolean {
    switch (message.kind) {
      case "watch_org":
        this.#remember(message.orgId, message.replicaId);
        return true;
      case "unwatch_org":
        this.#interests.forget(message.orgId, message.replicaId);
        return true;
      default:
        return false;
    }
  }

  /** Whether a replica may be interested in the org. */
  isWanted(orgId: string): boolean {
    return this.#interests.has(orgId);
  }

  relay(orgId: string, event: Transient): void {
    let batch = this.#waiting.get(orgId);
    if (!batch) {
      batch = { events: [], isCut: false, timer: setTimeout(() => this.#flush(orgId), coalesceMs) };
      this.#waiting.set(orgId, batch);
    }
    if (batch.events.length < waitingMax) batch.events.push(event);
    else batch.isCut = true;
  }

  close(): void {
    this.#interests.close();
    for (const { timer } of this.#waiting.values()) clearTimeout(timer);
  }

  /** Notes that a client on the replica watches the org, and answers with the last number. */
  #remember(orgId: string, replicaId: string): void {
    const interest = this.#interests.note(orgId, replicaId);
    if (interest) this.#bus.send(replicaId, { kind: "org_heard", orgId, from: this.#replicaId, ...interest });
  }

  #flush(orgId: string): void {
    const { events = [], isCut = false } = this.#waiting.get(orgId) ?? {};
    this.#waiting.delete(orgId);
    const from = this.#replicaId;
    for (const [replicaId, interest] of this.#interests.of(orgId)) {
      for (let at = 0; at < events.length; at += eventsPerMessageMax) {
        const part = events.slice(at, at + eventsPerMessageMax);
        // Skips a number: the dropped events show as a gap.
        if (at === 0 && isCut) interest.sequence += 1;
        interest.sequence += 1;
        this.#bus.send(replicaId, { kind: "transients", orgId, from, ...interest, events: part });
      }
    }
  }
}
