import { newId } from "../../ids.ts";
import type { Bus, BusMessage, Transient } from "./bus.ts";
import { createInterests } from "./interests.ts";

/**
 * The sending half of the transient events (transients.ts): this replica's events go to the replicas
 * that are interested in the org, in numbered messages.
 */

/**
 * Milliseconds. Events within this time go to other replicas together, and resyncs within this time
 * are merged.
 */
export const coalesceMs = 20;
/**
 * Maximum events of one org within `coalesceMs`. A mass reconnect of a fleet exceeds it and is
 * reported by a resync.
 */
const waitingMax = 500;
/** About 5 kB, to fit into one notification. */
const eventsPerMessageMax = 20;

type Batch = { events: Transient[]; isCut: boolean; timer: NodeJS.Timeout };

export class TransientRelay {
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
