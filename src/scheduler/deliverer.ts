/**
 * Sends the deliveries in the outbox of destinations (store/work/messages/deliveries.ts). Every
 * replica sends. Each try has a lease; after the lease has run out, another replica takes over the
 * deliveries of a replica that died.
 *
 * Tries run concurrently, a few per destination, more per org, and many in all; and each has a
 * deadline: a slow or dead destination delays its own deliveries and no others, and never a run.
 * Some tries are kept for orgs that have few, so that no other org takes them all.
 *
 *   pending ──claim──▶ leased ──delivered──▶ delivered
 *      ▲                 ├──failed──▶ pending, after a delay, or dead after three days
 *      └─lease runs out──┘──refused──▶ dead
 */
import { type Db, transaction } from "../store/pg/database.ts";
import { type Looks, looksAlone } from "../store/pg/looks.ts";
import * as alerts from "../store/work/messages/alerts.ts";
import * as deliveries from "../store/work/messages/deliveries.ts";
import * as claims from "../store/work/messages/delivery-claims.ts";
import { type Facts, gather } from "../store/work/messages/delivery-facts.ts";
import * as events from "../store/work/service/events.ts";
import type { Logger } from "../telemetry/log.ts";
import { within } from "../time/abort.ts";
import { type Busy, DueDeliveries } from "./due-deliveries.ts";
import { type Loop, startLoop } from "./loop.ts";

/** The end of a try, as reported by the sender. */
export type Sent =
  | { outcome: "delivered"; status: number }
  /** A later try may succeed. */
  | { outcome: "failed"; status: number; error: string; retryAfterMs?: number | undefined }
  /** No later try will succeed. */
  | { outcome: "refused"; status: number; error: string }
  /** Not tried: too many tries wait for the receiver's host already. */
  | { outcome: "postponed"; status: 0; error: string };

/**
 * Sends a delivery; never rejects for errors of the receiver, and ends soon after the signal is
 * aborted.
 */
export type Send = (delivery: claims.Claimed, facts: Facts, signal: AbortSignal) => Promise<Sent>;

/** Maximum concurrent tries on a replica, in all, per destination, and per org. */
const triesMax = 256;
const perDestinationMax = 4;
const perOrgMax = 64;
/**
 * Of all tries, the part that only orgs with few tries get: slow peers of others take none of it.
 */
const reserve = 64;
const perOrgFew = 4;
/** Milliseconds: the maximum of a try, and the lease. The try ends well before its lease. */
const tryMs = 20_000;
/** Maximum milliseconds that a sender may still take after the end of the try's time. */
const overtimeMsMax = 1_000;
const leaseMsDefault = 60_000;
/**
 * Milliseconds of delay after the first try. The delay doubles up to the maximum and is randomized
 * by ±20 %.
 */
const delayMsMin = 5_000;
const delayMsMax = 3 * 3_600_000;
/** A delivery not accepted for this time, in milliseconds, is given up. */
const daysMs = 3 * 86_400_000;
/**
 * Minimum tries before a delivery is given up by its age. Three days of delays have more tries; so
 * a wrong clock of the database, or an absence of all replicas, gives up nothing.
 */
const triesMin = 20;
/** Milliseconds until a postponed delivery is due again, randomized up to three times of them. */
const postponedMs = 5_000;
/**
 * Milliseconds that a stop waits for running tries, and then again for the tries it has cut short.
 */
const stopMs = 1_500;
/** Milliseconds between checks for absent devices. */
const awayEveryMs = 10 * 60_000;

/** The delay after a failed try, in milliseconds. Pure, but for `chance` in [0, 1). */
function delayAfter(attempts: number, chance: number, retryAfterMs = 0): number {
  const grown = Math.min(delayMsMin * 2 ** Math.min(attempts - 1, 30), delayMsMax);
  return Math.round(Math.min(Math.max(grown * (0.8 + 0.4 * chance), retryAfterMs), delayMsMax * 1.2));
}

export type Deliverer = Loop;

type Options = {
  db: Db;
  looks?: Looks;
  log: Logger;
  send: Send;
  /** Maximum milliseconds of sleep, for rows of other replicas. */
  sweepMs: number;
  leaseMs?: number | undefined;
  onEvents?: (orgId: string) => void;
  onTried?: (outcome: Sent["outcome"] | "dead") => void;
};

export function startDeliverer(options: Options): Deliverer {
  const { db, log, looks = looksAlone(db) } = options;
  const leaseMs = options.leaseMs ?? leaseMsDefault;
  // The end of a try wakes the loop: the next delivery of the lane or destination may start.
  const tries = new Tries({ ...options, leaseMs, onEnd: () => loop.poke() });
  const due = new DueDeliveries(db);
  let awayAt = 0;

  /**
   * Alerts of absent devices, if any org has asked for alerts; returns whether there is one to
   * send.
   */
  async function tellOfAway(): Promise<boolean> {
    if (performance.now() < awayAt) return false;
    const hasTaker = await looks.ask(alerts.hasTaker);
    const written = hasTaker ? await transaction(db, (tx) => alerts.alertAway(tx)) : 0;
    awayAt = performance.now() + awayEveryMs;
    return written > 0;
  }

  /** A delivery that is due and not claimed waits for a try here, or is held by another replica. */
  const untilDue = (nextMs: number | undefined) =>
    nextMs ? Math.min(Math.ceil(nextMs), options.sweepMs) : options.sweepMs;

  const loop = startLoop({
    name: "deliverer",
    log,
    async pass(_, wasPoked) {
      // Both ask the database in one statement. A poke tells of a delivery; without one, a look
      // nearly always tells of none.
      const isTold = wasPoked || due.isKnown;
      const [hasAlert, waitMs] = await Promise.all([tellOfAway(), isTold ? 0 : looks.ask(claims.nextMs)]);
      const limit = triesMax - tries.size;
      if (limit === 0) return options.sweepMs;
      const nextMs = hasAlert ? 0 : waitMs;
      if (nextMs !== 0) return untilDue(nextMs);
      const places = { limit, reserve, perDestinationMax, perOrgMax, perOrgFew, busy: tries.busy };
      const { claimed, waitMs: restMs } = await due.claim(places, leaseMs);
      if (claimed.length === 0)
        return restMs === undefined
          ? untilDue(await looks.ask(claims.nextMs))
          : Math.min(restMs, options.sweepMs);
      const facts = await gather(db, claimed);
      for (const delivery of claimed) tries.begin(delivery, facts.get(delivery.id));
      return 0;
    },
  });

  return {
    poke: () => loop.poke(),
    async stop() {
      await loop.stop();
      await tries.stop();
    },
  };
}

type TriesOptions = Pick<Options, "db" | "log" | "send" | "onEvents" | "onTried"> & {
  leaseMs: number;
  onEnd(): void;
};

/** The running tries of the replica. */
class Tries {
  readonly #options: TriesOptions;
  readonly #tries = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  /** By destination. */
  readonly #busy = new Map<string, Busy>();

  constructor(options: TriesOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#tries.size;
  }

  get busy(): Busy[] {
    return [...this.#busy.values()];
  }

  begin(delivery: claims.Claimed, facts: Facts | undefined): void {
    this.#count(delivery, 1);
    const tried = this.#try(delivery, facts)
      .catch((error: unknown) => {
        // The database is away: the lease runs out, and the delivery is sent again under the same
        // id.
        this.#options.log.warn(
          { err: error, delivery: delivery.id },
          "the end of a delivery could not be written",
        );
      })
      .finally(() => {
        this.#count(delivery, -1);
        this.#tries.delete(tried);
        this.#options.onEnd();
      });
    this.#tries.add(tried);
  }

  /** Waits for the running tries, and cuts the remaining tries short. */
  async stop(): Promise<void> {
    await within(Promise.all(this.#tries), stopMs);
    this.#stopping.abort();
    await within(Promise.all(this.#tries), stopMs);
  }

  #count({ orgId, destinationId }: claims.Claimed, by: 1 | -1): void {
    const count = (this.#busy.get(destinationId)?.count ?? 0) + by;
    if (count === 0) this.#busy.delete(destinationId);
    else this.#busy.set(destinationId, { orgId, destinationId, count });
  }

  async #try(delivery: claims.Claimed, facts: Facts | undefined): Promise<void> {
    const { db, onTried, onEvents } = this.#options;
    const sent = await this.#send(delivery, facts);
    const isCutShort = this.#stopping.signal.aborted && sent.outcome === "failed";
    const ending = isCutShort ? givenBack(delivery) : endingOf(delivery, sent);
    const isDead = ending.state === "dead";
    const wasOwn = await transaction(db, async (tx) => {
      const isOwn = await deliveries.end(tx, ending);
      if (isOwn && isDead) await events.append(tx, delivery.orgId, [deadEvent(delivery, ending)]);
      return isOwn;
    });
    if (!wasOwn) return;
    onTried?.(isDead ? "dead" : sent.outcome);
    if (isDead) onEvents?.(delivery.orgId);
  }

  async #send(delivery: claims.Claimed, facts: Facts | undefined): Promise<Sent> {
    if (!facts) return { outcome: "refused", status: 0, error: "its org is gone" };
    const { send, log, leaseMs } = this.#options;
    const msMax = Math.min(tryMs, leaseMs / 2);
    const signal = AbortSignal.any([AbortSignal.timeout(msMax), this.#stopping.signal]);
    try {
      // A sender that stayed would keep its place, and in the end all places of the replica.
      const sent = await within(send(delivery, facts, signal), msMax + Math.min(overtimeMsMax, leaseMs / 4));
      if (sent) return sent;
      log.error({ delivery: delivery.id }, "a sender did not end with the time of its try");
      return { outcome: "failed", status: 0, error: "did not answer in time" };
    } catch (error) {
      log.error({ err: error, delivery: delivery.id }, "a delivery could not be sent");
      return { outcome: "failed", status: 0, error: "Pinion could not send it; see the server's log" };
    }
  }
}

/** The row changes after a try. Pure, except for the random part of the delay. */
function endingOf(delivery: claims.Claimed, sent: Sent): deliveries.Ending {
  const { orgId, id, leaseToken, destinationId } = delivery;
  const name = { orgId, id, leaseToken, destinationId };
  if (sent.outcome === "delivered") return { ...name, state: "delivered", status: sent.status, error: "" };
  const { status, error } = sent;
  if (sent.outcome === "postponed") return givenBack(delivery, postponedMs * (1 + 2 * Math.random()), error);
  // A test is tried once, because a person waits for the result.
  if (sent.outcome === "refused" || delivery.kind === "destination.test")
    return { ...name, state: "dead", status, error };
  const delayMs = delayAfter(delivery.attempts, Math.random(), sent.retryAfterMs);
  return delivery.sinceMs + delayMs > daysMs && delivery.attempts >= triesMin
    ? { ...name, state: "dead", status, error }
    : { ...name, state: "pending", delayMs, status, error };
}

/** The delivery without the try. A try cut short by a stop is free for other replicas at once. */
function givenBack(
  { orgId, id, leaseToken, destinationId }: claims.Claimed,
  delayMs = 0,
  error = "",
): deliveries.Ending {
  const name = { orgId, id, leaseToken, destinationId };
  return { ...name, state: "pending", delayMs, isGivenBack: true, status: 0, error };
}

function deadEvent(delivery: claims.Claimed, ending: deliveries.Ending): Omit<events.NewEvent, "orgId"> {
  return {
    kind: "delivery.dead",
    actor: "pinion",
    watcherId: delivery.watcherId,
    runId: delivery.runId,
    data: {
      delivery_id: delivery.id,
      destination_id: delivery.destinationId,
      kind: delivery.kind,
      attempts: delivery.attempts,
      reason: ending.error,
    },
  };
}
